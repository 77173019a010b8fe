"""The recipes of the demo pair still train: `make train-smoke` runs this, because PyTorch is no part of `make test`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is in the `train` dependency group")

NUM_STEPS = 10


def test_the_text_recipe_learns_and_writes_a_model(tmp_path: Path) -> None:
    """After ten steps on one batch the loss is lower, and mlx-lm loads what is saved."""
    from mlx_lm.utils import load

    from training.text.tokenizer import train_tokenizer
    from training.text.train import Trainer

    trainer = Trainer(tmp_path, train_tokenizer(), minutes=60, seed=1, compiled=False, with_muon=True)
    batch = next(iter(trainer.batches))
    losses = [trainer.update(batch) for _ in range(NUM_STEPS)]
    assert losses[-1] < losses[0]
    trainer.save()
    assert load(str(tmp_path / "text"))[0] is not None


def test_the_captioner_recipe_learns_and_writes_a_model(tmp_path: Path) -> None:
    """Rendered pictures, ten steps: the loss of a batch that was not trained on is lower."""
    from mlx_vlm.utils import load

    from training.captioner.data import render_shard
    from training.captioner.train import Trainer

    render_shard(0, tmp_path / "shards", {"one": 1.0}, num_pictures=48)
    options = Namespace(
        shards=tmp_path / "shards", out=tmp_path, minutes=60, until=None, batch=8, seed=1, watch=2, fewest=1
    )
    trainer = Trainer(options)
    (unseen, *_) = trainer.watch_sets["one"]

    def loss() -> float:
        with torch.no_grad():
            return float(trainer.losses(unseen, with_text=False, aid=1.0)[0])

    before = loss()
    for _ in range(NUM_STEPS):
        trainer.step()
    assert loss() < before
    trainer.save()
    assert load(str(tmp_path / "model"))[0] is not None
