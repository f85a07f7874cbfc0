"""Files of questions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from builders.errors import UserError
from builders.steering.behaviours import MATCHING, OTHER, Pair, read_open, read_pairs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUESTION = "Would you go?\n\nChoices:\n (A) Yes\n (B) No"
PAIR = Pair(QUESTION, "A", "B", "pairs.json[0]")


def row(question: Any = QUESTION, matching: Any = "(A)", other: Any = "(B)", **more: Any) -> dict[str, Any]:
    """Return an object as the published files hold it."""
    return {"question": question, MATCHING: matching, OTHER: other, **more}


def without(key: str) -> dict[str, Any]:
    """Return a row without *key*."""
    return {name: value for name, value in row().items() if name != key}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    """Return a function that writes a JSON file and returns its path."""

    def write(content: Any) -> Path:
        path = tmp_path / "pairs.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


class TestReadPairs:
    """Pairs from files in the published format."""

    def test_pairs_are_read_in_their_order(self, written: Callable[[Any], Path]) -> None:
        """A pair holds the question as it is, the letters without brackets, and its file and position; other keys are let be."""
        path = written([row(), row("Which?\n (A) x\n (B) y\n(C)z", "(C)", "(A)", source="mine")])
        assert read_pairs(path) == [
            Pair(QUESTION, "A", "B", f"{path}[0]"),
            Pair("Which?\n (A) x\n (B) y\n(C)z", "C", "A", f"{path}[1]"),
        ]

    @pytest.mark.parametrize("answer", ["(B)", " (B)", "(B) ", "\n(B)\t"])
    def test_space_around_an_answer_is_fine(self, answer: str, written: Callable[[Any], Path]) -> None:
        """Blanks around the brackets mean nothing."""
        (pair,) = read_pairs(written([row(matching=answer, other=" (A)")]))
        assert (pair.matching, pair.other) == ("B", "A")

    @pytest.mark.parametrize(
        ("question", "matching", "other"),
        [
            ("Go?\n(1) Yes\n(2) No", "(2)", "(1)"),
            ("Go?\n\t(a) Yes\n  (b) No", "(a)", "(b)"),
            ("(A) Yes\r\n(B) No", "(A)", "(B)"),
            ("Go?\n (A)Yes\n (B)No\n (H) Never", "(H)", "(B)"),
        ],
    )
    def test_options_stand_where_a_line_begins(self, question: str, matching: str, other: str, written: Callable[[Any], Path]) -> None:
        """Digits, small and late letters name options, blanks may come before the bracket and none need come after it."""
        (pair,) = read_pairs(written([row(question, matching, other)]))
        assert (pair.question, f"({pair.matching})", f"({pair.other})") == (question, matching, other)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"question": "x"}, ": holds dict, not a list; give a JSON list of questions"),
            ([], ": holds an empty list; give at least one question"),
            (["text"], "[0]: holds str, not an object; give an object with 'question'"),
            ([row(), None], "[1]: holds NoneType, not an object; give an object with 'question'"),
            ([{}], "[0]: has no 'question'; it has nothing; add it"),
            ([without("question")], f"[0]: has no 'question'; it has {MATCHING}, {OTHER}; add it"),
            ([row(), without(MATCHING)], f"[1]: has no '{MATCHING}'; it has {OTHER}, question; add it"),
            ([without(OTHER)], f"[0]: has no '{OTHER}'; it has {MATCHING}, question; add it"),
            ([row(question=7)], "[0]: 'question' holds int, not text; put it in quotes"),
            ([row(matching=None)], f"[0]: '{MATCHING}' holds NoneType, not text; put it in quotes"),
            ([row(question=" \n")], "[0]: holds an empty text; fill it in, or take the row out"),
            ([row("a\ud83d\n(A) b\n(B) c")], "[0]: holds half a character ('\\ud83d' at 1); correct the text, or take the row out"),
            ([row(other="B")], f"[0]: '{OTHER}' is 'B'; give one letter or digit in brackets, such as '(A)'"),
            ([row(matching="(AB)")], f"[0]: '{MATCHING}' is '(AB)'; give one letter or digit in brackets, such as '(A)'"),
            ([row(matching="()")], f"[0]: '{MATCHING}' is '()'; give one letter or digit in brackets, such as '(A)'"),
            ([row(matching="(Ä)")], f"[0]: '{MATCHING}' is '(Ä)'; give one letter or digit in brackets, such as '(A)'"),
            ([row(matching="(A) Yes")], f"[0]: '{MATCHING}' is '(A) Yes'; give one letter or digit in brackets, such as '(A)'"),
            ([row(matching="(B)")], f"[0]: both answers are (B); {OTHER} must name another option"),
            (
                [row("Go?\n(A) Yes\n(1) No", "(A)", "(1)")],
                "[0]: the answers (A) and (1) are not of one kind; use capitals, small letters or digits in both",
            ),
            (
                [row("Go?\n(A) Yes\n(b) No", "(A)", "(b)")],
                "[0]: the answers (A) and (b) are not of one kind; use capitals, small letters or digits in both",
            ),
        ],
    )
    def test_bad_files_are_refused(self, content: Any, said: str, written: Callable[[Any], Path]) -> None:
        """What is wrong is said in one line, with the file, the row and what to do."""
        path = written(content)
        with pytest.raises(UserError) as caught:
            read_pairs(path)
        assert str(caught.value) == f"{path}{said}"

    @pytest.mark.parametrize(
        "question",
        [
            "Would you go?",
            "Would you go? (A) Yes (B) No",
            "Would you go?\n (A) Yes (B) No",
            "Would you go?\n (A) Yes\n B) No",
            "Would you go?\n (A) Yes\n (b) No",
            "Would you go?\n (A) Yes\n - (B) No",
        ],
    )
    def test_a_question_without_options_is_refused(self, question: str, written: Callable[[Any], Path]) -> None:
        """A question must offer both answers, each where a line begins: a model cannot choose between what it was not shown."""
        missing = "B" if "\n (A)" in question else "A"
        path = written([row(), row(question)])
        with pytest.raises(UserError) as caught:
            read_pairs(path)
        said = f"the question has no option ({missing}) at the beginning of a line; give each option a line of its own"
        assert str(caught.value) == f"{path}[1]: {said}"

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """A path that leads nowhere is said, and so is one to a folder."""
        with pytest.raises(UserError) as caught:
            read_pairs(tmp_path / "none.json")
        assert str(caught.value) == f"{tmp_path / 'none.json'}: no such file; correct the path of this file of questions"
        with pytest.raises(UserError) as caught:
            read_pairs(tmp_path)
        assert str(caught.value) == f"{tmp_path}: cannot be read (Is a directory); give a JSON file of questions"

    @pytest.mark.parametrize("content", [b"", b"question,answer\n", b'[{"question": ', b'["caf\xe9"]'])
    def test_what_is_no_json_is_refused(self, content: bytes, tmp_path: Path) -> None:
        """An empty file, another format, half a file and bytes that are no text: one line each."""
        path = tmp_path / "pairs.json"
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_pairs(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: is not JSON (")
        assert text.endswith("); give a JSON list of questions")
        assert "\n" not in text


class TestReadOpen:
    """Open-ended questions from files."""

    def test_texts_and_objects_are_questions(self, written: Callable[[Any], Path]) -> None:
        """A list holds texts or objects with `question`, whose other keys are let be."""
        path = written(["Who are you?", {"question": "Why?\n{x}", "topic": 3}])
        assert read_open(path) == ["Who are you?", "Why?\n{x}"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("Why?", ": holds str, not a list; give a JSON list of questions"),
            ([], ": holds an empty list; give at least one question"),
            (["Why?", 3], "[1]: holds int, not an object; give an object with 'question'"),
            (["Why?", ["Why?"]], "[1]: holds list, not an object; give an object with 'question'"),
            ([{"text": "Why?"}], "[0]: has no 'question'; it has text; add it"),
            ([{"question": None}], "[0]: 'question' holds NoneType, not text; put it in quotes"),
            (["Why?", ""], "[1]: holds an empty text; fill it in, or take the row out"),
            (["\udc00"], "[0]: holds half a character ('\\udc00' at 0); correct the text, or take the row out"),
        ],
    )
    def test_bad_files_are_refused(self, content: Any, said: str, written: Callable[[Any], Path]) -> None:
        """What is wrong is said in one line, with the file, the row and what to do."""
        path = written(content)
        with pytest.raises(UserError) as caught:
            read_open(path)
        assert str(caught.value) == f"{path}{said}"

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """A path that leads nowhere is said."""
        with pytest.raises(UserError, match=r"none\.json: no such file; correct the path"):
            read_open(tmp_path / "none.json")
