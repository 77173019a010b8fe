"""Grammars: a text model's `GrammarCompiler`, made and imported with the first output that is to be constrained."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from periscope.core import AnswerGrammar, OutputFormat, OutputSpec, ResponseFormat
    from periscope.engine.structured.compiler import GrammarCompiler
    from periscope.engine.structured.constraint import Constraint
    from periscope.engine.structured.matcher import Grammar


class Grammars:
    """Owns the compiler from its first use on. Thread-safe; blocks while compiling. The arguments are the compiler's.

    Many a server never constrains an output. llguidance and what is written around it take 3 MiB and 20 ms.
    """

    def __init__(
        self, tokenizer: Any, *, vocab_size: int, eos_token_ids: Iterable[int], output_format: OutputFormat
    ) -> None:
        known = [token_id for token_id in eos_token_ids if token_id < vocab_size]  # what is no number fails at the load
        self._lock = threading.Lock()
        self._compiler: GrammarCompiler | None = None
        self._make: Callable[[], GrammarCompiler] = partial(
            _compiler, tokenizer, vocab_size=vocab_size, eos_token_ids=known, output_format=output_format
        )

    def constraint(self, spec: OutputSpec, *, starts_in_reasoning: bool) -> Constraint:
        """As `GrammarCompiler.constraint`."""
        return self._own().constraint(spec, starts_in_reasoning=starts_in_reasoning)

    def of_text(self, answer: ResponseFormat | AnswerGrammar) -> Grammar:
        """As `GrammarCompiler.of_text`."""
        return self._own().of_text(answer)

    def _own(self) -> GrammarCompiler:
        with self._lock:
            if self._compiler is None:
                self._compiler = self._make()
            return self._compiler


def _compiler(tokenizer: Any, **facts: Any) -> GrammarCompiler:
    from periscope.engine.structured.compiler import GrammarCompiler

    return GrammarCompiler(tokenizer, **facts)
