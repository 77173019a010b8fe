"""The recipes of the demo pair still train: `make train-smoke` runs this, because PyTorch is no part of `make test`."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import pytest

from periscope.demo import EMBEDDED_MODELS

torch = pytest.importorskip("torch", reason="PyTorch is in the `train` dependency group")

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:torch", "ignore:Mismatch dtype"
)  # bf16 where torch has no kernel

NUM_STEPS = 10


def test_the_text_recipe_learns_and_writes_a_model(tmp_path: Path) -> None:
    """After ten steps on one batch the loss is lower, and mlx-lm loads what is saved."""
    from mlx_lm.utils import load
    from tokenizers import Tokenizer

    from training.text.train import Trainer

    tokenizer = Tokenizer.from_file(str(EMBEDDED_MODELS["embedded:text"] / "tokenizer.json"))
    trainer = Trainer(tmp_path, tokenizer, minutes=60, seed=1, compiled=False, with_muon=True)
    batch = next(iter(trainer.batches))
    losses = [trainer.update(batch) for _ in range(NUM_STEPS)]
    assert losses[-1] < losses[0]
    trainer.save()
    assert load(str(tmp_path / "text"))[0] is not None


def test_the_captioner_recipe_learns_and_writes_a_model(tmp_path: Path) -> None:
    """Rendered pictures, ten steps: the loss of a batch that was not trained on is lower."""
    from mlx_vlm.utils import load

    from training.captioner.data import render_shard
    from training.captioner.train import Clock, Trainer

    render_shard(0, tmp_path / "shards", {"one": 1.0}, num_pictures=48)
    options = Namespace(
        shards=tmp_path / "shards", out=tmp_path, minutes=60, until=None, batch=8, seed=1, watch=2, fewest=1
    )
    trainer = Trainer(options)
    trainer.clock = Clock(time.time() - 1800, time.time() + 1800)  # past the part in which only the vision tower learns
    (unseen, *_) = trainer.watch_sets["one"]

    def loss() -> float:
        with torch.no_grad():
            return float(trainer.losses(unseen, with_text=True, aid=1.0)[0])

    before = loss()
    for _ in range(NUM_STEPS):
        trainer.step()
    assert loss() < before
    trainer.save()
    assert load(str(tmp_path / "model"))[0] is not None
