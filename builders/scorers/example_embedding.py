"""Example embedding: are activating windows nearer to other activating ones than silent windows are? SCIENCE A11.

It needs no explanation: it tells how alike the windows are in which a latent fires, to a reader of their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builders.contexts.contexts import Examples
from builders.engines.requests import Outcome
from builders.scorers.embedding import ByEmbedding
from builders.scorers.judging import Bools, Floats, Ints, Judged, Task, none
from builders.scorers.lineups import TOO_FEW
from builders.scorers.statistics import area
from builders.seeds import seed_of, uniforms


@dataclass(frozen=True)
class ExampleEmbeddingScorer(ByEmbedding):
    """So many *trials*: in each an activating and a silent window are asked about, beside at most *examples* others a side.

    The margin of a window q is mean cos(q, E⁺) − mean cos(q, E⁻); the score is the AUROC of the margins. *seed* addresses what is
    drawn. The standard error takes trials as independent; they are less so the more there are for the windows at hand.
    """

    trials: int
    examples: int
    seed: int

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return two rows for each trial: number 2·trial is the activating window, the next the silent one; value is the margin."""
        windows = self.shown(task)
        n = 2 * self.trials
        number, nothing = np.arange(n), none(n)
        truth = number % 2 == 0
        if min(windows.activating.sum(), (~windows.activating).sum()) < 2:
            return Judged(number, truth, np.full(n, TOO_FEW), nothing, nothing, nothing, {"status": TOO_FEW})
        sides = (draw(windows, side, self.trials, self.examples, self.seed) for side in (windows.activating, ~windows.activating))
        margin = margins(self.vectors(windows), *sides).reshape(-1)
        return Judged(number, truth, np.full(n, "ok"), nothing, nothing, margin, area(truth, margin))


@dataclass(frozen=True)
class Drawn:
    """The windows of one side in each trial, as places: the one asked about [trials] and the others [trials, examples]."""

    query: Ints
    others: Ints


def draw(windows: Examples, side: Bools, trials: int, examples: int, seed: int) -> Drawn:
    """Return who is drawn among the windows [n] of one *side*, of which there are at least two.

    All take turns at being asked about, in an order drawn by address, so that none is asked about twice before all were once; the
    others are drawn for each trial.
    """
    own = np.flatnonzero(side)
    number = windows.number[own]
    query = np.resize(np.argsort(uniforms(seed_of(seed, "queries"), windows.latent, number), kind="stable"), trials)
    ranks = uniforms(seed_of(seed, "others"), windows.latent, np.arange(trials)[:, None], number)
    ranks[np.arange(trials), query] = np.inf
    others = np.argsort(ranks, axis=1, kind="stable")[:, : min(examples, len(own) - 1)]
    return Drawn(own[query], own[others])


def margins(vectors: Floats, active: Drawn, silent: Drawn) -> Floats:
    """Return the margins [trials, 2] of the activating and of the silent window of each trial, given unit *vectors* [n, width]."""
    toward = vectors[active.others].mean(axis=1) - vectors[silent.others].mean(axis=1)
    found: Floats = np.stack([(vectors[side.query] * toward).sum(axis=1) for side in (active, silent)], axis=1)
    return found
