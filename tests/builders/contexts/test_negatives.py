"""Hard windows: silent ones in which a neighbour fires. Plain loops are the reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, cases, firings_of, pieces_of, random_case, whole_windows

from builders.contexts.contexts import CONTEXTS, context_rows
from builders.contexts.negatives import NOTHING, Nearby, Sources, Strongest, hard_windows, shortfalls, strongest, together
from builders.contexts.selection import Selected, select
from builders.lake.failures import FAILURES

if TYPE_CHECKING:
    import numpy.typing as npt

    from builders.contexts.windows import Plan

Record = dict[str, Any]
KEPT = 50  # more windows than any small case has
SEED = 3
counts = st.integers(1, 6)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Case, Plan, npt.NDArray[np.int64]]:
    """Draw a case, a plan that some of its latents can fill, and neighbours of each latent, none its own."""
    case = draw(cases(most_length=24))
    plan = case.plan(centered=draw(st.booleans()), test=draw(st.integers(1, 2)))
    others = [[other for other in range(case.width) if other != latent] for latent in range(case.width)]
    ranked = [draw(st.permutations(some)) for some in others]
    matrix = [some[: draw(st.integers(0, 3))] for some in ranked]
    return case, plan, np.array([[*some, *[-1] * (4 - len(some))] for some in matrix], dtype=np.int64)


def sources_of(case: Case, plan: Plan, neighbours: dict[str, npt.NDArray[np.int64]], n: int, per: int, kept: int = KEPT) -> Sources:
    """Return the sources of *n* windows of each kind for all latents."""
    latents = np.arange(case.width)
    found = strongest(latents, case.firings, case.corpus, plan, kept, SEED)
    return Sources(latents, {kind: (n, Nearby(matrix, found, per)) for kind, matrix in neighbours.items()}, found)


def drawn(case: Case, plan: Plan, sources: Sources) -> tuple[Selected, list[Record], list[Record]]:
    """Return the windows selected, all CONTEXTS rows and all FAILURES rows, once they are seen to be valid."""
    selected = select("toy", np.arange(case.width), case.firings, case.corpus, plan, SEED)
    hard = hard_windows(sources, selected, case.firings, case.corpus, plan.window)
    rows = context_rows("toy", selected, hard, case.firings, case.corpus, plan.window, pieces_of())
    failed = FAILURES.rows(selected.failed + shortfalls("toy", sources, selected, hard))
    CONTEXTS.validate(rows)
    FAILURES.validate(failed)
    return selected, rows.to_pylist(), failed.to_pylist()


def place(record: Record) -> tuple[int, int]:
    """Return where a window was cut."""
    return record["row"], record["start"]


def expected(case: Case, rows: list[Record], latent: int, neighbours: list[int], n: int, per: int) -> list[tuple[int, int, int]]:
    """Return (row, start, neighbour) of a latent's hard windows, by plain loops over its neighbours and their windows."""
    plain = [place(record) for record in rows if record["latent"] == latent and record["kind"] in {"activating", "random"}]
    found: list[tuple[int, int, int]] = []
    for neighbour in neighbours:
        given = 0
        for (owner, row, start), _ in whole_windows(case, SEED):
            silent = not any(case.values(latent, row, start))
            apart = all(row != r or abs(start - s) >= case.window for r, s in plain)
            new = (row, start) not in [window[:2] for window in found]
            if owner == neighbour and silent and apart and new and given < per and len(found) < n:
                found.append((row, start, neighbour))
                given += 1
    return found


@given(asked(), counts, st.integers(1, 3))
@settings(max_examples=200)
def test_neighbours_give_their_strongest_windows_in_turn(some: tuple[Case, Plan, npt.NDArray[np.int64]], n: int, per: int) -> None:
    """A latent's hard windows are what plain loops find: by rank of neighbour, its strongest first, silent, apart, none twice."""
    case, plan, matrix = some
    _, rows, _ = drawn(case, plan, sources_of(case, plan, {"cofiring": matrix}, n, per))
    for latent in {record["latent"] for record in rows}:
        neighbours = [other for other in matrix[latent].tolist() if other >= 0]
        mine = [record for record in rows if record["latent"] == latent and record["kind"] == "cofiring"]
        assert [(*place(r), r["neighbour"]) for r in mine] == expected(case, rows, latent, neighbours, n, per)


