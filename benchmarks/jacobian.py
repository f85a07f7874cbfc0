"""Measures what a Jacobian lens costs, and what positions that share backward passes gain.

`python -m benchmarks.jacobian` takes half a minute: a lab model reads two batches of token rows. A sweep of d backward passes is timed in
forward passes of the same rows, with one position of each row in the sweep, with eight, and with all. The time for a position and the
error of the mean Jacobian by layer show the gain at equal cost.
"""

from __future__ import annotations

import time

import click
import pyarrow as pa
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from builders.lenses.accumulator import Trace
from builders.lenses.jacobian import POSITION, Sampling, fit
from builders.subjects.anatomy import anatomy_of
from builders.subjects.harvest import read_rows, row_batches
from builders.text.tokens import TOKENS

ROWS, BATCH, LENGTH = 16, 8, 64


def drawn_rows(model: nn.Module, vocabulary: int) -> pa.Table:
    """Return rows of text that *model* made itself, each from a random token on."""
    starts = torch.randint(2, vocabulary, (ROWS, 1), generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model.generate(starts, max_new_tokens=LENGTH - 1, min_new_tokens=LENGTH - 1, do_sample=True)  # type: ignore[operator]
    usual = {"subject": "lab", "document": 0, "held_out": False, "bytes": 0, "text": "", "special": [False] * LENGTH}
    return TOKENS.rows([usual | {"row": row, "ids": ids} for row, ids in enumerate(made.tolist())])


@torch.no_grad()
def forward_seconds(model: nn.Module, rows: pa.Table) -> float:
    """Return how long the model takes to read *rows* once."""
    start = time.perf_counter()
    for part in row_batches(rows, BATCH):
        model(input_ids=read_rows(part, "cpu")[0], use_cache=False)
    return time.perf_counter() - start


@click.command()
@click.argument("checkpoint", default="checkpoints/lab-transformer")
def main(checkpoint: str) -> None:
    """Print the cost and the error of the mean Jacobians of CHECKPOINT."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval().requires_grad_(False)
    anatomy = anatomy_of(model)
    rows = drawn_rows(model, anatomy.vocabulary)
    forward = min(forward_seconds(model, rows) for _ in range(3))
    for positions in (1, 8, LENGTH):
        start = time.perf_counter()
        sampling = Sampling(seed=0, positions=positions, together=positions, length=LENGTH, batch=BATCH)
        sums = fit(model, anatomy.layers, rows, POSITION, sampling, Trace(ROWS * LENGTH), "cpu")
        seconds, error = time.perf_counter() - start, sums.error()
        shares = "no error" if error is None else " ".join(f"{float(share):.3f}" for share in error)
        click.echo(
            f"{positions:3} together: {seconds / forward / anatomy.d_model:.2f} forward passes for each of {anatomy.d_model} dimensions, "
            f"{1000 * seconds / sums.positions:.0f} ms a position, error by layer {shares}"
        )


if __name__ == "__main__":
    main()
