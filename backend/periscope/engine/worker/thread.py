"""The worker thread of a model. Only this thread loads, steps and frees it, in a loop: drain, admit, step, report.

MLX streams belong to a thread and lazy arrays to a stream, so no other thread may touch an array of the model.
"""

from __future__ import annotations

import gc
import logging
import queue
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import mlx.core as mx

from periscope.core import EngineMemory
from periscope.engine.loading.loader import weights_bytes
from periscope.engine.text.detokenizer import StopStrings
from periscope.engine.worker.commands import EndThinking, ReleaseMemory, Settle, Shutdown, Submit, TokenPrompt
from periscope.engine.worker.contracts import DiskUse
from periscope.engine.worker.failures import as_generation_failure, let_go
from periscope.engine.worker.live_rows import LiveRow, LiveRows
from periscope.engine.worker.reports import Failure
from periscope.engine.worker.stream import put_all
from periscope.errors import EngineClosed, ModelLoadError, PeriscopeError

if TYPE_CHECKING:
    from periscope.engine.device.turn import Participant
    from periscope.engine.worker.commands import Command
    from periscope.engine.worker.contracts import Batch, LoadedModel, Sampled
    from periscope.engine.worker.stream import TokenStream

logger = logging.getLogger(__name__)

#: Before the model is freed, what is worth it is written to disk for so long at most: whoever waits for its memory, or
#: for the end of the process, waits for that.
SAVE_S = 6.0
#: How many tokens of a text a detokenizer reads before it goes on with it. A character has four bytes at most, each of
#: which may be a token.
_NUM_TOKENS_BEFORE = 8
#: Serialises garbage collection: `gc.collect` does nothing while another thread collects.
_COLLECTING = threading.Lock()
_MAX_COLLECTIONS = 3
#: The worker ends after so many consecutive failures of `LoadedModel.check_health`, which follows each failed step.
MAX_FAILED_HEALTH_CHECKS = 3

FactsT = TypeVar("FactsT")


class WorkerState(StrEnum):
    """States of a worker, in the only order in which they occur."""

    LOADING = "loading"
    RUNNING = "running"
    ENDED = "ended"


