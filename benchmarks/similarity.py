"""Measures the assignment of two dictionaries, exact and among candidates, and the search of the nearest latents of wide ones.

`python -m benchmarks.similarity`: random rows, half of them in both dictionaries. Each piece of work runs in a process of its own, which
tells its time and the most memory that it held. The bars are 30 s and 3 GB for 16,384 latents a side, and 6 GB for the nearest of 131,072.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import click
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from builders.arrays import Ints
from builders.similarity.assignment import among_candidates, assigned
from builders.similarity.measures import Cosines, blocks
from builders.similarity.nearest import Nearest, nearest

MOST = 32
SHARED = 0.9  # a value above it says that two latents are the same
GB = 10**9
BARS = {"exact": (30.0, 3.0), "nearest": (float("inf"), 6.0)}  # seconds, GB


def dictionaries(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Return the rows [n, d] of two dictionaries: the first half of A's rows is somewhere in B, the others are independent noise."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(n, d, generator=draw), torch.randn(n, d, generator=draw)
    b[: n // 2] = a[: n // 2] + 0.1 * torch.randn(n // 2, d, generator=draw)
    return a, b[torch.randperm(n, generator=draw)]


def exact(n: int, d: int) -> dict[str, float]:
    """Return the time of both sides' nearest and of the exact assignment, and the share of pairs that are the same latent."""
    measure = Cosines(*dictionaries(n, d))
    start = time.perf_counter()
    there, back = nearest(measure, MOST), nearest(measure.flipped(), MOST)
    between = time.perf_counter()
    _, value = assigned(measure, there, back)
    return {"before": between - start, "seconds": time.perf_counter() - between, "shared": float((value > SHARED).mean())}


def plain(n: int, d: int) -> dict[str, float]:
    """Return the time of SciPy's assignment of the same dictionaries as they are."""
    measure = Cosines(*dictionaries(n, d))
    start = time.perf_counter()
    cost = np.empty(measure.shape)
    for low, block in blocks(measure):
        np.negative(block, out=cost[low : low + len(block)])
    partner = linear_sum_assignment(cost)[1]
    return {"seconds": time.perf_counter() - start, "shared": float((cost[np.arange(n), partner] < -SHARED).mean())}


def nearest_of_a_slice(n: int, d: int, some: int) -> dict[str, float]:
    """Return the time in which *some* latents find their nearest among *n*, times n / *some*, with the rows of both in memory."""
    measure = Cosines(*dictionaries(n, d))
    rows, measure.a = measure.a, measure.a[:some]
    start = time.perf_counter()
    found = nearest(measure, MOST)
    seconds = (time.perf_counter() - start) * n / some
    return {"seconds": seconds, "more": (found.partner.nbytes + found.value.nbytes) / some * (len(rows) - some) / GB}


def candidates(n: int) -> dict[str, float]:
    """Return the time of the assignment among drawn candidates: values of normal noise, and of 1 for half of the latents."""
    draw = np.random.default_rng(0)
    pairs = n * MOST * 2
    row, column = draw.integers(0, n, pairs), draw.integers(0, n, pairs)
    value = 0.036 * (3 + draw.standard_exponential(pairs) / 3)  # the tail of cosines in 768 dimensions
    row[: n // 2], column[: n // 2], value[: n // 2] = np.arange(n // 2), draw.permutation(n)[: n // 2], 1
    there, back = listed(row, column, value, n), listed(column, row, value, n)
    start = time.perf_counter()
    partner, found = among_candidates(there, back)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "shared": float((found > SHARED).mean()), "alone": float((partner < 0).mean())}


def listed(row: Ints, column: Ints, value: np.ndarray[Any, np.dtype[np.float64]], n: int) -> Nearest:
    """Return the MOST largest of each of *n* rows; one with fewer repeats its last."""
    order = np.lexsort((-value, row))
    starts = np.searchsorted(row[order], np.arange(n + 1))
    place = order[np.minimum(starts[:-1, None] + np.arange(MOST), starts[1:, None] - 1)]
    return Nearest(column[place], value[place].astype(np.float32))


def apart(work: Callable[..., dict[str, float]], *arguments: int) -> dict[str, float]:
    """Return the figures of *work* in a process of its own, with the most memory that the process held, in GB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(held, work, *arguments).result()


def held(work: Callable[..., dict[str, float]], *arguments: int) -> dict[str, float]:
    """Return the figures of *work* and this process's peak memory."""
    figures = work(*arguments)
    return {**figures, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB + figures.get("more", 0)}


@click.command()
@click.option("--side", default=16_384, help="Latents a side of the exact assignment.", show_default=True)
@click.option("--width", default=131_072, help="Latents a side of wide dictionaries.", show_default=True)
@click.option("--dimensions", default=768, help="Dimensions of a row.", show_default=True)
@click.option("--slice", "some", default=2_048, help="Latents that look for their nearest among the wide dictionary's.", show_default=True)
@click.option("--compare", is_flag=True, help="Also run SciPy's assignment without an auction.")
def main(side: int, width: int, dimensions: int, some: int, compare: bool) -> None:
    """Print time, peak memory and what was found; fail where a bar is missed."""
    one = apart(exact, side, dimensions)
    click.echo(f"exact, {side:,} a side: {one['seconds']:.1f} s after {one['before']:.1f} s for the nearest; peak {one['peak']:.2f} GB")
    click.echo(f"  share of pairs above {SHARED}: {one['shared']:.4f} of 0.5")
    if compare:
        other = apart(plain, side, dimensions)
        click.echo(f"  without an auction: {other['seconds'] / one['seconds']:.1f} times as long ({other['seconds']:.1f} s)")
    wide = apart(nearest_of_a_slice, width, dimensions, some)
    click.echo(f"nearest {MOST} of {width:,} among {width:,}: {wide['seconds']:.0f} s (from {some:,} of them); peak {wide['peak']:.2f} GB")
    sparse = apart(candidates, width)
    click.echo(f"among candidates, {width:,} a side: {sparse['seconds']:.1f} s; peak {sparse['peak']:.2f} GB")
    click.echo(f"  share of pairs above {SHARED}: {sparse['shared']:.4f} of 0.5; alone: {sparse['alone']:.4f}")
    missed = [name for name, got in (("exact", one), ("nearest", wide)) if got["seconds"] > BARS[name][0] or got["peak"] > BARS[name][1]]
    if missed:
        raise click.ClickException(f"a bar was missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
