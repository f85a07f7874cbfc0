"""Judges' answers as models write them: what is read from each, the probability of each yes, and what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders.engines.requests import Answer, Failure, Token
from builders.scorers.answers import answered, numbered, probabilities, read, responded

if TYPE_CHECKING:
    from collections.abc import Sequence

RIGHT = [True, False, False, True, False]
# What models answer about five examples, of which they mean the first and the fourth.
TOLD = [
    "[1, 0, 0, 1, 0]",
    "[1,0,0,1,0]",
    " [1, 0, 0, 1, 0]\n",
    "[ 1 , 0 , 0 , 1 , 0 ]",
    "[1, 0, 0, 1, 0,]",
    "[1, 0, 0, 1, 0].",
    "[\n  1,\n  0,\n  0,\n  1,\n  0\n]",
    "[1, 0,\n 0, 1, 0]",
    "[1,\u00a00,\u00a00,\u00a01,\u00a00]",
    "[1，0，0，1，0]",
    "[True, False, False, True, False]",
    "[true, false, false, true, false]",
    "[yes, no, no, yes, no]",
    "[Yes, No, No, YES, no]",
    '["1", "0", "0", "1", "0"]',
    "['1', '0', '0', '1', '0']",
    "[“1”, “0”, “0”, “1”, “0”]",
    "[‘yes’, ‘no’, ‘no’, ‘yes’, ‘no’]",
    "[`1`, `0`, `0`, `1`, `0`]",
    "[**1**, 0, 0, **1**, 0]",
    "**[1, 0, 0, 1, 0]**",
    "`[1, 0, 0, 1, 0]`",
    "```\n[1, 0, 0, 1, 0]\n```",
    "```json\n[1, 0, 0, 1, 0]\n```",
    "```python\nanswers = [1, 0, 0, 1, 0]\n```",
    '{"answers": [1, 0, 0, 1, 0]}',
    '{\n  "labels": [true, false, false, true, false],\n  "confidence": "high"\n}',
    "[[1, 0, 0, 1, 0]]",
    "Sure! Here is the list: [1, 0, 0, 1, 0]",
    "[1, 0, 0, 1, 0]\n\nExample 1 names a unit of length, and example 4 one of weight.",
    "[1, 0, 0, 1, 0]\n\nI hope this helps! Let me know [if you need more].",
    "Answer: [1, 0, 0, 1, 0]",
    "**Answer:** [1, 0, 0, 1, 0]",
    "Examples 1 and 4 fit [both have digits], the others do not.\n\n[1, 0, 0, 1, 0]",
    "Example 1 fits, 2 does not, 3 does not, 4 does, 5 does not. So: [1, 0, 0, 1, 0]",
    "The fitting ones are [1, 4]. As a list: [1, 0, 0, 1, 0]",
    "First I had [1, 0, 0, 1], but there are five: [1, 0, 0, 1, 0]",
    "[1, 0, 0, 1, 0]\nAgain: [1, 0, 0, 1, 0]",
    '{"answers":[1,0,0,1,0]}',
    "Perhaps [0, 0, 0, 1, 0]? Example 1 is a measure too.\nFinal answer: [1, 0, 0, 1, 0]",
    "Draft: [0, 0, 0, 0, 0]\nAnswer: [1, 0, 0, 1, 0]",
    "At first sight [1, 1, 1, 1, 1]. The answer is [1, 0, 0, 1, 0]",
    "Answer: [1, 1, 0, 1, 0]. No, wait.\n**Final answer:** [1, 0, 0, 1, 0]",
    "[1, 1, 0, 1, 0]\n\nCorrected: [1, 0, 0, 1, 0]",
    "<think>[0, 0, 0, 0, 0] at first… [1, 1, 1, 1, 1]</think>\n[1, 0, 0, 1, 0]",
    "maybe [0, 0, 0, 0, 0], hm\n</think>\n\n[1, 0, 0, 1, 0]",
    "1, 0, 0, 1, 0",
    "1,0,0,1,0",
    "1, 0, 0, 1, 0,\n",
    "Here are my answers.\n1, 0, 0, 1, 0\nOnly two of them fit.",
    "yes, no, no, yes, no",
    "Example 1: 1\nExample 2: 0\nExample 3: 0\nExample 4: 1\nExample 5: 0",
    "Example 1: 1\n\nExample 2: 0\n\nExample 3: 0\n\nExample 4: 1\n\nExample 5: 0\n",
    "1. yes\n2. no\n3. no\n4. yes\n5. no",
    "1: 1\n2: 0\n3: 0\n4: 1\n5: 0",
    "1) Yes\n2) No\n3) No\n4) Yes\n5) No",
    "- **Example 1:** 1\n- **Example 2:** 0\n- **Example 3:** 0\n- **Example 4:** 1\n- **Example 5:** 0",
    '{\n"1": 1,\n"2": 0,\n"3": 0,\n"4": 1,\n"5": 0\n}',
    "Example 1: 1\nIt speaks of metres.\nExample 2: 0\nExample 3: 0\nExample 4: 1\nExample 5: 0",
    "example 1: true\r\nexample 2: false\r\nexample 3: false\r\nexample 4: true\r\nexample 5: false\r\n",
]
# What is no list of ones and zeros at all.
NO_LIST = [
    "",
    "   \n",
    "I'm sorry, but I can't help with that.",
    "I cannot tell without more context.",
    "The explanation does not fit any of the examples.",
    "Examples 1 and 4.",
    "[1, 4]",
    "1",
    "1 0 0 1 0",
    "10010",
    "[10010]",
    "[1 0 0 1 0]",
    "[10, 0, 1, 0]",
    "[1, 0, 0, 1, 2]",
    "[1, 0, 0, 1, ?]",
    "[1, 0, maybe, 1, 0]",
    "[1, 0, None, 1, 0]",
    "[1.0, 0.0, 0.0, 1.0, 0.0]",
    "[0.9, 0.1, 0.2, 0.8, 0.0]",
    "[-1, 0, 0, 1, 0]",
    "[1, 0, , 1, 0]",
    "[, 1, 0, 0, 1, 0]",
    "[1, 0, 0, 1, 0",
    "[1, 0, 0,\n1, 0, 0, 1, 0",
    "(1, 0, 0, 1, 0)",
    "{1, 0, 0, 1, 0}",
    "[1: yes, 2: no, 3: no, 4: yes, 5: no]",
    "[]",
    "- [ ] Example 1\n- [x] Example 2",
    "The list is 1, 0, 0, 1, 0",
    "1\n0\n0\n1\n0",
    "Example 1: it fits\nExample 2: it does not",
    "Example 1: 1\nExample 2: 0\nExample 4: 1\nExample 5: 0",
    "Example 2: 0\nExample 3: 0\nExample 4: 1\nExample 5: 0\nExample 6: 1",
    "Example 5: 0\nExample 4: 1\nExample 3: 0\nExample 2: 0\nExample 1: 1",
    "Example 1: 1\nExample 2: 0\nExample 3: 0\nExample 3: 0\nExample 4: 1\nExample 5: 0",
    "Example 2: 0\nExample 3: 0\nExample 1: 1\nExample 2: 0\nExample 3: 0\nExample 4: 1\nExample 5: 0",
    "1.0\n2.0\n3.0\n4.1\n5.0",
    "<think>It could be [1, 0, 0, 1, 0]",
    "<think>It is [1, 0, 0, 1, 0]</think>",
    "[yes and no, no, no, yes, no]",
]
# A list of another length, and that length.
WRONG = {
    "[1, 0, 0, 1]": 4,
    "[1, 0, 0, 1, 0, 0]": 6,
    "[1]": 1,
    "[1, 0, 0, 1, 0, 1, 0, 0, 1, 0]": 10,
    "[1, 0, 0, 1]\nOne example was cut off, so I left it out.": 4,
    "1, 0, 0, 1": 4,
    "yes, no": 2,
    "Example 1: 1\nExample 2: 0\nExample 3: 0\nExample 4: 1": 4,
    "1. yes\n2. no\n3. no\n4. yes\n5. no\n6. no": 6,
    "[[1, 0], [0, 1], [0]]": 1,
    "[[1], [0], [0], [1], [0]]": 1,
    '["yes", "no", "no"]': 3,
    "[true, false, false, true, false, false]": 6,
    "[1, 0, 0]\n[1, 0]": 2,
    "[\n1, 0, 0, 1, 0,\n1, 0, 0, 1, 0\n]": 10,
}
# Several lists of five that disagree, none of them said to be the answer.
UNCLEAR = [
    "[1, 0, 0, 1, 0]\n[1, 0, 0, 1, 1]",
    "[1, 0, 0, 1, 0] or [0, 1, 1, 0, 1]?",
    "Answer: [1, 0, 0, 1, 0]\nOn second thoughts: [1, 0, 0, 0, 0]",
    "Answer: [1, 0, 0, 1, 0]\nAnswer: [0, 0, 0, 0, 0]",
    "Final answer: [1, 0, 0, 1, 0]\nFinal answer: [1, 1, 0, 1, 0]",
    "1, 0, 0, 1, 0\n0, 0, 0, 0, 0",
    "1. yes\n2. no\n3. no\n4. yes\n5. no\n\n1. no\n2. no\n3. no\n4. no\n5. no",
    "1, 0, 0, 1, 0\n1. no\n2. no\n3. no\n4. no\n5. no",
    "[1, 0, 0, 1, 0]\nThe answer for the other task is [0, 0]; no, [1, 1, 1, 1, 1]; no, [0, 0, 0, 0, 0]",
]


class TestRead:
    """What is read from an answer."""

    @pytest.mark.parametrize("text", TOLD)
    def test_the_answers_are_read_in_order(self, text: str) -> None:
        """However the list is dressed up, the answers are those that the model gave, each to its example."""
        assert read(text, 5) == RIGHT

    @pytest.mark.parametrize("text", NO_LIST)
    def test_no_list_is_a_failure(self, text: str) -> None:
        """What is not a list of ones and zeros is not read as one; the reason shows how the answer begins, in one line."""
        told = read(text, 5)
        assert isinstance(told, Failure)
        assert told.status == "no list"
        assert "\n" not in told.reason

    @pytest.mark.parametrize("text", WRONG)
    def test_another_number_is_a_failure(self, text: str) -> None:
        """Too few or too many answers are none: nothing is shifted, padded or cut; the reason has both numbers."""
        assert read(text, 5) == Failure("wrong number", f"the answer has {WRONG[text]} entries for 5 examples")

    @pytest.mark.parametrize("text", UNCLEAR)
    def test_lists_that_disagree_are_a_failure(self, text: str) -> None:
        """Of several lists none is chosen, unless the answer says which is final."""
        told = read(text, 5)
        assert isinstance(told, Failure)
        assert told.status == "ambiguous"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[1]", [True]),
            ("[0]", [False]),
            ("1", [True]),
            ("No", [False]),
            ("Example 1: 1", [True]),
            ("1. no", [False]),
            ("[yes]\n", [True]),
        ],
    )
    def test_one_example_has_one_answer(self, text: str, told: list[bool]) -> None:
        """A batch of one is read like any other, also where the answer is a single word."""
        assert read(text, 1) == told

    @given(st.lists(st.booleans(), min_size=1, max_size=20), st.sampled_from(["[{}]", "{}", "Answer: [{}]", "```\n[{}]\n```"]))
    def test_any_list_is_read_back(self, answers: list[bool], form: str) -> None:
        """Whatever the answers and their number, the list gives them back; one more or one fewer is the wrong number."""
        text = form.format(", ".join(str(int(answer)) for answer in answers))
        assert read(text, len(answers)) == answers
        for other in {len(answers) - 1, len(answers) + 1} - {0}:
            told = read(text, other)
            assert isinstance(told, Failure)
            assert told.status in ("wrong number", "no list")

    @given(st.text(), st.integers(1, 6))
    @example("[" * 200 + "1", 1)
    @example("1. " * 100, 1)
    @example(" " * 3000 + "x", 3)
    @settings(max_examples=300)
    def test_any_text_is_read(self, text: str, n: int) -> None:
        """Whatever is answered, the outcome is a failure or exactly as many answers as were asked for."""
        told = read(text, n)
        assert isinstance(told, Failure) or len(told) == n


class TestCutOff:
    """Answers that ran out of tokens."""

    @pytest.mark.parametrize(
        "text",
        [
            "[1, 0, 0, 1",
            "[1, 0, 0, 1, 0",
            "",
            "Let me see: [1, 0, 0, 1, 0]\nor",
            "[1, 0, 0, 1, 0]",
            "[1, 0, 0, 1]\nExample",
            "1, 0, 0, 1, 0\nAs",
        ],
    )
    def test_a_cut_off_answer_is_a_failure(self, text: str) -> None:
        """What was cut off might have gone on otherwise; the reason names the setting to raise."""
        told = answered(Answer(text, "length", output_tokens=100), 5)
        assert told == Failure("cut off", "the answer was cut off after 100 tokens; raise the judge's `max_tokens`")

    @pytest.mark.parametrize("text", ["[1, 0, 0, 1, 0]\n\nExample 1 is", "[1, 0, 0, 1, 0]\n[1, 1, 1"])
    def test_a_list_that_came_first_stands(self, text: str) -> None:
        """Where the whole first line is the list, only talk was cut off."""
        assert answered(Answer(text, "length"), 5) == RIGHT

    def test_a_whole_answer_is_read(self) -> None:
        """An answer that ended by itself is read as it is."""
        assert answered(Answer("Answer: [1, 0, 0, 1, 0]"), 5) == RIGHT


def tokens_of(*tokens: str | tuple[str, dict[str, float]]) -> list[Token]:
    """Return tokens with the probabilities of what could stand in their place; where none are given, nothing else could."""
    found = []
    for token in tokens:
        text, top = (token, {token: 1.0}) if isinstance(token, str) else token
        logs = {name: math.log(p) if p else -9999.0 for name, p in top.items()}
        found.append(Token(text, logs.get(text, -1.0), tuple(logs.items())))
    return found


def chances(tokens: Sequence[Token], n: int) -> list[float]:
    """Return the probabilities of yes of the answers that the tokens' text gives."""
    said = read("".join(token.text for token in tokens), n)
    assert not isinstance(said, Failure)
    return [float(p) for p in probabilities(tokens, said)]