@given(asked(), counts)
@settings(max_examples=100)
def test_rows_show_who_fires_there(some: tuple[Case, Plan, npt.NDArray[np.int64]], n: int) -> None:
    """In a hard window the latent is silent and its neighbour is not; other windows have no neighbour."""
    case, plan, matrix = some
    _, rows, _ = drawn(case, plan, sources_of(case, plan, {"cofiring": matrix, "encoder": matrix}, n, 2))
    for record in rows:
        hard = record["kind"] in {"cofiring", "encoder"}
        assert (record["neighbour"] is not None) == hard
        if hard:
            assert record["activations"] == [0.0] * case.window == case.values(record["latent"], *place(record))
            assert record["neighbour_activations"] == case.values(record["neighbour"], *place(record))
            assert any(record["neighbour_activations"])
            assert (record["split"], record["quantile"]) == ("test", None)
            assert record["tokens"] == case.corpus.ids[record["row"], record["start"] :][: case.window].tolist()
        else:
            assert record["neighbour_activations"] == []


@given(asked(), counts)
@settings(max_examples=100)
def test_other_windows_stay_as_they_are(some: tuple[Case, Plan, npt.NDArray[np.int64]], n: int) -> None:
    """Hard windows come after a latent's other test windows, in a fixed order of kinds; those keep their numbers and contents."""
    case, plan, matrix = some
    _, plain, _ = drawn(case, plan, NOTHING)
    _, rows, _ = drawn(case, plan, sources_of(case, plan, {"encoder": matrix, "cofiring": matrix, "decoder": matrix}, n, 2))
    order = ["activating", "random", "cofiring", "decoder", "encoder"]

    assert [record for record in rows if record["kind"] in {"activating", "random"}] == plain
    for one, other in pairwise(record for record in rows if record["split"] == "test"):
        if one["latent"] == other["latent"]:
            assert other["example"] == one["example"] + 1
            assert order.index(one["kind"]) <= order.index(other["kind"])


@given(asked(), counts)
@settings(max_examples=75)
def test_a_kind_does_not_depend_on_the_others(some: tuple[Case, Plan, npt.NDArray[np.int64]], n: int) -> None:
    """A kind's windows are the same whichever other kinds are asked for; within it no two overlap, nor with train or random ones."""
    case, plan, matrix = some
    both = sources_of(case, plan, {"cofiring": matrix, "decoder": matrix[:, ::-1]}, n, 2)
    one = replace(both, kinds={"decoder": both.kinds["decoder"]})
    rows = drawn(case, plan, both)[1]
    mine = [[{**r, "example": 0} for r in found if r["kind"] == "decoder"] for found in (rows, drawn(case, plan, one)[1])]

    assert mine[0] == mine[1]
    for kind in ("cofiring", "decoder"):
        shown = [r for r in rows if r["kind"] in {"activating", "random", kind}]
        for first, second in combinations(shown, 2):
            if first["latent"] == second["latent"] and first["row"] == second["row"]:
                assert abs(first["start"] - second["start"]) >= case.window


@given(asked(), counts, st.integers(1, 2))
@settings(max_examples=75)
def test_fewer_than_asked_is_a_failure_but_drops_nobody(some: tuple[Case, Plan, npt.NDArray[np.int64]], n: int, per: int) -> None:
    """A latent that gets fewer hard windows than asked keeps what there is, and one failure a kind says how many."""
    case, plan, matrix = some
    selected, rows, failed = drawn(case, plan, sources_of(case, plan, {"cofiring": matrix, "encoder": matrix[:, :1]}, n, per))
    told = {(r["latent"], r["item"]): r["reason"] for r in failed if r["item"] != "latent"}
    for latent in selected.latents.tolist():
        for kind in ("cofiring", "encoder"):
            have = sum(r["latent"] == latent and r["kind"] == kind for r in rows)
            assert have <= n
            assert told.pop((latent, kind), None) == (f"{have} of {n} windows of this kind" if have < n else None)
    assert told == {}


def test_neighbours_give_in_turn_what_is_left() -> None:
    """With 10 windows, 1, 2 and 5 taken, at most two a neighbour: the first gives 3 and 4, the next what it did not give, up to five."""
    number = np.array([[-1] * 5, [1, 3, 4, 6, -1], [3, 2, 6, 7, 8], [9, 0, -1, -1, -1]], dtype=np.int32)
    near = Nearby(np.array([[1, 2, 3]]), Strongest(number, firings_of({})), per_neighbour=2)
    found = {n: near.windows(np.array([0]), np.array([1, 2, 5]), 10, n) for n in (1, 5, 8)}

    assert {n: [part.tolist() for part in parts[1:]] for n, parts in found.items()} == {
        1: [[3], [1]],
        5: [[3, 4, 6, 7, 9], [1, 1, 2, 2, 3]],
        8: [[3, 4, 6, 7, 9, 0], [1, 1, 2, 2, 3, 3]],
    }


