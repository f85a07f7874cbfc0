"""Explainers: cues in plain words and back, what the lexical explainer finds when it is planted, and the permuted baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from contexts import windows_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders.explainers import cues, lexical
from builders.explainers.cues import Cue
from builders.explainers.explanations import EXPLANATIONS, explanation_record, named, permuted, sample_of
from builders.explainers.lexical import Settings, explain

if TYPE_CHECKING:
    from builders.contexts.contexts import Examples

# Cues in words

awkward = st.sampled_from(
    ['"', "\\", "\n", "\r\n", "\t", " after ", '" after "', "(50% of the activation shown, ", ")", " on ", ", on ", "\u2028", "%", ""]
)
pieces_of_text = st.one_of(awkward, st.text(max_size=12), st.lists(awkward, max_size=4).map("".join))
shares = st.integers(0, 100).map(lambda percent: percent / 100)
cue_of = st.one_of(
    st.builds(Cue, pieces_of_text, st.none(), shares, shares),
    st.builds(Cue, st.none(), pieces_of_text, shares, shares),
    st.builds(Cue, pieces_of_text, pieces_of_text, shares, shares),
)
CLAUSE = 'on "x" (5% of the activation shown, 6% of its occurrences)'


@given(st.lists(cue_of, max_size=5))
@example([Cue(CLAUSE, CLAUSE, 0.25, 1.0), Cue(None, CLAUSE, 0.0, 0.5)])
@example([Cue('"', '"', 1.0, 1.0), Cue("\\", "\\", 1.0, 1.0), Cue('\\"', None, 1.0, 1.0)])
@example([Cue("", None, 0.5, 0.5), Cue(None, "", 0.5, 0.5), Cue("", "", 0.5, 0.5)])
@settings(max_examples=300)
def test_cues_are_read_back_from_their_words(named: list[Cue]) -> None:
    """Whatever quotes, line breaks, brackets or clauses the pieces hold, the sentence gives back the same cues in order."""
    assert cues.read(cues.write(named)) == named


@given(st.lists(cue_of, min_size=1, max_size=3))
def test_cues_are_one_line(named: list[Cue]) -> None:
    """Line breaks inside pieces are escaped, so a sentence is one line."""
    assert "\n" not in cues.write(named)
    assert "\r" not in cues.write(named)


def test_a_sentence_as_a_person_reads_it() -> None:
    """The words are those of the docs: a token, what follows a token, and a pair, with their shares in percent."""
    named = [Cue(" the", None, 0.504, 0.9), Cue(None, "\n", 0.2, 0.333), Cue("b", "a", 0.1, 1.0)]
    assert cues.write(named) == (
        'Fires on " the" (50% of the activation shown, 90% of its occurrences), '
        'on whatever follows "\\n" (20% of the activation shown, 33% of its occurrences), '
        'on "b" after "a" (10% of the activation shown, 100% of its occurrences).'
    )


@pytest.mark.parametrize(
    "text", ["", "Fires on verbs.", 'Fires on "x".', 'Fires on "x (5% of the activation shown, 6% of its occurrences).', "on x (5%, 6%)"]
)
def test_other_words_name_no_cue(text: str) -> None:
    """Words that are not those of a cue are read as none, not as a guess."""
    assert cues.read(text) == []


def test_strength_is_the_reliability_of_the_best_cue_that_fits() -> None:
    """Each token gets the highest reliability among the cues that fit there; a cue on what went before needs it in the window."""
    ids = {"a": [0], "b": [1, 3], "c": [2]}
    named = [Cue("b", None, 0.5, 0.4), Cue("b", "a", 0.5, 0.9), Cue(None, "c", 0.5, 0.6), Cue("gone", None, 0.5, 1.0)]
    tokens = np.array([[0, 1, 0, 3], [1, 2, 1, 2], [2, 2, 0, 0]], dtype=np.int32)
    assert cues.strengths(named, tokens, ids, 4).tolist() == [[0, 0.9, 0, 0.9], [0.4, 0, 0.6, 0], [0, 0.6, 0.6, 0]]


# The lexical explainer on planted windows

SIZE = 30
PIECES = [f"w{token} " for token in range(SIZE)]


def examples_of(tokens: npt.NDArray[np.int32], fires: npt.NDArray[np.bool_], strength: float = 2.0) -> Examples:
    """Return windows in which the latent fires, always as strongly, where *fires*."""
    activations = fires.astype(np.float32) * np.float32(strength)
    return windows_of(0, tokens, activations)


def random_tokens(seed: int, windows: int = 80, window: int = 16) -> npt.NDArray[np.int32]:
    """Return windows of tokens drawn evenly from the vocabulary."""
    return np.random.default_rng(seed).integers(0, SIZE, (windows, window)).astype(np.int32)


def follows(tokens: npt.NDArray[np.int32], token: int) -> npt.NDArray[np.bool_]:
    """Return which tokens come right after *token* in their window."""
    after = np.zeros(tokens.shape, dtype=bool)
    after[:, 1:] = tokens[:, :-1] == token
    return after


def found(examples: Examples, settings: Settings | None = None) -> list[Cue]:
    """Return the cues that the explainer names."""
    text = explain(examples, PIECES, settings or Settings())
    return cues.read(text) if text else []


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_token_is_found(seed: int) -> None:
    """A latent that fires on one token is explained by that token alone, with all its activation."""
    tokens = random_tokens(seed)
    n = int((tokens == 7).sum())
    (cue,) = found(examples_of(tokens, tokens == 7))
    assert (cue.token, cue.after, cue.share) == ("w7 ", None, 1.0)
    assert cue.reliability == pytest.approx(n / (n + 1), abs=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_pair_is_found(seed: int) -> None:
    """A latent that fires on a token only after another is explained by the pair, not by either alone."""
    tokens = random_tokens(seed)
    tokens[:20, 4], tokens[:20, 5] = 3, 9
    pair = (tokens == 9) & follows(tokens, 3)
    (cue,) = found(examples_of(tokens, pair))
    assert (cue.token, cue.after, cue.share) == ("w9 ", "w3 ", 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_follower_is_found(seed: int) -> None:
    """A latent that fires on whatever follows a token is explained as that, not by the tokens that happen to follow."""
    tokens = random_tokens(seed)
    (cue,) = found(examples_of(tokens, follows(tokens, 4)))
    assert (cue.token, cue.after, cue.share) == (None, "w4 ", 1.0)


def test_several_causes_are_named_by_what_they_carry() -> None:
    """Two tokens and a follower are all named, the one that carries most activation first."""
    tokens = random_tokens(1, windows=300)
    fires = [tokens == 2, (tokens == 11), follows(tokens, 20)]
    weights = [5.0, 2.0, 1.0]
    activations = np.max([np.where(where, weight, 0.0) for where, weight in zip(fires, weights, strict=True)], axis=0).astype(np.float32)
    examples = windows_of(0, tokens, activations)
    named = found(examples)
    assert [(cue.token, cue.after) for cue in named] == [("w2 ", None), ("w11 ", None), (None, "w20 ")]
    assert sum(cue.share for cue in named) == pytest.approx(1.0, abs=0.02)


def test_reliability_counts_where_the_token_is_silent() -> None:
    """A token on which the latent fires half the times it occurs is said to be half reliable."""
    tokens = np.tile(np.arange(8, dtype=np.int32), (50, 1))
    fires = (tokens == 5) & (np.arange(50)[:, None] < 25)
    (cue,) = found(examples_of(tokens, fires))
    assert (cue.token, cue.reliability) == ("w5 ", 0.49)  # 25 of 50 + 1


def test_no_more_cues_are_named_than_asked_for() -> None:
    """Of ten equal causes at most as many as the setting allows are named, and weak ones below the least share are not."""
    tokens = random_tokens(2, windows=300)
    examples = examples_of(tokens, tokens < 10)
    assert len(found(examples, Settings(cues=4))) == 4
    assert found(examples, Settings(least_share=0.2)) == []


def test_what_stands_around_is_named() -> None:
    """The usual neighbours of the firing token are named, a line break shown as an escape."""
    tokens = random_tokens(3)
    tokens[:, 6:9] = [[1, 2, 3]]
    fires = np.zeros(tokens.shape, dtype=bool)
    fires[:, 7] = True
    pieces = ["\n" if token == 1 else piece for token, piece in enumerate(PIECES)]
    text = explain(examples_of(tokens, fires), pieces, Settings())
    assert text is not None
    assert 'Often before it: "\\n".' in text
    assert 'Often after it: "w3 ".' in text


def test_the_window_s_ends_are_not_neighbours() -> None:
    """A latent that fires on the first token of its windows has nothing before it; the last token is not that."""
    tokens = random_tokens(4)
    tokens[:, 0], tokens[:, -1] = 5, 6
    fires = np.zeros(tokens.shape, dtype=bool)
    fires[:, 0] = True
    text = explain(examples_of(tokens, fires), PIECES, Settings())
    assert text is not None
    assert "before" not in text


def test_one_firing_is_no_pattern() -> None:
    """Where nothing recurs there is no explanation."""
    tokens = np.arange(24, dtype=np.int32).reshape(3, 8)
    fires = np.zeros((3, 8), dtype=bool)
    fires[[0, 1, 2], [2, 3, 4]] = True
    assert explain(examples_of(tokens, fires), PIECES, Settings()) is None


def test_silence_is_no_pattern() -> None:
    """Windows in which the latent never fires have no explanation."""
    tokens = random_tokens(5)
    assert explain(examples_of(tokens, np.zeros(tokens.shape, dtype=bool)), PIECES, Settings()) is None


def test_explanations_do_not_depend_on_the_scale_of_activations() -> None:
    """Activations 1000 times as large are explained in the same words."""
    tokens = random_tokens(6)
    fires = (tokens == 3) | follows(tokens, 8)
    texts = {explain(examples_of(tokens, fires, strength), PIECES, Settings()) for strength in (0.002, 2.0, 2000.0)}
    assert len(texts) == 1


def test_the_words_alone_carry_the_cues() -> None:
    """What is read from the text are the cues that were found, whatever the pieces look like."""
    tokens = random_tokens(7)
    odd = ['") after (', "\n", '"', "\\", ' on "']
    pieces = [odd[token] if token < len(odd) else piece for token, piece in enumerate(PIECES)]
    for token in range(len(odd)):
        text = explain(examples_of(tokens, tokens == token), pieces, lexical.Settings())
        assert text is not None
        assert [(cue.token, cue.after) for cue in cues.read(text)] == [(odd[token], None)]


# The permuted baseline


def explained(latents: list[int], silent: set[int]) -> list[dict[str, object]]:
    """Return EXPLANATIONS records, each with a text of its own; those of *silent* latents without one."""
    return [
        explanation_record("toy", latent, "lexical", "nothing recurs", None)
        if latent in silent
        else explanation_record("toy", latent, "lexical", "ok", f"text {latent}")
        for latent in sorted(latents)
    ]


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=40), st.integers(0, 2**62), st.data())
def test_no_latent_is_given_its_own_text(latents: list[int], seed: int, data: st.DataObject) -> None:
    """The permuted texts are those of the explained latents, each used once, and none by its own latent."""
    silent = data.draw(st.sets(st.sampled_from(latents))) if latents else set()
    records = explained(latents, silent)
    EXPLANATIONS.validate(EXPLANATIONS.rows(records))
    rows = permuted(EXPLANATIONS.rows(records), seed)
    EXPLANATIONS.validate(rows)
    fine = sorted(set(latents) - silent)
    if len(fine) < 2:
        assert rows.num_rows == 0
        return
    assert rows["latent"].to_pylist() == fine
    assert sorted(rows["text"].to_pylist()) == sorted(f"text {latent}" for latent in fine)
    for record in rows.to_pylist():
        assert record["explainer"] == "lexical-permuted"
        assert record["text"] == f"text {record['source_latent']}"
        assert record["source_latent"] != record["latent"]


def test_only_first_samples_are_permuted() -> None:
    """Of several samples the first are given to other latents; the others stay in rows of their own, named by their number."""
    names = [named("words", sample) for sample in range(12)]
    records = [explanation_record("toy", latent, name, "ok", f"{name} of {latent}") for latent in (1, 2, 3) for name in names]
    rows = EXPLANATIONS.rows(records)
    EXPLANATIONS.validate(rows)
    twins = permuted(rows, 0).to_pylist()

    assert names[:3] == ["words", "words-sample-1", "words-sample-2"]
    assert [sample_of(name) for name in (*names, "words-permuted", "a-sample-of-words", "words-sample-0")] == [*range(12), 0, 0, 0]
    assert {(row["explainer"], row["sample"]) for row in rows.to_pylist()} == set(zip(names, range(12), strict=True))
    assert [(row["latent"], row["explainer"], row["sample"]) for row in twins] == [(latent, "words-permuted", 0) for latent in (1, 2, 3)]
    assert {row["text"] for row in twins} == {f"words of {latent}" for latent in (1, 2, 3)}


def test_the_permutation_depends_on_the_seed() -> None:
    """The same seed gives the same permutation, another seed another."""
    rows = EXPLANATIONS.rows(explained(list(range(30)), set()))
    assert permuted(rows, 1).equals(permuted(rows, 1))
    assert permuted(rows, 1)["text"].to_pylist() != permuted(rows, 2)["text"].to_pylist()


def test_an_explanation_without_a_text_says_why() -> None:
    """The record of a latent without explanation is valid and has a reason for a status."""
    rows = EXPLANATIONS.rows([explanation_record("toy", 3, "lexical", "nothing recurs", None)])
    EXPLANATIONS.validate(rows)
    (record,) = rows.to_pylist()
    assert (record["status"], record["text"], record["source_latent"]) == ("nothing recurs", None, 3)
