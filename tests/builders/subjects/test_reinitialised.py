"""The control of a subject: its architecture with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from builders.subjects.checkpoints import SUBJECTS, load, subject_row
from builders.subjects.places import Source

if TYPE_CHECKING:
    from pathlib import Path


def test_its_weights_are_random_and_always_the_same(tiny_checkpoint: Path) -> None:
    """A reinitialised model has the checkpoint's sizes, none of its weights, and equal weights each time; nothing global is drawn."""
    stored = load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu").state_dict()
    before = torch.random.get_rng_state()
    once, again = (
        load(Source(path=str(tiny_checkpoint), reinitialised=True), tiny_checkpoint, "float32", "cpu").state_dict() for _ in range(2)
    )

    assert torch.equal(torch.random.get_rng_state(), before)
    assert {name: tensor.shape for name, tensor in once.items()} == {name: tensor.shape for name, tensor in stored.items()}
    assert all(torch.equal(once[name], again[name]) for name in once)
    changed = {name for name in once if not torch.equal(once[name], stored[name])}
    assert {name for name in once if name.endswith("proj.weight")} <= changed


def test_its_row_says_so(tiny_checkpoint: Path) -> None:
    """`subjects` says which subjects have random weights; their files are those of the checkpoint."""
    rows = [
        subject_row("tiny", Source(path=str(tiny_checkpoint), reinitialised=random), tiny_checkpoint, "float32", "cpu")
        for random in (False, True)
    ]

    assert [row["reinitialised"] for row in rows] == [False, True]
    assert rows[0]["files"] == rows[1]["files"]
    assert SUBJECTS.rows(rows[:1]).num_rows == 1
