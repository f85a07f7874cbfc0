"""Selection: which windows of each latent are drawn for training and test, activating ones and random silent ones.

Source: Paulo et al. 2024 (arXiv:2410.13928); see docs/science.md#contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats, Ints, ranks, sort_order
from builders.contexts.silence import silent_windows, touched_windows
from builders.contexts.windows import Plan, Windows, activating_windows
from builders.lake.failures import failure
from builders.saes.activations import Firings
from builders.seeds import uniforms
from builders.text.rows import Corpus

# In the order in which a latent's test windows are listed.
KINDS = ("activating", "random", "cofiring", "decoder", "encoder", "similar", "row", "decoy")


def quantile_of(windows: Windows, quantiles: int) -> Ints:
    """Return the rank quantile of each window, 0 the strongest: quantiles are as equal in size as can be."""
    quantile: Ints = windows.rank * quantiles // np.maximum(windows.count, 1)
    return quantile


def _turn(windows: Windows, quantiles: int, draw: Floats) -> Floats:
    """Return priorities by which a latent's quantiles take turns: each gives one window per turn, drawn at random within the quantile."""
    cell = windows.latent * quantiles + quantile_of(windows, quantiles)
    order = sort_order(cell, draw)
    turn = np.empty(len(order))
    turn[order] = ranks(cell[order])[0]
    return turn + 0.999 * draw  # 0.999 keeps it below the next turn, even when rounded to float32


def _top(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    return windows.rank.astype(np.float64)


def _random(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    return draw


def _quantiles(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    return _turn(windows, plan.quantiles, draw)


def _mix(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    strongest = ranks(windows.latent)[0] < round(plan.train * plan.top_share)
    return np.where(strongest, 0.0, 1.0 + _turn(windows, plan.quantiles, draw))


# A sampler gives every window a priority of 0 or more; a latent takes the n windows of lowest priority.
SAMPLERS: dict[str, Callable[[Windows, Plan, Floats], Floats]] = {
    "top": _top,
    "random": _random,
    "quantiles": _quantiles,
    "mix": _mix,
}


def _first(windows: Windows, priority: Floats, n: int) -> Bools:
    """Return which windows are among the *n* of lowest *priority* of their latent."""
    order = sort_order(windows.latent, priority)
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[ranks(windows.latent[order])[0] < n]] = True
    return chosen


def choose(windows: Windows, plan: Plan, seed: int) -> tuple[Windows, Bools, Ints]:
    """Return the chosen windows, which of them are for training, and their quantiles.

    The test windows are drawn first, evenly from all quantiles, so that they are the same for every sampler. No window is both in training
    and in test. Latents with fewer than train + test windows are left out.
    """
    draw = uniforms(seed, windows.latent, windows.row, windows.start)
    quantile = quantile_of(windows, plan.quantiles)
    test = _first(windows, _turn(windows, plan.quantiles, draw), plan.test)
    again = uniforms(seed + 1, windows.latent, windows.row, windows.start)
    left = np.flatnonzero(~test)
    rest = np.full(len(test), np.inf)
    rest[left] = SAMPLERS[plan.sampler](windows.take(left), plan, again[left])
    train = _first(windows, rest, plan.train) & ~test
    enough = windows.count >= plan.train + plan.test
    index = np.flatnonzero((test | train) & enough)
    return windows.take(index), train[index], quantile[index]


@dataclass(frozen=True)
class Selected:
    """The windows of all latents that fill their quota: by latent, test before train, activating before silent, strongest first.

    The arrays are [n]: *latent*, *train* (false for test), *kind* (its place in KINDS), *row*, *start*, and (-1 where silent) *quantile*
    and *rank* among all the latent's windows. *taken* are sorted keys latent · total + window number of the grid's windows that are not
    free: they are drawn, overlap a drawn one, or hold a firing. *failed* are the FAILURES records of latents that fall short.
    """

    latent: Ints
    train: Bools
    kind: Ints
    quantile: Ints
    row: Ints
    start: Ints
    rank: Ints
    taken: Ints
    failed: list[dict[str, Any]]

    @property
    def latents(self) -> Ints:
        """The latents that have windows, sorted."""
        return np.unique(self.latent)


def select(sae: str, latents: Ints, firings: Firings, corpus: Corpus, plan: Plan, seed: int) -> Selected:
    """Return the windows of *latents*: each has its full quota of every kind, or none. *firings* are all their activations."""
    candidates = activating_windows(firings, corpus, plan, seed)
    chosen, train, quantile = choose(candidates, plan, seed)
    grid = corpus.grid(plan.window)
    touched = touched_windows(firings, chosen, grid)
    asked = plan.test_random + plan.train_random
    silent, number = silent_windows(np.unique(chosen.latent), touched, grid.total, asked, seed + 2)
    row, start = grid.place(number)
    zeros = np.zeros(len(silent), dtype=np.int64)
    parts: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {
        "latent": (chosen.latent, silent),
        "train": (train, np.arange(len(silent)) - np.searchsorted(silent, silent) >= plan.test_random),
        "kind": (np.zeros(len(train), dtype=np.int64), zeros + KINDS.index("random")),
        "quantile": (quantile, zeros - 1),
        "row": (chosen.row, row),
        "start": (chosen.start, start),
        "rank": (chosen.rank, zeros - 1),
    }
    columns = {name: np.concatenate(both) for name, both in parts.items()}
    have = np.bincount(candidates.latent, minlength=int(latents.max(initial=0)) + 1)
    quiet = np.bincount(silent, minlength=len(have))
    failed = [record for latent in latents.tolist() if (record := _shortfall(sae, latent, have, quiet, plan))]
    whole = np.isin(columns["latent"], [record["latent"] for record in failed], invert=True)
    order = np.lexsort((columns["kind"], columns["train"], columns["latent"]))
    taken = np.sort(np.concatenate([touched, silent * grid.total + number]), kind="stable")
    return Selected(**{name: values[order[whole[order]]] for name, values in columns.items()}, taken=taken, failed=failed)


def _shortfall(sae: str, latent: int, have: Ints, quiet: Ints, plan: Plan) -> dict[str, Any] | None:
    """Return the FAILURES record of a latent that cannot fill its quota, or None."""
    if have[latent] < max(plan.train + plan.test, plan.at_least):
        needed = plan.at_least if plan.at_least > plan.train + plan.test else f"{plan.train} + {plan.test}"
        return failure(sae, latent, "contexts", "latent", f"fires in {have[latent]} windows; {needed} are needed")
    needs = plan.train_random + plan.test_random
    if quiet[latent] < needs:
        return failure(sae, latent, "contexts", "latent", f"is silent in {quiet[latent]} windows; {needs} are needed")
    return None
