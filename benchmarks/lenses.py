"""Measures a step of the tuned lens's training by what nobody can avoid: a forward pass of the model and an unembedding for each layer.

`python -m benchmarks.lenses`: random ids through the lab's transformer and a larger random Llama. The bar is 2.5. The memory that
the first step adds is given as a share of all layers' logits, which are never held together.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from builders.lenses.recipe import Recipe, Split
from builders.lenses.training import Training
from builders.library import transformers
from builders.subjects.anatomy import anatomy_of
from builders.subjects.hookpoints import capture
from builders.text.tokens import TOKENS

BAR = 2.5
LAB = Path(__file__).parents[1] / "checkpoints/lab-transformer"


def lab() -> nn.Module:
    """Return the lab's transformer: 4 blocks, 128 dimensions, 2,048 token ids."""
    model: Any = transformers().AutoModelForCausalLM.from_pretrained(LAB, dtype=torch.float32)
    return model.eval().requires_grad_(requires_grad=False)  # type: ignore[no-any-return]  # as loaded


def larger() -> nn.Module:
    """Return a random Llama: 8 blocks, 512 dimensions, 8,192 token ids."""
    sizes = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
    model: Any = transformers().LlamaForCausalLM(transformers().LlamaConfig(**sizes))
    return model.eval().requires_grad_(requires_grad=False)  # type: ignore[no-any-return]  # as made


def seconds(work: Callable[[], object]) -> float:
    """Return the time of *work*."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes() -> int:
    """Return the largest memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(model: nn.Module, rows: int, length: int, repeats: int) -> dict[str, float]:
    """Return the median times of a training step, a forward pass and all layers' unembeddings, and the memory that a step adds."""
    anatomy = anatomy_of(model)
    ids = torch.randint(1, anatomy.vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
    records = [{"subject": "x", "row": n, "document": n, "ids": row, "special": [False] * length} for n, row in enumerate(ids.tolist())]
    table = TOKENS.rows([{**record, "held_out": False, "bytes": length, "text": ""} for record in records])
    training = Training(model, anatomy, Split(table, table), Recipe(rows_per_step=rows, batch_rows=rows), "x")
    hidden = [flow.flatten(0, 1) for flow in capture(model, anatomy.layers, ids).values()][:-1]
    held = peak_bytes()
    training.step()
    grown = peak_bytes() - held

    def unembedded() -> None:
        for layer in hidden:
            anatomy.logits(layer)

    works: dict[str, Callable[[], object]] = {
        "step": training.step,
        "forward": lambda: model(input_ids=ids, use_cache=False),
        "unembedded": unembedded,
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):  # in turn, so that a busy machine slows all of them
        for name, work in works.items():
            times[name].append(seconds(work))
    cells = anatomy.last * rows * length * anatomy.vocabulary * 4
    return {"grown": grown / cells, **{name: sorted(found)[repeats // 2] for name, found in times.items()}}


@click.command()
@click.option("--rows", default=4, help="Rows of a step.", show_default=True)
@click.option("--length", default=256, help="Tokens of a row.", show_default=True)
@click.option("--repeats", default=3, help="Times that each piece of work runs.", show_default=True)
def main(rows: int, length: int, repeats: int) -> None:
    """Print a training step's time by that of a forward pass and all unembeddings; fail where it is above the bar."""
    ratios = {}
    for name, made in (("lab-transformer", lab), ("random Llama, 8 × 512, 8,192 ids", larger)):
        with torch.no_grad():
            got = measured(made(), rows, length, repeats)
        ratios[name] = got["step"] / (got["forward"] + got["unembedded"])
        click.echo(
            f"{name}: a step takes {ratios[name]:.2f} of a forward pass ({got['forward']:.3f} s) and {got['unembedded']:.3f} s of logits"
        )
        click.echo(f"  memory that the first step adds: {got['grown']:.2f} of all layers' logits")
    missed = [name for name, ratio in ratios.items() if ratio > BAR]
    if missed:
        raise click.ClickException(f"the bar of {BAR} was missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
