"""Environment and flags, laid over the file's values. Pure: both are passed in.

Environment names are the file's keys: `PERISCOPE_` + the key in capitals, `__` for each dot
(`server.limits.max_body_bytes` is `PERISCOPE_SERVER__LIMITS__MAX_BODY_BYTES`). Lists are separated by commas;
a variable set to nothing counts as unset. `env_names` is the whole table. Keys inside `models` and `mcp_servers` have
no variable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from periscope.config.document import Document, Origin, Problem
from periscope.config.keys import Loc, section_at, settings
from periscope.config.mcp_schema import named_variables
from periscope.config.schema import ConfigFile
from periscope.config.section import fields_of

ENV_PREFIX = "PERISCOPE_"
#: Which file to read, in this order before the usual places; not keys of the file.
ENV_CONFIG, ENV_HOME = "PERISCOPE_CONFIG", "PERISCOPE_HOME"
#: Read elsewhere: which server the client commands talk to.
ENV_URL = "PERISCOPE_URL"

#: Standard variables of OpenTelemetry: where traces go, which means that they are wanted. The SDK reads them, too.
OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACING: Loc = ("server", "tracing")

#: Flags that set a key. The others choose models and are applied when models are resolved.
FLAG_KEYS: dict[str, Loc] = {
    "host": ("server", "host"),
    "port": ("server", "port"),
    "tcp": ("server", "tcp"),
    "uds": ("server", "uds"),
    "tls_cert": ("server", "tls", "cert"),
    "tls_key": ("server", "tls", "key"),
}
FLAGS = (*FLAG_KEYS, "model", "vision_model", "vlm_backend", "vlm_base_url", "vlm_model", "vlm_timeout")


def env_names() -> dict[str, str]:
    """Pure: variable -> key, for every key that the environment can set."""
    keys = [key for key, _ in settings() if "[]" not in key]
    return {ENV_PREFIX + key.upper().replace(".", "__"): key for key in keys}


def flag_origin(flag: str) -> Origin:
    """Pure: the name of a flag in messages and in `config show`."""
    return Origin(f"flag --{flag.replace('_', '-')}")


def lay_environment(document: Document, env: Mapping[str, str]) -> None:
    """Put every `PERISCOPE_*` variable over the document; unknown ones are problems, except API keys.

    A collector in the environment switches tracing on, unless the document or its own variable says otherwise.
    """
    collector = next((name for name in OTLP_ENDPOINTS if env.get(name)), None)
    if collector is not None and _TRACING not in document.origins and env.get("OTEL_SDK_DISABLED") != "true":
        document.put(_TRACING, True, Origin(f"env {collector}"))
    known, keys = env_names(), {*_names_of_keys(document.tree), *named_variables(document.tree)}
    for name in sorted(env):
        if not name.startswith(ENV_PREFIX) or name in (ENV_CONFIG, ENV_HOME, ENV_URL, *keys):
            continue
        origin = Origin(f"env {name}")
        if name in known:
            _lay(document, tuple(known[name].split(".")), env[name], origin)
        else:
            document.problems.append(Problem(origin, f"is not read by Periscope{_did_you_mean(name, known)}"))


def _names_of_keys(tree: Any) -> Iterator[str]:
    """The variables that entries name in `remote.api_key_env`."""
    models = tree.get("models") if isinstance(tree, dict) else None
    for entry in models if isinstance(models, list) else []:
        remote = entry.get("remote") if isinstance(entry, dict) else None
        name = remote.get("api_key_env") if isinstance(remote, dict) else None
        if isinstance(name, str):
            yield name


def lay_flags(document: Document, flags: Mapping[str, object]) -> None:
    """Put the flags that set a key over the document. A flag that is None was not given."""
    for flag, loc in FLAG_KEYS.items():
        if (value := flags.get(flag)) is not None:
            _lay(document, loc, value, flag_origin(f"no-{flag}" if value is False else flag))


def _lay(document: Document, loc: Loc, value: object, origin: Origin) -> None:
    field = _field_at(loc)
    if isinstance(value, str):
        value = _from_text(field, value)
    if value != "":
        document.put(loc, value, origin)


def _field_at(loc: Loc) -> FieldInfo:
    section = section_at(loc[:-1]) or ConfigFile
    return fields_of(section)[str(loc[-1])]


def _from_text(field: FieldInfo, text: str) -> Any:
    """The text as the field's type, without its bounds. Text that does not fit is kept, and the schema refuses it."""
    if get_origin(field.annotation) is tuple:
        return [item.strip() for item in text.split(",") if item.strip()] or ""
    try:
        return TypeAdapter[Any](field.annotation or str).validate_python(text)
    except ValidationError:
        return text


def _did_you_mean(name: str, known: Mapping[str, str]) -> str:
    tails = {variable: variable for variable in known} | {
        ENV_PREFIX + variable.rpartition("__")[2]: variable for variable in known
    }
    near = get_close_matches(name, tails, n=1, cutoff=0.8)
    return f"; did you mean {tails[near[0]]}?" if near else ""
