"""Scorers that embed: by the cosine of explanation and window, and by how alike activating windows are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contexts import windows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import scored

from builders.embedders.kept import Kept
from builders.embedders.letters import LetterEmbedder
from builders.scorers.embedding import EmbeddingScorer
from builders.scorers.example_embedding import Drawn, ExampleEmbeddingScorer, draw, margins
from builders.scorers.judging import Task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from builders.contexts.contexts import Examples
    from builders.embedders.embedder import Vectors

PIECES = [b"", b"The", b" river", b" mill", b" boats", b" snow", b" ice", b"\xc3", b"\xa9", b" "]


class Angles:
    """Embeds a text by the angle, in degrees, that is written in it; notes what it embeds."""

    name = "angles"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a point of the unit circle for each text."""
        self.asked += texts
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the same for queries."""
        return self.embed(texts)


def at(angles: Sequence[int], activating: Sequence[bool], silent: str = "random", latent: int = 0) -> tuple[Examples, list[bytes]]:
    """Return windows of one token each, whose text is an angle, and the pieces."""
    tokens = np.arange(len(angles), dtype=np.int32)[:, None]
    windows = windows_of(latent, tokens, np.array(activating, dtype=np.float32)[:, None], silent=silent)
    return windows, [str(angle).encode() for angle in angles]


def words(rows: Sequence[Sequence[int]], activating: Sequence[bool]) -> Examples:
    """Return windows of PIECES."""
    tokens = np.array(rows, dtype=np.int32)
    return windows_of(0, tokens, np.repeat(np.array(activating, dtype=np.float32)[:, None], tokens.shape[1], axis=1))


class TestEmbedding:
    """The cosine of explanation and window."""

    def test_a_score_by_hand(self) -> None:
        """Of activating windows at 0° and 60° and silent ones at 45° and 90° three of four pairs are right, with DeLong's error."""
        windows, pieces = at([0, 60, 45, 90], [True, True, False, False])
        rows, record = scored(EmbeddingScorer(Angles(), pieces, "random"), Task(windows, "someone", "0"))
        assert rows["value"].to_pylist() == pytest.approx([1, 0.5, math.sqrt(0.5), 0], abs=1e-6)
        assert rows["truth"].to_pylist() == [True, True, False, False]
        assert rows["example"].to_pylist() == [0, 1, 2, 3]
        assert rows["answer"].null_count == rows["probability"].null_count == 4
        assert (record["status"], record["unit"], record["chance"], record["n"], record["n_failed"]) == ("ok", "AUROC", 0.5, 4, 0)
        assert record["score"] == record["auroc"] == 0.75
        assert record["score_se"] == record["auroc_se"] == pytest.approx(math.sqrt(1 / 8))
        assert record["prompt_sha256"] is None

    def test_windows_are_read_as_plain_text(self) -> None:
        """Bytes join across tokens, special tokens are no text, and half a character is one replacement character."""
        read: list[str] = []

        class Noting(LetterEmbedder):
            def embed(self, texts: Sequence[str]) -> Vectors:
                read.extend(texts)
                return super().embed(texts)

        windows = words([[0, 1, 2, 3], [1, 7, 8, 4], [1, 2, 3, 7]], [True, True, False])
        EmbeddingScorer(Noting(), PIECES, "random").judged(Task(windows, "someone", "rivers"), [])
        assert read == ["rivers", "The river mill", "Theé boats", "The river mill\ufffd"]

    @given(st.lists(st.integers(1, 6), min_size=2, max_size=40), st.permutations(range(40)))
    @settings(max_examples=30)
    def test_equal_windows_tie(self, kinds: list[int], order: list[int]) -> None:
        """Where every activating window has a silent twin the score is ½, whatever the order of windows."""
        rows = np.array([[1, kind, 2 + kind % 3] for kind in kinds] * 2)
        fires = np.arange(len(rows)) < len(kinds)
        places = [place for place in order if place < len(rows)] + list(range(40, len(rows)))
        windows = words(rows.tolist(), fires.tolist()).take(np.array(places))
        judged = EmbeddingScorer(LetterEmbedder(), PIECES, "random").judged(Task(windows, "someone", "the river, ice and snow"), [])
        assert judged.measures["score"] == pytest.approx(0.5, abs=1e-9)

    def test_only_its_own_silent_windows_count(self) -> None:
        """Silent windows of another kind are neither judged nor embedded."""
        near, pieces = at([0, 10, 80, 85], [True, True, False, False], "similar")
        windows = replace(near, kind=np.array(["activating", "activating", "similar", "random"]))
        embedder = Angles()
        rows, record = scored(EmbeddingScorer(embedder, pieces, "similar"), Task(windows, "someone", "0"))
        assert rows["example"].to_pylist() == [0, 1, 2]
        assert record["negatives"] == "similar"
        assert sorted(embedder.asked) == ["0", "0", "10", "80"]

    def test_one_class_alone_has_no_score(self) -> None:
        """Without silent windows there is nothing to tell apart, and the record says so."""
        windows, pieces = at([0, 60], [True, True])
        _, record = scored(EmbeddingScorer(Angles(), pieces, "random"), Task(windows, "someone", "0"))
        assert (record["status"], record["score"]) == ("one class only", None)

    def test_what_was_prepared_is_not_embedded_again(self, tmp_path: Path) -> None:
        """All that many tasks share is embedded once, together, and judging them needs nothing more."""
        asked: list[list[str]] = []

        class Noting(LetterEmbedder):
            instruction = "Find: "

            def embed(self, texts: Sequence[str]) -> Vectors:
                asked.append(list(texts))
                return super().embed(texts)

        windows = words([[1, 2, 3], [1, 4, 4], [5, 6, 9]], [True, True, False])
        tasks = [Task(windows, who, explanation) for who, explanation in (("one", "rivers"), ("two", "ice"), ("three", "rivers"))]
        scorer = EmbeddingScorer(Kept(Noting(), tmp_path / "vectors.sqlite"), PIECES, "random")
        scorer.prepare(tasks)
        assert asked == [[" snow ice ", "The river mill", "The boats boats"], ["Find: ice", "Find: rivers"]]
        for task in tasks:
            assert scorer.judged(task, []).measures["status"] == "ok"
        assert len(asked) == 2


