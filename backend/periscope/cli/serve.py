"""`periscope serve`: one process, one event loop: HTTP first, then the models, until it is told to stop."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import shlex
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from periscope.cli.allocator import use_one_arena
from periscope.cli.collector import collect_as_usual, collect_seldom
from periscope.cli.exits import ExitCode, exits
from periscope.cli.options import (
    ConfigFile,
    DefaultModel,
    Host,
    Port,
    Tcp,
    TLSCert,
    TLSKey,
    Uds,
    VisionModel,
    VlmBackend,
    VlmBaseUrl,
    VlmModel,
    VlmTimeout,
    load_config,
)
from periscope.cli.stopping import exit_on_sigterm
from periscope.core import VisionMode
from periscope.events import ModelGivenUp
from periscope.standard_streams import never_wait_for_readers, open_missing

if TYPE_CHECKING:
    from rich.console import Console

    from periscope.api import AccessKeys, ApiSettings, McpBackend
    from periscope.cli.entrance import Entrance
    from periscope.cli.log import Redaction
    from periscope.cli.stopping import StopRequest
    from periscope.config import Config
    from periscope.events import EventBus
    from periscope.log_tail import LogTail
    from periscope.runtime import Runtime
    from periscope.serving.health import Health

logger = logging.getLogger(__name__)

#: Cancelled requests give back their models within this.
_CLEAN_UP_S = 1.0


@exits()
@exit_on_sigterm()
def serve(
    *,
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    tcp: Tcp = None,
    uds: Uds = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    model: DefaultModel = None,
    vision_model: VisionModel = None,
    vlm_backend: VlmBackend = None,
    vlm_base_url: VlmBaseUrl = None,
    vlm_model: VlmModel = None,
    vlm_timeout: VlmTimeout = None,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more; twice for everything.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")] = False,
) -> None:
    """Serve the models of models.yaml over HTTP until SIGTERM or Ctrl-C."""
    from periscope.cli.entrance import entered
    from periscope.cli.log import keep_tail, set_up_logging
    from periscope.cli.progress import stderr_console
    from periscope.service import this_machine

    collect_seldom()
    use_one_arena()
    open_missing()
    never_wait_for_readers("stdout", "stderr")
    files = {"uds": uds, "tls_cert": tls_cert, "tls_key": tls_key}
    flags: dict[str, object] = {
        "host": host,
        "port": port,
        "tcp": tcp,
        **{name: value and str(value.absolute()) for name, value in files.items()},
        "model": model,
        "vision_model": vision_model,
        "vlm_backend": vlm_backend,
        "vlm_base_url": vlm_base_url,
        "vlm_model": vlm_model,
        "vlm_timeout": vlm_timeout,
    }
    loaded = load_config(config, **flags)
    console = stderr_console()
    secrets = loaded.api_keys.values()
    redaction = set_up_logging(console, verbosity=-1 if quiet else verbose, secrets=secrets)
    with entered(loaded, this_machine()) as entrance:
        redaction.hide(entrance.token)
        _begin_log_file(entrance, loaded, redaction)
        tail = keep_tail(redaction)
        read_again = partial(load_config, loaded.path, **flags)
        raise typer.Exit(
            asyncio.run(_serve(loaded, read_again, entrance, redaction=redaction, tail=tail, console=console))
        )


def _begin_log_file(entrance: Entrance, config: Config, redaction: Redaction) -> None:
    """Begin the log file of the server that commands find. Under launchd the log goes there alone."""
    from periscope.cli.log import LogFile, empty_collected, log_to_file

    if entrance.server.log_path is None:
        faulthandler.enable()
        return
    is_supervised = entrance.server.supervisor is not None
    if is_supervised:
        empty_collected()
    try:
        file = LogFile(Path(entrance.server.log_path), max_bytes=config.log.max_bytes, keep=config.log.keep)
    except OSError as error:
        logger.warning("the log file %s cannot be written: %s", entrance.server.log_path, error.strerror)
        return
    log_to_file(file, redaction, alone=is_supervised)
    if entrance.num_fast_crashes:
        logger.warning("the last %d starts of the server did not last", entrance.num_fast_crashes)


async def _serve(
    config: Config,
    read_again: Callable[[], Config],
    entrance: Entrance,
    *,
    redaction: Redaction,
    tail: LogTail,
    console: Console | None,
) -> ExitCode:
    logger.info("listening on %s", " and ".join(entrance.places))  # all that takes long comes after it
    from periscope.api import AccessKeys, create_app
    from periscope.cli.http_server import http_server
    from periscope.cli.long_lived import leave_long_lived_alone
    from periscope.cli.progress import display_on, shown
    from periscope.cli.quick_imports import import_quickly
    from periscope.cli.stopping import stop_on_signals
    from periscope.engine.loading.deferred_imports import DeferredImports
    from periscope.runtime import Runtime

    DeferredImports().install()
    import_quickly(config)

    with stop_on_signals(asyncio.get_running_loop()) as stop:
        keys = AccessKeys(entrance.token)
        _take_keys(keys, redaction, config)

        def on_reload(read: Config) -> None:
            _take_keys(keys, redaction, read)
            entrance.renew_certificate(read.server.tls)

        runtime = Runtime(
            config,
            entrance.identity,
            read_config=read_again,
            downloads_file=entrance.downloads_file,
            shutdown=stop.stop,
            on_reload=on_reload,
        )
        app = create_app(
            runtime.service,
            runtime.control,
            api_settings(config, entrance.token),
            embeddings=runtime.embeddings,
            keys=keys,
            log=tail,
            mcp=mcp_endpoint(runtime),
            metrics=runtime.metrics,
            turns=runtime.turns,
            tool_servers=runtime.tool_servers,
        )
        server = http_server(app, config.server.limits, entrance.tls)
        display = display_on(console, _log_line)
        leave_long_lived_alone(runtime.bus)
        async with shown(runtime.bus, display):
            starting = asyncio.create_task(_start(runtime, entrance, console), name="load models")
            serving = asyncio.create_task(server.serve(entrance.listeners), name="serve HTTP")
            giving_up = asyncio.create_task(_given_up(runtime.bus), name="watch for dying models")
            reloading = asyncio.create_task(_reload_when_asked(runtime, stop), name="reload models.yaml")
            try:
                await _first_of(serving, giving_up, stop.asked)
                logger.info("stopping")
                if stop.asked.is_set():
                    entrance.stops()
                starting.cancel()
                runtime.stop_admitting()
                server.should_exit = True
                await _first_of(serving, stop.at_once)
            finally:
                giving_up.cancel()
                reloading.cancel()
                for request in server.server_state.tasks:  # nobody waits for them any more: they tell their clients
                    request.cancel()
                await _end(runtime, serving, starting, clean_up_s=0.0 if stop.at_once.is_set() else _CLEAN_UP_S)
    if giving_up.done() and not giving_up.cancelled():
        return ExitCode.FAILURE
    return ExitCode.INTERRUPTED if stop.at_once.is_set() else ExitCode.OK


def mcp_endpoint(runtime: Runtime) -> McpBackend | None:
    """The tools of `/mcp`, by the models of this runtime; None if they are off or the SDK of MCP is missing."""
    settings = runtime.config.server.mcp_endpoint
    if not settings.enabled or find_spec("mcp") is None:
        return None
    from periscope.cli.mcp_sight import RuntimeSight
    from periscope.mcp_server import AllowedFolders, HttpTools

    folders = [Path(folder) for folder in settings.allow]
    for folder in folders:
        if not folder.is_dir():
            logger.warning("server.mcp_endpoint.allow: there is no folder %s", folder)
    way = "name a folder of the server's machine in `server.mcp_endpoint.allow` of models.yaml"
    return HttpTools(RuntimeSight(runtime, None), AllowedFolders(folders, way))


def _take_keys(keys: AccessKeys, redaction: Redaction, config: Config) -> None:
    """The API keys of this configuration open the server from now on, and none of them is logged."""
    server = config.server
    redaction.hide(server.api_key)
    keys.replace(server.api_key, {each.name: each.hash for each in server.api_keys})


async def _given_up(bus: EventBus) -> None:
    """Until a model's worker has died too often; launchd starts a new process then."""
    with bus.subscribed(ModelGivenUp) as events:
        async for event in events:
            assert isinstance(event, ModelGivenUp)  # noqa: S101 - it has no others
            logger.error(
                "model %s has died again and again; this process ends so that a new one can start", event.model
            )
            return
    await asyncio.Event().wait()  # the bus was closed: the server stops for another reason


