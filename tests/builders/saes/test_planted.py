"""Planted latents: which tokens a rule fires on, and that its other two explanations are broader and narrower."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.saes.planted import RULES, Meaning, Planted, Rule, fired
from builders.text.tokens import TOKENS

# One token a word (with the space before it), as tokenizers of English cut text.
TEXTS = {
    0: ("It has 3 parts and 12 more", [" 3", " 12"]),
    1: ("def area( self): area()", [" area("]),
    2: ("f (a b) and c", [" (a", " b)"]),
    3: ("an int or a float print", [" int", " float"]),
    4: ("one of the boats of it", [" of", " the"]),
    5: ("If it rains we stay. We go.", [" stay."]),
    6: ("The HTTP and URL are A thing", [" HTTP", " URL"]),
    7: ("call __init__ not _init", [" __init__"]),
    8: ('say "a b" now', [' "a', ' b"']),
    9: ("sing ing strings reading", ["sing", " reading"]),
    10: ("this and that or those land", [" and", " or"]),
    11: ("do not go nor ever never", [" not", " never"]),
    12: ("call os.path then go", [" os.path"]),
    13: ("a, b and c, d", ["a,", " c,"]),
    14: ("one two\nthree four", [" two\nthree"]),
    15: ("you can and must go", [" can", " must"]),
}


def words(text: str) -> list[str]:
    """Return *text* cut before every space."""
    return [f" {word}" if place else word for place, word in enumerate(text.split(" "))]


def activations(meaning: Meaning, text: str) -> dict[str, float]:
    """Return the activation of each of the text's words on which *meaning* fires."""
    pieces = [word.encode() for word in words(text)]
    values = fired(meaning, np.arange(len(pieces), dtype=np.int32), pieces)
    return {word: float(value) for word, value in zip(words(text), values, strict=True) if value > 0}


@pytest.mark.parametrize("latent", range(len(RULES)))
def test_a_rule_fires_on_what_its_words_say(latent: int) -> None:
    """Each rule fires on exactly the tokens that its true explanation describes."""
    text, expected = TEXTS[latent]

    assert sorted(activations(RULES[latent].truth, text)) == sorted(expected)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.truth.words)
def test_broad_and_narrow_differ_from_the_truth(rule: Rule) -> None:
    """On the project's own prose the broad meaning covers more bytes than the truth, the narrow one fewer."""
    import pydoc_data.topics

    text = "\n".join(pydoc_data.topics.topics.values()).encode()
    covered = [sum(end - start for start, end in meaning.spans(text)) for meaning in (rule.broad, rule.truth, rule.narrow)]

    assert covered[0] > covered[1] > covered[2]


def test_every_explanation_is_its_own() -> None:
    """No two meanings, of the same latent or of two, have the same words."""
    said = [meaning.words for rule in RULES for meaning in (rule.truth, rule.broad, rule.narrow)]

    assert len(set(said)) == len(said)


def test_an_activation_is_the_share_of_the_tokens_bytes() -> None:
    """A token of four bytes whose last two match has activation one half."""
    assert activations(RULES[0].truth, "ab12") == {"ab12": 0.5}


@given(st.lists(st.sampled_from(["a", "12", " 3", "", "4b", " "]), max_size=12))
def test_activations_add_up_to_the_bytes_that_match(pieces: list[str]) -> None:
    """However text is cut into tokens, activation times length adds up to the bytes that match."""
    encoded = [piece.encode() for piece in pieces]
    values = fired(RULES[0].truth, np.arange(len(encoded), dtype=np.int32), encoded)
    total = sum(float(value) * len(piece) for value, piece in zip(values, encoded, strict=True))

    assert total == pytest.approx(sum(letter.isdigit() for letter in "".join(pieces)))


def test_firings_are_those_of_each_row_and_never_of_special_tokens() -> None:
    """Rows keep their numbers, special tokens are no text, and firings are in key order."""
    pieces = [b"", b"7", b" def", b" f", b" x9"]  # 0 is a special token
    rows = TOKENS.rows(
        [
            {"subject": "s", "document": 0, "held_out": False, "bytes": 0, "text": "", "row": row, "ids": ids, "special": special}
            for row, ids, special in ((4, [0, 1, 2, 3], [True, False, False, False]), (9, [0, 4], [True, False]))
        ]
    )

    found = Planted(pieces).firings(rows)

    at = list(zip(found.latent.tolist(), found.row.tolist(), found.position.tolist(), found.value.tolist(), strict=True))
    assert at == [(0, 4, 1, 1.0), (0, 9, 1, pytest.approx(1 / 3)), (1, 4, 3, 0.5)]
