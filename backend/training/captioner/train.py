"""Trains the demo captioner and writes it as mlx-vlm loads it.

    python -m training.captioner.data --out SHARDS --count 40
    python -m training.captioner.train --shards SHARDS --out DIR --minutes 90

from backend/, with torch, numpy, pillow, tokenizers and safetensors. The schedule runs on wall-clock
time, so training ends when it should on any machine; started again it goes on from its checkpoint.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from training.captioner import grammar
from training.captioner.batches import FEWEST_OF_A_GRID, Batch, Chats, TrainingSet, held_out_batches
from training.captioner.export import export, train_tokenizer
from training.captioner.model import Captioner, Dimensions
from training.captioner.optimiser import build_optimisers
from training.captioner.pictures import NUM_KIND_LABELS, NUM_ORDER_LABELS

WARM_UP_STEPS = 60
VISION_ONLY_SHARE = 0.1  # of the time: the vision tower alone, on the auxiliary losses
CONSTANT_SHARE = 0.3  # of the time, before the linear decay
AVERAGE_DECAY = 0.995


@dataclass
class Clock:
    """Owns the schedule: wall-clock start and end, and the step count."""

    started: float
    until: float
    step: int = 0

    @property
    def progress(self) -> float:
        """Share of the time that is over, 0 to 1."""
        return min(1.0, (time.time() - self.started) / (self.until - self.started))

    @property
    def rate(self) -> float:
        """Learning-rate factor."""
        warm = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        return warm * max(0.01, min(1.0, (1 - self.progress) / (1 - CONSTANT_SHARE)))


class Heads(nn.Module):
    """Auxiliary heads on the patch features; not part of the shipped model."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.kind = nn.Linear(hidden, NUM_KIND_LABELS)
        self.colour = nn.Linear(hidden, len(grammar.COLOURS))
        self.order = nn.Linear(hidden, NUM_ORDER_LABELS)


class Losses:
    """Computes the training loss; owns nothing but the table from labels to word ids."""

    def __init__(self, model: Captioner, heads: Heads, tokenizer: Tokenizer) -> None:
        self.model, self.heads = model, heads
        things = [" background", *(f" {kind}" for kind in grammar.KINDS), *"0123456789"]
        self.kind_words = self._single_ids(tokenizer, things)
        self.colour_words = self._single_ids(tokenizer, [f" {colour}" for colour in grammar.COLOURS])
        self.kind_weights = torch.ones(NUM_KIND_LABELS)
        self.kind_weights[0] = 0.25

    @staticmethod
    def _single_ids(tokenizer: Tokenizer, words: list[str]) -> Tensor:
        ids = [tokenizer.encode(word).ids for word in words]
        assert all(len(i) == 1 for i in ids), "a word of the grammar is not one token"
        return torch.tensor([i[0] for i in ids])

    def __call__(self, batch: Batch, *, with_text: bool, aid: float) -> tuple[Tensor, dict[str, float]]:
        """The loss, with `aid` the weight of the auxiliary terms, and its parts for the log."""
        patches, image = self.model.vision_tower(batch.pixels, *batch.grid)
        kind, colour, order = batch.labels.unbind(1)
        parts = {
            "kind": functional.cross_entropy(self._flat(self.heads.kind(patches)), kind.flatten(), self.kind_weights),
            "colour": functional.cross_entropy(self._flat(self.heads.colour(patches)), colour.flatten()),
            "order": functional.cross_entropy(self._flat(self.heads.order(patches)), order.flatten()),
            "lens": self._lens(image, kind, colour),
        }
        loss = aid * sum(parts.values(), torch.zeros(()))
        if with_text:
            logits = self.model.answer_logits(batch.tokens, image, batch.before, batch.grid, batch.answer_from)
            parts["text"] = functional.cross_entropy(self._flat(logits), batch.targets.flatten())
            loss = loss + parts["text"]
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    @staticmethod
    def _flat(logits: Tensor) -> Tensor:
        return logits.float().flatten(0, -2)

    def _lens(self, image: Tensor, kind: Tensor, colour: Tensor) -> Tensor:
        """Each merged token should already speak the words of what its four patches show."""
        scores = functional.log_softmax(self.model.word_logits(image).float(), dim=-1)
        shape = (*image.shape[:2], 4)
        kinds, colours = kind.view(shape), colour.view(shape)
        said_kind = scores.gather(-1, self.kind_words[kinds.clamp(min=0)]) * (kinds >= 0)
        said_colour = scores.gather(-1, self.colour_words[colours.clamp(min=0)]) * (colours >= 0)
        weight = self.kind_weights[kinds.clamp(min=0)] * (kinds >= 0)
        return -((said_kind + said_colour) * weight).sum() / weight.sum().clamp(min=1) / 2


