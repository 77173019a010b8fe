"""The composition root: Config -> rooms, and the order in which they start and stop. Names every concrete class."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import mlx.core as mx

from periscope.assembly import Assembly, Roster, changes_between, told
from periscope.config import Config, with_models_of
from periscope.config.named import captioner_name, reader_name
from periscope.conversations.server_pool import McpServers
from periscope.core import ConfigChanges, find_model, is_default_name, require_model
from periscope.engine.device.memory import DeviceMemory, WiredLimit
from periscope.engine.device.turn import DeviceTurn
from periscope.errors import ConfigError
from periscope.events import ConfigRejected, ConfigReloaded, EventBus
from periscope.host import HostWatch, KeepAwake, Sensors, caffeinate, sensors_of
from periscope.hub import Downloads, JobFile
from periscope.pool.contracts import PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.control import ControlService
from periscope.serving.embeddings import EmbeddingService
from periscope.serving.health import Notices
from periscope.serving.machine import MachineReactions
from periscope.serving.models import ModelNames
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.status import HostStatus, ServerIdentity
from periscope.telemetry.metrics import Metrics
from periscope.telemetry.snapshot import Snapshot
from periscope.telemetry.tracing import Tracing
from periscope.telemetry.tracing import is_installed as tracing_is_installed
from periscope.tool_servers import tool_servers_of
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.images.remote import RemoteImages
from periscope.vision.intake import ImageIntake
from periscope.vision.native import NativeVision
from periscope.vision.proxy import VisionProxy
from periscope.vision.reading import ImageReading
from periscope.wiring import backend_and_model, caption_cache, downloads_of, picture_fetcher, turn_store

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.vision.backends.remote import RemoteCaptioner

logger = logging.getLogger(__name__)

#: Threads that read and decode images. Decoding is C code that lets go of the interpreter.
NUM_DECODE_THREADS = 2
#: Once the models are loaded, the start waits no longer than this to hear how captioners on other servers are.
CHECK_GRACE_S = 2.0


class Runtime:
    """Owns all rooms of one Periscope. Build it from a Config, `start` it, `stop` it; all on one event loop.

    Args:
        read_config: reads the configuration again, for `reload`. May block.
        sensors: of the machine; those of this platform if left out.
        shutdown: asks the owner of this runtime to stop it, by command of a client.
        on_reload: told each configuration that was read again and holds from now on.
        downloads_file: where unfinished downloads are kept; None = they end with this process.

    Attributes:
        notices: what of the server itself is not as it should be; stands among the problems of its status.
        metrics: what `/metrics` tells; None = they are off.
        turns: the responses that clients may go on from.
        tool_servers: the MCP servers of the configuration.
    """

    def __init__(
        self,
        config: Config,
        identity: ServerIdentity = ServerIdentity(),
        *,
        read_config: Callable[[], Config] | None = None,
        sensors: Sensors | None = None,
        downloads_file: Path | None = None,
        shutdown: Callable[[], None] = lambda: None,
        on_reload: Callable[[Config], None] = lambda _: None,
    ) -> None:
        self._read_config = read_config or (lambda: config)
        self._on_reload = on_reload
        self._reloading = asyncio.Lock()
        self.bus = EventBus()
        self.notices = Notices(self.bus.publish)
        self._decoding = ThreadPoolExecutor(NUM_DECODE_THREADS, thread_name_prefix="periscope-decode")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="periscope-read")
        self._memory = DeviceMemory(config.memory.budget)
        limits = PoolLimits(
            budget_bytes=self._memory.budget_bytes(),
            max_waiting=config.server.limits.max_waiting,
            wait_timeout_s=config.server.limits.wait_timeout_s,
        )
        self._assembly = Assembly(
            turn=DeviceTurn(config.captioner_share),
            memory=self._memory,
            decoding=self._decoding,
            publish=self.bus.publish,
            lease=lambda name, kind, tell: self._pool.lease(name, kind, tell=tell),
        )
        self._roster = self._assembly.roster(config)
        self._pool = ModelPool(self._roster.specs, self.bus, limits, memory=self._memory)
        self._opened = list(self._roster.remote.values())
        self.tool_servers = McpServers(tool_servers_of(config), self.notices.put)
        self._watching: dict[RemoteCaptioner, asyncio.Task[None]] = {}
        requests = LiveRequests(self.bus.publish)
        self._names = ModelNames(self._roster.served, self._roster.embedders, self._roster.only_captioners)
        in_flight = BytesInFlight(
            config.server.limits.max_image_bytes_in_flight, wait_timeout_s=config.server.limits.wait_timeout_s
        )
        self._captions = caption_cache(config.caption_cache)
        reading = ImageReading(
            self._captions,
            executor=self._reading,
            wait_timeout_s=config.server.limits.wait_timeout_s,
            publish=self.bus.publish,
        )
        self.turns = turn_store(config)
        web = config.server.remote_images
        self._fetcher = picture_fetcher(web) if web.enabled else None
        intake = ImageIntake(
            executor=self._decoding,
            in_flight=in_flight,
            remote=None
            if self._fetcher is None
            else RemoteImages(self._fetcher.fetch, max_per_request=web.max_per_request),
        )
        proxy = VisionProxy(
            self._captions,
            intake=intake,
            reading=reading,
            report_problem=self._note_captions,
            publish=self.bus.publish,
        )
        self.service = ChatService(
            self._names,
            self._pool,
            proxy,
            requests,
            self._roster.remote.values(),
            native=NativeVision(intake),
            notices=self.notices,
        )
        self.embeddings = EmbeddingService(self._names, self._pool, requests)
        self._host = HostWatch(
            sensors or sensors_of(sys.platform),
            KeepAwake(caffeinate if config.server.keep_awake and sys.platform == "darwin" else None),
            MachineReactions(
                self.service, self._pool, requests, self.notices, has_other_work=lambda: self._downloads.is_active
            ),
        )
        file = None if downloads_file is None else JobFile(downloads_file)
        self._downloads = Downloads(self.bus.publish, file=file)
        self._looking: asyncio.Task[None] | None = None
        self.control = ControlService(
            self.service,
            self._pool,
            self._names,
            requests,
            self.bus,
            captions=self._captions,
            identity=identity,
            read_memory=_read_memory,
            reload=self.reload,
            shutdown=shutdown,
            downloads=self._downloads,
            sources=lambda asked, alone: downloads_of(self.config, asked, alone=alone),
            read_host=self._host_status,
            read_tool_servers=lambda: self.tool_servers.statuses,
        )
        self.metrics = Metrics(self._snapshot, self._known_name) if config.server.metrics else None
        if self.metrics is not None:
            self.bus.add_listener(self.metrics.take)
        self._tracing = self._new_tracing(identity.version) if config.server.tracing else None

    @property
    def config(self) -> Config:
        """The one in effect."""
        return self._roster.config

    async def start(self, *, preloads: bool = True) -> None:
        """Load what is to be loaded at start, side by side, and wait for it. Failures are in `service.health()`.

        Args:
            preloads: else nothing is loaded before a request or a command wants it.
        """
        WiredLimit.set_once(self.config.memory.wired_limit)
        self._looking = asyncio.create_task(self._host.run(), name="watch the machine")
        self._captions.start_loading()
        await self._downloads.restore()
        checks = [asyncio.create_task(each.checked()) for each in self._watch_captioners()]
        try:
            await self._pool.preload(self._roster.preloaded if preloads else ())
            if checks:
                await asyncio.wait(checks, timeout=CHECK_GRACE_S)
        finally:
            for check in checks:
                check.cancel()

    def _watch_captioners(self) -> list[RemoteCaptioner]:
        """Name in the log every captioner that a model uses, and watch those on other servers, which are returned."""
        names = list(dict.fromkeys(filter(None, map(captioner_name, self.config.models))))
        for name in names:
            logger.info("captioner: %s", backend_and_model(require_model(self.config.models, name)))
        names = list(dict.fromkeys([*names, *filter(None, map(reader_name, self.config.models))]))
        used = [self._roster.remote[name] for name in names if name in self._roster.remote]
        for captioner in self._watching.keys() - set(used):
            self._watching.pop(captioner).cancel()
        if used:
            from stamina.instrumentation import set_on_retry_hooks

            set_on_retry_hooks(())  # the captioner's own log line says more
        for captioner in used:
            if captioner not in self._watching:
                self._watching[captioner] = asyncio.create_task(
                    captioner.watch(), name=f"watch captioner {captioner.name}"
                )
        return used

    async def reload(self) -> ConfigChanges:
        """Read the configuration again and serve its models. Those that are as before stay loaded and go on.

        All that can fail is done before anything is touched. Captioners on other servers that are not wanted any more
        keep their connections until the server stops, because requests from before may still use them.

        Raises:
            ConfigError: it cannot be used, and the running configuration stays.
        """
        async with self._reloading:
            try:
                read = await asyncio.to_thread(self._read_config)
                config, needs_restart = with_models_of(self.config, read)
                roster = await asyncio.to_thread(self._assembly.roster, config, self._roster)
                terms = await asyncio.to_thread(tool_servers_of, config)
            except ConfigError as error:
                self._reject(error)
                raise
            changes = replace(
                changes_between(self.config, config),
                needs_restart=needs_restart,
                mcp_servers=self.tool_servers.configure(terms),
            )
            self._take(roster, changes)
        return changes

    def _reject(self, error: ConfigError) -> None:
        first, *more = error.problems
        others = f" (and {len(more)} more; the log has all)" if more else ""
        self.notices.put("config", f"models.yaml cannot be used, so the running configuration stays: {first}{others}")
        for problem in error.problems:
            logger.error("the running configuration stays: %s", problem)
        self.bus.publish(ConfigRejected(error.problems))

    def _note_captions(self, captioner: str, problem: str | None) -> None:
        """Say what is wrong with a captioner's captions; not of one that requests from before a reload still use."""
        if problem is None or captioner in self._roster.captioners:
            self.notices.put(f"captions of {captioner}", problem)

    def _host_status(self) -> HostStatus:
        now = self._host.reading()
        return HostStatus(now.pressure, now.thermal, now.footprint_bytes, is_kept_awake=self._host.is_kept_awake)

    def _new_tracing(self, version: str) -> Tracing | None:
        if not tracing_is_installed():
            told = "Traces are wanted (`server.tracing`) and not sent: pip install 'mlx-periscope[otel]'."
            logger.warning("%s", told)
            self.notices.put("tracing", told)
            return None
        tracing = Tracing(version)
        self.bus.add_listener(tracing.take)
        return tracing

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.control.status(), self._captions.stats)

    def _known_name(self, asked: str) -> str | None:
        """The configured name of what a client names; None if there is no such model."""
        if is_default_name(asked):
            return self._names.default.name
        found = find_model(self.service.statuses(), asked)
        return None if found is None else found.name

    def _take(self, roster: Roster, changes: ConfigChanges) -> None:
        """Put another roster in place, in one turn of the loop, so that no request sees half of it."""
        before, self._roster = self._roster, roster
        self.bus.publish(ConfigReloaded(changes))  # watchers get their snapshot when all below is done
        anew = {*changes.added, *changes.reloaded}
        loads = [name for name in roster.preloaded if name in anew or name not in before.preloaded]
        self._pool.configure(roster.specs, replaced=changes.reloaded, loads=loads)
        self._names.replace(roster.served, roster.embedders, roster.only_captioners)
        self.service.replace_elsewhere(roster.remote.values())
        self._opened += [each for each in roster.remote.values() if each not in self._opened]
        self._watch_captioners()
        for name, captioner in before.captioners.items():
            if roster.captioners.get(name) is not captioner:
                self._note_captions(name, None)
        self._on_reload(roster.config)
        self.notices.put("config", None)
        logger.info("the configuration was read again: %s", told(changes))

    def stop_admitting(self) -> None:
        """Idempotent: new requests are refused and event streams end; what runs goes on."""
        self.service.stop_admitting()
        self.embeddings.stop_admitting()
        self.control.stop()

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Idempotent: refuse new requests, let running ones finish for up to `drain_s`, free every model."""
        self.stop_admitting()
        await self._downloads.close()
        await self._pool.close(drain_s=drain_s)
        await self.tool_servers.close()
        watching = [*self._watching.values(), *([] if self._looking is None else [self._looking])]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for captioner in self._opened:
            await captioner.close()
        await self._captions.close()
        if self._tracing is not None:
            await self._tracing.close()
        await self.turns.close()
        if self._fetcher is not None:
            self._fetcher.close()
        for executor in (self._decoding, self._reading):
            executor.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _read_memory() -> tuple[int, int, int]:
    """Bytes that MLX uses, keeps ready, and has used at most, in this process."""
    return mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory()
