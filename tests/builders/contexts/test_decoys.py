"""Silent windows that hold tokens on which the latent fires elsewhere. Plain loops are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, cases, corpus_of, firings_of, pieces_of

from builders.contexts.contexts import CONTEXTS, context_rows
from builders.contexts.decoys import Decoys, strong_tokens
from builders.contexts.negatives import Sources, hard_windows, shortfalls
from builders.contexts.selection import select

SEED = 3
SPECIAL = np.arange(7) == 2
Record = dict[str, Any]


def drawn(case: Case, n: int, *, centered: bool = False) -> tuple[list[Record], list[Record]]:
    """Return all CONTEXTS rows with *n* decoys for each latent, and the FAILURES records of these."""
    plan, latents = case.plan(centered=centered), np.arange(case.width)
    selected = select("toy", latents, case.firings, case.corpus, plan, SEED)
    pairs = strong_tokens(latents, selected, case.firings, case.corpus, plan.window, SPECIAL)
    number = np.arange(case.corpus.grid(plan.window).total)
    sources = Sources(latents, {"decoy": (n, Decoys.of(number, [pairs], case.corpus, plan.window, SEED))})
    hard = hard_windows(sources, selected, case.firings, case.corpus, plan.window)
    rows = context_rows("toy", selected, hard, case.firings, case.corpus, plan.window, pieces_of())
    CONTEXTS.validate(rows)
    return rows.to_pylist(), shortfalls("toy", sources, selected, hard)


def strong_in(row: Record) -> set[int]:
    """Return the tokens of a window that reach 0.3 of its largest activation, without special ones."""
    most = np.float32(0.3) * np.float32(max(row["activations"]))
    return {token for token, value in zip(row["tokens"], row["activations"], strict=True) if value > 0 and value >= most and token != 2}


@given(cases(), st.booleans(), st.integers(1, 5))
@settings(max_examples=200)
def test_decoys_hold_a_token_that_is_strong_elsewhere(case: Case, centered: bool, n: int) -> None:
    """A decoy is a free silent window with a strong token of the latent's test windows; there are as many as asked, or all of them."""
    rows, failed = drawn(case, n, centered=centered)
    told = {record["latent"]: record["reason"] for record in failed}
    for latent in {row["latent"] for row in rows}:
        mine = [row for row in rows if row["latent"] == latent]
        strong = set[int]().union(*(strong_in(row) for row in mine if row["kind"] == "activating" and row["split"] == "test"))
        others = [(row["row"], row["start"]) for row in mine if row["kind"] != "decoy"]
        open_ = {
            (row, start)
            for row, start in case.grid()
            if not any(case.values(latent, row, start))
            and strong & set(case.corpus.ids[row, start : start + case.window].tolist())
            and all(other != row or abs(place - start) >= case.window for other, place in others)
        }
        found = [(row["row"], row["start"]) for row in mine if row["kind"] == "decoy"]
        assert len(set(found)) == len(found) == min(n, len(open_))
        assert set(found) <= open_
        assert told.get(latent) == (f"{len(found)} of {n} windows of this kind" if len(found) < n else None)


def test_another_latent_draws_other_windows() -> None:
    """Two latents that fire alike draw different decoys from the same windows, and a larger draw holds the smaller one."""
    at = {(latent, row, 0): 1.0 for latent in (0, 1) for row in range(2)}
    case = Case(2, 2, corpus_of([2] * 60, vocabulary=2), firings_of(at), at)
    rows = {n: [row for row in drawn(case, n)[0] if row["kind"] == "decoy"] for n in (8, 20)}
    found = {n: [{row["row"] for row in some if row["latent"] == latent} for latent in (0, 1)] for n, some in rows.items()}

    assert found[8][0] != found[8][1]
    assert all(few < many for few, many in zip(found[8], found[20], strict=True))


def test_a_strong_token_is_told_once_and_a_special_one_never() -> None:
    """Strong tokens are those of test windows alone: not weak ones, not special ones, and each once a latent."""
    at = {(0, 0, 0): 10.0, (0, 0, 1): 2.9, (0, 0, 2): 9.0, (0, 0, 3): 3.0, (0, 1, 0): 5.0, (1, 0, 3): 1.0, (1, 1, 3): 1.0}
    case = Case(2, 4, corpus_of([4] * 20, vocabulary=4), firings_of(at), at)
    plan = case.plan(test=2, train=0, quantiles=1)
    selected = select("toy", np.arange(2), case.firings, case.corpus, plan, SEED)

    latent, token = strong_tokens(np.arange(2), selected, case.firings, case.corpus, 4, SPECIAL)
    assert list(zip(latent.tolist(), token.tolist(), strict=True)) == [(0, 0), (0, 3), (1, 3)]
    only = strong_tokens(np.array([1]), selected, case.firings, case.corpus, 4, SPECIAL)
    assert [part.tolist() for part in only] == [[1], [3]]


@pytest.mark.parametrize("fires", [0, 1])
def test_where_every_such_token_fires_there_are_no_decoys(fires: int) -> None:
    """A latent that fires on every occurrence of its token has none, and a failure says so."""
    case = Case(1, 2, corpus_of([2] * 30), firings_of({}), {})
    at = {(0, row, place): 1.0 for row in range(30) for place in range(2) if case.corpus.ids[row, place] == fires}
    rows, failed = drawn(Case(1, 2, case.corpus, firings_of(at), at), 4)

    assert "decoy" not in {row["kind"] for row in rows}
    assert [record["reason"] for record in failed] == ["0 of 4 windows of this kind"]
