"""Measures the time saved by reading a prompt once for many ways to steer, relative to one full pass for each way.

`python -m benchmarks.steering`: untrained models of the lab's shapes, prompts of about 60 tokens, 9 multipliers at every layer; each
figure is a ratio within this one run. The bar is 5. Torch's threads are set by OMP_NUM_THREADS.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from builders.arrays import Floats
from builders.steering.asking import Prompt
from builders.steering.steerer import Steerer
from builders.steering.vectors import Directions, contrast, difference
from builders.steering.ways import RESIDUAL, Push
from builders.subjects.hookpoints import blocks_of, module_at
from checkpoints.architectures import Shape, build

VOCABULARY, LENGTH = 2048, 256
SHAPES = {
    "llama": Shape("llama", 128, 4, heads=4, hidden=384),
    "mamba2": Shape("mamba2", 128, 4, heads=8, state=16),
    "rwkv": Shape("rwkv", 128, 4, hidden=384),
}
MULTIPLIERS = (-3.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0)
METHOD = "difference"
BAR, CLOSE = 5.0, 1e-4


@torch.no_grad()
def untrained(shape: Shape) -> Any:
    """Return a model of *shape* with noise on its weights, since an untrained RWKV gives the same output for every input."""
    model = build(shape, VOCABULARY, LENGTH, seed=0).eval()
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.add_(torch.randn(weight.shape, generator=draw), alpha=0.05)
    return model


def questions(count: int, tokens: int) -> list[Prompt]:
    """Return prompts of random tokens, up to five more or fewer than *tokens*."""
    draw = np.random.default_rng(0)
    return [Prompt(tuple(draw.integers(4, VOCABULARY, tokens + draw.integers(-5, 6)).tolist()), 2, 3, "") for _ in range(count)]


@torch.no_grad()
def one_by_one(model: Any, directions: Directions, prompts: Sequence[Prompt], pushes: Sequence[Push]) -> Floats:
    """Return log-probabilities of both letters [prompts, pushes, 2] by a full pass for each prompt and push."""
    blocks = [module_at(model, name) for name in blocks_of(model)]
    found = np.empty((len(prompts), len(pushes), 2))
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([prompt.ids])
        for column, push in enumerate(pushes):
            added = push.multiplier * directions.residual[push.layer]
            handle = blocks[push.layer].register_forward_hook(lambda _, __, output, added=added: last_plus(output, added))
            logprobs = model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)
            handle.remove()
            found[row, column] = logprobs[[prompt.matching, prompt.other]].numpy()
    return found


def last_plus(output: Any, added: Tensor) -> Any:
    """Return a block's output with *added* at its last token."""
    (output[0] if isinstance(output, tuple) else output)[:, -1] += added
    return output


@click.command()
@click.option("--prompts", "count", default=12, help="Prompts to ask.", show_default=True)
@click.option("--tokens", default=60, help="Tokens of a prompt, about.", show_default=True)
@click.option("--batch", default=256, help="Rows that are read at a time.", show_default=True)
@click.option("--repeats", default=3, help="Times each way runs; the median is told.", show_default=True)
def main(count: int, tokens: int, batch: int, repeats: int) -> None:
    """Print for each architecture the time of both ways, their ratio, and the largest difference of their log-probabilities."""
    prompts = questions(count, tokens)
    click.echo(f"{count} prompts of about {tokens} tokens, {len(MULTIPLIERS)} multipliers at 4 layers, {torch.get_num_threads()} threads")
    click.echo(f"{'':8}{'one by one':>12}{'batched':>12}{'ratio':>8}{'difference':>14}{'moved':>10}")
    short = []
    for name, shape in SHAPES.items():
        model = untrained(shape)
        directions = difference(contrast(model, prompts, batch))
        pushes = [Push(METHOD, RESIDUAL, layer, multiplier) for layer in range(shape.layers) for multiplier in MULTIPLIERS]
        steerer = Steerer(model, {METHOD: directions}, batch)
        taken: list[tuple[float, float]] = []
        for _ in range(repeats):  # in turns, so that other load on the machine falls on both
            start = time.perf_counter()
            slow = one_by_one(model, directions, prompts, pushes)
            between = time.perf_counter()
            fast = steerer.answers(prompts, pushes)
            taken.append((between - start, time.perf_counter() - between))
        loop, batched = (sorted(times)[repeats // 2] for times in zip(*taken, strict=True))
        apart, moved = np.abs(slow - fast).max(), np.ptp(slow, axis=1).max()
        click.echo(f"{name:8}{loop:10.2f} s{batched:10.2f} s{loop / batched:8.1f}{apart:9.1e} nats{moved:5.1f} nats")
        if apart > CLOSE:
            raise click.ClickException(f"{name}: the ways differ by {apart:.1e} nats, more than {CLOSE:.0e}")
        short += [name] if loop / batched < BAR else []
    if short:
        raise click.ClickException(f"below the bar of {BAR:.0f}: {', '.join(short)}")


if __name__ == "__main__":
    main()
