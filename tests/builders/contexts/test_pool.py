"""The pool: windows of the whole corpus that all latents share. Plain loops are the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from contexts import windows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, cases, pieces_of

from builders.contexts.contexts import by_latent, context_rows
from builders.contexts.negatives import NOTHING, hard_windows
from builders.contexts.pool import POOL, Pool, pairs_of, pool_rows
from builders.contexts.selection import select
from builders.seeds import drawn

if TYPE_CHECKING:
    from builders.saes.activations import Firings

SEED = 3
Record = dict[str, Any]


def some_of(firings: Firings, low: int, high: int) -> Firings:
    """Return the firings of the latents from *low* up to *high*."""
    return firings.take(np.flatnonzero((firings.latent >= low) & (firings.latent < high)))


def made(case: Case, m: int, cut: int, *, centered: bool = False) -> tuple[pa.Table, pa.Table]:
    """Return the CONTEXTS and POOL rows of a case; the latents are in two files, of which the second begins at *cut*."""
    plan, corpus = case.plan(centered=centered), case.corpus
    number = drawn(np.arange(corpus.grid(plan.window).total), m, SEED)
    parts, found = [], []
    for low, high in ((0, cut), (cut, case.width)):
        firings = some_of(case.firings, low, high)
        selected = select("toy", np.arange(low, high), firings, corpus, plan, SEED)
        parts.append(pairs_of(number, selected, firings, corpus, plan.window))
        hard = hard_windows(NOTHING, selected, firings, corpus, plan.window)
        found.append(context_rows("toy", selected, hard, firings, corpus, plan.window, pieces_of()))
    pool = pool_rows("toy", number, parts, corpus, plan.window, pieces_of())
    POOL.validate(pool)
    return pa.concat_tables(found), pool


def overlap(one: Record, other: Record, window: int) -> bool:
    """Return whether two windows share a token."""
    return bool(one["row"] == other["row"] and abs(one["start"] - other["start"]) < window)


@given(cases(most_length=24), st.booleans(), st.integers(1, 12), st.integers(0, 4))
@settings(max_examples=150)
def test_a_window_tells_who_fires_in_it_and_who_has_it(case: Case, centered: bool, m: int, cut: int) -> None:
    """The pool has as many windows as asked, or all; each lists the latents that fire in it and the silent ones that have it already."""
    contexts, rows = made(case, m, min(cut, case.width), centered=centered)
    own = contexts.to_pylist()
    for record in rows.to_pylist():
        place = record["row"], record["start"]
        firing = [latent for latent in range(case.width) if any(case.values(latent, *place))]
        have = sorted({row["latent"] for row in own if overlap(row, record, case.window)} - set(firing))
        assert record["tokens"] == case.corpus.ids[record["row"], record["start"] :][: case.window].tolist()
        assert record["firing"] == firing
        # What a latent draws before it is found to have too few windows counts as drawn too.
        assert set(have) <= set(record["drawn"])
        assert not set(record["drawn"]) & set(firing)
        assert set(record["drawn"]) & latents_of(own) == set(have)
    assert rows.num_rows == min(m, len(case.grid()))


def latents_of(rows: list[Record]) -> set[int]:
    """Return the latents that rows are about."""
    return {row["latent"] for row in rows}


@given(cases(most_length=24), st.integers(1, 12))
@settings(max_examples=150)
def test_a_latent_gets_the_windows_that_are_open_to_it(case: Case, m: int) -> None:
    """After its own test windows come all windows of the pool in which it is silent and that none of its windows overlaps."""
    contexts, rows = made(case, m, case.width)
    pool, own = Pool.of(rows), contexts.to_pylist()
    for examples in by_latent(contexts, "test"):
        found, n = pool.beside(examples), len(examples.number)
        open_ = [
            record
            for record in rows.to_pylist()
            if not any(case.values(examples.latent, record["row"], record["start"]))
            and not any(overlap(row, record, case.window) for row in own if row["latent"] == examples.latent)
        ]
        more = found.take(np.arange(n, len(found.number)))
        assert found.take(np.arange(n)).number.tolist() == examples.number.tolist()
        assert more.number.tolist() == [n + record["window"] for record in open_]
        assert more.tokens.tolist() == [record["tokens"] for record in open_]
        assert list(zip(more.row.tolist(), more.start.tolist(), strict=True)) == [(record["row"], record["start"]) for record in open_]
        assert set(more.kind.tolist()) <= {"pool"}
        assert not more.activations.any()
        assert found.against("pool").activating.tolist() == [True] * int(examples.activating.sum()) + [False] * len(open_)


def test_without_a_pool_nothing_is_added() -> None:
    """A pool of no windows is a table without rows, and leaves a latent its own windows."""
    examples = windows_of(0, np.ones((3, 4), dtype=np.int32), np.eye(3, 4, dtype=np.float32))

    assert Pool.of(POOL.empty()).beside(examples).number.tolist() == [0, 1, 2]