class TestProbabilities:
    """The probability of each yes."""

    def test_a_digit_of_its_own(self) -> None:
        """P(1)/(P(0)+P(1)) at each digit, whatever else could have stood there."""
        one, zero = {"1": 0.6, "0": 0.2, "]": 0.2}, {"0": 0.9, "1": 0.1}
        assert chances(tokens_of("[", ("1", one), ",", " ", ("0", zero), "]"), 2) == pytest.approx([0.75, 0.1])

    def test_a_digit_with_its_space_and_comma(self) -> None:
        """Tokens that hold a bracket, space or comma beside the digit count, together with all that differ after the digit only."""
        first = {"[1": 0.5, "[0": 0.3, "[": 0.2}
        second = {" 0": 0.4, " 0,": 0.2, " 1": 0.2, "1": 0.1, " 1]": 0.1}
        assert chances(tokens_of(("[1", first), ",", (" 0", second), "]"), 2) == pytest.approx([0.625, 1 / 3])

    def test_what_reads_otherwise_before_the_digit_does_not_count(self) -> None:
        """An alternative with another beginning is another answer's shape, not a vote."""
        alternatives = {" 1": 0.2, "1": 0.2, "0": 0.2, " 0": 0.1, "\n1": 0.1, "(0": 0.2}
        assert chances(tokens_of("[", (" 1", alternatives), "]"), 1) == pytest.approx([2 / 3])

    @pytest.mark.parametrize("other", ["10", "01", "1st", "0x", "11"])
    def test_more_than_the_digit_does_not_count(self, other: str) -> None:
        """An alternative that goes on with digits or letters is no yes and no no."""
        assert chances(tokens_of("[", ("1", {"1": 0.3, "0": 0.1, other: 0.6}), "]"), 1) == pytest.approx([0.75])

    def test_several_digits_in_a_token_have_no_probability(self) -> None:
        """A token that holds two answers tells neither's; the answers stand, and so does the third's probability."""
        tokens = tokens_of("[", ("1, 0", {"1, 0": 1.0}), ", ", ("1", {"1": 0.8, "0": 0.2}), "]")
        assert read("".join(token.text for token in tokens), 3) == [True, False, True]
        assert chances(tokens, 3) == pytest.approx([math.nan, math.nan, 0.8], nan_ok=True)

    @pytest.mark.parametrize("top", [{}, {"]": 0.5, "yes": 0.5}, {"1": 0.0, "0": 0.0}])
    def test_neither_digit_among_the_alternatives(self, top: dict[str, float]) -> None:
        """Where no alternative is a digit there is no probability: not 0, not ½."""
        assert chances(tokens_of("[", ("1", top), "]"), 1) == pytest.approx([math.nan], nan_ok=True)

    def test_one_digit_alone_is_certain(self) -> None:
        """Where the other digit is not among the alternatives its probability counts as nothing."""
        assert chances(tokens_of("[", ("1", {"1": 0.99, "]": 0.01}), ",", ("0", {"0": 1.0}), "]"), 2) == [1.0, 0.0]

    def test_words_have_no_probability(self) -> None:
        """Yes and no in letters are answers without a probability."""
        assert chances(tokens_of("[", "yes", ", ", "no", "]"), 2) == pytest.approx([math.nan] * 2, nan_ok=True)

    def test_other_digits_in_the_answer_are_not_mistaken(self) -> None:
        """Digits of the wording, of labels, of a draft or of a thought are none of the answers."""
        wrong, right = {"1": 0.5, "0": 0.5}, {"1": 0.9, "0": 0.1}
        drafted = tokens_of("Example ", ("1", wrong), " fits. [", ("0", wrong), "] Final: [", ("1", right), "]")
        labelled = tokens_of(("1", wrong), ": ", ("1", right), "\n", "2: ", ("0", right), "\n")
        thought = tokens_of("<think>[", ("1", wrong), "]</think>", "[", ("1", right), "]", "<|end|>")
        assert (chances(drafted, 1), chances(labelled, 2), chances(thought, 1)) == ([0.9], [0.9, 0.9], [0.9])

    def test_tokens_of_another_text_give_nothing(self) -> None:
        """Tokens that do not spell the answers that were read give no probabilities."""
        assert probabilities(tokens_of("[", "0", "]"), [True]).tolist() == pytest.approx([math.nan], nan_ok=True)
        assert probabilities(tokens_of("<unk>"), [True]).tolist() == pytest.approx([math.nan], nan_ok=True)

    @given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8), st.integers(0, 10**6))
    def test_any_cutting_into_tokens_with_one_digit_each(self, chance: list[float], seed: int) -> None:
        """However the list is cut, each digit's probability is that of its own token."""
        draw = np.random.default_rng(seed)
        tokens: list[str | tuple[str, dict[str, float]]] = ["["] if draw.random() < 0.5 else []
        for place, p in enumerate(chance):
            before = ("" if tokens == ["["] else "[") if place == 0 else (", ", " ", "")[draw.integers(3)]
            if place and "," not in before:
                tokens.append(",")
            digit = str(int(p >= 0.5))
            tokens.append((before + digit, {before + "1": p, before + "0": 1 - p}))
        tokens.append("]")
        assert chances(tokens_of(*tokens), len(chance)) == pytest.approx(chance)


