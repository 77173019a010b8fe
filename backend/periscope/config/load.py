"""Finds models.yaml, reads it, and puts the layers together: flags > environment > file > defaults.

The only reader of configuration files and of `os.environ`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from periscope.config.checks import model_problems, schema_problems, server_problems
from periscope.config.document import Document, Origin, Problem, config_error, read_document
from periscope.config.keys import Loc, dotted, leaves
from periscope.config.kinds import lay_kinds
from periscope.config.layers import ENV_CONFIG, ENV_HOME, FLAGS, lay_environment, lay_flags
from periscope.config.mcp_checks import mcp_problems, placed_server
from periscope.config.mcp_schema import McpServerConfig, variables_of
from periscope.config.places import Places, places
from periscope.config.resolve import absolute, resolve_models
from periscope.config.schema import (
    CaptionCacheConfig,
    ConfigFile,
    LogConfig,
    MemoryConfig,
    ModelConfig,
    PromptCacheConfig,
    ResponsesConfig,
    ServerConfig,
)
from periscope.config.section import Section
from periscope.core import ModelKind

FILE_NAME = "models.yaml"
CacheT = TypeVar("CacheT", CaptionCacheConfig, PromptCacheConfig)
_CAPTION_CACHE, _PROMPT_CACHE = "periscope/captions.sqlite3", "periscope/prompts"
DEFAULT_SOURCE = "default"
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one run of Periscope. Frozen.

    Attributes:
        models: in the order they are served; never empty, with at least one text model.
        idle_unload_s: None = never.
        captioner_share: of the device's time, while text is being generated.
        caption_cache, prompt_cache: their paths are always set, and absolute.
        path: the file it came from.
        places: where state and logs are kept.
        sources: `models[0].params.dtype` -> `flag --port`, `env PERISCOPE_SERVER__PORT`, `models.yaml:12`, `default`
            or (for `kind`, and for a path that nobody set) `derived`; every setting has its row.
        api_keys: of other servers, by the environment variable that models (`remote.api_key_env`) and MCP servers name
            and that is set.
        mcp_servers: with absolute paths.
    """

    models: tuple[ModelConfig, ...]
    server: ServerConfig
    memory: MemoryConfig
    caption_cache: CaptionCacheConfig
    prompt_cache: PromptCacheConfig
    responses: ResponsesConfig
    log: LogConfig
    idle_unload_s: float | None
    captioner_share: float
    path: Path
    places: Places
    sources: Mapping[str, str] = field(repr=False)
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    mcp_servers: tuple[McpServerConfig, ...] = ()

    @property
    def default_model(self) -> ModelConfig:
        """The first text model: what "" and "default" mean."""
        return next(model for model in self.models if model.kind is ModelKind.TEXT)


def load(
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    cwd: Path | None = None,
    home: Path | None = None,
) -> Config:
    """The configuration from `path` (else the first file of `find_file`), `env` (else os.environ) and `flags`.

    Args:
        flags: any of `FLAGS`; a value of None means not given.

    Raises:
        ConfigError: everything that cannot be used, each with file and line, variable or flag.
    """
    env, flags = os.environ if env is None else env, flags or {}
    cwd, home = cwd or Path.cwd(), home or Path.home()
    if unknown := set(flags) - set(FLAGS):
        raise TypeError(f"no such flags: {', '.join(sorted(unknown))}")
    path = find_file(path, env, cwd=cwd, home=home)
    document = read_document(_read_text(path), _label(path, cwd, home))
    lay_environment(document, env)
    lay_flags(document, flags)
    lay_kinds(document, env, folder=path.parent, home=home)
    file = _validate(document)
    models = resolve_models(file, document, flags, folder=path.parent, cwd=cwd)
    sources = _sources(file, document.origins)
    for name, cache in (("caption_cache", file.caption_cache), ("prompt_cache", file.prompt_cache)):
        if cache.path is None:
            sources[f"{name}.path"] = "derived"
    for index, (model, origins) in enumerate(models):
        sources |= _sources(model, origins, ("models", index))
    servers = tuple(placed_server(server, path.parent) for server in file.mcp_servers)
    for index, server in enumerate(servers):
        sources |= _sources(server, _within(document.origins, ("mcp_servers", index)), ("mcp_servers", index))
    return Config(
        models=tuple(model for model, _ in models),
        server=_server_placed(file.server, folder=path.parent),
        memory=file.memory,
        caption_cache=_placed(file.caption_cache, _CAPTION_CACHE, env, folder=path.parent, home=home),
        prompt_cache=_placed(file.prompt_cache, _PROMPT_CACHE, env, folder=path.parent, home=home),
        responses=file.responses,
        log=file.log,
        idle_unload_s=file.idle_unload_s,
        captioner_share=file.captioner_share,
        path=path,
        places=places(env, platform=sys.platform, cwd=cwd, home=home),
        sources=sources,
        api_keys=_api_keys((model for model, _ in models), servers, env),
        mcp_servers=servers,
    )


