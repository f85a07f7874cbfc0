"""How far scores have moved from one release to another: the same latents, explainer, scorer and judge in both, so the test is paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from builders.arrays import Floats
from builders.releases.release import Release

SCORES = "scores"
ALL = "all"  # kinds of dictionaries together


@dataclass(frozen=True)
class ScoreShift:
    """The scores of one scorer and explainer that both releases have, over dictionaries of one *kind* or `all`.

    *shift* is the mean of after − before in *unit*, *se* its standard error over the *n* scores (None for one), *p* that of Wilcoxon's
    signed-rank test (None where no score has moved); *up* and *down* count the scores that rose and fell.
    """

    kind: str
    scorer: str
    explainer: str
    unit: str
    n: int
    before: float
    after: float
    shift: float
    se: float | None
    p: float | None
    up: int
    down: int


def score_shifts(a: Release, b: Release) -> tuple[ScoreShift, ...]:
    """Return how far scores have moved from *a* to *b*, all kinds of dictionaries together first; nothing where no file of scores differs.

    Scores are matched by key and unit; a score that is null in either release is left out.
    """
    if not (b.has(SCORES, "unit", "score") and b.has("saes", "sae", "kind")) or _same(a, b):
        return ()
    matched = [*b.tables[SCORES].key, "unit"]
    if not a.has(SCORES, *matched, "score"):
        return ()
    before, after = (release.read(SCORES, [*matched, "score"]).to_pandas().dropna(subset=["score"]) for release in (a, b))
    joined = before.merge(after, on=matched, suffixes=("_before", "_after"))
    kinds = b.read("saes", ["sae", "kind"]).to_pandas()
    joined = joined.merge(kinds, on="sae", how="left")
    whole = joined.assign(kind=ALL)
    named = ["kind", "scorer", "explainer", "unit"]
    found = [
        _shift((str(kind), str(scorer), str(explainer), str(unit)), group["score_before"].to_numpy(), group["score_after"].to_numpy())
        for rows in (whole, joined)
        for (kind, scorer, explainer, unit), group in rows.groupby(named, sort=True)
    ]
    return tuple(found)


def _same(a: Release, b: Release) -> bool:
    return [a.files[name] for name in a.parquet(SCORES)] == [b.files[name] for name in b.parquet(SCORES)]


def _shift(names: tuple[str, str, str, str], before: Floats, after: Floats) -> ScoreShift:
    moved = after - before
    n = len(moved)
    return ScoreShift(
        *names,
        n=n,
        before=float(before.mean()),
        after=float(after.mean()),
        shift=float(moved.mean()),
        se=float(moved.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        p=float(wilcoxon(moved).pvalue) if moved.any() else None,
        up=int((moved > 0).sum()),
        down=int((moved < 0).sum()),
    )
