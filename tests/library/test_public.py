"""What `periscope` promises to programs: its names, and that importing it costs nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import periscope
from periscope import sync

NAMES = """
CaptionedImage ChatAnswer ChatCompletionError EngineConfig FinishReason Finished GenerationOutput GenerationParams
Image ImagePart InferenceEngine Message ModelCard OpenAIAdapter OutputEvent OutputSpec Periscope PeriscopeError
ReasoningDelta RequestError ResponseFormat Role TextDelta TextPart Tool ToolCall ToolCallDelta ToolCallStart
ToolChoice ToolChoiceMode Usage VisionUsage Waiting __version__ attachment picture FilePart
ConversationOptions ConversationResult HttpServer ResponsesSession StdioServer
CallOutcome CallStarted ConversationEvent ExecutedCall StopReason TurnStarted AnswerGrammar
CaptionerUnavailable ConfigError EngineClosed GenerationFailed ModelUnavailable ServerBusy ServerStopping
"""
METHODS = {"start", "close", "models", "chat", "stream", "caption", "embed"}


def methods_of(one: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(each)
        for name, each in vars(one).items()
        if inspect.isfunction(each) and not name.startswith("_")
    }


def test_the_public_names_are_these() -> None:
    """Whoever adds or removes one says so here."""
    assert set(periscope.__all__) == set(NAMES.split())
    assert all(getattr(periscope, name) is not None for name in periscope.__all__)


def test_both_twins_take_the_same() -> None:
    """The synchronous one has every method, with the same parameters in the same order."""
    ours, twins = methods_of(periscope.Periscope), methods_of(sync.Periscope)
    assert ours.keys() == twins.keys() == METHODS
    for name, signature in ours.items():
        assert str(signature.replace(return_annotation="")) == str(twins[name].replace(return_annotation=""))


def test_importing_it_imports_nothing_heavy() -> None:
    """MLX and FastAPI take seconds."""
    program = (
        "import sys, periscope; print([n for n in ('mlx', 'fastapi', 'numpy', 'openai', 'yaml') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)  # noqa: S603
    assert told.stdout.strip() == "[]"
