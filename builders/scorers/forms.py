"""Forms in which a language model is asked about windows and answers: the texts of the turns, and the JSON schema of the answer.

In the forms with a schema each window is a JSON string, so that no line break or `Example 2:` in it can be taken for the list's own, and
marked tokens stand between marks that occur in no window of the latent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.prompts import MARKS, Marks, free_marks, quote
from builders.engines.requests import Message
from builders.engines.schemas import Schema, named, one_of, several
from builders.scorers.judging import PROMPTS


@dataclass(frozen=True)
class Form:
    """A form of questions and answers; *guidelines*, *question* and *shots* are its prompt files, *shots* those of the worked examples.

    *schema* is the JSON schema of an answer about n windows, None where the answer is free text and windows are shown raw. *write* says
    how a worked example answers, and *room* how many tokens an answer about n windows may have, given the judge's `max_tokens`. If
    *alone*, a question is about one window.
    """

    guidelines: str
    shots: str
    write: Callable[[Any], str]
    schema: Callable[[int], Schema] | None
    room: Callable[[int, int], int]
    question: str = "windows.j2"
    alone: bool = False

    @property
    def files(self) -> tuple[str, str, str]:
        """The names of the prompt files."""
        return self.guidelines, self.question, self.shots

    def form(self, n: int) -> str | None:
        """Return the schema of an answer about *n* windows as a request holds it."""
        return None if self.schema is None else json.dumps(self.schema(n))

    def marks(self, texts: Iterable[str]) -> Marks:
        """Return the marks for windows with these *texts*."""
        return MARKS if self.schema is None else free_marks(texts)

    def system(self, marks: Marks | None) -> Message:
        """Return the guidelines, where tokens stand between *marks* or (None) nothing is marked."""
        return Message("system", PROMPTS.fill(self.guidelines, {"marks": marks, "marked": marks is not None}))

    def turn(self, explanation: str | None, texts: Sequence[str]) -> Message:
        """Return the user's turn: the explanation, where there is one, and the windows."""
        if self.schema is not None:
            texts = [quote(text) for text in texts]
            explanation = explanation and " ".join(explanation.split())
        return Message("user", PROMPTS.fill(self.question, {"explanation": explanation, "texts": texts}))


DIGIT = one_of([0, 1])
LIST, SINGLE, FREE = "list", "single", "free"
# What judges of windows answer: an object with a list of digits, one digit, or a list in free text, as in the paper.
FORMS = {
    LIST: Form(
        "judge_list.j2",
        "judge.yaml",
        write=lambda answers: json.dumps({"answers": answers}),
        schema=lambda n: named(answers=several(DIGIT, n)),
        room=lambda most, n: max(most, 16 + 8 * n),
    ),
    SINGLE: Form(
        "judge_single.j2",
        "judge.yaml",
        write=lambda answers: str(answers[0]),
        schema=lambda _: DIGIT,
        room=lambda most, _: min(most, 8),
        question="window.j2",
        alone=True,
    ),
    FREE: Form("judge.j2", "judge.yaml", write=str, schema=None, room=lambda most, _: most),
}
