"""Contexts: the windows of every latent as rows, and the latents that fall short as failures. Plain loops are the reference."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import SAMPLERS, Case, cases, corpus_of, firings_of, pieces_of, random_case

from builders.contexts.contexts import CONTEXTS, Examples, by_latent, context_rows
from builders.contexts.negatives import NOTHING, hard_windows
from builders.contexts.selection import select
from builders.lake.failures import FAILURES

if TYPE_CHECKING:
    import numpy.typing as npt

    from builders.contexts.windows import Plan

Record = dict[str, Any]
quotas = st.integers(1, 3)


def contexts_of(case: Case, plan: Plan, seed: int = 3, latents: range | None = None) -> tuple[list[Record], list[Record]]:
    """Return the CONTEXTS and FAILURES rows of *latents* (all if None) as records, once they are seen to be valid."""
    asked = range(case.width) if latents is None else latents
    kept = np.isin(case.firings.latent, asked)
    firings = type(case.firings)(*(getattr(case.firings, name)[kept] for name in ("latent", "row", "position", "value")))
    found, failed = rows_of(replace(case, firings=firings), plan, seed, np.array(asked, dtype=np.int64), pieces_of())
    CONTEXTS.validate(found)
    FAILURES.validate(failed)
    return found.to_pylist(), failed.to_pylist()


def rows_of(case: Case, plan: Plan, seed: int, latents: npt.NDArray[np.int64], pieces: pa.Array) -> tuple[pa.Table, pa.Table]:
    """Return the CONTEXTS and FAILURES rows of *latents*, without hard windows."""
    selected = select("toy", latents, case.firings, case.corpus, plan, seed)
    hard = hard_windows(NOTHING, selected, case.firings, case.corpus, plan.window)
    return context_rows("toy", selected, hard, case.firings, case.corpus, plan.window, pieces), FAILURES.rows(selected.failed)


def numbers(text: str) -> list[int]:
    """Return the numbers in *text*, in order."""
    return [int(number) for number in re.findall(r"\d+", text)]


# What a row says


@given(cases(), st.sampled_from(SAMPLERS), st.booleans(), quotas, quotas)
@settings(max_examples=100)
def test_rows_show_what_stands_in_the_corpus(case: Case, sampler: str, centered: bool, train: int, test: int) -> None:
    """Tokens, text and activations of every row are those of its row and start; a random window is silent, the others are not."""
    plan = case.plan(sampler=sampler, centered=centered, train=train, test=test)
    for record in contexts_of(case, plan)[0]:
        row, start = record["row"], record["start"]
        assert start + case.window <= case.corpus.lengths[row]
        assert record["tokens"] == case.corpus.ids[row, start : start + case.window].tolist()
        assert record["text"] == "".join(chr(97 + token) for token in record["tokens"])
        assert record["activations"] == case.values(record["latent"], row, start)
        assert any(record["activations"]) == (record["kind"] == "activating")
        assert (record["quantile"] is None) == (record["kind"] == "random")


@given(cases(), st.sampled_from(SAMPLERS), st.booleans(), quotas, quotas)
@settings(max_examples=100)
def test_a_latent_fills_its_whole_quota_or_fails(case: Case, sampler: str, centered: bool, test: int, silent: int) -> None:
    """Every latent has its full number of windows of each kind and split, numbered from 0, or one failure and no window."""
    plan = case.plan(sampler=sampler, centered=centered, test=test, test_random=silent)
    found, failed = contexts_of(case, plan)
    short = [record["latent"] for record in failed]
    assert len(short) == len(set(short))
    for latent in range(case.width):
        mine = [record for record in found if record["latent"] == latent]
        assert bool(mine) != (latent in short)
        for split, quota in (("train", (1, 1)), ("test", (test, silent))):
            kinds = [record["kind"] for record in mine if record["split"] == split]
            assert kinds == (["activating"] * quota[0] + ["random"] * quota[1] if mine else [])
            assert [record["example"] for record in mine if record["split"] == split] == list(range(len(kinds)))


@given(cases(), st.sampled_from(SAMPLERS), st.booleans(), quotas, quotas)
@settings(max_examples=100)
def test_no_token_is_in_two_windows_of_a_latent(case: Case, sampler: str, centered: bool, train: int, silent: int) -> None:
    """No two windows of a latent overlap, of whatever split and kind."""
    plan = case.plan(sampler=sampler, centered=centered, train=train, train_random=silent)
    found, _ = contexts_of(case, plan)
    for latent in range(case.width):
        shown = [(r["row"], r["start"] + offset) for r in found if r["latent"] == latent for offset in range(case.window)]
        assert len(shown) == len(set(shown))


def test_activating_windows_come_strongest_first() -> None:
    """Within a latent and split the activating windows come before the silent ones, from the largest activation down."""
    case = random_case(0, 0.2, width=4, rows=20, length=20, window=4)
    found, _ = contexts_of(case, case.plan(train=8, test=6, train_random=5, test_random=5, quantiles=3))
    for latent in range(4):
        for split, active in (("train", 8), ("test", 6)):
            peaks = [max(r["activations"]) for r in found if (r["latent"], r["split"]) == (latent, split)]
            assert peaks[:active] == sorted(peaks[:active], reverse=True)
            assert peaks[active:] == [0.0] * 5


def test_quantiles_are_those_of_all_the_latent_s_windows() -> None:
    """With as many windows as quantiles, a window's quantile is its rank: 0 holds the strongest."""
    at = {(0, row, row % 3): float(4 - row) for row in range(4)}
    case = Case(1, 3, corpus_of([6] * 4), firings_of(at), at)
    found, _ = contexts_of(case, case.plan(train=2, test=2, quantiles=4))
    quantiles = {record["row"]: record["quantile"] for record in found if record["kind"] == "activating"}
    assert quantiles == {0: 0, 1: 1, 2: 2, 3: 3}


