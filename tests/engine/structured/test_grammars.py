"""A model's grammars cost nothing until an output is constrained, and from then on what its compiler costs, once."""

from __future__ import annotations

from mlx_lm.utils import load_tokenizer

from periscope.core import OutputFormat, ResponseFormat
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.structured.grammars import Grammars


def test_a_schema_that_comes_again_is_compiled_once() -> None:
    """The compiler, which keeps the grammars and the vocabulary's trie, stays when it was made."""
    tokenizer = load_tokenizer(EMBEDDED_MODELS["embedded:text"])
    grammars = Grammars(
        tokenizer,
        vocab_size=len(tokenizer.get_vocab()),
        eos_token_ids=tokenizer.eos_token_ids,
        output_format=OutputFormat(),
    )
    schema = ResponseFormat({"type": "object"})
    assert grammars.of_text(schema) is grammars.of_text(schema)
