"""What a pull would fetch: the files of a model, and how much of them is on this disk. Asks the hub, writes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants
from huggingface_hub.file_download import repo_folder_name

from periscope.core import MODEL_FILES, NOT_MODEL_FILES
from periscope.errors import HubError
from periscope.hub.failures import told

#: Besides what is missing, this share of it must be free.
SPARE_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Hub:
    """Where models come from and where they are kept. None = what HF_ENDPOINT, HF_HUB_CACHE and HF_HOME say."""

    endpoint: str | None = None
    cache_dir: Path | None = None

    @property
    def folder(self) -> Path:
        """The cache's folder; it may not exist yet."""
        return (self.cache_dir or Path(constants.HF_HUB_CACHE)).expanduser().resolve()

    def folder_of(self, hub_id: str) -> Path:
        """Pure: where the cache keeps this model."""
        return self.folder / str(repo_folder_name(repo_id=hub_id, repo_type="model"))


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository.

    Attributes:
        name: its path in the repository.
        digest: what the cache calls its bytes: SHA-256 of large files, git's SHA-1 of others.
    """

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """The files of a model at one commit, and the cache's folder for it."""

    hub_id: str
    commit: str
    files: tuple[HubFile, ...]
    folder: Path

    @property
    def total_bytes(self) -> int:
        """The size of all files, on this disk or not."""
        return sum(file.size_bytes for file in self.files)

    @property
    def oddity(self) -> str | None:
        """Why this may not be a model that MLX can load."""
        names = {PurePosixPath(file.name) for file in self.files}
        missing = [] if any(name.suffix == ".safetensors" for name in names) else ["weights (*.safetensors)"]
        missing += [] if PurePosixPath("config.json") in names else ["config.json"]
        return f"{self.hub_id} has no {' and no '.join(missing)}: it is not a model for MLX." if missing else None

    def blob(self, file: HubFile) -> Path:
        """Where the cache keeps the bytes of a file."""
        return self.folder / "blobs" / file.digest

    def partial(self, file: HubFile) -> Path:
        """Where what has arrived of a file waits for the rest, under the name that `hf cache` knows as such."""
        return self.folder / "blobs" / f"{file.digest}.incomplete"

    def is_here(self, file: HubFile) -> bool:
        """Whether all of the file is on this disk."""
        return self.blob(file).exists() or (self.folder / "snapshots" / self.commit / file.name).exists()

    def bytes_here(self, file: HubFile) -> int:
        """How much of the file is on this disk."""
        if self.is_here(file):
            return file.size_bytes
        partial = self.partial(file)
        return min(partial.stat().st_size, file.size_bytes) if partial.exists() else 0


def plan_download(hub_id: str, revision: str | None, hub: Hub) -> DownloadPlan:
    """Ask the hub what the model is made of. Blocks.

    Raises:
        PeriscopeError: the hub has no such model, keeps it from us, or cannot be reached.
    """
    try:
        info = HfApi(endpoint=hub.endpoint).model_info(
            hub_id, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )
    except Exception as error:
        raise told(error, hub_id, revision) from error
    files = tuple(
        HubFile(each.rfilename, int(each.size or 0), str(each.lfs.sha256 if each.lfs else each.blob_id))
        for each in info.siblings or ()
        if is_model_file(each.rfilename)
    )
    return DownloadPlan(hub_id, str(info.sha), files, hub.folder_of(hub_id))


def is_model_file(name: str) -> bool:
    """Pure: whether a model needs the file."""
    return any(fnmatchcase(name, wanted) for wanted in MODEL_FILES) and not any(
        fnmatchcase(name, unwanted) for unwanted in NOT_MODEL_FILES
    )


def free_bytes(folder: Path) -> int:
    """On the disk of a folder that may not exist yet."""
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def check_space(plan: DownloadPlan, free: Callable[[Path], int]) -> None:
    """See to it that the disk takes what is missing.

    Raises:
        HubError: it does not; says how much is needed and free.
    """
    missing = plan.total_bytes - sum(map(plan.bytes_here, plan.files))
    needed, available = missing * (100 + SPARE_PERCENT) // 100, free(plan.folder)
    if needed > available:
        raise HubError(
            f"{plan.hub_id} needs {_megabytes(needed)} more on the disk of {plan.folder.parent}, where "
            f"{_megabytes(available)} are free. Free some space, or set HF_HUB_CACHE to a folder on another disk."
        )


def _megabytes(num_bytes: int) -> str:
    return f"{-(-num_bytes // 1_000_000):,} MB"