class ModelWorker(threading.Thread, Generic[FactsT]):
    """Owns one model, its batch and its rows, on a thread of its own.

    `load` runs first, on this thread. `on_loaded` and `on_ended` are called on this thread, once each: `on_loaded`
    with the model's facts or with the error that ended the load. The thread is not a daemon (MLX aborts the process
    when one is alive at exit); it ends by itself once the main thread has ended.

    Args:
        report_interval_s: tokens that follow each other faster are reported together, see `LiveRows`.

    Attributes:
        memory: how much memory the model takes, as of the last step; all 0 until it is loaded.
        freed_bytes: how much active memory fell when the model was freed (allocations of other workers at that moment
            distort it). None before that, and if the model could not be freed because it was still referenced.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], LoadedModel[FactsT]],
        *,
        turn: Participant,
        on_loaded: Callable[[FactsT | PeriscopeError], None],
        on_ended: Callable[[], None] = lambda: None,
        report_interval_s: float = 0.0,
    ) -> None:
        super().__init__(name=f"periscope-{name}", daemon=False)
        self.state = WorkerState.LOADING
        self.memory = EngineMemory()
        self.freed_bytes: int | None = None
        self._load = load
        self._turn = turn
        self._on_loaded = on_loaded
        self._on_ended = on_ended
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._rows = LiveRows(report_interval_s)
        self._model: LoadedModel[FactsT] | None = None
        self._batch: Batch | None = None
        self._num_failed_health_checks = 0
        self._disk_use = DiskUse()

    def __repr__(self) -> str:
        return f"<ModelWorker {self.name} {self.state} rows={len(self._rows)}>"

    @property
    def num_rows(self) -> int:
        """Number of live rows, including those that wait for prefill. Other threads get a snapshot."""
        return len(self._rows)

    def send(self, command: Command) -> None:
        """Queue a command. Any thread. Once the worker has ended, a submitted request fails at once."""
        self._inbox.put(command)
        if self.state is WorkerState.ENDED:
            self._refuse_inbox()

    def run(self) -> None:
        """Load the model, serve requests, free the model. Never raises."""
        try:
            if self._start_model():
                self._serve()
        except BaseException:
            logger.exception("worker %s ended by an error", self.name)
        finally:
            self.state = WorkerState.ENDED
            self._turn.leave()
            try:
                self._free_model()
            except Exception:
                logger.exception("%s could not be unloaded: its memory is lost", self.name)
            finally:  # whoever waits for the end of this model would wait for ever
                self._refuse_inbox()
                self._on_ended()

    def _start_model(self) -> bool:
        try:
            mx.random.seed(secrets.randbits(32))
            self._model = self._load()
            facts = self._model.facts
            self._batch = self._model.new_batch()
            self.memory = EngineMemory(sum(weights_bytes(network) for network in self._model.networks))
            mx.synchronize()  # the stream frees a computation's temporaries only after it has told its result
            mx.clear_cache()  # what the load and the first forward pass took, which MLX keeps for the next ones
        except PeriscopeError as error:
            let_go(error)
            self._on_loaded(error)
            return False
        except BaseException as error:  # libraries and the code that comes with models may call sys.exit
            logger.exception("worker %s could not load", self.name)
            let_go(error)
            self._on_loaded(ModelLoadError(f"The model could not be loaded: {type(error).__name__}: {error}"))
            return False
        self.state = WorkerState.RUNNING
        self._on_loaded(facts)
        return True

    def _serve(self) -> None:
        while self._drain():
            self._drop_abandoned_rows()
            self._turn.is_active = bool(self._rows)
            if self._has_work:
                self._step()
            self._turn.is_active = bool(self._rows)  # before the wait for work, or no share of the device is given back
            if self._num_failed_health_checks >= MAX_FAILED_HEALTH_CHECKS:
                logger.error("worker %s gives up: its model does not work any more", self.name)
                return

    @property
    def _has_work(self) -> bool:
        return bool(self._rows) or (self._batch is not None and self._batch.has_work)

    def _drain(self) -> bool:
        """Handle the queued commands; blocks only while there is no work. Returns False when the worker must end."""
        while True:
            is_empty = self._inbox.empty()  # nobody else takes any out
            if is_empty and self._has_work:
                return True
            try:
                command = self._inbox.get(timeout=self._rest() if is_empty else 0.0)
            except queue.Empty:
                if not threading.main_thread().is_alive():
                    return False
                continue
            if isinstance(command, Shutdown):
                self._save()
                return False
            if isinstance(command, ReleaseMemory):
                self._release_memory()
            elif isinstance(command, EndThinking):
                self._end_thinking(command.stream)
            elif isinstance(command, Settle):
                self._drop_abandoned_rows()
                command.settled()
            else:
                self._admit(command)

    def _rest(self) -> float:
        """Do a piece of what nobody waits for. Returns how long to wait for a command before the next, in seconds."""
        assert self._batch is not None  # noqa: S101 - set before _serve
        pause_s = self._batch.rest()
        if self._batch.disk_use != self._disk_use:
            self._note_memory()
        return pause_s

    def _save(self) -> None:
        """Have written what is to outlive the model, of its running requests, too, which are given up."""
        assert self._batch is not None  # noqa: S101 - set before _serve
        deadline = time.monotonic() + SAVE_S
        self._batch.remove(list(self._rows))
        while self._batch.has_work and time.monotonic() < deadline and not self._num_failed_health_checks:
            self._step()
        if not self._num_failed_health_checks:
            self._batch.save(max(deadline - time.monotonic(), 0.0))

    def _admit(self, submit: Submit) -> None:
        if submit.stream.is_abandoned:
            return
        try:
            assert self._batch is not None and self._model is not None  # noqa: S101, PT018 - set before _serve
            row = self._batch.admit(submit)
            detokenizer = self._model.new_detokenizer(_text_before(submit))
        except PeriscopeError as error:
            let_go(error)
            submit.stream.put(Failure(error))
        except Exception as error:  # noqa: BLE001 - a bad request must not fail the other rows
            submit.stream.put(Failure(as_generation_failure(error)))
        else:
            self._rows.add(row, LiveRow(submit.stream, detokenizer, StopStrings(submit.params.stop)))

    def _end_thinking(self, stream: TokenStream) -> None:
        assert self._batch is not None  # noqa: S101 - set before _serve
        for row in self._rows.of(stream):
            self._batch.end_thinking(row)

    def _release_memory(self) -> None:
        if self._batch is not None:
            self._batch.clear_prompt_cache()
            self._note_memory()
        mx.clear_cache()

    def _note_memory(self) -> None:
        assert self._batch is not None  # noqa: S101 - set before _serve
        batch, disk, drafted = self._batch, self._batch.disk_use, self._batch.drafted
        self._disk_use = disk
        self.memory = EngineMemory(
            weights_bytes=self.memory.weights_bytes,
            working_bytes=batch.working_bytes if self._rows else 0,
            prompt_cache_bytes=batch.prompt_cache_bytes,
            num_preemptions=batch.num_preemptions,
            prompt_disk_bytes=disk.num_bytes,
            prompt_disk_written_bytes=disk.written_bytes,
            num_accepted_tokens=drafted.num_accepted,
            num_rejected_tokens=drafted.num_rejected,
        )

    def _drop_abandoned_rows(self) -> None:
        rows = self._rows.abandoned
        if rows and self._batch is not None:
            self._batch.remove(rows)
            self._rows.remove(rows)
            self._note_memory()

    def _step(self) -> None:
        assert self._batch is not None  # noqa: S101 - set before _serve
        results: list[Sampled] = []
        failure = None
        if self._rows.holds and self._turn.is_taken:  # a caption may take a while
            self._report()
        began = time.perf_counter()
        try:
            self._batch.prepare()
            with self._turn.acquire():
                results = list(self._batch.step())
        except Exception as error:  # noqa: BLE001 - the batch is lost, but the worker goes on
            failure = as_generation_failure(error)
        if failure is not None:  # outside `except`, so that the error no longer keeps the arrays of its frames alive
            self._rebuild(failure)
            self._check_health()
            return
        if self._rows.hold(results, began):
            self._report()
        if any(result.is_model_failure for result in results):
            self._check_health()
        elif results:
            self._num_failed_health_checks = 0

    def _report(self) -> None:
        """Tell the readers what is held. Rows that have ended are removed."""
        assert self._batch is not None  # noqa: S101 - set before _serve
        told, given_up = self._rows.take_reports()
        try:
            if given_up:
                self._batch.remove(given_up)
            self._note_memory()  # first, so that whoever has read a token finds the memory of its step
        finally:
            put_all(told)  # rows that have ended are not in `_rows` any more: nobody else tells them

    def _check_health(self) -> None:
        """After a failed step, test whether the model itself still works. A fault of the request is not counted."""
        assert self._model is not None  # noqa: S101 - set before _serve
        try:
            with self._turn.acquire():
                self._model.check_health()
        except Exception as error:
            logger.exception("worker %s: the model fails without any request", self.name)
            let_go(error)
            self._num_failed_health_checks += 1
        else:
            self._num_failed_health_checks = 0

    def _rebuild(self, error: PeriscopeError) -> None:
        assert self._batch is not None and self._model is not None  # noqa: S101, PT018 - set before _serve
        self._rows.fail(error)
        self.memory = replace(self.memory, working_bytes=0)
        self._batch.close()
        watched = [weakref.ref(self._batch)]
        self._batch = None
        _collect(watched)
        mx.clear_cache()
        self._batch = self._model.new_batch()

    def _free_model(self) -> None:
        """Free the model on the thread that loaded it, then clear the thread's MLX streams.

        Without `clear_streams` as the last act MLX 0.32 aborts the process at interpreter exit.
        """
        active_bytes = mx.get_active_memory()
        self._rows.fail(EngineClosed("The model was unloaded while this request ran."))
        if self._batch is not None:
            self._batch.close()
        watched = [] if self._model is None else [weakref.ref(part) for part in (self._model, *self._model.networks)]
        self._batch = self._model = None
        self._load, self._on_loaded = _spent, _ignore
        self.memory = EngineMemory(self.memory.weights_bytes)
        _collect(watched)
        mx.synchronize()
        mx.clear_cache()
        if any(part() is not None for part in watched):
            logger.error("%s was unloaded, but something still holds on to it: its memory is lost", self.name)
        else:
            self.freed_bytes = max(active_bytes - mx.get_active_memory(), 0)
            logger.info("%s was unloaded and gave back %d bytes", self.name, self.freed_bytes)
        mx.clear_streams()

    def _refuse_inbox(self) -> None:
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(command, Submit):
                command.stream.put(Failure(EngineClosed("This model is no longer loaded.")))
            elif isinstance(command, Settle):
                command.settled()


def _text_before(submit: Submit) -> Sequence[int]:
    """The last tokens of the prompt if its text goes on in the completion."""
    prompt = submit.prompt
    return prompt.token_ids[-_NUM_TOKENS_BEFORE:] if isinstance(prompt, TokenPrompt) and prompt.continues_text else ()


def _spent() -> LoadedModel[Any]:
    raise EngineClosed("A worker loads once.")


def _ignore(_outcome: object) -> None:
    return


def _collect(watched: list[weakref.ref[Any]]) -> None:
    """Collect garbage until the watched objects are freed, at most `_MAX_COLLECTIONS` times.

    While another thread collects, `gc.collect` returns at once and does nothing, hence the lock and the repetition. The
    server leaves long-lived objects out of collections (`gc.freeze`), until a first one was not enough.
    """
    for _ in range(_MAX_COLLECTIONS):
        with _COLLECTING:
            gc.collect()
        if all(part() is None for part in watched):
            return
        gc.unfreeze()
