"""Marks that do not occur in the texts that they are put into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.engines.prompts import free_marks


@pytest.mark.parametrize(
    ("texts", "marks"),
    [
        ([], ("<<", ">>")),
        (["plain", "a < b", "a > b"], ("<<", ">>")),
        (["a <", "< b"], ("<<", ">>")),
        (["plain", "1 << 2"], ("⟦", "⟧")),
        ([">>> print()"], ("⟦", "⟧")),
        (["<<", "⟧"], ("«", "»")),
        (["<< ⟦ »"], ("<m1>", "</m1>")),
        (["<< ⟦ » <m1>", "</m2>"], ("<m3>", "</m3>")),
    ],
)
def test_the_first_marks_that_do_not_occur_are_taken(texts: list[str], marks: tuple[str, str]) -> None:
    """The usual ones where neither of them occurs in any text, else the next of a short list, else numbered tags."""
    assert free_marks(texts) == marks


@given(st.lists(st.text("<>⟦⟧«»m/12 ")))
def test_marks_never_occur(texts: list[str]) -> None:
    """Whatever the texts, none of them holds either mark."""
    assert not any(mark in text for mark in free_marks(texts) for text in texts)
