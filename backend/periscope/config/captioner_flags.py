"""`--vlm-backend`, `--vlm-base-url`, `--vlm-model` and `--vlm-timeout`: the captioner that they ask for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from periscope.config.document import Problem, config_error
from periscope.config.layers import flag_origin
from periscope.config.section import PATTERN_MEANINGS
from periscope.config.vision_schema import RemoteConfig, VisionProxyConfig

#: The backend that runs in this server.
LOCAL = "mlx"
BACKENDS = (LOCAL, *get_args(RemoteConfig.model_fields["backend"].annotation))


@dataclass(frozen=True, slots=True)
class CaptionerFlags:
    """What the flags ask for; at most one of `model` and `remote` is set.

    Attributes:
        model: a captioner on this machine: a name, a hub id or a directory.
        remote: a captioner on another server.
        timeout_s: for all captions of a request; None = as configured.
    """

    model: str | None = None
    remote: RemoteConfig | None = None
    timeout_s: float | None = None


def read_captioner_flags(flags: Mapping[str, object]) -> CaptionerFlags:
    """What `--vision-model` and the `--vlm-...` flags ask for together.

    Raises:
        ConfigError: they contradict each other, or one is missing; the message names the flag and the fix.
    """
    backend, base_url, model = (flags.get(f"vlm_{key}") for key in ("backend", "base_url", "model"))
    vision_model, timeout_s = flags.get("vision_model"), _timeout_s(flags.get("vlm_timeout"))
    if backend is not None and backend not in BACKENDS:
        raise _refusal("vlm_backend", f"{str(backend)!r} is no backend; the backends are {', '.join(BACKENDS)}")
    if vision_model is not None and (model is not None or base_url is not None):
        raise _refusal("vision_model", "names a captioner, and so does --vlm-model; give one of them")
    if backend in (None, LOCAL):
        wanted = vision_model if model is None else model
        return CaptionerFlags(_local(backend, base_url, wanted), timeout_s=timeout_s)
    if vision_model is not None:
        raise _refusal("vision_model", f"is a model that runs here, not one of {backend}; say --vlm-model instead")
    return CaptionerFlags(remote=_remote(str(backend), base_url, model), timeout_s=timeout_s)


def _local(backend: object, base_url: object, model: object) -> str | None:
    if base_url is not None:
        servers = ", ".join(BACKENDS[1:])
        raise _refusal("vlm_base_url", f"is for captioners on other servers; add --vlm-backend: {servers}")
    if backend == LOCAL and model is None:
        raise _refusal("vlm_backend", "needs --vlm-model: the captioner's name, hub id or directory")
    return None if model is None else str(model)


def _remote(backend: str, base_url: object, model: object) -> RemoteConfig:
    if base_url is None:
        raise _refusal("vlm_backend", f"{backend} needs --vlm-base-url, such as http://127.0.0.1:8000/v1")
    if model is None:
        raise _refusal("vlm_backend", f"{backend} needs --vlm-model: an id that GET {base_url}/models lists")
    try:
        return RemoteConfig.model_validate({"backend": backend, "base_url": base_url, "model": model})
    except ValidationError as error:
        flag = f"vlm_{error.errors()[0]['loc'][0]}"
        raise _refusal(flag, _said(error)) from None


def _timeout_s(value: object) -> float | None:
    if value is None:
        return None
    try:
        return VisionProxyConfig.model_validate({"timeout_s": value}).timeout_s
    except ValidationError as error:
        raise _refusal("vlm_timeout", _said(error)) from None


def _said(error: ValidationError) -> str:
    detail: dict[str, Any] = dict(error.errors(include_url=False)[0])
    meaning = PATTERN_MEANINGS.get(detail.get("ctx", {}).get("pattern"))
    said = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else meaning or detail["msg"]
    return f"{said.replace('Input should', 'should')}, got {detail['input']!r}"


def _refusal(flag: str, text: str) -> Exception:
    return config_error([Problem(flag_origin(flag), text)])