class TestResponded:
    """Which example is the intruder."""

    @pytest.mark.parametrize(
        "text",
        [
            "[RESPONSE]: 3",
            "[RESPONSE]:3",
            "[response]: 3\n",
            "[RESPONSE] : 3.",
            "**[RESPONSE]:** 3",
            "**[RESPONSE]: 3**",
            "**[RESPONSE]**: 3",
            "[RESPONSE]: **3**",
            "`[RESPONSE]: 3`",
            "[RESPONSE]: [3]",
            "[RESPONSE]: Example 3",
            "[RESPONSE]:\n3",
            "The others are verbs.\n[RESPONSE]: 3",
            "[RESPONSE]: 3\n\nExample 3 has no verb, 1 has two.",
            "[RESPONSE]: 1\nNo, wait.\n[RESPONSE]: 3",
            "<think>[RESPONSE]: 5</think>[RESPONSE]: 3",
        ],
    )
    def test_the_last_response_counts(self, text: str) -> None:
        """The number after the last marker is the answer, with or without type around it."""
        assert responded(Answer(text), 5) == 3

    @pytest.mark.parametrize(
        ("text", "status"),
        [
            ("", "no response"),
            ("3", "no response"),
            ("The intruder is 3.", "no response"),
            ("I cannot tell.", "no response"),
            ("[RESPONSE]", "no response"),
            ("[RESPONSE]:", "no response"),
            ("[RESPONSE]: i", "no response"),
            ("[RESPONSE]: three", "no response"),
            ("[RESPONSE]: 3 or 4", "no response"),
            ("[RESPONSE]: 3, 4", "no response"),
            ("[RESPONSE]: 3.5", "no response"),
            ("[RESPONSE]: -3", "no response"),
            ("[RESPONSE]: none", "no response"),
            ("[RESPONSE]: 3\n[RESPONSE]: none of them", "no response"),
            ("<think>[RESPONSE]: 3", "no response"),
            ("[RESPONSE]: 0", "out of range"),
            ("[RESPONSE]: 6", "out of range"),
            ("[RESPONSE]: 33", "out of range"),
            ("[RESPONSE]: 3\n[RESPONSE]: 6", "out of range"),
        ],
    )
    def test_anything_else_is_a_failure(self, text: str, status: str) -> None:
        """No number, several, or one that no example has is a failure with a reason in one line, never a wrong answer."""
        told = responded(Answer(text), 5)
        assert isinstance(told, Failure)
        assert told.status == status
        assert "\n" not in told.reason

    def test_a_cut_off_response_is_a_failure(self) -> None:
        """A number that might have had another digit is none."""
        told = responded(Answer("[RESPONSE]: 1", "length", output_tokens=9), 12)
        assert isinstance(told, Failure)
        assert told.status == "cut off"

    @given(st.text(), st.integers(3, 12))
    def test_any_response_is_read(self, text: str, shown: int) -> None:
        """Whatever is answered, the outcome is a failure or one of the examples' numbers."""
        for answer in (text, f"[RESPONSE]:{text}"):
            told = responded(Answer(answer), shown)
            assert isinstance(told, Failure) or 1 <= told <= shown