def _api_keys(
    models: Iterable[ModelConfig], servers: Iterable[McpServerConfig], env: Mapping[str, str]
) -> dict[str, str]:
    names = [model.remote.api_key_env for model in models if model.remote is not None]
    names += [name for server in servers for name in variables_of(server)]
    return {name: env[name] for name in names if name is not None and env.get(name)}


def _within(origins: Mapping[Loc, Origin], prefix: Loc) -> dict[Loc, Origin]:
    """The origins of an entry, by places within it."""
    return {loc[len(prefix) :]: origin for loc, origin in origins.items() if loc[: len(prefix)] == prefix}


def _server_placed(server: ServerConfig, *, folder: Path) -> ServerConfig:
    """The settings of the server, with absolute paths."""
    tls = {name: None if file is None else str(absolute(file, folder)) for name, file in server.tls}
    uds = None if server.uds is None else str(absolute(server.uds, folder))
    allow = tuple(str(absolute(each, folder)) for each in server.mcp_endpoint.allow)
    endpoint = server.mcp_endpoint.model_copy(update={"allow": allow})
    return server.model_copy(update={"uds": uds, "tls": server.tls.model_copy(update=tls), "mcp_endpoint": endpoint})


def _placed(cache: CacheT, usual: str, env: Mapping[str, str], *, folder: Path, home: Path) -> CacheT:
    """The settings of a cache on disk, with an absolute path; `usual` is the one below the user's caches."""
    if cache.path is not None:
        path = absolute(cache.path, folder)
    else:
        caches = env.get("XDG_CACHE_HOME", "")
        path = absolute(caches, home) / usual if caches else home / ".cache" / usual
    return cache.model_copy(update={"path": str(path)})


def find_file(path: Path | None, env: Mapping[str, str], *, cwd: Path, home: Path, package: Path = _PACKAGE) -> Path:
    """The file to read: `--config`, `$PERISCOPE_CONFIG`, else the first that exists of the usual places.

    Raises:
        ConfigError: the file that was asked for does not exist.
    """
    asked, origin = path, Origin("flag --config")
    if asked is None and env.get(ENV_CONFIG):
        asked, origin = Path(env[ENV_CONFIG]), Origin(f"env {ENV_CONFIG}")
    if asked is not None:
        found = absolute(str(asked), cwd)
        if not found.is_file():
            raise config_error([Problem(origin, f"there is no file {found}")])
        return found
    usual = [cwd / FILE_NAME, user_file(env, cwd=cwd, home=home), user_file({}, cwd=cwd, home=home)]
    shipped = [package / FILE_NAME, package.parents[1] / FILE_NAME]  # in a wheel, in a checkout
    for candidate in usual + shipped:
        if candidate.is_file():
            return candidate
    raise config_error([Problem(Origin(FILE_NAME), "is nowhere to be found; name one with --config")])


def user_file(env: Mapping[str, str], *, cwd: Path, home: Path) -> Path:
    """The user's own file, in $PERISCOPE_HOME or ~/.config/periscope, whether it exists or not. Pure."""
    own = absolute(env[ENV_HOME], cwd) if env.get(ENV_HOME) else home / ".config/periscope"
    return own / FILE_NAME


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise config_error([Problem(Origin(str(path)), reason)]) from error


def _label(path: Path, cwd: Path, home: Path) -> str:
    """The file's name in messages: the shortest one that is clear."""
    if path.is_relative_to(cwd):
        return str(path.relative_to(cwd))
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _validate(document: Document) -> ConfigFile:
    problems = [*document.problems, *model_problems(document), *server_problems(document), *mcp_problems(document)]
    try:
        file = ConfigFile.model_validate({} if document.tree is None else document.tree)
    except ValidationError as error:
        problems += schema_problems(document, error)
        raise config_error(problems) from None
    if problems:
        raise config_error(problems)
    document.forget_empty()
    return file


def _sources(section: Section, origins: Mapping[Loc, Origin], at: Loc = ()) -> dict[str, str]:
    return {
        dotted((*at, *loc)): origins[loc].text if loc in origins else DEFAULT_SOURCE
        for loc, _ in leaves(section)
        if loc not in (("models",), ("mcp_servers",))
    }