sides = st.tuples(st.integers(2, 9), st.integers(2, 9))


def some(active: int, silent: int, latent: int = 3) -> Examples:
    """Return so many windows of either kind."""
    fires = np.arange(active + silent) < active
    return windows_of(latent, np.arange(len(fires), dtype=np.int32)[:, None], fires.astype(np.float32)[:, None])


def drawn(windows: Examples, trials: int, examples: int, seed: int = 5) -> list[Drawn]:
    """Return the windows drawn on the activating and on the silent side."""
    return [draw(windows, side, trials, examples, seed) for side in (windows.activating, ~windows.activating)]


class TestDraws:
    """Which windows each trial uses."""

    @given(sides, st.integers(1, 25), st.integers(1, 12))
    def test_others_are_of_one_side_and_never_the_query(self, sizes: tuple[int, int], trials: int, examples: int) -> None:
        """Each trial has a query of each side and as many others of that side as there are, up to the number asked for, none twice."""
        windows = some(*sizes)
        for found, truth, size in zip(drawn(windows, trials, examples), (True, False), sizes, strict=True):
            assert found.query.shape == (trials,)
            assert found.others.shape == (trials, min(examples, size - 1))
            for query, others in zip(found.query.tolist(), found.others.tolist(), strict=True):
                assert query not in others
                assert len(set(others)) == len(others)
                assert (windows.activating[[query, *others]] == truth).all()

    @given(sides, st.integers(1, 25))
    def test_all_take_turns(self, sizes: tuple[int, int], trials: int) -> None:
        """Windows of a side take turns as query: no two of them differ by more than one in how often they are query."""
        windows = some(*sizes)
        for found, own in zip(drawn(windows, trials, 3), (windows.activating, ~windows.activating), strict=True):
            counts = np.bincount(found.query, minlength=len(own))[own]
            assert counts.max() - counts.min() <= 1

    @given(sides, st.integers(1, 20), st.permutations(range(18)))
    def test_a_draw_has_an_address(self, sizes: tuple[int, int], trials: int, order: list[int]) -> None:
        """By number, the draws are the same in whatever order windows come, and more trials go on where fewer end."""
        windows = some(*sizes)
        shuffled = windows.take(np.array([place for place in order if place < sum(sizes)]))
        for one, other, longer in zip(drawn(windows, trials, 4), drawn(shuffled, trials, 4), drawn(windows, trials + 3, 4), strict=True):
            assert (windows.number[one.query] == shuffled.number[other.query]).all()
            assert (windows.number[one.others] == shuffled.number[other.others]).all()
            assert (longer.query[:trials] == one.query).all()
            assert (longer.others[:trials] == one.others).all()

    def test_latents_and_seeds_draw_apart(self) -> None:
        """Another latent and another seed draw others."""
        base, latent, seed = (drawn(some(9, 9, latent), 20, 4, seed)[0].others.tolist() for latent, seed in ((3, 5), (4, 5), (3, 6)))
        assert base != latent
        assert base != seed

    @given(sides, st.integers(1, 6), st.integers(1, 5), st.integers(0, 100))
    def test_a_margin_is_a_difference_of_mean_cosines(self, sizes: tuple[int, int], trials: int, examples: int, seed: int) -> None:
        """The margin of each query is its mean cosine with the activating others less that with the silent others of the trial."""
        windows = some(*sizes)
        vectors = np.random.default_rng(seed).normal(size=(sum(sizes), 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        active, silent = drawn(windows, trials, examples)
        found = margins(vectors, active, silent)
        assert found.shape == (trials, 2)
        for trial in range(trials):
            for column, side in enumerate((active, silent)):
                query = vectors[side.query[trial]]
                near, far = (np.mean([query @ vectors[other] for other in who.others[trial]]) for who in (active, silent))
                assert found[trial, column] == pytest.approx(near - far)


def random_windows(latent: int) -> tuple[Examples, list[bytes]]:
    """Return 12 activating and 12 silent windows at angles drawn alike."""
    angles: npt.NDArray[Any] = np.random.default_rng(latent).integers(0, 360, 24)
    return at(angles.tolist(), [place < 12 for place in range(24)], latent=latent)


class TestExampleEmbedding:
    """How alike activating windows are."""

    def test_a_score_by_hand(self) -> None:
        """Of windows at 0° and 60° and two at 90° each trial leaves one other on each side, and three of four pairs are right."""
        windows, pieces = at([0, 60, 90, 90], [True, True, False, False])
        rows, record = scored(ExampleEmbeddingScorer(Angles(), pieces, "random", trials=2, examples=10, seed=0), Task(windows))
        assert rows["example"].to_pylist() == [0, 1, 2, 3]
        assert rows["truth"].to_pylist() == [True, False, True, False]
        values = sorted(zip(rows["value"].to_pylist()[0::2], rows["value"].to_pylist()[1::2], strict=True))
        half, most = 0.5, math.cos(math.radians(30))
        assert values == [pytest.approx((half - most, 0 - 1), abs=1e-6), pytest.approx((half - 0, most - 1), abs=1e-6)]
        assert (record["score"], record["unit"], record["chance"], record["n"], record["explainer"]) == (0.75, "AUROC", 0.5, 4, "none")

    def test_windows_that_are_alike_are_told(self) -> None:
        """Activating windows around 0° among silent ones anywhere are told in every trial."""
        angles = [*range(-10, 10, 2), *range(60, 300, 24)]
        windows, pieces = at(angles, [place < 10 for place in range(20)])
        judged = ExampleEmbeddingScorer(Angles(), pieces, "random", trials=20, examples=10, seed=0).judged(Task(windows), [])
        assert judged.measures["score"] == 1.0

    def test_windows_that_are_not_are_at_chance(self) -> None:
        """Over 300 latents whose windows are drawn alike on both sides, the mean score is ½ within three of its standard errors."""
        scores = []
        for latent in range(300):
            windows, pieces = random_windows(latent)
            scorer = ExampleEmbeddingScorer(Angles(), pieces, "random", trials=12, examples=5, seed=0)
            scores.append(scorer.judged(Task(windows), []).measures["score"])
        assert abs(np.mean(scores) - 0.5) < 3 * np.std(scores) / math.sqrt(300)
        assert np.std(scores) / math.sqrt(300) < 0.02

    @pytest.mark.parametrize(("active", "silent"), [(1, 5), (5, 1), (0, 5), (5, 0)])
    def test_too_few_windows_are_a_status(self, active: int, silent: int) -> None:
        """With fewer than two windows on a side no query has others on both, and every row says why there is no value."""
        windows, pieces = at([0] * (active + silent), [True] * active + [False] * silent)
        rows, record = scored(ExampleEmbeddingScorer(Angles(), pieces, "random", trials=3, examples=10, seed=0), Task(windows))
        assert rows["status"].to_pylist() == ["too few windows"] * 6
        assert rows["value"].null_count == 6
        assert (record["status"], record["score"], record["n"], record["n_failed"]) == ("too few windows", None, 0, 6)
