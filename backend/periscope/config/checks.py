"""Checks across several keys: names that clash, proxies without a captioner, a host open to everyone. Pure.

The checks read the raw values, so that their problems are reported together with the type errors. Values of a wrong
type are skipped here, because the schema reports them.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeAlias

from pydantic import ValidationError

from periscope.config.document import Document, Problem
from periscope.config.keys import Loc, dotted, section_at, settings
from periscope.config.schema import ModelEntry, ServerConfig, ServerLimits
from periscope.config.section import PATTERN_MEANINGS, fields_of
from periscope.config.vision_schema import READER_KINDS, RemoteConfig, read_vision_mode
from periscope.core import DEFAULT_NAME, ModelKind, VisionMode
from periscope.demo import EMBEDDED, EMBEDDED_MODELS

_MAX_SHOWN = 60
#: Where a model comes from; an entry has one of them.
_SOURCES = ("hf_id", "local_path", "remote")
#: Keys that mean something in an entry with `remote`.
_OF_REMOTE = ("name", "aliases", "remote")

#: A value that is refused may be the key itself, in a place where its hash belongs.
_UNSHOWN = (("api_key",), ("hash",))

_Entry: TypeAlias = tuple[Loc, dict[str, Any]]


@dataclass(slots=True)
class _Owners:
    """The first value that uses each name or alias, and the first entry of each repository."""

    by_name: dict[str, Loc] = field(default_factory=dict)
    by_hub_id: dict[str, Loc] = field(default_factory=dict)

    def captioner(self, key: str, value: object) -> Loc | None:
        """The entry that a proxy's `key: value` names."""
        if key == "reader" and value in READER_KINDS:
            return None
        table = {"model": self.by_name, "hf_id": self.by_hub_id, "reader": self.by_name}.get(key, {})
        return table[value][:2] if isinstance(value, str) and value in table else None


def schema_problems(document: Document, error: ValidationError) -> Iterator[Problem]:
    """Pure: one problem for each error of the schema, in terms of the file's keys."""
    for detail in error.errors(include_url=False):
        loc = detail["loc"]
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items were refused one by one
        yield Problem(document.origin(loc), f"{dotted(loc) or 'the file'} {_said(loc, dict(detail))}")


def model_problems(document: Document) -> Iterator[Problem]:
    """Pure: conflicts between the entries of `models`."""
    entries, owners = list(_entries(document.tree)), _Owners()
    for loc, entry in entries:
        yield from _source_problems(document, loc, entry)
        yield from _name_problems(document, loc, entry, owners)
    for loc, entry in entries:
        yield from _vision_problems(document, loc, entry, owners)
    yield from _default_problems(document, entries, owners)
    yield from _anthropic_problems(document, entries, owners)


def server_problems(document: Document) -> Iterator[Problem]:
    """Pure: a server that other machines can reach needs an API key, and the largest body must fit its bound."""
    server = _mapping(_mapping(document.tree).get("server"))
    host = server.get("host")
    has_key = server.get("api_key") is not None or bool(server.get("api_keys"))
    is_open = isinstance(host, str) and not is_loopback(host) and server.get("tcp") is not False
    if is_open and not has_key:
        fix = f"set PERISCOPE_SERVER__API_KEY or server.api_keys, or listen on {ServerConfig().host}"
        yield _problem(document, ("server", "host"), f"{host!r} lets others in, so it needs an API key: {fix}")
    yield from _key_problems(document, server.get("api_keys"))
    yield from _listener_problems(document, server)
    try:
        limits = ServerLimits.model_validate(_mapping(server.get("limits")))
    except ValidationError:
        return
    if limits.body_bytes_in_flight < limits.max_body_bytes:
        yield _problem(
            document,
            ("server", "limits", "max_body_bytes_in_flight"),
            f"is {limits.body_bytes_in_flight} bytes, less than one body may have (max_body_bytes is "
            f"{limits.max_body_bytes}): raise it, lower that, or leave it unset",
        )


def _listener_problems(document: Document, server: dict[str, Any]) -> Iterator[Problem]:
    """Problems of a server that listens nowhere, and of TLS with one of its two files."""
    if server.get("tcp") is False and server.get("uds") is None:
        fix = "set server.uds or give --uds PATH"
        yield _problem(document, ("server", "tcp"), f"is false, so there must be a Unix socket to listen on: {fix}")
    tls = _mapping(server.get("tls"))
    given = [key for key in ("cert", "key") if tls.get(key) is not None]
    if len(given) == 1:
        missing = "key" if given == ["cert"] else "cert"
        yield _problem(document, ("server", "tls", given[0]), f"needs {missing} beside it")


def _key_problems(document: Document, keys: object) -> Iterator[Problem]:
    """Problems of keys whose names or hashes stand twice, so that nobody could tell which of them was used."""
    seen: dict[tuple[str, object], int] = {}
    for index, entry in enumerate(keys if isinstance(keys, list) else []):
        for part in ("name", "hash"):
            value = _mapping(entry).get(part)
            if not isinstance(value, str):
                continue
            first = seen.setdefault((part, value), index)
            if first != index:
                line = document.origin(("server", "api_keys", first, part)).line
                yield _problem(document, ("server", "api_keys", index, part), f"is already taken in line {line}")


