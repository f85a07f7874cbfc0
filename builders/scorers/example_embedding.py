"""Example embedding: whether activating windows are nearer to other activating windows than silent windows are.

It needs no explanation: it measures how alike the windows are in which a latent fires, as an embedder sees them. The idea is that
of the code of Paulo et al. (github.com/EleutherAI/delphi), not of their paper; see docs/science.md#example-embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builders.arrays import Bools, Floats, Ints
from builders.contexts.contexts import Examples
from builders.engines.requests import Outcome
from builders.scorers.embedding import ByEmbedding
from builders.scorers.judging import Judged, Task, nans
from builders.scorers.lineups import TOO_FEW
from builders.scorers.statistics import area
from builders.seeds import seed_of, uniforms


@dataclass(frozen=True)
class ExampleEmbeddingScorer(ByEmbedding):
    """Each of *trials* trials compares one activating and one silent window with *examples* others of each side, or fewer.

    The margin of a window q is mean cos(q, E⁺) − mean cos(q, E⁻), where E⁺ are the other activating windows and E⁻ the other
    silent ones. The score is the AUROC of the margins. *seed* addresses what is drawn. The standard error treats trials as
    independent, which they are not quite: windows occur in several trials where trials are many and windows few.
    """

    trials: int
    examples: int
    seed: int

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return two examples per trial: number 2·trial is the activating window, 2·trial + 1 the silent one; the value is the margin."""
        windows = self.shown(task)
        n = 2 * self.trials
        number, nothing = np.arange(n), nans(n)
        truth = number % 2 == 0
        if min(windows.activating.sum(), (~windows.activating).sum()) < 2:
            return Judged(number, truth, np.full(n, TOO_FEW), nothing, nothing, nothing, {"status": TOO_FEW})
        sides = (draw(windows, side, self.trials, self.examples, self.seed) for side in (windows.activating, ~windows.activating))
        margin = margins(self.vectors(windows), *sides).reshape(-1)
        return Judged(number, truth, np.full(n, "ok"), nothing, nothing, margin, area(truth, margin))


@dataclass(frozen=True)
class Drawn:
    """Places of the windows that each trial uses from one side: the *query* [trials] and the *others* [trials, examples]."""

    query: Ints
    others: Ints


def draw(windows: Examples, side: Bools, trials: int, examples: int, seed: int) -> Drawn:
    """Return the windows drawn for each trial from one *side* [n] of the windows, which must hold at least two.

    Windows take turns as query, in a random order: none is query twice before all were query once. The others are drawn anew for
    each trial.
    """
    own = np.flatnonzero(side)
    number = windows.number[own]
    query = np.resize(np.argsort(uniforms(seed_of(seed, "queries"), windows.latent, number), kind="stable"), trials)
    ranks = uniforms(seed_of(seed, "others"), windows.latent, np.arange(trials)[:, None], number)
    ranks[np.arange(trials), query] = np.inf
    others = np.argsort(ranks, axis=1, kind="stable")[:, : min(examples, len(own) - 1)]
    return Drawn(own[query], own[others])


def margins(vectors: Floats, active: Drawn, silent: Drawn) -> Floats:
    """Return the margins [trials, 2] of each trial's activating and silent query, given the unit *vectors* [n, width] of all windows."""
    toward = vectors[active.others].mean(axis=1) - vectors[silent.others].mean(axis=1)
    found: Floats = np.stack([(vectors[side.query] * toward).sum(axis=1) for side in (active, silent)], axis=1)
    return found
