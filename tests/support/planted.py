"""A project whose planted rules have contexts from all of Python's help topics, and judges of known errors on a scripted server."""

from __future__ import annotations

import json
import pydoc_data.topics
from contextlib import chdir
from typing import TYPE_CHECKING, Any

from llm_server import Body, Reply, chat
from project import small_params, write_params

from builders.engines.requests import Answer, Chat, Message
from builders.scorers.oracle import Oracle
from builders.seeds import seed_of, uniforms
from pipelines.graph.closure import ROOT
from pipelines.stages import activations, calibration, contexts, corpora, neighbours, saes, subjects, tokens

if TYPE_CHECKING:
    from pathlib import Path

QUOTA = {"train": 10, "test": 20, "train_random": 10, "test_random": 20}
SENSITIVITY, SPECIFICITY = 0.85, 0.8  # of the judge whose model is named `erring`
ORACLE = Oracle(calibration.MEANINGS)


def params_of() -> dict[str, Any]:
    """Return the project's params."""
    params = small_params()
    params["tokens"] |= {"length": 256, "window": 32}
    params["saes"] = {"rules": {"source": "planted", "subject": "lab"}}
    params["contexts"] |= QUOTA | {"negatives": {"decoy": 20, "pool": 300}}
    return params


def fill(folder: Path) -> None:
    """Build the project in *folder* up to the contexts and the calibration of its rules."""
    (folder / "text").mkdir()
    for name, text in pydoc_data.topics.topics.items():
        (folder / "text" / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    write_params(folder, params_of())
    with chdir(folder):
        corpora.main("topics")
        for stage in (subjects, tokens):
            stage.main("lab")
        for stage in (saes, activations, neighbours, contexts):
            stage.main("rules")
        calibration.main()


def reads(body: Body, _: int) -> Reply:
    """Answer as the oracle does; the model `erring` then says the opposite by address, as often as SENSITIVITY and SPECIFICITY say."""
    messages = tuple(Message(**message) for message in body["messages"])
    answer = ORACLE(Chat(messages, 100))
    if not isinstance(answer, Answer):
        raise TypeError(answer)
    said = json.loads(answer.text)
    if body["model"] == "erring":
        draws = uniforms(seed_of(0, messages[-1].content), range(len(said))).tolist()
        said = [yes ^ int(draw >= (SENSITIVITY if yes else SPECIFICITY)) for yes, draw in zip(said, draws, strict=True)]
    return chat(str(said))
