"""Batches of token ids for training the demo text model: chats and copying drills, packed by length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.text.chats import Chat, sample_chat
from training.text.template import render

LENGTHS = (128, 192, 256, 384, 512, 1024)
BATCH_TOKENS = 4096
EVEN_ANSWER_TOKENS = 16  # longer answers weigh as much as one of this length
DENSE_SHARE = 0.8
PLAIN_SHARE = 0.6
FIRST_COMMON_ID = 3  # ids below are special tokens
Row = tuple[list[int], list[float]]


@dataclass(frozen=True, slots=True)
class Batch:
    """``ids`` (rows, length); ``weights`` of predicting each id: 0 for prompts, negative for padding."""

    ids: Tensor
    weights: Tensor


def encode(tokenizer: Tokenizer, chat: Chat) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a chat and the (start, end) of each answer, its end token included."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for text, is_answer in render(chat.messages, chat.tools):
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        if is_answer:
            spans.append((len(ids), len(ids) + len(tokens)))
        ids += tokens
    return ids, spans


def chat_row(tokenizer: Tokenizer, chat: Chat) -> Row:
    """Ids and loss weights of a chat."""
    ids, spans = encode(tokenizer, chat)
    weights = [0.0] * len(ids)
    for start, end in spans:
        weights[start:end] = [min(1.0, EVEN_ANSWER_TOKENS / (end - start))] * (end - start)
    return ids, weights


def drill_row(rng: random.Random, vocabulary: int) -> Row:
    """An induction drill: a random run repeated, or pairs of which the second halves are asked again."""
    length = rng.choice(LENGTHS[:2])
    common = range(FIRST_COMMON_ID, vocabulary)
    if rng.random() < 0.6:
        run = rng.choices(common, k=rng.randint(6, 60))
        ids = (run * (length // len(run) + 1))[:length]
        return ids, [0.0] * len(run) + [0.5] * (length - len(run))
    count = rng.randint(4, 20)
    keys = rng.sample(common, count)
    values = [rng.choices(common, k=rng.randint(1, 3)) for _ in keys]
    ids, weights = [], []
    for key, value in zip(keys, values, strict=True):
        ids += [key, *value]
    weights = [0.0] * len(ids)
    while len(ids) < length - 4:
        pick = rng.randrange(count)
        ids += [keys[pick], *values[pick]]
        weights += [0.0] + [0.5] * len(values[pick])
    return ids, weights


class Batches:
    """Endless batches; owns the queues of rows waiting for company of their length."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self.drill_share = 0.0
        self.queues: dict[int, list[Row]] = {length: [] for length in LENGTHS}

    def __iter__(self) -> Iterator[Batch]:
        """Batches of ``BATCH_TOKENS`` tokens, padded to one of ``LENGTHS``."""
        vocabulary = self.tokenizer.get_vocab_size()
        while True:
            drill = self.rng.random() < self.drill_share
            if drill:
                row = drill_row(self.rng, vocabulary)
            else:
                plain = self.rng.random() < PLAIN_SHARE
                dense = not plain and self.rng.random() < DENSE_SHARE
                row = chat_row(self.tokenizer, sample_chat(self.rng, dense=dense, plain=plain))
            length = next((n for n in LENGTHS if len(row[0]) <= n), None)
            if length is None:
                continue
            queue = self.queues[length]
            queue.append(row)
            if len(queue) == BATCH_TOKENS // length:
                self.queues[length] = []
                yield pad(queue, length)


def pad(rows: list[Row], length: int) -> Batch:
    """One batch; padding has weight -1."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.full((len(rows), length), -1.0)
    for index, (row, weight) in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        weights[index, : len(row)] = torch.tensor(weight)
    return Batch(ids, weights)