async def _reload_when_asked(runtime: Runtime, stop: StopRequest) -> None:
    """At each SIGHUP, one after the other."""
    from periscope.errors import ConfigError

    while True:
        await stop.reload.wait()
        stop.reload.clear()
        with suppress(ConfigError):  # told in the log and in the status
            await runtime.reload()


async def _end(
    runtime: Runtime, serving: asyncio.Task[None], starting: asyncio.Task[None], *, clean_up_s: float
) -> None:
    """Close and free everything; what HTTP ended of, if of an error, is raised."""
    serving.cancel()
    starting.cancel()
    await runtime.stop(drain_s=clean_up_s)
    await asyncio.wait({serving, starting})
    if not serving.cancelled() and (failure := serving.exception()) is not None:
        raise failure


async def _first_of(*awaited: asyncio.Task[None] | asyncio.Event) -> None:
    """Until a task has ended or an event is set."""
    waiting = [asyncio.create_task(each.wait()) for each in awaited if isinstance(each, asyncio.Event)]
    tasks = [each for each in awaited if isinstance(each, asyncio.Task)]
    await asyncio.wait([*waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _log_line(line: str, *, is_failure: bool) -> None:
    logger.log(logging.ERROR if is_failure else logging.INFO, "%s", line)


async def _start(runtime: Runtime, entrance: Entrance, console: Console | None) -> None:
    """Load, say how that went, and leave neither garbage nor freed memory behind."""
    from periscope.api.freed_memory import give_back_freed_memory

    try:
        await _load(runtime, entrance, console)
    finally:
        collect_as_usual()
    gc.collect()  # a full collection is due, and would hold up one of the first requests
    give_back_freed_memory()


async def _load(runtime: Runtime, entrance: Entrance, console: Console | None) -> None:
    """Load, then say once that requests are welcome, or why they are not."""
    from periscope.cli.progress import print_line
    from periscope.service import SETTLED_S

    url = entrance.server.url
    if (braked := entrance.braked) is not None:
        logger.error("%s", braked)
        runtime.notices.put("crashes", braked)
    asyncio.get_running_loop().call_later(SETTLED_S, entrance.has_settled)
    try:
        await runtime.start(preloads=braked is None)
    except Exception:
        logger.exception("the models could not be loaded")
        return
    health = runtime.service.health()
    if not health.is_ready:
        logger.error("%s stays up, but model %s cannot answer", url, runtime.config.default_model.name)
        return
    at = f"{url}/v1" if entrance.server.port else url  # no client takes a path behind that of a socket
    print_line(console, f"Periscope is ready on {at} ({what_it_serves(runtime.config, health)})")
    hello = '{"messages": [{"role": "user", "content": "Hello!"}]}'
    trust = curl_trust(runtime.config.server.tls.cert) if entrance.server.port else ""
    curl = f"{trust}{url}" if entrance.server.port else f"--unix-socket {entrance.server.uds} http://localhost"
    key = " -H 'authorization: Bearer KEY'" if runtime.config.server.needs_key else ""
    print_line(console, f"Try: curl {curl}/v1/chat/completions{key} -H 'content-type: application/json' -d '{hello}'")


def curl_trust(certificate: str | None) -> str:
    """The option by which curl trusts a certificate that vouches for itself, with a space; "" for any other.

    Reads the file, which has been read before.
    """
    if certificate is None:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    is_self_made = any(each["subject"] == each["issuer"] for each in context.get_ca_certs())
    return f"--cacert {shlex.quote(certificate)} " if is_self_made else ""


def what_it_serves(config: Config, health: Health) -> str:
    """Pure: the default model and its sight, for the ready line."""
    model = config.default_model
    text = f"model {model.name}"
    if health.models[model.name] != "ready":
        text += ", loaded by the first request"
    match model.capabilities.vision_mode, model.capabilities.vision_proxy:
        case VisionMode.PROXY, proxy if proxy is not None and proxy.model is not None:
            failed = health.models[proxy.model] == "failed"
            return f"{text}, text only: {proxy.model} failed" if failed else f"{text}, images through {proxy.model}"
        case VisionMode.NATIVE, _:
            return f"{text}, sees images itself"
        case _:
            return f"{text}, text only"


def api_settings(config: Config, secret: str | None = None) -> ApiSettings:
    """Pure: what the HTTP side is told.

    Args:
        secret: of this user's server, from which nobody else can tell what it has sealed.
    """
    from periscope import __version__
    from periscope.api import ApiSettings

    server = config.server
    return ApiSettings(
        cors_origins=server.cors_origins,
        allowed_hosts=(server.host, *server.allowed_hosts),
        heartbeat_s=server.heartbeat_s,
        max_body_bytes=server.limits.max_body_bytes,
        max_body_bytes_in_flight=server.limits.body_bytes_in_flight,
        max_text_bytes=server.limits.max_text_bytes,
        receive_timeout_s=server.limits.receive_timeout_s,
        min_receive_rate=server.limits.min_receive_rate,
        max_requests_per_client=server.limits.max_requests_per_client,
        always_include_usage=server.always_include_usage,
        status_as_comments=server.status_as_comments,
        anthropic_model=server.anthropic_model,
        has_mcp_endpoint=server.mcp_endpoint.enabled,
        reasoning_secret=secret,
        version=__version__,
    )