def watch(model: Captioner, sets: dict[str, list[Batch]]) -> dict[str, float]:
    """Share of whole sentences right (teacher-forced, which for whole sentences equals greedy)."""
    with torch.no_grad():
        return {
            name: sum(_sentences_right(model, batch) for batch in batches) / sum(len(batch.tokens) for batch in batches)
            for name, batches in sets.items()
        }


def _sentences_right(model: Captioner, batch: Batch) -> int:
    _, image = model.vision_tower(batch.pixels, *batch.grid)
    logits = model.answer_logits(batch.tokens, image, batch.before, batch.grid, batch.answer_from)
    hits = (logits.argmax(-1) == batch.targets) | (batch.targets < 0)
    return int(hits.all(dim=1).sum())


class Trainer:
    """Owns the model, its running average, the optimisers and the clock."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        options.out.mkdir(parents=True, exist_ok=True)
        self.tokenizer = train_tokenizer()
        dimensions = Dimensions(self.tokenizer.get_vocab_size())
        self.model, self.average = Captioner(dimensions), Captioner(dimensions)
        self.heads = Heads(dimensions.hidden)
        self.optimisers = build_optimisers(self.model, self.heads)
        self.base_rates = [o.param_groups[0]["lr"] for o in self.optimisers]
        self.losses = Losses(self.model, self.heads, self.tokenizer)
        self.clock = Clock(time.time(), time.time() + options.minutes * 60)
        self.checkpoint = options.out / "checkpoint.pt"
        if self.checkpoint.exists():
            self._resume()
        else:
            self.average.load_state_dict(self.model.state_dict())
        chats = Chats(self.tokenizer)
        self.data = TrainingSet(options.shards, chats, options.seed + self.clock.step, options.fewest)
        self.watch_sets = held_out_batches(chats, options.watch)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.heads.load_state_dict(state["heads"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        until = state["until"] if self.options.until is None else self.options.until
        self.clock = Clock(state["started"], until, state["step"])

    def save(self) -> None:
        """Checkpoint and export, each atomically."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "started": self.clock.started,
            "until": self.clock.until,
            "step": self.clock.step,
        }
        unfinished = self.checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(self.checkpoint)
        export(self.average, self.tokenizer, self.options.out / "model")

    def step(self) -> dict[str, float]:
        """One update."""
        progress = self.clock.progress
        aid = 1.0 if progress < VISION_ONLY_SHARE else max(0.05, 0.4 * (1 - progress))
        for optimiser, rate in zip(self.optimisers, self.base_rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * self.clock.rate
        with torch.autocast("cpu", torch.bfloat16):
            batch = self.data.draw(self.options.batch)
            loss, parts = self.losses(batch, with_text=progress >= VISION_ONLY_SHARE, aid=aid)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - AVERAGE_DECAY)
        self.clock.step += 1
        return parts

    def obey_files(self) -> None:
        """Reads the number of threads and the shares of the data, which may change while it runs."""
        threads, shares = self.options.threads_file, self.options.out / "shares.json"
        if threads and threads.exists():
            torch.set_num_threads(max(1, int(threads.read_text())))
        if shares.exists():
            self.data.shares.update(json.loads(shares.read_text()))

    def log(self, line: str) -> None:
        """One line to the log file and the terminal."""
        line = f"{time.strftime('%H:%M:%S')} step {self.clock.step} {self.clock.progress:.3f} {line}"
        print(line, flush=True)
        with (self.options.out / "log.txt").open("a") as file:
            file.write(line + "\n")

    def run(self) -> None:
        """Trains until the clock ends."""
        seen: dict[str, float] = {}
        last_save = time.time()
        while self.clock.progress < 1:
            if self.clock.step % 50 == 0:
                self.obey_files()
                self.log(" ".join(f"{name} {value:.3f}" for name, value in seen.items()))
                seen = {}
            for name, value in self.step().items():
                seen[name] = seen[name] * 0.95 + value * 0.05 if name in seen else value
            if time.time() - last_save > self.options.save_s:
                self.finish_round()
                last_save = time.time()
        self.finish_round()

    def finish_round(self) -> None:
        """Saves and measures."""
        self.save()
        accuracy = watch(self.average, self.watch_sets)
        self.log("EXACT " + " ".join(f"{name} {value:.1%}," for name, value in accuracy.items()))


def main() -> None:
    """Parses the options and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, log and model/ go here")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--until", type=float, help="new end of a resumed run, as a Unix time")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--watch", type=int, default=120, help="pictures per held-out set while training")
    parser.add_argument("--fewest", type=int, default=FEWEST_OF_A_GRID, help="pictures a patch grid must have")
    parser.add_argument("--save-s", type=float, default=240)
    parser.add_argument("--threads-file", type=Path, help="holds the number of threads, read while training")
    Trainer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
