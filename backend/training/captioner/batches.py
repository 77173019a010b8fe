"""Batches for training the demo captioner: one patch grid each, categories drawn by share."""

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.captioner import grammar
from training.captioner.data import MERGE, Uint8s, labels_of, patches_of
from training.captioner.export import BEFORE_IMAGE, END_TOKEN, IMAGE_TOKEN, after_image
from training.captioner.pictures import UNKNOWN_LABEL, Wish, draw_picture

SHARES = {
    "one": 30.0,
    "two": 18.0,
    "three": 10.0,
    "number1": 4.0,
    "number2": 8.0,
    "number3": 11.0,
    "number4": 12.0,
    "nothing": 2.0,
    "complex": 8.0,
    "unnamed": 8.0,
}
WORD_NOISE = 0.12
_IGNORED = -100
#: A patch grid with fewer pictures is not trained on.
FEWEST_OF_A_GRID = 300


def category_of(caption: str) -> str:
    """The category of a picture, from its sentence."""
    if not caption:
        return "unnamed"
    if caption.startswith("Text"):
        return f"number{len(caption.split(chr(34))[1])}"
    for start, category in (
        ("Two", "two"),
        ("Three", "three"),
        ("A plain", "nothing"),
        ("A complex", "complex"),
    ):
        if caption.startswith(start):
            return category
    return "one"


@dataclass(frozen=True)
class Batch:
    """Pictures of one grid with their chats. `targets` is for positions from `answer_from` on."""

    pixels: Tensor
    labels: Tensor
    tokens: Tensor
    targets: Tensor
    grid: tuple[int, int]
    before: int
    answer_from: int


@dataclass(frozen=True)
class Sample:
    """One picture: a view of its patches and labels, and its answer's token ids."""

    patches: Uint8s
    labels: Uint8s
    answer: list[int]


class Chats:
    """Turns samples into token rows. Pure after construction."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        (self.image_id,) = tokenizer.encode(IMAGE_TOKEN).ids
        (self.end_id,) = tokenizer.encode(END_TOKEN).ids
        self.start = tokenizer.encode(BEFORE_IMAGE).ids
        colours = [tokenizer.encode(f" {colour}").ids[0] for colour in grammar.COLOURS]
        digits = [tokenizer.encode(digit).ids[0] for digit in "0123456789"]
        self.swappable = (torch.tensor(colours), torch.tensor(digits))
        self.prompts = [tokenizer.encode(after_image(p)).ids for p in (grammar.CAPTION_PROMPT, *grammar.OTHER_PROMPTS)]

    def answer(self, caption: str) -> list[int]:
        """Token ids of the sentence, ended; none where there is no sentence."""
        if not caption:
            return []
        return [*self.tokenizer.encode(caption).ids, self.end_id]

    def batch(self, samples: list[Sample], grid: tuple[int, int], prompt: int, noise: float = 0.0) -> Batch:
        """A batch in which all pictures are asked the same prompt.

        `noise` is the share of colours and digits that are wrong in the words already written: what comes
        next must be seen in the picture, not guessed from them.
        """
        image = [self.image_id] * (grid[0] * grid[1] // MERGE**2)
        head = [*self.start, *image, *self.prompts[prompt]]
        longest = max(1, *(len(s.answer) for s in samples))
        tokens = torch.zeros(len(samples), len(head) + longest - 1, dtype=torch.long)
        targets = torch.full((len(samples), longest), _IGNORED)
        for row, sample in enumerate(samples):
            ids = torch.tensor(sample.answer)
            tokens[row, : len(head)] = torch.tensor(head)
            tokens[row, len(head) : len(head) + len(ids) - 1] = ids[:-1]
            targets[row, : len(ids)] = ids
        if noise:
            tokens = self._confused(tokens, len(head), noise)
        pixels = torch.from_numpy(np.stack([s.patches for s in samples])).float().div_(127.5).sub_(1.0)
        labels = torch.from_numpy(np.stack([s.labels for s in samples])).long()
        labels[labels == UNKNOWN_LABEL] = _IGNORED
        return Batch(pixels, labels, tokens, targets, grid, len(self.start), len(head) - 1)

    def _confused(self, tokens: Tensor, start: int, noise: float) -> Tensor:
        written = tokens[:, start:]
        for words in self.swappable:
            is_hit = torch.isin(written, words) & (torch.rand(written.shape) < noise)
            written[is_hit] = words[torch.randint(len(words), (int(is_hit.sum()),))]
        return tokens


class TrainingSet:
    """Owns the rendered shards in memory and draws batches from them."""

    def __init__(self, shards: Path, chats: Chats, seed: int, fewest_of_a_grid: int = FEWEST_OF_A_GRID) -> None:
        self.chats = chats
        self.rng = random.Random(seed)
        self.shares = dict(SHARES)
        grids: dict[tuple[int, int], dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
        for path in sorted(shards.glob("shard_*.npz")):
            captions = json.loads(path.with_suffix(".json").read_text())
            with np.load(path) as arrays:
                for name, sentences in captions.items():
                    rows, columns = (int(n) for n in name.split("x"))
                    patches, labels = arrays[f"{name}.patches"], arrays[f"{name}.labels"]
                    for i, sentence in enumerate(sentences):
                        sample = Sample(patches[i], labels[i], chats.answer(sentence))
                        grids[rows, columns][category_of(sentence)].append(sample)
        sizes = {grid: sum(map(len, by.values())) for grid, by in grids.items()}
        self.grids = {g: by for g, by in grids.items() if sizes[g] >= fewest_of_a_grid}
        self.sizes = {g: sizes[g] for g in self.grids}

    def draw(self, size: int) -> Batch:
        """A batch of one grid; four of five ask the product's prompt."""
        grid = self.rng.choices(list(self.sizes), list(self.sizes.values()))[0]
        by_category = self.grids[grid]
        weights = [self.shares[category] for category in by_category]
        categories = self.rng.choices(list(by_category), weights, k=size)
        samples = [self.rng.choice(by_category[category]) for category in categories]
        prompt = 0 if self.rng.random() < 0.8 else self.rng.randrange(len(self.chats.prompts))
        return self.chats.batch(samples, grid, prompt, WORD_NOISE)


HELD_OUT_SETS = {
    "one": Wish("one"),
    "one pair": Wish("one", "pair"),
    "one place": Wish("one", "place"),
    "two": Wish("two"),
    "two pair": Wish("two", "pair"),
    "three": Wish("three"),
    "digits 1": Wish("number", None, 1),
    "digits 2": Wish("number", "number", 2),
    "digits 3": Wish("number", "number", 3),
    "digits 4": Wish("number", "number", 4),
    "font": Wish("number", "font"),
    "nothing": Wish("nothing"),
    "complex": Wish("complex"),
}


def held_out_batches(chats: Chats, count: int) -> dict[str, list[Batch]]:
    """The watch set: pictures of seeds that training never has, batched by grid."""
    result = {}
    for name, wish in HELD_OUT_SETS.items():
        grids: dict[tuple[int, int], list[Sample]] = defaultdict(list)
        for seed in range(500_000, 500_000 + count):
            picture = draw_picture(seed, wish)
            patches, rows, columns = patches_of(picture.image)
            labels = labels_of(picture, rows, columns)
            grids[rows, columns].append(Sample(patches, labels, chats.answer(picture.caption)))
        result[name] = [chats.batch(samples, grid, 0) for grid, samples in grids.items()]
    return result
