"""DiskTier: the states of one model that outlive its stay in memory. Worker thread only.

A state is written when nobody waits: once the model has been idle for some time, and before it is freed. It is read for
a prompt that begins with it. Nothing here ever fails a request: what goes wrong is one line in the log, and the prompt
is computed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from periscope.engine.batch.disk.choice import MIN_STORED_TOKENS, stood_in_for, worth_writing
from periscope.engine.batch.disk.files import (
    NAME_DIGITS,
    SUFFIX,
    files_in,
    make_private,
    make_room,
    reserve,
    set_aside,
    sweep,
)
from periscope.engine.batch.disk.layout import NotStorable, layout_of
from periscope.engine.batch.disk.state_file import (
    StateFileInvalid,
    StoredState,
    encode_header,
    read_header,
    read_pieces,
    write_pieces,
)
from periscope.engine.batch.prompt_cache import can_be_trimmed
from periscope.engine.batch.sharing import Prefix, Source, StateView, longest_prefix
from periscope.engine.worker.contracts import IDLE_POLL_S, DiskUse

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
    from periscope.engine.config import StatesOnDisk

logger = logging.getLogger(__name__)

#: Most files of one model: every lookup compares the prompt with each.
MAX_FILES = 128


class DiskTier:
    """Owns the index of one model's files and the file being written. It outlives batches, as the prompt cache does.

    Attributes:
        use: what this model takes of the disk, and what was written since it was loaded.

    Args:
        key: tells the states of this model, as it is loaded now, from all others.
        new_caches: makes empty caches of the model.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: StatesOnDisk,
        key: str,
        prompt_cache: PromptCache,
        new_caches: Callable[[], LayerCaches],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._key = key
        self._folder = settings.folder / key
        self._prompt_cache = prompt_cache
        self._new_caches = new_caches
        self._clock = clock
        self._files: dict[int, tuple[StateView, StoredState]] = {}
        self._num_files = 0
        self.use = DiskUse()
        self._writing: Generator[None, None, None] | None = None
        self._idle_since: float | None = None
        self._num_seen = -1  # states that had been kept when all were looked through
        self._is_off = False
        self._open()

    def __repr__(self) -> str:
        return f"<DiskTier {self._folder} files={len(self._files)} written={self.use.written_bytes}>"

    @property
    def views(self) -> Sequence[StateView]:
        """The states on disk, as the scheduler's choice of a prefix takes them."""
        return [view for view, _ in self._files.values()]

    def _open(self) -> None:
        try:
            sweep(self._settings.folder)
            make_room(self._settings.folder, self._settings.max_bytes)
        except OSError as error:
            self._switch_off(error)
        whole = [file for file in files_in(self._folder) if file.path.suffix == SUFFIX]
        for path in [file.path for file in sorted(whole, key=lambda file: file.used_ns)][-MAX_FILES:]:
            try:
                self._add(read_header(path, self._key))
            except StateFileInvalid as error:
                set_aside(path, error)
            except OSError:  # it has gone since, or cannot be read: a miss
                continue
        self._note_use()

    def _add(self, stored: StoredState) -> StateView:
        self._num_files += 1
        layout = stored.layout
        view = StateView(Source.DISK, self._num_files, stored.tokens, layout.num_tokens, layout.is_trimmable)
        self._files[view.key] = view, stored
        return view

    def _note_use(self, num_written: int = 0) -> None:
        num_bytes = sum(stored.nbytes for _, stored in self._files.values())
        self.use = DiskUse(num_bytes, self.use.written_bytes + num_written)

    def _switch_off(self, error: OSError) -> None:
        self._is_off = True
        logger.warning(
            "no states of prompts are written to %s until the model is loaded again: %s", self._folder, error
        )

    # --- reading -----------------------------------------------------------------------------------------------------

    def find(self, tokens: np.ndarray, max_bytes: int) -> Prefix | None:
        """The stored prefix that a prompt should start from; None if what is in memory will do as well.

        Args:
            max_bytes: longer states have no room in memory.
        """
        views = [view for view, stored in self._files.values() if stored.layout.nbytes(MIN_STORED_TOKENS) <= max_bytes]
        prefix = longest_prefix(tokens, views)
        if prefix is None or self._files[prefix.key][1].layout.nbytes(prefix.num_tokens) > max_bytes:
            return None
        kept = longest_prefix(tokens, self._prompt_cache.states)
        num_kept = 0 if kept is None else kept.num_tokens
        return prefix if prefix.num_tokens >= num_kept + MIN_STORED_TOKENS else None

    def read(self, prefix: Prefix) -> Generator[None, None, tuple[list[int], LayerCaches] | None]:
        """Read a state in pieces; yields after each. Returns its tokens and its caches, None if it cannot be read."""
        if prefix.key not in self._files:
            return None
        view, stored = self._files[prefix.key]
        num_tokens = prefix.num_tokens if stored.layout.may_be_cut else view.num_tokens
        self._files[prefix.key] = self._files.pop(prefix.key)  # the last to go
        try:
            with suppress(OSError):  # a folder that can only be read
                os.utime(stored.path)
            caches = yield from read_pieces(stored, num_tokens, self._new_caches)
        except StateFileInvalid as error:
            set_aside(stored.path, error)
        except FileNotFoundError:
            pass  # removed by whoever needed room
        except OSError as error:
            logger.warning("a prompt's state on disk cannot be read: %s", error)
        else:
            return [int(token) for token in view.tokens[:num_tokens]], caches
        self._files.pop(prefix.key, None)
        self._note_use()
        return None

    # --- writing -----------------------------------------------------------------------------------------------------

    def note_work(self) -> None:
        """A request is here: nothing is written until the model has been idle again."""
        self._idle_since = None

    def rest(self) -> float:
        """Write a piece of a state if the model has been idle for long enough. Returns when to call again, in s."""
        now = self._clock()
        if self._idle_since is None:
            self._idle_since = now
        left_s = self._idle_since + self._settings.write_after_s - now
        if left_s > 0:
            return min(left_s, IDLE_POLL_S)
        return 0.0 if self._write_piece() else IDLE_POLL_S

    def save(self, within_s: float) -> None:
        """Write what is worth it, for so long at most; what is not written by then is lost."""
        deadline = self._clock() + within_s
        while self._clock() < deadline:
            if not self._write_piece():
                return
        self.abandon()
        logger.warning("not all states of prompts could be written within %.0f s", within_s)

    def abandon(self) -> None:
        """Give up the file that is being written. Idempotent."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _write_piece(self) -> bool:
        """Write one piece. Returns whether there may be more to write."""
        if self._is_off or (self._writing is None and self._num_seen == self._prompt_cache.num_kept):
            return False
        if self._writing is None:
            self._writing = self._write_all()
        try:
            next(self._writing)
        except StopIteration:
            self._writing = None
        except FileNotFoundError:
            self._writing = None  # somebody has removed the folder or the file meanwhile
        except OSError as error:
            self._writing = None
            self._switch_off(error)
        except Exception as error:  # noqa: BLE001 - of the device, most likely; states are kept only for speed
            self._writing = None
            self._num_seen = self._prompt_cache.num_kept
            logger.warning("a prompt's state is not written: %s: %s", type(error).__name__, error)
        return True

    def _write_all(self) -> Generator[None, None, None]:
        """Write every state that is worth it; yields after each piece."""
        self._num_seen = self._prompt_cache.num_kept
        self._forget_removed()
        kept = self._prompt_cache.states
        tried: set[int] = set()
        while keys := [key for key in worth_writing(kept, self.views) if key not in tried]:
            tried.add(keys[0])
            try:
                yield from self._write(next(view for view in kept if view.key == keys[0]))
            except NotStorable as error:
                logger.info("states of this model are not written to disk: %s", error)
                return

    def _write(self, view: StateView) -> Generator[None, None, None]:
        caches = self._prompt_cache.peek(view.key)
        if caches is None:
            return
        layout = layout_of(caches, view.num_tokens, is_trimmable=can_be_trimmed(caches))
        del caches
        tokens = view.tokens[: view.num_tokens]
        header, num_bytes = encode_header(self._key, tokens, layout)
        digest = hashlib.sha256(np.ascontiguousarray(tokens, dtype="<i8").tobytes()).hexdigest()[:NAME_DIGITS]
        path = self._folder / f"{digest}{SUFFIX}"
        replaced = stood_in_for(view, self.views)
        first = {self._files[key][1].path for key in replaced}
        folder, max_bytes = self._settings.folder, self._settings.max_bytes
        make_private(folder)
        make_private(self._folder)
        partial = reserve(folder, path, num_bytes, max_bytes=max_bytes, first=first)
        if partial is None:
            return
        try:
            is_whole = yield from write_pieces(
                partial.file, header, tokens, layout, lambda: self._prompt_cache.peek(view.key)
            )
            if not is_whole:
                return
            partial.commit()
        finally:
            partial.discard()
        self._forget_removed()
        for key in replaced:
            self._forget(key)
        self._add(read_header(path, self._key))
        while len(self._files) > MAX_FILES:
            self._forget(next(iter(self._files)))
        self._note_use(num_bytes)

    def _forget(self, key: int) -> None:
        """Remove a file that is not needed."""
        _, stored = self._files.pop(key, (None, None))
        if stored is not None:
            stored.path.unlink(missing_ok=True)

    def _forget_removed(self) -> None:
        """Others remove files, too: other models that need room, other servers, a command."""
        self._files = {key: entry for key, entry in self._files.items() if entry[1].path.exists()}
        self._note_use()