def test_latents_that_get_none_are_no_failures() -> None:
    """Where only some latents get hard windows, the others have none, and nothing is said of them."""
    case = random_case(1, 0.1, width=4, rows=10, length=24, window=4)
    ring = np.array([[1], [2], [3], [0]])
    all_ = sources_of(case, case.plan(), {"cofiring": ring}, 3, 2)
    some = replace(all_, latents=np.array([1, 3]))
    _, rows, failed = drawn(case, case.plan(), some)
    hard = [record for record in rows if record["kind"] == "cofiring"]

    assert [record["latent"] for record in hard] == [1, 1, 3, 3]
    assert [(r["latent"], r["item"], r["reason"]) for r in failed] == [(n, "cofiring", "2 of 3 windows of this kind") for n in (1, 3)]
    assert hard == [r for r in drawn(case, case.plan(), all_)[1] if r["kind"] == "cofiring" and r["latent"] in {1, 3}]


# What is kept of every latent


@given(cases(), st.integers(1, 6))
@settings(max_examples=100)
def test_the_strongest_windows_are_kept_with_what_fires_in_them(case: Case, most: int) -> None:
    """Of every latent the strongest whole windows are kept, in order, also where contexts are centered, and their activations."""
    kept = strongest(np.arange(case.width), case.firings, case.corpus, case.plan(centered=True), most, SEED)
    grid = case.corpus.grid(case.window)
    for latent in range(case.width):
        mine = [window for window, _ in whole_windows(case, SEED) if window[0] == latent][:most]
        numbers = [int(number) for number in kept.number[latent] if number >= 0]
        rows, starts = grid.place(np.array(numbers, dtype=np.int64))
        assert list(zip(rows.tolist(), starts.tolist(), strict=True)) == [window[1:] for window in mine]
        again = np.array([*numbers, *numbers], dtype=np.int64)  # a window may be asked for by several latents
        shown = kept.activations(np.full(len(again), latent), again, case.corpus, case.window)
        assert shown.tolist() == [case.values(*window) for window in mine] * 2


@given(cases(), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=75)
def test_what_is_kept_does_not_depend_on_the_split_over_files(case: Case, most: int, cut: int) -> None:
    """The windows kept of two files of latents are, together, those kept of one."""

    def part(latents: range) -> Strongest:
        inside = np.flatnonzero(np.isin(case.firings.latent, latents))
        return strongest(np.array(latents), case.firings.take(inside), case.corpus, case.plan(), most, SEED)

    whole, cut = part(range(case.width)), min(cut, case.width)
    halves = together([part(some) for some in (range(cut), range(cut, case.width)) if len(some)])

    assert halves.number.tolist() == whole.number.tolist()
    assert halves.firings.position.tolist() == whole.firings.position.tolist()
    assert halves.firings.latent.tolist() == whole.firings.latent.tolist()


@pytest.mark.parametrize("density", [0.02, 0.3])
def test_hard_windows_of_a_latent_do_not_depend_on_the_others(density: float) -> None:
    """Selected alone, a latent gets the hard windows that it gets among others."""
    case = random_case(5, density, width=6, rows=20, length=24, window=4)
    plan = case.plan(train=2, test=2)
    ring = np.array([[(latent + step) % 6 for step in (1, 2, 3)] for latent in range(6)])
    sources = sources_of(case, plan, {"cofiring": ring}, 8, 3)
    whole = [record for record in drawn(case, plan, sources)[1] if record["kind"] == "cofiring"]
    alone = []
    for latent in range(6):
        own = case.firings.take(np.flatnonzero(case.firings.latent == latent))
        selected = select("toy", np.array([latent]), own, case.corpus, plan, SEED)
        hard = hard_windows(sources, selected, own, case.corpus, plan.window)
        alone += context_rows("toy", selected, hard, own, case.corpus, plan.window, pieces_of()).to_pylist()

    assert len(whole) > 20
    assert [record for record in alone if record["kind"] == "cofiring"] == whole
