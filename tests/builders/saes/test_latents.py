"""Latents: what each one does over the whole corpus. Plain loops are the reference."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, cases, corpus_of, firings_of

from builders.saes.latents import LATENTS, TOP, Scope, latent_rows

Record = dict[str, Any]
PIECES = np.array([f"t{token}" for token in range(16)], dtype=object)


def rows_of(case: Case, low: int, high: int, rare: int = 2) -> list[Record]:
    """Validate and return, as records, the LATENTS rows of the latents from *low* up to *high*."""
    kept = (case.firings.latent >= low) & (case.firings.latent < high)
    firings = type(case.firings)(*(getattr(case.firings, name)[kept] for name in ("latent", "row", "position", "value")))
    scope = Scope(case.corpus, case.window, int(case.corpus.lengths.sum()))
    effects = (np.tile(np.arange(TOP), (case.width, 1)), np.tile(np.arange(TOP)[::-1], (case.width, 1)))
    found = latent_rows("toy", low, high, firings, scope, rare, PIECES, effects)
    LATENTS.validate(found)
    records: list[Record] = found.to_pylist()
    return records


@given(cases(), st.integers(1, 4))
@settings(max_examples=100)
def test_statistics_equal_plain_counts(case: Case, rare: int) -> None:
    """Count, density, windows, largest, mean and status of every latent equal those of a loop over its firings."""
    for latent, row in enumerate(rows_of(case, 0, case.width, rare)):
        mine = {key[1:]: value for key, value in case.at.items() if key[0] == latent}
        whole = [case.corpus.lengths[where] // case.window for where in range(len(case.corpus.ids))]
        windows = len({(where, position // case.window) for where, position in mine if position // case.window < whole[where]})
        assert row["latent"] == latent
        assert row["count"] == len(mine)
        assert row["density"] == pytest.approx(len(mine) / case.corpus.lengths.sum())
        assert row["windows"] == windows
        assert row["window_density"] == (pytest.approx(windows / sum(whole)) if sum(whole) else None)
        assert row["max"] == (max(mine.values()) if mine else None)
        assert row["mean"] == (pytest.approx(sum(mine.values()) / len(mine)) if mine else None)
        assert row["status"] == ("dead" if not mine else "rare" if windows < rare else "alive")


@given(cases())
@settings(max_examples=100)
def test_top_tokens_carry_the_activation_they_are_said_to(case: Case) -> None:
    """The top tokens are those of largest summed activation, in that order, with their shares of it."""
    for latent, row in enumerate(rows_of(case, 0, case.width)):
        mass: dict[int, float] = defaultdict(float)
        for (own, where, position), value in case.at.items():
            if own == latent:
                mass[int(case.corpus.ids[where, position])] += value
        top = [token for _, token in sorted((-value, token) for token, value in mass.items())][:TOP]
        assert row["top_tokens"] == [f"t{token}" for token in top]
        assert row["top_shares"] == pytest.approx([mass[token] / sum(mass.values()) for token in top], rel=1e-5)


def test_no_more_than_ten_top_tokens_are_named() -> None:
    """Of twelve tokens the ten strongest are listed, so their shares do not add up to one."""
    at = {(0, 0, position): float(1 + position) for position in range(12)}
    case = Case(1, 4, corpus_of([12], vocabulary=12), firings_of(at), at)
    (row,) = rows_of(case, 0, 1)
    assert row["top_tokens"] == [f"t{token}" for token in range(11, 1, -1)]
    assert row["top_shares"] == pytest.approx([(1 + token) / 78 for token in range(11, 1, -1)])


@given(cases(), st.integers(0, 4))
@settings(max_examples=50)
def test_latents_are_the_same_in_any_range(case: Case, cut: int) -> None:
    """Two ranges of latents give the rows that one range over both gives."""
    cut = min(cut, case.width)
    assert rows_of(case, 0, cut) + rows_of(case, cut, case.width) == rows_of(case, 0, case.width)


def test_a_dead_latent_has_a_row_without_a_value() -> None:
    """A latent that never fires is a row with status dead, zero counts, and no largest or mean activation."""
    case = Case(2, 4, corpus_of([8]), firings_of({(1, 0, 3): 2.0}), {(1, 0, 3): 2.0})
    dead, alive = rows_of(case, 0, 2, rare=1)
    empty: Record = {"count": 0, "density": 0.0, "windows": 0, "max": None, "mean": None, "top_tokens": [], "top_shares": []}
    assert {name: dead[name] for name in empty} == empty
    assert (dead["status"], alive["status"]) == ("dead", "alive")


def test_promoted_and_suppressed_tokens_are_named() -> None:
    """The ids that each latent promotes and suppresses are named by their pieces, also in a later range."""
    case = Case(3, 4, corpus_of([8]), firings_of({}), {})
    scope = Scope(case.corpus, 4, 8)
    promotes = np.arange(3)[:, None] + np.arange(TOP)
    found = latent_rows("toy", 1, 3, case.firings, scope, 1, PIECES, (promotes, promotes[:, ::-1])).to_pylist()
    assert found[0]["promotes"] == [f"t{token}" for token in range(1, 11)]
    assert found[1]["suppresses"] == [f"t{token}" for token in range(11, 1, -1)]
