"""Hard windows by text: the silent ones nearest to a latent's strongest. Plain loops are the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, cases, corpus_of, firings_of, pieces_of, random_case, tie

from builders.contexts import lookalikes
from builders.contexts.contexts import CONTEXTS, context_rows
from builders.contexts.lookalikes import Lookalikes, embedded, in_turn, standing
from builders.contexts.negatives import Sources, hard_windows
from builders.contexts.selection import Selected, select

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from builders.contexts.windows import Plan

Record = dict[str, Any]
LETTERS = "abcdefg"
SEED = 3


def letters(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return how often each letter occurs: small whole numbers, whose products are exact."""
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts], dtype=np.float32)


def selected_of(case: Case, plan: Plan) -> Selected:
    """Return the windows of all latents of a case."""
    return select("toy", np.arange(case.width), case.firings, case.corpus, plan, SEED)


def lookalikes_of(case: Case, plan: Plan, sample: Iterable[int], selected: Selected) -> Lookalikes:
    """Return a sample of windows by number, embedded by their letters, and what stands for each latent."""
    places, number = standing(selected, case.corpus), np.array(sorted(sample), dtype=np.int64)
    return embedded(selected.latents, places, case.corpus, plan.window, number, pieces_of(), letters)


def rows_of(case: Case, plan: Plan, sources: Sources, selected: Selected) -> list[Record]:
    """Return all CONTEXTS rows, once they are seen to be valid."""
    hard = hard_windows(sources, selected, case.firings, case.corpus, plan.window)
    rows = context_rows("toy", selected, hard, case.firings, case.corpus, plan.window, pieces_of())
    CONTEXTS.validate(rows)
    found: list[Record] = rows.to_pylist()
    return found


def expected(case: Case, rows: list[Record], latent: int, sample: list[tuple[int, int]], n: int) -> list[tuple[int, int]]:
    """Return where a latent's similar windows lie, by plain loops: its ten strongest windows in turn take their nearest."""
    own = [record for record in rows if record["latent"] == latent and record["kind"] in {"activating", "random"}]
    fires = [record for record in own if record["kind"] == "activating"]
    active = sorted(fires, key=lambda r: (-max(r["activations"]), tie((latent, r["row"], r["start"]), SEED)))
    left = []
    for row, start in sample:
        apart = all(row != r["row"] or abs(start - r["start"]) >= case.window for r in own)
        if apart and not any(case.values(latent, row, start)):
            left.append((row, start))
    found: list[tuple[int, int]] = []
    for turn in range(min(n, len(left))):
        query = letters([active[:10][turn % min(len(active), 10)]["text"]])[0]
        ids = [case.corpus.ids[row, start : start + case.window] for row, start in left]
        texts = letters(["".join(LETTERS[token] for token in some) for some in ids])
        found.append(left.pop(int((texts @ query).argmax())))
    return found


@given(cases(most_length=24), st.booleans(), st.integers(1, 8), st.integers(1, 3), st.data())
@settings(max_examples=150)
def test_similar_windows_are_what_plain_loops_find(case: Case, centered: bool, n: int, test: int, data: st.DataObject) -> None:
    """Similar windows are the nearest of the sample, silent, apart from all others, none twice, each strongest window in its turn."""
    plan, grid = case.plan(centered=centered, test=test, train=2), case.grid()
    sample = data.draw(st.sets(st.sampled_from(range(len(grid))), min_size=1)) if grid else set()
    selected = selected_of(case, plan)
    sources = Sources(selected.latents, {"similar": (n, lookalikes_of(case, plan, sample, selected))})
    rows = rows_of(case, plan, sources, selected)
    places = [grid[number] for number in sorted(sample)]
    for latent in selected.latents.tolist():
        mine = [(r["row"], r["start"]) for r in rows if r["latent"] == latent and r["kind"] == "similar"]
        assert mine == expected(case, rows, latent, places, n)
    for record in rows:
        if record["kind"] == "similar":
            assert (record["split"], record["neighbour"], record["neighbour_activations"]) == ("test", None, [])
            assert not any(record["activations"])


