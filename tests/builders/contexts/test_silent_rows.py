"""Windows of rows in which a latent never fires. Plain loops are the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, cases, corpus_of, firings_of, pieces_of, random_case

from builders.contexts.contexts import CONTEXTS, context_rows
from builders.contexts.negatives import Nearby, Sources, hard_windows, shortfalls, strongest
from builders.contexts.selection import Selected, select
from builders.contexts.silent_rows import SilentRows

if TYPE_CHECKING:
    from builders.contexts.windows import Plan

SEED = 3
Place = tuple[int, int]


def drawn(case: Case, plan: Plan, start: int, n: int) -> tuple[Selected, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the windows selected, all CONTEXTS rows with *n* windows of kind row, and the FAILURES records of those."""
    latents = np.arange(case.width)
    selected = select("toy", latents, case.firings, case.corpus, plan, SEED)
    rows = SilentRows.of(case.corpus, start, plan.window, SEED)
    sources = Sources(latents, {}, rows=(n, rows))
    hard = hard_windows(sources, selected, case.firings, case.corpus, plan.window)
    found = context_rows("toy", selected, hard, case.firings, case.corpus, plan.window, pieces_of())
    CONTEXTS.validate(found)
    return selected, found.to_pylist(), shortfalls("toy", sources, selected, hard)


def possible(case: Case, rows: list[dict[str, Any]], latent: int, start: int) -> set[Place]:
    """Return the windows that a latent may get: of rows that are long enough, without any firing, and away from its other windows."""
    others = [(row["row"], row["start"]) for row in rows if row["latent"] == latent and row["kind"] != "row"]
    return {
        (row, start)
        for row, length in enumerate(case.corpus.lengths.tolist())
        if length >= start + case.window
        and not any(own[:2] == (latent, row) for own in case.at)
        and all(other != row or abs(place - start) >= case.window for other, place in others)
    }


@given(cases(), st.booleans(), st.integers(0, 8), st.integers(1, 5))
@settings(max_examples=200)
def test_the_latent_fires_nowhere_in_the_row(case: Case, centered: bool, start: int, n: int) -> None:
    """Windows stand at the same position of rows without any firing, at most one in a row, and overlap no other window of the latent."""
    selected, rows, failed = drawn(case, case.plan(centered=centered), start, n)
    told = {record["latent"]: record["reason"] for record in failed}
    for latent in selected.latents.tolist():
        mine = [row for row in rows if (row["latent"], row["kind"]) == (latent, "row")]
        places = [(row["row"], row["start"]) for row in mine]
        open_ = possible(case, rows, latent, start)
        assert len(set(places)) == len(places) == min(n, len(open_))
        assert set(places) <= open_
        assert told.pop(latent, None) == (f"{len(places)} of {n} windows of this kind" if len(places) < n else None)
        assert all(row["activations"] == [0.0] * case.window for row in mine)
        assert all((row["split"], row["neighbour"], row["quantile"]) == ("test", None, None) for row in mine)
    assert told == {}


def test_a_firing_behind_the_last_whole_window_counts() -> None:
    """A row whose only firing is at its end, where no whole window is, is no silent row."""
    at = {(0, row, position): 1.0 for row in range(2) for position in (0, 4)} | {(0, 2, 9): 1.0}
    case = Case(1, 4, corpus_of([8, 8, 10, 10, 10]), firings_of(at), at)
    _, rows, _ = drawn(case, case.plan(), 1, 5)
    silent = [(row["row"], row["start"]) for row in rows if row["kind"] == "row"]

    assert silent
    assert {row for row, _ in silent} <= {3, 4}


def test_rows_that_are_all_too_short_give_nothing() -> None:
    """Where no row reaches the window's end, a latent has no such windows, and a failure says so."""
    case = random_case(1, 0.1, width=2, rows=12, length=16, window=4)
    selected, rows, failed = drawn(case, case.plan(), 13, 3)

    assert {row["kind"] for row in rows} == {"activating", "random"}
    assert [record["reason"] for record in failed] == ["0 of 3 windows of this kind"] * len(selected.latents)


def test_other_kinds_stay_as_they_are() -> None:
    """Beside windows of neighbours and random ones, windows of silent rows come last and change none of them."""
    case = random_case(4, 0.02, width=4, rows=40, length=24, window=4)
    plan, latents = case.plan(train=2, test=2), np.arange(4)
    near = Nearby(np.array([[1], [2], [3], [0]]), strongest(latents, case.firings, case.corpus, plan, 20, SEED), 3)
    without = Sources(latents, {"cofiring": (3, near)}, near.strongest)
    both = replace(without, rows=(4, SilentRows.of(case.corpus, 10, 4, SEED)))
    selected = select("toy", latents, case.firings, case.corpus, plan, SEED)
    found = []
    for sources in (without, both):
        hard = hard_windows(sources, selected, case.firings, case.corpus, 4)
        found.append(context_rows("toy", selected, hard, case.firings, case.corpus, 4, pieces_of()).to_pylist())

    tests = [[row for row in rows if row["split"] == "test" and row["kind"] != "row"] for rows in found]
    assert tests[0] == tests[1]
    assert sum(row["kind"] == "row" for row in found[1]) == 16
    assert {row["start"] for row in found[1] if row["kind"] == "row"} == {10}


def test_a_draw_has_an_address() -> None:
    """A latent's windows depend on the seed and on the latent alone: the same without the others, other ones by another seed."""
    case = random_case(2, 0.01, width=3, rows=80, length=24, window=4)
    plan = case.plan()
    selected = select("toy", np.arange(3), case.firings, case.corpus, plan, SEED)
    rows = SilentRows.of(case.corpus, 10, 4, SEED)
    latent, row, _ = rows.windows(np.arange(3), 6, case.firings, selected)
    for one in range(3):
        own = case.firings.take(np.flatnonzero(case.firings.latent == one))
        alone = rows.windows(np.array([one]), 6, own, select("toy", np.array([one]), own, case.corpus, plan, SEED))
        assert alone[1].tolist() == row[latent == one].tolist()

    assert row.tolist() != replace(rows, seed=SEED + 1).windows(np.arange(3), 6, case.firings, selected)[1].tolist()