def is_loopback(host: str) -> bool:
    """Pure: whether only programs on this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _said(loc: Loc, detail: dict[str, Any]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return f"is not a known key{_key_hint(loc)}"
    if kind == "missing":
        return f"is missing{_meaning(loc)}"
    said = {
        "too_short": "should not be empty",
        "model_type": "should be a mapping of keys to values",
        "tuple_type": "should be a list",
        "dict_type": "should be a mapping of keys to values",
        "string_pattern_mismatch": PATTERN_MEANINGS.get(detail.get("ctx", {}).get("pattern"), ""),
    }.get(kind)
    if kind == "value_error":
        said = str(detail["ctx"]["error"])
    said = said or detail["msg"].replace("Input should be", "should be").replace("String should", "should")
    return said if loc[-1:] in _UNSHOWN else f"{said}, got {_shown(value)}"


def _meaning(loc: Loc) -> str:
    """The description of a missing key for the message; `models` and a model's `name` need none."""
    section = section_at(loc[:-1])
    field = fields_of(section).get(str(loc[-1])) if section is RemoteConfig else None
    return f": {field.description}" if field is not None else ""


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list" if value else "an empty list"
    text = json.dumps(value, default=str) if isinstance(value, bool | float | None) else repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def _key_hint(loc: Loc) -> str:
    key, section = str(loc[-1]), section_at(loc[:-1])
    fields = fields_of(section) if section else {}
    near = get_close_matches(key, fields, n=1) or [name for name in fields if name.endswith(f"_{key}")]
    if near:
        return f"; did you mean {near[0]}?"
    elsewhere = [place for place, _ in settings() if place.rpartition(".")[2] == key]
    return f"; did you mean {elsewhere[0]}?" if elsewhere else ""


def _source_problems(document: Document, loc: Loc, entry: dict[str, Any]) -> Iterator[Problem]:
    given = [key for key in _SOURCES if key in entry and (*loc, key) not in document.empty]
    if len(given) != 1:
        which = " and ".join(given) if given else "none of hf_id, local_path and remote"
        yield _problem(document, loc, f"has {which}; give one")
    folder = entry.get("local_path")
    if isinstance(folder, str) and folder.startswith(EMBEDDED) and folder not in EMBEDDED_MODELS:
        fault = f"should be one of {', '.join(EMBEDDED_MODELS)}, or a directory, got {_shown(folder)}"
        yield _problem(document, (*loc, "local_path"), fault)
    if _is_remote(entry):
        yield from _remote_problems(document, loc, entry)


def _remote_problems(document: Document, loc: Loc, entry: dict[str, Any]) -> Iterator[Problem]:
    """Problems of keys that have no effect, because the entry's model runs on another server."""
    for key in fields_of(ModelEntry):
        if key not in _OF_REMOTE and entry.get(key) is not None:
            fault = "is for a model that runs here, and this one is on another server (remote); remove it"
            yield _problem(document, (*loc, key), fault)
    for key in _mapping(entry["remote"].get("extra_body")):
        if key in ("model", "messages", "stream", "stream_options"):
            yield _problem(document, (*loc, "remote", "extra_body"), f"cannot set {key}, which is ours; remove it")


def _name_problems(document: Document, loc: Loc, entry: dict[str, Any], owners: _Owners) -> Iterator[Problem]:
    """Problems of names and aliases. Fills `owners`."""
    if isinstance(entry.get("hf_id"), str):
        owners.by_hub_id.setdefault(entry["hf_id"], loc)
    for place, name in _names(loc, entry):
        first = owners.by_name.setdefault(name, place)
        if first != place:
            line = document.origin(first).line
            yield _problem(document, place, f"{name!r} is already taken by {dotted(first)} in line {line}")


def _names(loc: Loc, entry: dict[str, Any]) -> Iterator[tuple[Loc, str]]:
    aliases = entry.get("aliases")
    if isinstance(entry.get("name"), str):
        yield (*loc, "name"), entry["name"]
    for index, alias in enumerate(aliases if isinstance(aliases, list) else []):
        if isinstance(alias, str):
            yield (*loc, "aliases", index), alias
    variants = entry.get("variants")
    for index, variant in enumerate(variants if isinstance(variants, list) else []):
        if isinstance(variant, dict) and isinstance(variant.get("name"), str):
            yield (*loc, "variants", index, "name"), variant["name"]


