"""The byte-level BPE tokenizer of the demo text model, trained on its own chats.

Words are split from the space before them, so a name has the same tokens after a space, in quotes and in a
caption: copying needs no second spelling. Only the most frequent lower-case words carry their space. Digits
stand alone. Any UTF-8 text can be encoded (bytes).
"""

from __future__ import annotations

import random
import re
from collections import Counter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.text.chats import sample_chat
from training.text.template import render

VOCABULARY = 1536
JOINED_WORDS = 420
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>")


def sample_texts(count: int, seed: int) -> list[str]:
    """The texts of some training chats."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        chat = sample_chat(rng)
        texts.append("".join(text for text, _ in render(chat.messages, chat.tools)))
    return texts


def pattern(joined: list[str]) -> str:
    """The regular expression that cuts text into pre-tokens."""
    words = "|".join(sorted(joined, key=len, reverse=True))
    return f" (?:{words})(?![A-Za-z])|[A-Za-z]+|[0-9]| |\\n|[^\\sA-Za-z0-9]+|\\s"


def train_tokenizer(chats: int = 12000, seed: int = 7) -> Tokenizer:
    """A tokenizer of ``VOCABULARY`` entries; the same seed gives the same tokenizer."""
    texts = sample_texts(chats, seed)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"(?<= )[a-z]+(?![A-Za-z])", text))
    joined = [word for word, _ in counts.most_common(JOINED_WORDS)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern(joined)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    markers = [AddedToken(token, special=False, normalized=False) for token in MARKERS]
    cleaned = [re.sub("|".join(re.escape(t) for t in SPECIAL + MARKERS), "\n", text) for text in texts]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKERS),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(cleaned, trainer)
    tokenizer.add_tokens(markers)
    return tokenizer
