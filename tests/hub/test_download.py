"""Pulling models from a hub that is real HTTP, whole and in pieces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from periscope.errors import HubError, ModelNotFound
from periscope.hub import Hub, PullProgress, PullStatus, complete_snapshot, pull
from tests.hub.fake_hub import FILES, MODEL, WEIGHTS, FakeHub, Refusal, sha256_of


class Told:
    """Owns every progress that was told."""

    def __init__(self) -> None:
        self.all: list[PullProgress] = []

    def __call__(self, progress: PullProgress) -> None:
        self.all.append(progress)

    @property
    def completed(self) -> list[int]:
        return [each.completed_bytes for each in self.all]


def pulled(hub: Hub, told: Told | None = None, revision: str | None = None) -> Path:
    return pull(MODEL, revision, on_progress=told or Told(), hub=hub, first_wait_s=0.01)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def partial_of(hub: Hub, content: bytes) -> Path:
    """Where the library of earlier days, and a pull, keep what has arrived."""
    blobs = hub.folder_of(MODEL) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    return blobs / f"{sha256_of(content)}.incomplete"


def test_a_whole_pull_ends_with_exactly_the_files_of_the_model(fake: FakeHub, hub: Hub) -> None:
    """Every byte of what a model needs, nothing of what it does not, each file asked for once."""
    folder = pulled(hub)
    assert files_in(folder) == FILES
    assert sorted(fake.sent) == sorted((name, 0) for name in FILES)
    assert not list(hub.folder.rglob("*.incomplete"))


def test_what_was_pulled_is_found_without_the_hub(fake: FakeHub, hub: Hub) -> None:
    """The snapshot is the library's own: its look-up finds it, although files we do not want are missing."""
    assert complete_snapshot(MODEL, hub=hub) is None
    folder = pulled(hub)
    fake.refusals[MODEL] = Refusal(500)
    assert complete_snapshot(MODEL, hub=hub) == folder


def test_progress_counts_bytes_of_the_whole_model(hub: Hub, fake: FakeHub) -> None:
    """It never goes back, begins with what there is and ends at the total, under one total for all files."""
    told, total = Told(), sum(map(len, FILES.values()))
    fake.cut_after[WEIGHTS] = [500_000, 500_000]
    pulled(hub, told)
    assert told.all[0].status is PullStatus.PLANNING
    assert told.all[-1] == PullProgress(MODEL, PullStatus.DONE, total, total)
    assert {each.total_bytes for each in told.all[1:]} == {total}
    assert told.completed == sorted(told.completed)


def test_a_broken_connection_is_taken_up_where_it_broke(fake: FakeHub, hub: Hub) -> None:
    """Two cuts cost two more requests, each for the rest only."""
    fake.cut_after[WEIGHTS] = [1_000_000, 700_000]
    assert files_in(pulled(hub)) == FILES
    first, second, third = fake.sent_of(WEIGHTS)
    assert first == 0
    assert 0 < second <= 1_000_000
    assert second < third <= 1_700_000


def test_what_an_interrupted_pull_left_is_not_fetched_again(fake: FakeHub, hub: Hub) -> None:
    """A new process asks for what is missing, and begins its count with what is here."""
    partial_of(hub, FILES[WEIGHTS]).write_bytes(FILES[WEIGHTS][:2_000_000])
    told = Told()
    assert files_in(pulled(hub, told)) == FILES
    assert fake.sent_of(WEIGHTS) == [2_000_000]
    assert told.completed[1] == 2_000_000


def test_a_file_that_had_arrived_but_was_not_yet_in_place_costs_nothing(fake: FakeHub, hub: Hub) -> None:
    """All bytes are here: no request for a range that does not exist."""
    partial_of(hub, FILES[WEIGHTS]).write_bytes(FILES[WEIGHTS])
    assert files_in(pulled(hub)) == FILES
    assert fake.sent_of(WEIGHTS) == []


def test_a_damaged_part_is_found_out_and_fetched_anew(fake: FakeHub, hub: Hub) -> None:
    """The digest of the whole decides; progress waits meanwhile and does not go back."""
    partial_of(hub, FILES[WEIGHTS]).write_bytes(b"?" * 2_000_000)
    told = Told()
    assert files_in(pulled(hub, told)) == FILES
    assert fake.sent_of(WEIGHTS) == [2_000_000, 0]
    assert told.completed == sorted(told.completed)


def test_a_hub_that_sends_something_else_is_not_believed(fake: FakeHub, hub: Hub) -> None:
    """Bytes that are not what the hub lists never become part of the cache, and are not fetched over and over."""
    fake.sends_instead[WEIGHTS] = b"?" * len(FILES[WEIGHTS])
    with pytest.raises(HubError, match=r"model\.safetensors is damaged"):
        pulled(hub)
    assert fake.sent_of(WEIGHTS) == [0]
    assert complete_snapshot(MODEL, hub=hub) is None


def test_a_server_without_ranges_sends_all_of_it(fake: FakeHub, hub: Hub) -> None:
    """What it sends takes the place of what was here."""
    fake.knows_ranges = False
    partial_of(hub, FILES[WEIGHTS]).write_bytes(FILES[WEIGHTS][:2_000_000])
    assert files_in(pulled(hub)) == FILES


