"""The short explainer: which piece of a window is shown, and what stands around it."""

from __future__ import annotations

from prompting import PIECES, cold

from builders.engines.requests import Answer
from builders.explainers import chat, copies, short

SETTINGS = chat.Settings("short", examples=4, max_tokens=40)


def test_the_run_of_the_strongest_token_is_shown() -> None:
    """Each activating window gives the strong tokens around its strongest one, six tokens before them and four after."""
    last = short.conversation(cold(), PIECES, SETTINGS).messages[-1]

    assert (last.role, last.content.splitlines()) == (
        "user",
        [
            r'"Snow!\"" in "\"Snow!\" she said.\n"',
            r'" frozen over" in "The lake had frozen over,\nand ice"',
            '" Schnee" in "Der Schnee fällt"',
            '" cold" in " a coat, for it was cold out."',
        ],
    )


def test_windows_are_taken_from_strong_to_weak() -> None:
    """With fewer examples than windows, the strongest and the weakest are shown, and those between them evenly."""
    last = short.conversation(cold(), PIECES, chat.Settings("short", examples=2)).messages[-1]

    assert [line.partition(" in ")[0] for line in last.content.splitlines()] == [r'"Snow!\""', '" cold"']


def test_worked_examples_answer_as_the_model_shall() -> None:
    """Every worked example's answer is read as its own explanation, so that copies of it are seen."""
    request = short.conversation(cold(), PIECES, SETTINGS)
    answers = [message.content for message in request.messages if message.role == "assistant"]
    shots = [shot["explanation"] for shot in chat.PROMPTS.shots("short.yaml")]

    assert [chat.read(Answer(answer)) for answer in answers] == shots
    assert len(copies.again([request], [Answer(answers[0])])[0].messages) == len(request.messages) - 2
    assert chat.prompt_sha256("short") != chat.prompt_sha256("default")
