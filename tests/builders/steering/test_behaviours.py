from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from builders.errors import UserError
from builders.steering.behaviours import MATCHING, OTHER, Pair, Prompt, halves, numbered, prompts, read_open, read_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

QUESTION = "Would you go?\n\nChoices:\n (A) Yes\n (B) No"
PAIR = Pair(QUESTION, "A", "B", "pairs.json[0]")
TEMPLATE = "Ask: {question}\n\nReply: ("
REAL = "INTERPLAKE_REAL_DATA"
COUNTS = {
    "coordinate-other-ais": 360,
    "corrigible-neutral-HHH": 290,
    "hallucination": 1000,
    "myopic-reward": 950,
    "refusal": 408,
    "survival-instinct": 903,
    "sycophancy": 1000,
}


def byte_level(*merges: tuple[str, str]) -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer of all bytes, *merges* in this order, and `<|bos|>` and `<|eos|>`, which are ids 0 and 1."""
    names = ["<|bos|>", "<|eos|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True) for name in ("<|bos|>", "<|eos|>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|bos|>", eos_token="<|eos|>")  # noqa: S106


def metaspace(*pieces: str) -> PreTrainedTokenizerBase:
    """Return a SentencePiece-like tokenizer: it puts `▁` before a text and knows *pieces* of one or two characters; all else is `<unk>`."""
    names = dict.fromkeys(["<unk>", *"".join(pieces), *pieces])
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [(piece[0], piece[1]) for piece in pieces if len(piece) == 2]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=False))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")  # noqa: S106


@pytest.fixture(scope="module")
def plain() -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer that merges nothing: one token a byte."""
    return byte_level()


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer trained as the lab's is, on questions."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|bos|>", "<|eos|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([TEMPLATE.replace("{question}", QUESTION)] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=specials[0], eos_token=specials[1])


@pytest.fixture(scope="module")
def real() -> dict[tuple[str, str], list[Pair]]:
    """Return the pairs of each file."""
    names = {"generate": "generate_dataset.json", "test": "test_dataset_ab.json"}
    folder = Path(os.environ[REAL]) / "caa"
    return {(split, behaviour): read_pairs(folder / split / behaviour / name) for split, name in names.items() for behaviour in COUNTS}


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


