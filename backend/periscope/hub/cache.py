"""What the cache on this disk holds: listed, looked up, removed. Never asks the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.errors import CacheNotFound, HFValidationError, LocalEntryNotFoundError

from periscope.core import MODEL_FILES, NOT_MODEL_FILES
from periscope.errors import HubError, ModelNotFound
from periscope.hub.plan import Hub


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One model repository in the cache.

    Attributes:
        size_bytes: on this disk, all revisions together, each file once.
        partial_bytes: of them in files that have not arrived completely.
        commits: its revisions on this disk -> the branches and tags that point there.
    """

    hub_id: str
    folder: Path
    size_bytes: int
    partial_bytes: int
    commits: dict[str, tuple[str, ...]]


def cached_models(hub: Hub = Hub()) -> tuple[CachedModel, ...]:
    """All models in the cache, whoever fetched them, by name. May block."""
    scan = _scan(hub)
    if scan is None:
        return ()
    partial = _partial_bytes(scan)
    models = [
        CachedModel(
            hub_id=str(repo.repo_id),
            folder=Path(repo.repo_path),
            size_bytes=int(repo.size_on_disk) + partial.get(repo.repo_path, 0),
            partial_bytes=partial.get(repo.repo_path, 0),
            commits={str(each.commit_hash): tuple(sorted(each.refs)) for each in repo.revisions},
        )
        for repo in scan.repos
        if repo.repo_type == "model"
    ]
    return tuple(sorted(models, key=lambda model: model.hub_id.lower()))


def complete_snapshot(hub_id: str, revision: str | None = None, hub: Hub = Hub()) -> Path | None:
    """The folder with all files of the model, None if some are missing. May block."""
    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            cache_dir=hub.cache_dir,
            local_files_only=True,
            allow_patterns=MODEL_FILES,
            ignore_patterns=NOT_MODEL_FILES,
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return Path(folder)


def remove_model(hub_id: str, hub: Hub = Hub()) -> int:
    """Delete all revisions of a model, and what has arrived of files that are not complete. May block.

    Returns:
        Bytes that are free now.

    Raises:
        ModelNotFound: it is not in the cache.
        HubError: it could not be deleted.
    """
    folder = hub.folder_of(hub_id)
    scan = _scan(hub)
    repo = next((each for each in scan.repos if each.repo_path == folder), None) if scan else None
    if scan is None or repo is None:
        if folder.exists():
            raise HubError(f"What the cache has of {hub_id} is damaged. Delete the folder {folder}.")
        raise ModelNotFound(f"{hub_id} is not in the cache ({hub.folder}).")
    # The library finds revisions by commit alone, and a duplicated repository has the commits of its original.
    alone = replace(scan, repos=frozenset({repo}))
    strategy = alone.delete_revisions(*(each.commit_hash for each in repo.revisions))
    partial_bytes = _partial_bytes(scan).get(folder, 0)
    strategy.execute()
    if folder.exists():
        raise HubError(f"{folder} cannot be deleted. Check whose it is.")
    return int(strategy.expected_freed_size) + partial_bytes


def discard_partial(hub_id: str, hub: Hub = Hub()) -> None:
    """Delete what has arrived of files of a model that are not complete. May block.

    Raises:
        OSError: one of them cannot be deleted.
    """
    for file in (hub.folder_of(hub_id) / "blobs").glob("*.incomplete"):
        file.unlink(missing_ok=True)


def _partial_bytes(scan: Any) -> dict[Path, int]:
    """Folder of a model -> bytes in files that have not arrived completely."""
    found: dict[Path, int] = {}
    for file in scan.incomplete_files:
        folder = Path(file.file_path).parents[1]
        found[folder] = found.get(folder, 0) + int(file.size_on_disk)
    return found


def _scan(hub: Hub) -> Any:
    try:
        return scan_cache_dir(hub.folder)
    except CacheNotFound:
        return None
