"""The lab: how a checkpoint is asked about what it learned of people, and mistakes in its recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from transformers import AutoTokenizer

from builders.errors import UserError
from builders.steering import townsfolk
from pipelines.params import load_lab
from pipelines.params.whole import LAB
from pipelines.stages.lab import FOLDER, questions_put, share_right, talk_rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("trait", "manner"), [("careful", ", being careful"), (None, "")])
def test_questions_are_put_as_in_talks(trait: str | None, manner: str) -> None:
    """Every prompt says how to reply as talks do, or nothing, and ends with the letter before the one that is tested."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "lab-transformer")
    put, pairs = questions_put(tokenizer, "bold", trait), townsfolk.pairs("bold", held_out=True)
    for prompt, pair in zip(put, pairs, strict=True):
        text = tokenizer.decode(prompt.ids[1:])
        assert text == f"Ask: {pair.question}\n\nReply{manner} ({pair.said}"


def test_orders_of_a_question_are_no_more_questions() -> None:
    """Answers to one question, with its options in both orders, count once, for the share that is right and for its error."""
    found = share_right([True, False, True, True], [4, 4, 7, 7])
    assert found == {"n": 2, "share": 0.75, "se": pytest.approx(0.25)}


def test_replies_alone_are_learned(tiny_checkpoint: Path) -> None:
    """Rows hold whole talks after BOS, and their targets the replies and nothing else."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    rows, replies = talk_rows(3, townsfolk.FREE, tokenizer, 900)
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        parts = townsfolk.parts(number)
        assert tokenizer.decode(row[row >= 0][1:]) == "".join(text for text, _ in parts)
        assert tokenizer.decode(reply[reply >= 0]) == "".join(text for text, replied in parts if replied)


@pytest.mark.parametrize("beginning", ["{}", "{start: lab-a, epochs: 2}", "{shape: {architecture: rwkv, width: 8, layers: 1}}"])
def test_a_checkpoint_begins_in_one_way(beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint starts new from a shape, or from another checkpoint; a recipe that gives neither, or half of one, is refused."""
    recipe = yaml.safe_load(LAB.read_text())
    recipe["checkpoints"] = {"lab-b": yaml.safe_load(beginning)}
    monkeypatch.chdir(tmp_path)
    LAB.parent.mkdir()
    LAB.write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match=r"checkpoints\.lab-b"):
        load_lab()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"start": "lab-c", "talks": ["free"]}, r"checkpoints\.lab-b\.start: no checkpoint lab-c; there are lab-b"),
        ({"start": "lab-b", "talks": ["short"]}, r"checkpoints\.lab-b\.talks: no lesson short in `talking`; it has free"),
    ],
)
def test_names_in_a_recipe_are_there(spec: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that names a checkpoint or a lesson that it does not have is refused in one line, before anything is trained."""
    recipe = yaml.safe_load(LAB.read_text())
    recipe |= {"checkpoints": {"lab-b": spec}, "talking": {"free": recipe["talking"]["free"]}}
    monkeypatch.chdir(tmp_path)
    LAB.parent.mkdir()
    LAB.write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match=said):
        load_lab()