def _vision_problems(document: Document, loc: Loc, entry: dict[str, Any], owners: _Owners) -> Iterator[Problem]:
    capabilities, here = _mapping(entry.get("capabilities")), (*loc, "capabilities")
    mode, proxy = capabilities.get("vision_mode"), capabilities.get("vision_proxy")
    if proxy is None and _mode(mode) is VisionMode.PROXY:
        place = (*here, "vision_mode")
        yield _problem(document, place, "is proxy, so vision_proxy must name the captioner: model or hf_id")
    if not isinstance(proxy, dict):
        return
    at = (*here, "vision_proxy")
    if mode is None:
        yield _problem(document, at, "is set but vision_mode is not; add vision_mode: proxy")
    named = [key for key in ("model", "hf_id") if proxy.get(key) is not None]
    if len(named) > 1 or (not named and _mode(mode) is not VisionMode.NATIVE):
        yield _problem(document, at, f"has {'both' if named else 'neither'} of model and hf_id; give one")
    for key in (*named, *(["reader"] if proxy.get("reader") not in (None, *READER_KINDS) else [])):
        fault = _captioner_fault(document.tree, key, proxy[key], loc, owners)
        if fault:
            yield _problem(document, (*at, key), f"{proxy[key]!r} {fault}")


def _captioner_fault(tree: Any, key: str, value: object, loc: Loc, owners: _Owners) -> str | None:
    """Why what `key: value` names cannot caption for the entry at `loc`, None if it can."""
    target = owners.captioner(key, value)
    if target is None:
        if key == "hf_id" or not isinstance(value, str):
            return None  # an entry is added for the repository, or the schema refuses it
        kinds = READER_KINDS if key == "reader" else ()
        near = get_close_matches(value, (*kinds, *owners.by_name), n=1)
        nothing = f"is none of {', '.join(kinds)}, and names no model" if kinds else "names no model"
        return f"{nothing} of this file" + (f"; did you mean {near[0]}?" if near else "")
    if target == loc:
        return "is the model itself; if it can see, use vision_mode: native"
    owner = tree["models"][target[1]]
    if _is_embedder(owner):
        return "is an embedding model, so it cannot see; if it is none, set kind: text for it"
    if _proxy(owner) and _vision_mode(owner) is not VisionMode.NATIVE:
        return "has a vision_proxy of its own, so it cannot see"
    return None


def _default_problems(document: Document, entries: list[_Entry], owners: _Owners) -> Iterator[Problem]:
    first = next(_text_models(entries, owners), None)
    if entries and all(_is_remote(entry) for _, entry in entries):
        yield _problem(document, ("models",), "holds captioners only (remote); add the text model that clients ask")
    owner = owners.captioner("model", DEFAULT_NAME)
    if owner is not None and first is not None and owner != first:
        means = f"is called {DEFAULT_NAME!r}, which always means the first text model; move it to the front"
        yield _problem(document, owner, means)


def _text_models(entries: list[_Entry], owners: _Owners) -> Iterator[Loc]:
    named = {owners.captioner(key, value) for _, entry in entries for key, value in _proxy(entry).items()}
    return (
        loc
        for loc, entry in entries
        if not _is_embedder(entry) and (_answers(entry) or not (loc in named or _is_remote(entry)))
    )


def _anthropic_problems(document: Document, entries: list[_Entry], owners: _Owners) -> Iterator[Problem]:
    place = ("server", "anthropic_model")
    asked = _mapping(_mapping(document.tree).get("server")).get("anthropic_model")
    if not isinstance(asked, str) or asked == DEFAULT_NAME:
        return
    target = owners.captioner("model", asked) or owners.captioner("hf_id", asked)
    if target is None:
        near = get_close_matches(asked, owners.by_name, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield _problem(document, place, f"{asked!r} names no model of this file{hint}")
    elif target not in _text_models(entries, owners):
        is_embedder = _is_embedder(document.tree["models"][target[1]])
        other_work = "only embeds texts" if is_embedder else "only captions images"
        yield _problem(document, place, f"{asked!r} {other_work}; name a text model")


def _problem(document: Document, loc: Loc, text: str) -> Problem:
    return Problem(document.origin(loc), f"{dotted(loc)} {text}")


def _is_remote(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("remote"), dict)


def _is_embedder(entry: dict[str, Any]) -> bool:
    return bool(entry.get("kind") == ModelKind.EMBEDDING)


def _proxy(entry: dict[str, Any]) -> dict[str, Any]:
    return _mapping(_mapping(entry.get("capabilities")).get("vision_proxy"))


def _answers(entry: dict[str, Any]) -> bool:
    """Whether the entry is a text model even if another entry names it as its captioner."""
    return bool(_proxy(entry)) or _vision_mode(entry) is VisionMode.NATIVE


def _vision_mode(entry: dict[str, Any]) -> VisionMode | None:
    return _mode(_mapping(entry.get("capabilities")).get("vision_mode"))


def _mode(value: object) -> VisionMode | None:
    try:
        return read_vision_mode(value)
    except ValueError:
        return None


def _entries(tree: Any) -> Iterator[_Entry]:
    models = _mapping(tree).get("models")
    for index, entry in enumerate(models if isinstance(models, list) else []):
        if isinstance(entry, dict):
            yield ("models", index), entry


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
