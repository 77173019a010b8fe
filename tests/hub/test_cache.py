"""What the cache holds: listed, looked up, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.errors import HubError, ModelNotFound
from periscope.hub import Hub, cached_models, complete_snapshot, pull, remove_model
from tests.hub.fake_hub import COMMIT, FILES, MODEL, WEIGHTS, FakeHub

TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def folder(fake: FakeHub, hub: Hub) -> Path:
    """The snapshot of a model that was pulled."""
    assert fake.url
    return pull(MODEL, on_progress=lambda _: None, hub=hub)


def bytes_in(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def test_a_cache_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """The first `ls` of a new machine is no error."""
    assert cached_models(Hub(cache_dir=tmp_path / "none")) == ()


def test_a_pulled_model_is_listed_with_its_size_and_commit(hub: Hub, folder: Path) -> None:
    """Whoever fetched it, the cache tells what it is."""
    (model,) = cached_models(hub)
    assert (model.hub_id, model.size_bytes, model.partial_bytes) == (MODEL, TOTAL, 0)
    assert model.commits == {COMMIT: ("main",)}
    assert folder.is_relative_to(model.folder)


def test_half_a_model_is_listed_as_such(fake: FakeHub, hub: Hub) -> None:
    """What has arrived counts as size, and the model is not taken for complete."""
    fake.cut_after[WEIGHTS] = [1_000_000] + [0] * 10
    with pytest.raises(HubError):
        pull(MODEL, on_progress=lambda _: None, hub=hub, first_wait_s=0.01)
    (model,) = cached_models(hub)
    assert 0 < model.partial_bytes <= 1_000_000
    assert model.size_bytes == model.partial_bytes + TOTAL - len(FILES[WEIGHTS])
    assert complete_snapshot(MODEL, hub=hub) is None
    assert remove_model(MODEL, hub) == model.size_bytes
    assert not model.folder.exists()


def test_a_removed_model_gives_its_bytes_back(hub: Hub, folder: Path) -> None:
    """The files are gone, the number is right, and nothing else of the cache is touched."""
    neighbour = hub.folder / "models--some--neighbour" / "snapshots" / "abc"
    neighbour.mkdir(parents=True)
    (neighbour / "config.json").write_text("{}")
    before = bytes_in(hub.folder_of(MODEL) / "blobs")
    assert remove_model(MODEL, hub) == before == TOTAL
    assert not folder.exists()
    assert not hub.folder_of(MODEL).exists()
    assert [model.hub_id for model in cached_models(hub)] == ["some/neighbour"]


def test_a_duplicate_with_the_same_commits_stays(fake: FakeHub, hub: Hub, folder: Path) -> None:
    """Duplicated repositories share their commits; removing one leaves the other whole."""
    for copy in ("a/copy", "z/copy"):
        fake.repos[copy] = FILES
        pull(copy, on_progress=lambda _: None, hub=hub)
    remove_model(MODEL, hub)
    assert not folder.exists()
    assert complete_snapshot("a/copy", hub=hub)
    assert complete_snapshot("z/copy", hub=hub)


def test_a_model_that_is_not_there_cannot_be_removed(hub: Hub) -> None:
    """Told with the place where it was looked for."""
    with pytest.raises(ModelNotFound, match=r"nobody/nothing is not in the cache .*cache"):
        remove_model("nobody/nothing", hub)


def test_a_damaged_folder_is_named_instead_of_guessed_at(hub: Hub) -> None:
    """What the library cannot read is not deleted by us: the sentence says which folder it is."""
    folder = hub.folder_of(MODEL)
    (folder / "blobs").mkdir(parents=True)
    with pytest.raises(HubError, match=f"damaged. Delete the folder {folder}"):
        remove_model(MODEL, hub)


def test_a_text_that_is_no_hub_id_is_on_no_disk(hub: Hub) -> None:
    """A look-up is a question and not an error."""
    assert complete_snapshot("a/b/c", hub=hub) is None