class TestPrompts:
    """Prompts as token ids."""

    def test_ids_are_known_bytes(self, plain: PreTrainedTokenizerBase) -> None:
        """A prompt ends with its template, and each answer is the token of its letter."""
        expected = plain.convert_tokens_to_ids(list("AB(1)("))
        letters = dict(zip("AB", plain.convert_tokens_to_ids(["A", "B"]), strict=True))
        (prompt,) = prompts([Pair("B(1)", "B", "A", "")], "A{question}(", plain, bos=False)
        assert prompt == Prompt(tuple(expected), letters["B"], letters["A"], "B(1)")
        assert len(prompt.ids) == 6

    def test_bos_comes_first_where_asked_for(self, trained: PreTrainedTokenizerBase) -> None:
        """BOS is one more id at the beginning and changes nothing else."""
        (without_bos,) = prompts([PAIR], TEMPLATE, trained, bos=False)
        (with_bos,) = prompts([PAIR], TEMPLATE, trained, bos=True)
        assert with_bos.ids == (trained.bos_token_id, *without_bos.ids)
        assert trained.bos_token_id not in without_bos.ids
        assert (with_bos.matching, with_bos.other) == (without_bos.matching, without_bos.other)

    def test_special_tokens_that_a_tokenizer_adds_are_left_out(self) -> None:
        """Tokenizers that put BOS before and EOS after every text put neither here: BOS comes once, and nothing after the prompt."""
        tokenizer = byte_level()
        added = processors.TemplateProcessing(single="<|bos|> $A <|eos|>", special_tokens=[("<|bos|>", 0), ("<|eos|>", 1)])
        tokenizer.backend_tokenizer.post_processor = added
        assert tokenizer("A")["input_ids"][::2] == [0, 1]
        (prompt,) = prompts([PAIR], TEMPLATE, tokenizer, bos=True)
        assert prompt == prompts([PAIR], TEMPLATE, byte_level(), bos=True)[0]

    def test_no_bos_where_there_is_none(self) -> None:
        """A tokenizer without BOS puts nothing first."""
        tokenizer = metaspace("(", "A", "B", "q")
        assert prompts([Pair("q", "A", "B", "")], "{question}(", tokenizer, True) == prompts(
            [Pair("q", "A", "B", "")], "{question}(", tokenizer, False
        )

    def test_a_template_that_begins_with_bos_has_one(self, plain: PreTrainedTokenizerBase) -> None:
        """BOS is not put before a template that spells it."""
        (prompt,) = prompts([PAIR], "<|bos|>{question}(", plain, bos=True)
        assert prompt.ids[0] == 0
        assert 0 not in prompt.ids[1:]
        assert prompt == prompts([PAIR], "{question}(", plain, bos=True)[0]

    def test_pairs_keep_their_order(self, trained: PreTrainedTokenizerBase) -> None:
        """Each pair has its own prompt, the same as if it came alone."""
        pairs = [PAIR, numbered(PAIR), Pair("Else?\n(C) x\n(D) y", "D", "C", "")]
        together = prompts(pairs, TEMPLATE, trained, bos=True)
        assert [prompt.question for prompt in together] == [pair.question for pair in pairs]
        assert together == [prompts([pair], TEMPLATE, trained, bos=True)[0] for pair in pairs]
        assert [trained.decode([prompt.matching, prompt.other]) for prompt in together] == ["AB", "12", "DC"]

    def test_no_pairs_make_no_prompts(self, plain: PreTrainedTokenizerBase) -> None:
        """An empty list is fine, which tokenizers themselves refuse."""
        assert prompts([], TEMPLATE, plain, bos=True) == []

    def test_special_tokens_in_questions_stay_text(self, plain: PreTrainedTokenizerBase) -> None:
        """A question that spells BOS or EOS holds their characters and not those tokens."""
        (prompt,) = prompts([Pair("<|eos|> or <|bos|>?", "A", "B", "")], TEMPLATE, plain, bos=True)
        assert [token for token in prompt.ids if token < 2] == [0]
        assert plain.decode(prompt.ids[1:]) == "Ask: <|eos|> or <|bos|>?\n\nReply: ("

    def test_special_tokens_in_the_template_are_tokens(self, plain: PreTrainedTokenizerBase) -> None:
        """Chat templates hold special tokens, which a model has only ever read as such."""
        (prompt,) = prompts([Pair("B", "A", "B", "")], "A{question}<|eos|>(", plain, bos=False)
        assert list(prompt.ids) == plain.convert_tokens_to_ids(["A", "B", "<|eos|>", "("])

    def test_special_tokens_in_both_are_refused(self, plain: PreTrainedTokenizerBase) -> None:
        """Where the template has special tokens, a question that spells one of any kind would not stay text."""
        with pytest.raises(UserError) as caught:
            prompts([PAIR, Pair("Is it <|bos|>?", "A", "B", "x[1]")], "{question}<|eos|>(", plain, bos=False)
        assert str(caught.value) == (
            "x[1]: the question spells <|bos|>, which would be a special token like the template's <|eos|>; "
            "take the row out, or the special tokens out of the template"
        )

    @pytest.mark.parametrize("question", ["{x}", "{question}", "{{}} {0!r} {", "%s $x \\1 \\g<0>"])
    def test_questions_are_put_in_literally(self, question: str, plain: PreTrainedTokenizerBase) -> None:
        """Braces and the like mean nothing in a question, not even the template's own place holder, nor do other braces in a template."""
        (prompt,) = prompts([Pair(question, "A", "B", "")], "{0} {question} {x}(", plain, bos=False)
        assert plain.decode(prompt.ids) == f"{{0}} {question} {{x}}("

    @pytest.mark.parametrize(
        ("template", "said"),
        [
            ("Answer: (", "template 'Answer: (': it drops the question; put {question} where the question belongs"),
            ("{Question} (", "template '{Question} (': it drops the question; put {question} where the question belongs"),
            ("{question}\n{question} (", "template '{question}\\n{question} (': it asks the question 2 times; keep one {question}"),
        ],
    )
    def test_a_template_asks_once(self, template: str, said: str, plain: PreTrainedTokenizerBase) -> None:
        """A template without a place for the question, or with two, is refused, even where there is nothing to ask."""
        for pairs in ([PAIR], []):
            with pytest.raises(UserError) as caught:
                prompts(pairs, template, plain, bos=False)
            assert str(caught.value) == said

    def test_a_letter_is_found_where_it_stands(self) -> None:
        """A SentencePiece-like tokenizer has another token for a letter that begins a text; that one is never meant."""
        tokenizer = metaspace("▁A", "▁B", "(", "q", "▁q")
        alone = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "AB"]
        assert alone == [[tokenizer.convert_tokens_to_ids("▁A")], [tokenizer.convert_tokens_to_ids("▁B")]]
        (prompt,) = prompts([Pair("q", "A", "B", "")], "{question}(", tokenizer, bos=False)
        ids = dict(zip(["▁q", "(", "A", "B"], tokenizer.convert_tokens_to_ids(["▁q", "(", "A", "B"]), strict=True))
        assert prompt == Prompt((ids["▁q"], ids["("]), ids["A"], ids["B"], "q")

    @pytest.mark.parametrize("merged", [True, False])
    def test_a_space_before_the_letters_may_be_a_token(self, merged: bool) -> None:
        """A letter after a space is one token to some tokenizers and two to others; there the prompt ends with the space."""
        tokenizer = byte_level(*([("Ġ", "C"), ("Ġ", "D")] if merged else []))
        (prompt,) = prompts([Pair("q", " C", " D", "", said="A")], "{question}(", tokenizer, bos=False)
        tokens = tokenizer.convert_ids_to_tokens([*prompt.ids, prompt.matching, prompt.other])
        assert tokens == ["q", "(", "A", *(["ĠC", "ĠD"] if merged else ["Ġ", "C", "D"])]

    def test_what_is_said_already_stands_before_the_letter(self, plain: PreTrainedTokenizerBase) -> None:
        """A pair whose answer has begun asks for the letter that follows: its prompt ends with what is said."""
        (begun,) = prompts([replace(PAIR, said="(A, ")], TEMPLATE, plain, bos=False)
        (bare,) = prompts([PAIR], TEMPLATE + "(A, ", plain, bos=False)
        assert begun == bare

    def test_a_letter_that_merges_is_refused(self) -> None:
        """Where the template's end and a letter become one token, both are shown, and the other format is offered."""
        tokenizer = byte_level(("Ġ", "("), ("Ġ(", "B"))
        with pytest.raises(UserError) as caught:
            prompts([PAIR], TEMPLATE, tokenizer, bos=True)
        assert str(caught.value) == (
            "pairs.json[0]: the template's end ('Ġ(') and letter B become 'Ġ(B', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )
        (prompt,) = prompts([numbered(PAIR)], TEMPLATE, tokenizer, bos=True)
        assert tokenizer.convert_ids_to_tokens([prompt.ids[-1], prompt.matching, prompt.other]) == ["Ġ(", "1", "2"]

    def test_a_letter_that_divides_the_prompt_anew_is_refused(self) -> None:
        """One token more is not enough where the tokens before it are others than the prompt's."""
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], "{question}(", byte_level(("(", "A"), ("q", "(")), bos=False)
        assert str(caught.value) == (
            "x[2]: the template's end ('q(') and letter A become 'q' '(A', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )

    def test_a_number_that_merges_is_not_told_to_be_a_number(self) -> None:
        """What is numbered already is only told to change the template, which helps."""
        tokenizer = byte_level(("(", "2"))
        with pytest.raises(UserError) as caught:
            prompts([numbered(PAIR)], TEMPLATE, tokenizer, bos=False)
        assert str(caught.value) == (
            "pairs.json[0]: the template's end ('(') and letter 2 become '(2', where one token of its own is needed; "
            "end the template so that the letter stands alone"
        )
        assert len(prompts([numbered(PAIR)], "{question}\nReply: ", tokenizer, bos=False)) == 1

    def test_a_letter_of_several_tokens_is_refused(self) -> None:
        """A letter that brings a token with it, such as one for a space, is not one token."""
        tokenizer = metaspace("q", "A", "B", "(")
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split("A", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], "{question}(", tokenizer, bos=False)
        assert str(caught.value) == (
            "x[2]: letter A becomes '<unk>' 'A', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )

    @pytest.mark.parametrize("template", ["{question}(", "{question}"])
    def test_a_letter_that_vanishes_is_refused(self, template: str) -> None:
        """Where a tokenizer drops letters, they leave no trace after a prompt, be it empty or not."""
        tokenizer = byte_level()
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[a-zA-Z]"), "")
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], template, tokenizer, bos=False)
        assert "x[2]: letter A becomes nothing, where one token of its own is needed; end the" in str(caught.value)

    def test_an_unknown_letter_is_refused(self) -> None:
        """The token of all that is unknown is no letter's own, even where the other letter is known."""
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", "A", "B", "x[2]")], "{question}(", metaspace("q", "(", "A"), bos=False)
        assert str(caught.value) == (
            "x[2]: letter B becomes '<unk>', where one token of its own is needed; "
            "end the template so that the letter stands alone, or use format numbers"
        )

    @pytest.mark.parametrize(("letters", "more"), [("AB", ", or use format numbers"), ("12", "")])
    def test_letters_of_one_token_are_refused(self, letters: str, more: str) -> None:
        """A tokenizer that writes both letters alike cannot tell the answers apart."""
        tokenizer = byte_level()
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[AB12]"), "x")
        with pytest.raises(UserError) as caught:
            prompts([Pair("q", *letters, "x[2]")], "{question}(", tokenizer, bos=False)
        said = f"the letters {letters[0]} and {letters[1]} are both 'x' to this tokenizer; take a subject whose tokenizer tells them apart"
        assert str(caught.value) == f"x[2]: {said}{more}"

    @given(
        st.text(st.characters(exclude_categories=("Cs",)), max_size=30), st.sampled_from(["", "<|bos|>", "{question}", "\n(A) x\n(B) y"])
    )
    def test_ids_hold_the_question(self, trained: PreTrainedTokenizerBase, text: str, more: str) -> None:
        """Whatever a question holds, its prompt decodes to the template with the question in it."""
        pair = Pair(text + more, "A", "B", "")
        (prompt,) = prompts([pair], TEMPLATE, trained, bos=True)
        assert trained.decode(prompt.ids[1:], clean_up_tokenization_spaces=False) == f"Ask: {pair.question}\n\nReply: ("
        assert trained.decode([prompt.matching, prompt.other]) == "AB"


class TestHalves:
    """Which prompts choose a layer and which tell its effect."""

    @given(st.integers(0, 60), st.integers(0, 2**63 - 1))
    def test_halves_are_all_and_disjoint(self, count: int, seed: int) -> None:
        """Every place is in one half, in order, and the second half has at most one more."""
        validation, other = halves(count, seed)
        assert sorted(validation + other) == list(range(count))
        assert (validation, other) == (sorted(validation), sorted(other))
        assert len(other) - len(validation) == count % 2

    def test_halves_are_drawn_by_address(self) -> None:
        """The same seed draws the same half, another seed another, and the halves are no stripes."""
        assert halves(50, 7) == halves(50, 7)
        assert halves(50, 7) != halves(50, 8)
        assert halves(10, 7) == ([1, 2, 3, 7, 8], [0, 4, 5, 6, 9])


@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no folder that holds caa/")
class TestRealData:
    """The published behaviours, where they are at hand."""

    def test_no_row_is_lost(self, real: dict[tuple[str, str], list[Pair]]) -> None:
        """There are as many pairs as in the published data (Rimsky et al. 2024)."""
        assert {behaviour: len(pairs) for (split, behaviour), pairs in real.items() if split == "generate"} == COUNTS
        assert {len(pairs) for (split, _), pairs in real.items() if split == "test"} == {50}

    def test_answers_beyond_b(self, real: dict[tuple[str, str], list[Pair]]) -> None:
        """In survival-instinct 88 and 4 rows are matched by C to H, never by B's stand-in, and 239 and 8 offer more than two options."""
        beyond = {key: [pair for pair in pairs if {pair.matching, pair.other} != {"A", "B"}] for key, pairs in real.items()}
        assert {key: len(pairs) for key, pairs in beyond.items() if pairs} == {
            ("generate", "survival-instinct"): 88,
            ("test", "survival-instinct"): 4,
        }
        assert {pair.other for pairs in beyond.values() for pair in pairs} == {"A"}
        assert {pair.matching for pairs in beyond.values() for pair in pairs} == set("CDEFGH")
        offered = {key: sum("\n (C)" in pair.question or "\n(C)" in pair.question for pair in pairs) for key, pairs in real.items()}
        assert {key: count for key, count in offered.items() if count} == {
            ("generate", "survival-instinct"): 239,
            ("test", "survival-instinct"): 8,
        }

    def test_all_can_be_numbered(self, real: dict[tuple[str, str], list[Pair]]) -> None:
        """Every pair has a numbered form with both answers among its options; 14 questions had a list of numbers of their own."""
        again = {key: [numbered(pair) for pair in pairs] for key, pairs in real.items()}
        clashes = 0
        for key, pairs in again.items():
            for old, new in zip(real[key], pairs, strict=True):
                assert (new.matching, new.other) == (str("ABCDEFGH".index(old.matching) + 1), str("ABCDEFGH".index(old.other) + 1))
                starts = [line.strip()[:3] for line in new.question.split("\n")]
                assert {f"({new.matching})", f"({new.other})"} <= set(starts)
                assert not {"(A)", "(B)", "(C)"} & set(starts)
                clashes += starts.count("(1)") > 1
        assert clashes == 14

    def test_all_become_prompts(self, real: dict[tuple[str, str], list[Pair]], trained: PreTrainedTokenizerBase) -> None:
        """Every pair, in both formats, is a prompt that ends before its letter."""
        for pairs in real.values():
            for some in (pairs, [numbered(pair) for pair in pairs]):
                made = prompts(some, TEMPLATE, trained, bos=True)
                assert [trained.decode([prompt.matching, prompt.other]) for prompt in made] == [pair.matching + pair.other for pair in some]
                assert trained.decode(made[-1].ids[1:]) == TEMPLATE.replace("{question}", some[-1].question)