def test_a_character_cut_in_two_is_shown_as_replaced() -> None:
    """A window that ends inside a character still has a text."""
    at = {(0, 0, 0): 1.0, (0, 1, 0): 1.0}
    case = Case(1, 2, corpus_of([4, 4], vocabulary=2), firings_of(at), at)
    pieces = pa.array(["é".encode()[:1], b"a"], pa.binary())
    found, _ = rows_of(case, case.plan(), 0, np.array([0]), pieces)
    assert found["text"].to_pylist() == ["\ufffda"] * 4


# What falls short


def test_a_latent_that_fires_too_little_is_a_failure_with_both_numbers() -> None:
    """A latent with 3 windows where 2 + 4 are needed is a failure that says both, and has no context."""
    at = {(latent, 0, 4 * block): 1.0 for latent, blocks in ((0, 3), (1, 6)) for block in range(blocks)}
    case = Case(3, 4, corpus_of([40]), firings_of(at), at)
    found, failed = contexts_of(case, case.plan(train=2, test=4))
    assert {record["latent"] for record in found} == {1}
    assert [record["latent"] for record in failed] == [0, 2]
    assert all((record["sae"], record["stage"]) == ("toy", "contexts") for record in failed)
    for record, fires in zip(failed, (3, 0), strict=True):
        have, *need = numbers(record["reason"])
        assert (have, sum(need)) == (fires, 6)


def test_a_latent_that_is_silent_too_little_is_a_failure_with_both_numbers() -> None:
    """A latent that is silent in 2 windows where 3 are needed is a failure that says both, and has no context."""
    at = {(latent, 0, 2 * block): 1.0 for latent, blocks in ((0, 10), (1, 9), (2, 12)) for block in range(blocks)}
    case = Case(3, 2, corpus_of([24]), firings_of(at), at)
    found, failed = contexts_of(case, case.plan(train_random=2, test_random=1))
    assert {record["latent"] for record in found} == {1}
    assert [(record["latent"], *numbers(record["reason"])[:1]) for record in failed] == [(0, 2), (2, 0)]
    assert all(sum(numbers(record["reason"])[1:]) == 3 for record in failed)


@pytest.mark.parametrize("centered", [False, True])
def test_where_every_latent_falls_short_there_are_failures_only(centered: bool) -> None:
    """A file of latents none of which fires enough, or at all, gives a failure for each and no context."""
    for at in ({}, {(1, 0, 0): 1.0}):
        case = Case(3, 4, corpus_of([8, 8, 3]), firings_of(at), at)
        found, failed = contexts_of(case, case.plan(centered=centered))
        assert found == []
        assert [record["latent"] for record in failed] == [0, 1, 2]


