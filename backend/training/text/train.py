"""Trains the demo text model on one CPU core and writes its folder.

Run from ``backend/``: ``python -m training.text.train --out DIR --minutes 60``. Needs torch, tokenizers and
safetensors; nothing else of Periscope imports torch. The schedule runs in wall-clock time and ends on time.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from training.text.batches import Batch, Batches, encode
from training.text.chats import sample_chat
from training.text.circuit import write_circuit
from training.text.export import export
from training.text.model import TextConfig, TextModel
from training.text.optimiser import Optimiser
from training.text.tokenizer import train_tokenizer

WARM_UP_STEPS = 60
DRILL_SHARE, DRILL_PART, DRILL_LATER = 0.15, 0.25, 0.03
LM_WEIGHT, LM_PART = 0.05, 0.08
REPORT_S = 240.0


class Trainer:
    """Owns model, optimiser and clock of one training run."""

    def __init__(
        self, out: Path, tokenizer: Tokenizer, minutes: float, seed: int, *, compiled: bool, with_muon: bool
    ) -> None:
        torch.manual_seed(seed)
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.budget_s = out, minutes * 60
        self.tokenizer = tokenizer
        self.model = TextModel(TextConfig(vocab_size=self.tokenizer.get_vocab_size()))
        write_circuit(self.model)
        self.optimiser = Optimiser(self.model, with_muon=with_muon)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.batches = Batches(self.tokenizer, seed)
        self.spent_s, self.step, self.is_fresh = 0.0, 0, True

    def progress(self) -> float:
        """Share of the time budget that is spent."""
        return min(self.spent_s / self.budget_s, 1.0)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy on what the model says, early also a little on all text."""
        part = self.progress()
        weights = batch.weights[:, 1:].clone()
        if self.is_fresh and part < LM_PART:
            weights[weights == 0] = LM_WEIGHT
        chosen = weights > 0
        with torch.autocast("cpu", torch.bfloat16, enabled=True):
            hidden = self.forward(batch.ids)[:, :-1][chosen]
            logits = self.model.logits(hidden)
        losses = F.cross_entropy(logits.float(), batch.ids[:, 1:][chosen], reduction="none")
        answer_weight = batch.weights[:, 1:].clamp_min(0).sum()
        return (losses * weights[chosen]).sum() / answer_weight

    def update(self, batch: Batch) -> float:
        """One optimiser step; returns the loss."""
        loss = self.loss(batch)
        loss.backward()
        rate = min(1.0, (self.step + 1) / WARM_UP_STEPS) * max(1 - self.progress(), 0.01)
        self.optimiser.step(rate)
        self.step += 1
        return float(loss.detach())

    def run(self) -> None:
        """Trains until the budget is spent, with a report and a checkpoint every few minutes."""
        clock, mean, next_report = time.monotonic(), 0.0, self.spent_s + 60
        for batch in self.batches:
            self.batches.drill_share = DRILL_SHARE if self.is_fresh and self.progress() < DRILL_PART else DRILL_LATER
            value = self.update(batch)
            mean += (value - mean) * (0.02 if mean else 1.0)
            now = time.monotonic()
            self.spent_s, clock = self.spent_s + now - clock, now
            done = self.progress() >= 1.0
            if self.spent_s > next_report or done:
                next_report = self.spent_s + REPORT_S
                self.save()
                self.report(mean, 1500 if done else 300)
                clock = time.monotonic()
            if done:
                return

    def report(self, mean: float, chats: int) -> None:
        """Prints the share of held-out answers that greedy decoding would get exactly right."""
        scores = held_out_scores(self.model, self.tokenizer, chats)
        total = [sum(column) for column in zip(*scores.values(), strict=True)]
        detail = " ".join(f"{name}={right}/{count}" for name, (right, count) in sorted(scores.items()))
        head = f"{time.strftime('%H:%M:%S')} step {self.step} {self.spent_s:.0f}s loss {mean:.4f}"
        print(f"{head} exact {100 * total[0] / total[1]:.1f}% of {total[1]} | {detail}", flush=True)

    def save(self) -> None:
        """Writes the checkpoint to go on from, and the folder that mlx-lm loads."""
        state = {"model": self.model.state_dict(), **self.optimiser.state()}
        torch.save(
            {**state, "spent_s": self.spent_s, "step": self.step, "is_fresh": self.is_fresh},
            self.out / "checkpoint.part",
        )
        (self.out / "checkpoint.part").replace(self.out / "checkpoint.pt")
        export(self.model, self.tokenizer, self.out / "text")

    def start_from(self, folder: Path) -> None:
        """Takes the weights of an exported model, for a new schedule."""
        self.model.load_state_dict(load_file(str(folder / "model.safetensors")))
        self.is_fresh = False

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint."""
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        self.optimiser.load(state)
        self.spent_s, self.step, self.is_fresh = state["spent_s"], state["step"], state["is_fresh"]
        self.batches.rng.seed(self.step)


@torch.no_grad()
def held_out_scores(model: TextModel, tokenizer: Tokenizer, chats: int, seed: int = 1) -> dict[str, tuple[int, int]]:
    """(right, asked) per category; an answer is right if every token of it is the most likely one."""
    rng = random.Random(f"held-out {seed}")
    scores: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for _ in range(chats):
        chat = sample_chat(rng, held_out=True)
        ids, spans = encode(tokenizer, chat)
        best = model.logits(model(torch.tensor([ids]))[0]).argmax(-1).tolist()
        for label, (start, end) in zip(chat.labels, spans, strict=True):
            right, count = scores[label.replace(" ", "_")]
            scores[label.replace(" ", "_")] = (
                right + (best[start - 1 : end - 1] == ids[start:end]),
                count + 1,
            )
    return dict(scores)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="working folder; the model lands in OUT/text")
    parser.add_argument("--minutes", type=float, default=60.0, help="time budget")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    parser.add_argument("--optimiser", choices=("adam", "muon"), default="muon")
    parser.add_argument("--start-from", type=Path, help="model folder whose weights and tokenizer start a new schedule")
    parser.add_argument("--resume", type=Path, help="checkpoint.pt of the same --out whose schedule goes on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with_muon = arguments.optimiser == "muon"
    known = arguments.start_from or (arguments.resume.parent / "text" if arguments.resume else None)
    tokenizer = Tokenizer.from_file(str(known / "tokenizer.json")) if known else train_tokenizer()
    trainer = Trainer(
        arguments.out,
        tokenizer,
        arguments.minutes,
        arguments.seed,
        compiled=arguments.compile,
        with_muon=with_muon,
    )
    if arguments.start_from:
        trainer.start_from(arguments.start_from)
    if arguments.resume:
        trainer.resume(arguments.resume)
    trainer.run()


if __name__ == "__main__":
    main()