class TestNumbered:
    """Which example is the intruder, where the answer has a form."""

    @pytest.mark.parametrize(
        "text", ['{"intruder": 3}', ' {"intruder":3}\n', '{\n "intruder": 3\n}', '<think>{"intruder": 1}</think>{"intruder": 3}']
    )
    def test_the_number_is_read(self, text: str) -> None:
        """However the object is spaced, and whatever was thought before, its number is the answer."""
        assert numbered(Answer(text), 5) == 3

    @pytest.mark.parametrize(
        "text", ["", "3", "[3]", "null", "The intruder is 3.", '{"intruder"', '{"number": 3}', "[RESPONSE]: 3", "[" * 9999]
    )
    def test_anything_else_is_no_response(self, text: str) -> None:
        """What is no such object is a failure with a reason in one line."""
        told = numbered(Answer(text), 5)
        assert isinstance(told, Failure)
        assert (told.status, "\n" in told.reason) == ("no response", False)

    @pytest.mark.parametrize("number", ["0", "6", "-3", "3.0", "true", '"3"', "null", "[3]"])
    def test_another_number_is_out_of_range(self, number: str) -> None:
        """A number that no example has is a failure, never a wrong answer."""
        told = numbered(Answer(f'{{"intruder": {number}}}'), 5)
        assert isinstance(told, Failure)
        assert told.status == "out of range"

    def test_a_cut_off_number_is_a_failure(self) -> None:
        """What was cut off is not read."""
        told = numbered(Answer('{"intruder": 3}', "length"), 5)
        assert isinstance(told, Failure)
        assert told.status == "cut off"