def test_rows_shorter_than_a_window_give_failures_only() -> None:
    """In a corpus without one whole window no latent can be shown."""
    at = {(0, 0, 0): 1.0}
    case = Case(1, 4, corpus_of([3, 2]), firings_of(at), at)
    found, failed = contexts_of(case, case.plan())
    assert (found, [record["latent"] for record in failed]) == ([], [0])


# Independence


@given(cases(), st.sampled_from(SAMPLERS), st.booleans(), st.integers(1, 3), st.integers(0, 2**62))
@settings(max_examples=60)
def test_contexts_do_not_depend_on_the_split_over_files(case: Case, sampler: str, centered: bool, cut: int, seed: int) -> None:
    """The rows of all latents at once are those of two files of latents, one after the other."""
    plan, cut = case.plan(sampler=sampler, centered=centered), min(cut, case.width)
    halves = [contexts_of(case, plan, seed, part) for part in (range(cut), range(cut, case.width)) if len(part)]
    found, failed = contexts_of(case, plan, seed)
    assert found == [record for half in halves for record in half[0]]
    assert failed == [record for half in halves for record in half[1]]


def test_dense_and_sparse_latents_in_one_file_are_as_they_are_alone() -> None:
    """Latents that need several rounds of draws, and those that need one, get what they get by themselves."""
    parts = [random_case(1, density, width=3, rows=30, length=30, window=3) for density in (0.02, 0.3, 0.72)]
    at = {(3 * n + key[0], *key[1:]): value for n, part in enumerate(parts) for key, value in part.at.items()}
    case = Case(9, 3, parts[0].corpus, firings_of(at), at)
    plan = case.plan(train=5, test=5, train_random=2, test_random=2)
    whole, failed = contexts_of(case, plan)
    assert failed == []
    assert whole == [record for latent in range(9) for record in contexts_of(case, plan, latents=range(latent, latent + 1))[0]]


def test_another_seed_draws_other_windows() -> None:
    """The same seed gives the same rows, another seed other ones."""
    case = random_case(2, 0.1, width=3, rows=20, length=20, window=4)
    plan = case.plan(train=5, test=5)
    assert contexts_of(case, plan, 1) == contexts_of(case, plan, 1)
    assert contexts_of(case, plan, 1) != contexts_of(case, plan, 2)


def test_random_windows_differ_between_train_and_test_and_latents() -> None:
    """The silent windows are drawn anew for every latent, not once for all."""
    case = random_case(3, 0.05, width=3, rows=40, length=20, window=4)
    found, _ = contexts_of(case, case.plan(train_random=8, test_random=8))
    silent = [{(r["row"], r["start"]) for r in found if r["latent"] == latent and r["kind"] == "random"} for latent in range(3)]
    assert all(len(windows) == 16 for windows in silent)
    assert silent[0] != silent[1] != silent[2] != silent[0]


# Rows read back latent by latent


@given(cases(), quotas, quotas)
@settings(max_examples=40)
def test_rows_read_back_are_the_windows_of_each_latent(case: Case, train: int, silent: int) -> None:
    """Each latent's examples of a split hold its rows' numbers, places, tokens, activations and kinds, in order."""
    plan = case.plan(train=train, train_random=silent)
    found, _ = rows_of(case, plan, 1, np.arange(case.width), pieces_of())
    for split in ("train", "test"):
        records = [record for record in found.to_pylist() if record["split"] == split]
        for examples in by_latent(found, split):
            mine = [record for record in records if record["latent"] == examples.latent]
            assert examples.number.tolist() == [record["example"] for record in mine]
            assert list(zip(examples.row, examples.start, strict=True)) == [(record["row"], record["start"]) for record in mine]
            assert examples.tokens.tolist() == [record["tokens"] for record in mine]
            assert examples.activations.tolist() == [record["activations"] for record in mine]
            assert examples.activating.tolist() == [record["kind"] == "activating" for record in mine]
        assert [examples.latent for examples in by_latent(found, split)] == sorted({record["latent"] for record in records})


def test_no_rows_read_back_as_no_latents() -> None:
    """An empty file of contexts yields nothing."""
    nothing: list[Examples] = list(by_latent(CONTEXTS.empty(), "train"))
    assert nothing == []
