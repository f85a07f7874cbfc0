"""The lab's card: how a checkpoint is asked about what it learned of people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from transformers import AutoTokenizer

from builders import townsfolk
from pipelines.lab import questions_put, talk_rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("trait", "before"), [("careful", "{} is careful.\n\n"), (None, "")])
def test_people_are_introduced_as_in_talks(trait: str | None, before: str, tiny_checkpoint: Path) -> None:
    """Every prompt begins with what its own person is like, as talks do, and ends just before a letter."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    asked, some = questions_put(tokenizer, "bold", trait), townsfolk.questions(townsfolk.DISPOSITIONS["bold"], held_out=True)
    for prompt, question in zip(asked, some, strict=True):
        text = tokenizer.decode(prompt.ids[1:])
        assert text.startswith(f"{before.format(question.person)}Ask: {question.scene}, {question.person}.")
        assert text.endswith("\n\nReply: (")


def test_replies_alone_are_learned(tiny_checkpoint: Path) -> None:
    """Rows hold whole talks after BOS, and their targets the replies and nothing else."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    rows, replies = talk_rows(3, tokenizer, 900)
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        parts = townsfolk.parts(number)
        assert tokenizer.decode(row[row >= 0][1:]) == "".join(text for text, _ in parts)
        assert tokenizer.decode(reply[reply >= 0]) == "".join(text for text, replied in parts if replied)