def test_a_server_that_only_breaks_connections_is_given_up(fake: FakeHub, hub: Hub) -> None:
    """Some tries in a row without a byte, then a sentence that says what to do."""
    fake.cut_after[WEIGHTS] = [0] * 100
    with pytest.raises(HubError, match=r"cannot be reached .* what has arrived is kept"):
        pulled(hub)
    assert fake.sent_of(WEIGHTS) == [0] * 6


def test_two_pulls_of_one_model_fetch_it_once(fake: FakeHub, hub: Hub) -> None:
    """They wait for each other instead of writing into one file; both end with the whole model."""
    with ThreadPoolExecutor(2) as pullers:
        first, second = pullers.map(lambda _: pulled(hub), range(2))
    assert first == second
    assert files_in(first) == FILES
    assert fake.sent_of(WEIGHTS) == [0]


def test_what_is_complete_makes_no_transfer(fake: FakeHub, hub: Hub) -> None:
    """A second pull asks what there is and fetches nothing; it tells that all is here."""
    folder = pulled(hub)
    fake.sent.clear()
    told = Told()
    assert pulled(hub, told) == folder
    assert fake.sent == []
    assert told.completed[1:] == [sum(map(len, FILES.values()))] * 2


def test_a_file_that_went_missing_is_fetched_alone(fake: FakeHub, hub: Hub) -> None:
    """A pull repairs."""
    folder = pulled(hub)
    (folder / WEIGHTS).resolve().unlink()
    (folder / WEIGHTS).unlink()
    fake.sent.clear()
    assert files_in(pulled(hub)) == FILES
    assert fake.sent == [(WEIGHTS, 0)]


def test_the_token_stays_with_the_hub(fake: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host that large files come from never sees it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pulled(hub)
    assert fake.tokens == {(False, "Bearer hf_secret"), (True, None)}


REFUSED = [
    (MODEL, Refusal(404, "RepoNotFound"), ModelNotFound, "has no model tiny/model-4bit.*hf auth login"),
    (MODEL, Refusal(401, "RepoNotFound"), ModelNotFound, "has no model tiny/model-4bit.*HF_TOKEN"),
    (MODEL, Refusal(403, "GatedRepo"), HubError, "is gated. Accept its terms.*hf auth login.*HF_TOKEN"),
    (WEIGHTS, Refusal(403, "GatedRepo"), HubError, "is gated. Accept its terms.*hf auth login.*HF_TOKEN"),
    ("config.json", Refusal(403, "GatedRepo"), HubError, "is gated. Accept its terms"),
    (WEIGHTS, Refusal(403), HubError, "refuses tiny/model-4bit to you. Check your token"),
    (WEIGHTS, Refusal(500), HubError, "status 500. Try again later; what has arrived is kept"),
    (MODEL, Refusal(503), HubError, "status 503. Try again later"),
]


@pytest.mark.parametrize(("what", "refusal", "expected"), [(what, how, rest) for what, how, *rest in REFUSED])
def test_a_refusal_is_a_sentence_with_the_way_out(
    fake: FakeHub, hub: Hub, what: str, refusal: Refusal, expected: list[Any]
) -> None:
    """No such model, gated, no right, hub down: each says what it is and what to do."""
    fake.refusals[what] = refusal
    error, told = expected
    with pytest.raises(error, match=told):
        pulled(hub)


def test_an_unknown_revision_is_told(fake: FakeHub, hub: Hub) -> None:
    """The model exists, the branch does not."""
    assert fake.url
    with pytest.raises(ModelNotFound, match="has no revision nonsense"):
        pulled(hub, revision="nonsense")


def test_a_name_that_is_no_hub_id_is_told(hub: Hub) -> None:
    """Before anything is asked."""
    with pytest.raises(ModelNotFound, match="is no hub id"):
        pull("a/b/c", on_progress=Told(), hub=hub)


def test_no_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer: at once, with what to check."""
    monkeypatch.setenv("NO_PROXY", "*")
    nobody = Hub(endpoint="http://127.0.0.1:9", cache_dir=tmp_path)
    with pytest.raises(HubError, match=r"cannot be reached \(ConnectError\). Check the network"):
        pulled(nobody)


def test_a_disk_without_room_is_told_before_anything_is_fetched(fake: FakeHub, hub: Hub) -> None:
    """What is missing and a tenth more must be free; the sentence has both numbers."""
    needed = sum(map(len, FILES.values())) * 110 // 100
    with pytest.raises(HubError, match=r"needs 4 MB more .* 4 MB are free\. Free some space, or set HF_HUB_CACHE"):
        pull(MODEL, on_progress=Told(), hub=hub, free=lambda _: needed - 1)
    assert fake.sent == []
    assert pull(MODEL, on_progress=Told(), hub=hub, free=lambda _: needed).is_dir()


def test_a_repository_without_weights_is_told_but_fetched(fake: FakeHub, hub: Hub) -> None:
    """What is not a model for MLX comes with a warning that says what is missing."""
    fake.repos[MODEL] = {"tokenizer.json": b"{}", "model.gguf": b"0" * 100}
    told = Told()
    assert files_in(pulled(hub, told)) == {"tokenizer.json": b"{}"}
    assert (
        told.all[-1].oddity == f"{MODEL} has no weights (*.safetensors) and no config.json: it is not a model for MLX."
    )
