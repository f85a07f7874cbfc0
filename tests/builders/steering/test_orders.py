"""Questions in both orders of their options, and in the 1-2 format."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.errors import UserError
from builders.steering.behaviours import Pair
from builders.steering.orders import count_of, exchanged, in_both_orders, numbered, numbers_of

QUESTION = "Would you go?\n\nChoices:\n (A) Yes\n (B) No"
PAIR = Pair(QUESTION, "A", "B", "pairs.json[0]")
LINES = st.lists(
    st.sampled_from([" (A) yes", "(B)no", "\t(C) (D)", "say (A)", "(1) one", "(a) small", "(AB) x", "A) x", "", "( A)", "x\r"]), max_size=8
)


class TestNumbered:
    """The 1-2 format."""

    def test_options_and_answers_become_numbers(self) -> None:
        """Letters become their places in the alphabet in the options and in both answers, and the place of the pair stays."""
        pair = Pair("Go?\n\nChoices:\n (A) Yes\n(B) No\n\t(C)Never\n  (I) Why?", "C", "A", "x[4]")
        assert numbered(pair) == Pair("Go?\n\nChoices:\n (1) Yes\n(2) No\n\t(3)Never\n  (9) Why?", "3", "1", "x[4]")

    def test_what_is_no_option_stays(self) -> None:
        """Letters in brackets within a line, words, lists with numbers and letters of the other case are not options."""
        kept = "I believe in (A).\n(1) One\n(c) 2020\n(AB) x\nA) x\n[B] x\n- (B) x\nx (B)"
        assert numbered(Pair(f"{kept}\n(A) Both (A) and (B)\n(B) 401(K)", "A", "B", "")).question == (
            f"{kept}\n(1) Both (A) and (B)\n(2) 401(K)"
        )

    def test_small_letters_become_numbers_too(self) -> None:
        """Options that are named by small letters are told by those."""
        assert numbered(Pair("Go? (a)\n(a) Yes\n(b) No\n(C) x", "b", "a", "")) == Pair("Go? (a)\n(1) Yes\n(2) No\n(C) x", "2", "1", "")

    def test_a_numbered_pair_stays(self) -> None:
        """Whoever's answers are digits is numbered, whatever letters begin lines."""
        pair = Pair("(A) is a list\n(J)\n(1) Yes\n(2) No", "2", "1", "")
        assert numbered(pair) is pair
        assert numbered(numbered(PAIR)) == numbered(PAIR)

    @pytest.mark.parametrize(("letter", "number"), [("J", 10), ("Z", 26)])
    def test_letters_beyond_nine_are_refused(self, letter: str, number: int) -> None:
        """A tenth option would be two digits, and so no letter in its prompt, whether it is an answer or not."""
        for pair in (Pair(f"(A) x\n(B) y\n({letter}) z", "A", "B", "x[4]"), Pair("(A) x", "A", letter, "x[4]")):
            with pytest.raises(UserError) as caught:
                numbered(pair)
            said = f"option ({letter}) would be ({number}), which is two digits; take the row out, or keep letters"
            assert str(caught.value) == f"x[4]: {said}"

    @given(LINES)
    def test_only_options_change(self, lines: list[str]) -> None:
        """The text is as long as before, and what changed are exactly the capitals in brackets at which a line begins."""
        question = "\n".join([*lines, " (A) x", " (B) y"])
        changed = numbered(Pair(question, "B", "A", "")).question
        assert len(changed) == len(question)
        for place, (old, new) in enumerate(zip(question, changed, strict=True)):
            line = question[:place].rpartition("\n")[2]
            if line.strip(" \t") == "(" and line.endswith("(") and old in "ABCDEFGHI" and question[place + 1] == ")":
                assert new == str(ord(old) - 64)
            else:
                assert new == old


TEXTS = st.text(alphabet="abc .,?(A)", min_size=1, max_size=12).filter(lambda text: text.strip())


class TestExchanged:
    """Options in the other order."""

    def test_by_hand(self) -> None:
        """The texts of both options change places, and so do the letters of the answers; the place stays."""
        assert exchanged(PAIR) == Pair("Would you go?\n\nChoices:\n (A) No\n (B) Yes", "B", "A", "pairs.json[0]")

    def test_what_stands_around_stays(self) -> None:
        """Other options, options of two lines, and what follows an empty line keep their places."""
        pair = Pair("(A) in the text\nGo?\n (A) Yes,\n   now\n(B) No  \n (C) Why?\n\nAnswer:", "C", "A", "")
        assert exchanged(pair).question == "(A) in the text\nGo?\n (A) Why?\n(B) No  \n (C) Yes,\n   now\n\nAnswer:"

    @given(TEXTS, TEXTS, st.sampled_from(["", "\n", " \n\nAnswer:"]))
    def test_twice_is_as_before(self, one: str, other: str, after: str) -> None:
        """Exchanged twice, a pair is what it was, whatever its options say."""
        pair = Pair(f"Go?\n (A) {one}\n (B) {other}{after}", "A", "B", "")
        assert exchanged(exchanged(pair)) == pair

    def test_both_orders_are_one_question(self) -> None:
        """Both orders have the place of the pair, so they count as one question, and either letter matches equally often."""
        pairs = in_both_orders([PAIR, Pair(QUESTION, "B", "A", "pairs.json[1]")])
        assert Counter((pair.matching, pair.other) for pair in pairs) == {("A", "B"): 2, ("B", "A"): 2}
        assert (numbers_of(pairs), count_of(pairs)) == ([0, 0, 1, 1], 2)
