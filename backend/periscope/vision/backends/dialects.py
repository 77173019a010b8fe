"""The differences between the OpenAI-compatible servers that caption, as data. Pure.

What does not differ: pictures come as `image_url` parts of a user message, whose `url` is a data URL inside an object;
models are listed by `GET models`; the shapes of their errors are all read by `remote.refusals`: vLLM's
`{"error": {"message", "type", "param", "code"}}`, the flat `{"object": "error", "message", ...}` of LMDeploy, of
TensorRT-LLM and of older vLLM, and FastAPI's `{"detail": ...}` of Triton.

Sources: vLLM, "OpenAI-Compatible Server" and `entrypoints/openai`; LMDeploy, "OpenAI Compatible Server" (multi_modal)
and `serve/openai/endpoints`; Triton Inference Server, "OpenAI-Compatible Frontend" and its
`frontend/fastapi/routers`; TensorRT-LLM, "trtllm-serve".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Dialect:
    """How requests to one kind of server are made.

    Attributes:
        server: the product's name.
        health_paths: relative to the base URL; the first one that exists tells whether the server is healthy. None =
            the model listing tells it.
        extra_body: fields of every caption request. Thinking is switched off where a field for it is documented.
        blind_words: parts of the message, in lower case, with which it refuses an image that its model cannot see.
        example_url: its default base URL.
    """

    server: str
    health_paths: tuple[str, ...] = ()
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    blind_words: tuple[str, ...] = ()
    example_url: str = "http://127.0.0.1:8000/v1"


#: For any server: the words of servers that are not in the table, Periscope's among them, and of text-only chat
#: templates for a list of parts.
_BLIND_WORDS: Final = (
    "takes no images",
    "not a multimodal model",
    "not support image",
    "not support vision",
    "does not support multimodal",
    "no image processor",
    "image input",
    "only text content",
)

#: LMDeploy and vLLM hand these to the chat template; a template without such a switch ignores it.
_NO_THINKING: Final = MappingProxyType({"chat_template_kwargs": {"enable_thinking": False}})

DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        "vllm": Dialect(
            "vLLM",
            health_paths=("../health",),
            extra_body=_NO_THINKING,
            blind_words=(*_BLIND_WORDS, "at most 0 image"),
        ),
        "lmdeploy": Dialect(
            "LMDeploy",
            health_paths=("../health",),
            extra_body=_NO_THINKING,
            blind_words=_BLIND_WORDS,
            example_url="http://127.0.0.1:23333/v1",
        ),
        # Two programs: Triton's own frontend, and `trtllm-serve`, which refuses fields that it does not know.
        "triton": Dialect(
            "Triton",
            health_paths=("../health/ready", "../health"),
            blind_words=(*_BLIND_WORDS, "unknown modality"),
            example_url="http://127.0.0.1:9000/v1",
        ),
        "openai": Dialect("your server", blind_words=_BLIND_WORDS),
    }
)
