"""A tokenizer for tests of grammars, and simulated models that write without sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from periscope.core import OutputFormat
from periscope.engine.structured.compiler import GrammarCompiler
from periscope.engine.structured.matcher import Grammar, Matcher
from periscope.engine.text.token_text import TokenTable

#: Logits beyond the tokenizer's last token, as padded vocabularies have them.
NUM_PADDED = 77


@dataclass
class Vocabulary:
    """A tokenizer and the facts about it that tests need."""

    tokenizer: Any
    eos: frozenset[int]

    def __post_init__(self) -> None:
        self.size = len(self.tokenizer)
        self.table = TokenTable(self.tokenizer)
        self._ids: dict[str, tuple[int, ...]] = {}

    def compiler(self, output_format: OutputFormat = OutputFormat()) -> GrammarCompiler:
        return GrammarCompiler(
            self.tokenizer, vocab_size=self.size + NUM_PADDED, eos_token_ids=self.eos, output_format=output_format
        )

    def ids(self, text: str) -> list[int]:
        if (ids := self._ids.get(text)) is None:
            ids = self._ids[text] = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return list(ids)

    def allowed(self, matcher: Matcher, num_left: int | None = None) -> list[int]:
        bits = np.unpackbits(matcher.allowed_bits(num_left).view(np.uint8), bitorder="little")
        assert len(bits) == -(-(self.size + NUM_PADDED) // 32) * 32
        allowed: list[int] = np.flatnonzero(bits).tolist()
        assert not allowed or allowed[-1] < self.size, "a padded id is allowed"
        return allowed

    def accepts(self, grammar: Grammar, text: str) -> bool:
        """Whether the grammar allows a completion of these tokens, and its end."""
        matcher = grammar.new_matcher()
        for token in self.ids(text):
            if token not in self.allowed(matcher):
                return False
            matcher.consume(token)
        return self.eos <= set(self.allowed(matcher))

    def repeat(self, grammar: Grammar, wishes: Sequence[str], max_tokens: int) -> tuple[str, bool]:
        """The output of a model that never ends by itself: it repeats the first of its wishes that is allowed.

        Returns:
            The text, and whether anything was held back from the model.
        """
        matcher, out, is_shortened = grammar.new_matcher(), b"", False
        wished = [token for text in wishes for token in self.ids(text)]
        for num_left in range(max_tokens, 0, -1):
            allowed = self.allowed(matcher, num_left)
            other = next((token for token in allowed if token not in self.eos), None)
            is_shortened |= matcher.excluded_bits is not None
            if other is None:
                break
            token = next((token for token in wished if token in allowed), other)
            out += self.table.text(token).utf8
            matcher.consume(token)
        return out.decode(errors="replace"), is_shortened

    def ramble(self, grammar: Grammar, random: Random, *, patience: int = 40) -> str:
        """The output of a model that chooses tokens at random, and closes brackets and quotes after a while."""
        matcher = grammar.new_matcher()
        out = b""
        for step in range(3000):
            allowed = self.allowed(matcher)
            others = [token for token in allowed if token not in self.eos]
            if len(others) < len(allowed) and (not others or step > patience or random.random() < 0.3):
                return out.decode()
            if step > patience:
                closing = '"' if random.random() < 0.5 else "}]"
                others = [token for token in others if self.table.text(token).text[:1] in {*closing}] or others
            token = random.choice(others)
            out += self.table.text(token).utf8
            matcher.consume(token)
        raise AssertionError(f"no end: {out[:100]!r}")

    def scheme(self, grammar: Grammar, random: Random, wishes: Sequence[str], *, patience: int = 60) -> str | None:
        """The output of a model that tries to break its format: pieces of `wishes` as far as allowed, and noise.

        None if it did not come to an end.
        """
        matcher = grammar.new_matcher()
        out, wish = b"", list[int]()
        for step in range(patience * 20):
            allowed = set(self.allowed(matcher))
            assert allowed, f"a dead end: {out!r}"
            others = sorted(allowed - self.eos)
            if not others or (self.eos <= allowed and not wish and random.random() < step / patience / 4):
                return out.decode()
            if not wish and random.random() < 0.8:
                text = random.choice(wishes)
                wish = self.ids(text[random.choice((0, 0, random.randrange(len(text)))) :])
            if wish and wish[0] in allowed:
                token = wish.pop(0)
            else:
                wish, token = [], random.choice(others)
            out += self.table.text(token).utf8
            matcher.consume(token)
        return None
