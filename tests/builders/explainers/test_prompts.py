"""The exact words of every prompt, and what their version stands for."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prompting import KINDS, KNOWN, asked, cold, rendered

from builders.contexts.contexts import STRONG
from builders.engines import prompts
from builders.engines.prompts import Prompts
from builders.explainers import chat, effects
from builders.explainers.chat import PROMPTS, prompt_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builders.contexts.contexts import Examples

GOLDEN = Path(__file__).parent / "prompts"
WRITE = "INTERPLAKE_WRITE_GOLDEN"
FILES = sorted(path.name for path in PROMPTS.folder.iterdir())
MARKED = re.compile(r"<<(.*?)>>", re.DOTALL)
QUOTED = r'"(?:[^"\\]|\\.)*"'
LIST = re.compile(rf"[A-Z][a-z ]+: (?:(?:{QUOTED}|\({QUOTED} : \d+\))(?:, |$))+")
SHOTS = PROMPTS.shots("shots.yaml")


def other() -> Examples:
    """Return the windows of another latent."""
    examples = cold()
    return replace(examples, latent=8, tokens=examples.tokens[:, ::-1].copy(), activations=examples.activations[:, ::-1].copy())


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_word_for_word_the_recorded_one(kind: str) -> None:
    """Every message of every kind of explainer reads exactly as recorded."""
    text, path = rendered(asked(kind)), GOLDEN / f"{kind}.txt"
    if os.environ.get(WRITE) == "1":
        path.write_text(text, encoding="utf-8", newline="")
    assert path.exists(), f"{path.name} is not recorded; {WRITE}=1 pytest {Path(__file__).name} writes it"
    recorded = path.read_bytes().decode()
    assert text == recorded, f"the prompt of {kind} has changed; if it should, {WRITE}=1 pytest {Path(__file__).name} records it anew"


def test_every_record_is_of_a_kind() -> None:
    """No record is left of a kind that is no more."""
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(KINDS)


class TestPrefix:
    """What all latents share."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_all_but_the_last_turn_is_the_same_for_every_latent(self, kind: str) -> None:
        """Another latent, with other windows and effects, changes the last turn only, so that servers reuse what comes before."""
        known = chat.Known(1.0, [" a"], [" b"])
        mine, others = asked(kind), asked(kind, other(), known)
        assert mine.messages[:-1] == others.messages[:-1]
        assert mine.messages[-1] != others.messages[-1]

    @pytest.mark.parametrize("kind", KINDS)
    def test_turns_alternate_and_end_with_the_question(self, kind: str) -> None:
        """Guidelines come first, then worked examples with their answers, then the latent."""
        roles = [message.role for message in asked(kind).messages]
        assert roles == ["system", *["user", "assistant"] * 3, "user"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_question_looks_like_the_worked_examples(self, kind: str) -> None:
        """The lines of the last turn begin with the words that lines of the worked examples begin with."""
        *shots, last = [message.content for message in asked(kind).messages if message.role == "user"]
        begins = re.compile(
            r"^(Example 1:|Activations: \(|Beginning 1:|More likely: |Made (?:more|less) likely: |Excerpts in which .*:$|\"(?=.*\" in \"))",
            re.M,
        )
        assert begins.findall(last)
        for shot in shots:
            assert sorted(set(begins.findall(shot))) == sorted(set(begins.findall(last)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_worked_answers_end_as_answers_are_asked_to(self, kind: str) -> None:
        """Each worked answer is read as the explanation that it gives, with nothing lost."""
        answers = [message.content for message in asked(kind).messages if message.role == "assistant"]
        told = [chat.read(chat.Answer(answer)) for answer in answers]
        shots = PROMPTS.shots(chat.files_of(kind)[-1])
        assert told == [shot["words" if kind == "single-token" else "explanation"] for shot in shots]


class TestWords:
    """What no prompt may hold."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "leftover", [r"\{\{|\}\}", r"\{%|%\}", r"\{\w+\}", r"\bNone\b", r"\bUndefined\b", r"Ċ|Ġ|âĢ|<\|", r"\n{4,}", r"<<>>"]
    )
    def test_no_template_shows_through(self, kind: str, leftover: str) -> None:
        """No braces, missing values, tokenizer alphabets, gaps or empty marks are left in the text."""
        assert re.findall(leftover, rendered(asked(kind))) == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_lists_of_tokens_are_one_line(self, kind: str) -> None:
        """Listed tokens are quoted, line breaks and quotation marks in them escaped, so that no list is broken or runs over its line."""
        starts = ("Activations: ", "More likely: ", "Made more likely: ", "Made less likely: ")
        lines = [line for message in asked(kind).messages for line in message.content.splitlines() if line.startswith(starts)]
        assert [line for line in lines if not LIST.fullmatch(line)] == []

    def test_promoted_tokens_are_told_apart(self) -> None:
        """Tokens that hold commas, spaces and quotation marks are quoted, so that a list shows where each begins and ends."""
        last = asked("logits").messages[-1].content
        assert 'Made more likely: " snow", " ice", "\\n", ",\\"", ' in last

    def test_halves_of_characters_are_told_apart(self) -> None:
        """The halves of a character are listed by their bytes, as the vocabulary writes them."""
        assert "\ufffd" not in "".join(re.findall(r"^Activations.*$", rendered(asked("default")), re.M))

    def test_only_the_words_are_asked_of_the_single_token_explainer(self) -> None:
        """Guidelines that ask for the marked words do not forbid to list them, nor ask for a sentence."""
        guidelines = asked("single-token").messages[0].content
        assert "Do not list the marked tokens" not in guidelines
        assert "sentence" not in guidelines

    @pytest.mark.parametrize("kind", chat.STYLES)
    def test_activations_are_shown_where_the_kind_says_so(self, kind: str) -> None:
        """Every active window has its list of activations, or none has; silent ones never have."""
        last = asked(kind).messages[-1].content
        assert last.count("Activations: ") == (0 if kind == "no-activations" else 4)
        assert last.count("Example ") == (6 if kind == "contrastive" else 4)
        assert ("Activations" in asked(kind).messages[1].content) == (kind != "no-activations")

    def test_effects_are_shown_to_one_kind_only(self) -> None:
        """Only the explainer that reads logits is told what the latent makes likelier."""
        assert [kind for kind in KINDS if "Made more likely" in rendered(asked(kind))] == ["logits"]


@pytest.mark.parametrize("shot", SHOTS, ids=lambda shot: shot["words"])
class TestShots:
    """Worked examples that keep the rules of real ones."""

    def test_marked_spans_are_the_listed_tokens(self, shot: dict[str, Any]) -> None:
        """What stands between the marks of an example is, token by token, what its list tells."""
        for example in shot["examples"]:
            assert "".join(MARKED.findall(example["text"])) == "".join(token for token, _ in example["levels"])
            left = [token for token, _ in example["levels"]]
            for span in MARKED.findall(example["text"]):
                while span:
                    assert span.startswith(left[0])
                    span = span.removeprefix(left.pop(0))

    def test_neighbouring_spans_are_one(self, shot: dict[str, Any]) -> None:
        """Adjacent marked tokens share one pair of marks, and marks are balanced."""
        for example in shot["examples"]:
            assert ">><<" not in example["text"]
            assert "<" not in MARKED.sub("", example["text"])
            assert ">" not in MARKED.sub("", example["text"])

    def test_a_space_belongs_to_the_word_after_it(self, shot: dict[str, Any]) -> None:
        """The space before a marked word stands within the marks and in the list, where the tokens of real windows have it."""
        for example in shot["examples"]:
            assert " <<" not in example["text"]

    def test_levels_could_be_real(self, shot: dict[str, Any]) -> None:
        """Levels are whole numbers from 1 to 10, at most as many as are listed, and none lies below 0.3 of the largest."""
        for example in shot["examples"]:
            levels = [level for _, level in example["levels"]]
            assert 0 < len(levels) <= prompts.LISTED
            assert all(isinstance(level, int) and 1 <= level <= 10 for level in levels)
            assert min(levels) > STRONG * (max(levels) - 1)

    def test_silent_excerpts_are_unmarked(self, shot: dict[str, Any]) -> None:
        """Silent excerpts hold no marks and are none of the active ones."""
        assert shot["silent"]
        for text in shot["silent"]:
            assert "<<" not in text
            assert ">>" not in text


class TestVersion:
    """The hash that names a prompt's version."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """Return a copy of the prompt files that are in use while the test runs."""
        shutil.copytree(PROMPTS.folder, tmp_path / "prompts")
        copy = Prompts(tmp_path / "prompts")
        monkeypatch.setattr(chat, "PROMPTS", copy)
        monkeypatch.setattr(effects, "PROMPTS", copy)
        self.forget()
        yield tmp_path / "prompts"
        self.forget()

    def forget(self) -> None:
        """Have the files read anew."""
        for cached in (prompts._environment, prompts._shots, prompts._sha256):
            cached.cache_clear()

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_changes_with_every_file_that_changes_the_prompt(self, kind: str, name: str, folder: Path) -> None:
        """Where an edit of a file changes a word of a prompt, its version is another."""
        before = rendered(asked(kind)), prompt_sha256(kind)
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(': "', ': "Changed ') if name.endswith(".yaml") else f"Changed {text}")
        self.forget()
        words, version = rendered(asked(kind)), prompt_sha256(kind)
        assert (words != before[0]) <= (version != before[1])

    @pytest.mark.parametrize("kind", KINDS)
    def test_some_file_changes_it(self, kind: str, folder: Path) -> None:
        """Each kind's version depends on the files of its own, be it for a space."""
        before = prompt_sha256(kind)
        changed = []
        for name in FILES:
            text = (folder / name).read_text()
            (folder / name).write_text(f"{text} ")
            self.forget()
            changed += [name] if prompt_sha256(kind) != before else []
            (folder / name).write_text(text)
        self.forget()
        assert changed == sorted(chat.files_of(kind))
        assert {name for every in KINDS for name in chat.files_of(every)} == set(FILES)
        assert prompt_sha256(kind) == before

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_is_the_same_for_every_latent(self, kind: str) -> None:
        """Asking about other latents leaves the version as it was."""
        before = prompt_sha256(kind)
        asked(kind), asked(kind, other(), replace(KNOWN, largest=1.0))
        assert prompt_sha256(kind) == before
        assert re.fullmatch(r"[0-9a-f]{64}", before)