def test_ten_windows_stand_for_a_latent_the_strongest_of_both_splits() -> None:
    """Of twelve windows of both splits the ten strongest stand for a latent, from the strongest on."""
    case = random_case(2, 0.2, width=3, rows=12, length=24, window=4)
    plan = case.plan(train=6, test=6)
    selected = selected_of(case, plan)
    rows, starts = np.divmod(standing(selected, case.corpus), case.corpus.row_length)
    for place, latent in enumerate(selected.latents.tolist()):
        fires = np.flatnonzero((selected.latent == latent) & (selected.kind == 0))
        strongest = sorted(fires.tolist(), key=lambda index: selected.rank[index])[:10]
        assert rows[place].tolist() == selected.row[strongest].tolist()
        assert starts[place].tolist() == selected.start[strongest].tolist()
    assert len({bool(train) for train in selected.train[selected.kind == 0]}) == 2


def test_equally_strong_windows_of_both_splits_stand_for_a_latent() -> None:
    """Where all windows peak at 1, test windows do not go before training windows: of twenty of each, ten of both are drawn."""
    at = {(latent, row, 1): 1.0 for latent in range(40) for row in range(60)}
    case = Case(40, 4, corpus_of([8] * 60), firings_of(at), at)
    selected = selected_of(case, case.plan(train=20, test=20))
    where = selected.latent * 60 + selected.row
    chosen = np.repeat(np.arange(40), 10) * 60 + standing(selected, case.corpus).reshape(-1) // case.corpus.row_length
    trained = selected.train[[int(np.flatnonzero((where == own) & (selected.rank >= 0))[0]) for own in chosen]]

    assert abs(trained.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_queries_take_turns() -> None:
    """Of five things, the first of two queries is nearest to 4, 3, 2 …, the second to 4, 0, 1: they take 4, 0, 3, 1."""
    near = np.array([[[0, 1, 2, 3, 4], [3, 2, 0, 1, 4]]], dtype=np.float32)
    free = np.ones((1, 5), dtype=bool)

    assert in_turn(near, free, 4).tolist() == [[4, 0, 3, 1]]
    assert in_turn(near, free, 7).tolist() == [[4, 0, 3, 1, 2, -1, -1]]
    assert in_turn(near, np.array([[True, False, True, False, False]]), 3).tolist() == [[2, 0, -1]]


def test_of_equally_near_things_the_first_is_taken() -> None:
    """Ties go to the lower number."""
    assert in_turn(np.ones((2, 3, 4), dtype=np.float32), np.ones((2, 4), dtype=bool), 3).tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("cells", [1, 400, 2**20])
def test_similar_windows_do_not_depend_on_who_else_is_asked_for(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """Asked for one by one or all together, in blocks of any size, latents get the same windows."""
    monkeypatch.setattr(lookalikes, "CELLS", cells)
    case = random_case(4, 0.1, width=6, rows=12, length=24, window=4)
    plan = case.plan(train=3, test=3)
    selected = selected_of(case, plan)
    similar = lookalikes_of(case, plan, list(range(0, 72, 2)), selected)
    total = case.corpus.grid(4).total
    whole = similar.windows(selected.latents, selected.taken, total, 7)
    alone = [similar.windows(np.array([latent]), selected.taken, total, 7) for latent in selected.latents.tolist()]

    assert len(selected.latents) == 6
    assert [part.tolist() for part in whole] == [np.concatenate(parts).tolist() for parts in zip(*alone, strict=True)]


def test_every_text_is_embedded_once() -> None:
    """A window that stands for several latents is embedded once, and so is each of the sample."""
    case = random_case(4, 0.4, width=6, rows=4, length=24, window=4)
    plan = case.plan(train=3, test=3)
    selected, seen = selected_of(case, plan), list[str]()

    def noted(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        seen.extend(texts)
        return letters(texts)

    places = standing(selected, case.corpus)
    found = embedded(selected.latents, places, case.corpus, 4, np.arange(5), pieces_of(), noted)

    assert len(seen) == 5 + len(np.unique(places)) < 5 + places.size
    assert (len(found.vectors), len(found.queries)) == (5, len(np.unique(places)))


def test_nobody_has_nothing_similar() -> None:
    """Where no latent has windows, nothing is looked for."""
    case = random_case(4, 0.0, width=2, rows=4, length=24, window=4)
    selected = selected_of(case, case.plan())
    similar = lookalikes_of(case, case.plan(), [0, 1], selected)

    assert [len(part) for part in similar.windows(selected.latents, selected.taken, 24, 3)] == [0, 0, 0]
