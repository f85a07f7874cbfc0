"""Scorers of params, opened: with the judge or the embedder that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.embedders.kept import Kept
from builders.engines.requests import Engine
from builders.interventions.generations import GENERATIONS, passages
from builders.scorers import chat, detection, fuzzing
from builders.scorers.embedding import EmbeddingScorer
from builders.scorers.example_embedding import ExampleEmbeddingScorer
from builders.scorers.intervention import InterventionScorer
from builders.scorers.intruder import Finder, IntruderScorer, LexicalFinder, ModelFinder
from builders.scorers.judgements import Identity
from builders.scorers.judging import Scorer, Task
from builders.scorers.lexical import LexicalJudge
from builders.scorers.simulation import LexicalSimulator, SimulationScorer, Simulator
from builders.scorers.simulators import FORMS, ModelSimulator
from builders.scorers.surprisal import SurprisalScorer
from builders.scorers.trials import Judge, WindowScorer
from builders.seeds import seed_of
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.stage import shelf
from pipelines.opened.embedders import open_embedder
from pipelines.opened.engines import Engines, require_logprobs
from pipelines.params import EngineSpec, ModelJudge, Params


def nothing(tasks: Sequence[Task]) -> None:
    """Do nothing ahead."""


@dataclass(frozen=True)
class Panel:
    """A scorer of params, opened: its id, that of who answers, what it runs on, and which share of requests may fail.

    *prepare* is what is done for many tasks together before any is judged.
    """

    name: str
    judge: str
    scorer: Scorer
    model: str | None = None
    engine: Engine | None = None
    spec: EngineSpec | None = None
    max_failed_share: float = 1.0
    prepare: Callable[[Sequence[Task]], None] = nothing

    def identity(self, sae: str, task: Task) -> Identity:
        """Return whose explanation is scored."""
        return Identity(sae, task.latent, task.explainer, self.name, self.scorer.negatives, self.judge)


@dataclass(frozen=True)
class Room:
    """What a scorer is opened with: params, the dictionary's id, the scorer's id and section, the vocabulary, and the stage's engines.

    *pieces* are what each token id is called, *texts* the bytes that it stands for.
    """

    params: Params
    sae: str
    name: str
    spec: Any
    pieces: list[str]
    texts: list[bytes]
    special: np.ndarray[Any, np.dtype[np.bool_]]
    engines: Engines

    @property
    def seed(self) -> int:
        """The seed of the scorer's draws: not by explainer, so that all explanations are judged on equal trials."""
        return seed_of(self.params.seed, self.name, self.sae)

    @property
    def judge(self) -> Any:
        """The section of the scorer's judge."""
        return self.params.judges[self.spec.judge]


def settings_of(params: Params, spec: Any) -> dict[str, Any]:
    """Return what a scorer's rows depend on in params."""
    section, name = spec.answered_by
    judge = getattr(params, section)[name]
    engine = {"engine_settings": params.engines[judge.engine].model_dump()} if isinstance(judge, ModelJudge) else {}
    return {"seed": params.seed, **spec.model_dump(), "judge_settings": judge.model_dump(), **engine}


def open_panel(params: Params, sae: str, name: str, spec: Any, engines: Engines) -> Panel:
    """Return a scorer of params, ready to score latents of *sae*."""
    vocabulary = shelf("contexts", sae).read(VOCABULARY)
    special = vocabulary["special"].to_numpy(zero_copy_only=False)
    room = Room(params, sae, name, spec, vocabulary["piece"].to_pylist(), text_pieces(vocabulary), special, engines)
    return OPEN[spec.kind](room)


def judged(room: Room, scorer: Scorer, *, scores_text: bool = False) -> Panel:
    """Return a scorer with the engine of its judge, where that is a language model; with *scores_text* it must score given text."""
    name, judge = room.spec.judge, room.judge
    if not isinstance(judge, ModelJudge):
        return Panel(room.name, name, scorer)
    spec = room.params.engines[judge.engine]
    engine = room.engines.open(spec)
    if scores_text:
        require_logprobs(engine, name)
    return Panel(room.name, name, scorer, engine.model, engine, spec, judge.max_failed_share)


def _windows(room: Room) -> Panel:
    draw = fuzzing.trials if room.spec.kind == "fuzzing" else detection.trials
    negatives = room.spec.negatives
    if negatives == "active":
        draw = fuzzing.misplaced
    judge = room.judge
    answers: Judge = LexicalJudge(room.pieces)
    if isinstance(judge, ModelJudge):
        reading = chat.Reading(judge.shown, judge.max_tokens, judge.logprobs)
        answers = chat.ModelJudge(room.texts, reading, seed_of(room.seed, "batches"))
    scorer = WindowScorer(draw, answers, negatives, room.special, room.seed)
    return judged(room, scorer)


def _intruder(room: Room) -> Panel:
    spec, judge = room.spec, room.judge
    finder: Finder = LexicalFinder(seed_of(room.seed, "ties"))
    if isinstance(judge, ModelJudge):
        finder = ModelFinder(room.texts, judge.max_tokens)
    return judged(room, IntruderScorer(finder, spec.trials, spec.shown, spec.negatives, room.special, room.seed))


def embedded(room: Room, scorer: EmbeddingScorer | ExampleEmbeddingScorer) -> Panel:
    """Return a scorer with its embedder; where vectors are kept, those of many tasks are made together."""
    kept = isinstance(scorer.embedder, Kept)
    return Panel(room.name, room.spec.embedder, scorer, scorer.embedder.name, prepare=scorer.prepare if kept else nothing)


def _embedding(room: Room) -> Panel:
    return embedded(
        room, EmbeddingScorer(open_embedder(room.params, room.spec.embedder), room.texts, room.spec.negatives, windows=room.spec.windows)
    )


def _example_embedding(room: Room) -> Panel:
    spec, embedder = room.spec, open_embedder(room.params, room.spec.embedder)
    return embedded(
        room, ExampleEmbeddingScorer(embedder, room.texts, spec.negatives, spec.trials, spec.examples, room.seed, windows=spec.windows)
    )


def _simulation(room: Room) -> Panel:
    spec, asks = room.spec, isinstance(room.judge, ModelJudge)
    simulator: Simulator = LexicalSimulator(LexicalJudge(room.pieces))
    if asks:
        simulator = ModelSimulator(spec.form, [text.decode("utf-8", "replace") for text in room.texts])
    scorer = SimulationScorer(simulator, spec.negatives, spec.windows, room.special)
    return judged(room, scorer, scores_text=asks and FORMS[spec.form].scores_text)


def _surprisal(room: Room) -> Panel:
    return judged(room, SurprisalScorer(room.texts, room.spec.negatives), scores_text=True)


def _intervention(room: Room) -> Panel:
    rows = shelf("interventions", room.sae).read(GENERATIONS, filters=[("scorer", "==", room.name)])
    return judged(room, InterventionScorer(passages(rows)), scores_text=True)


OPEN: dict[str, Callable[[Room], Panel]] = {
    "detection": _windows,
    "embedding": _embedding,
    "example-embedding": _example_embedding,
    "fuzzing": _windows,
    "intervention": _intervention,
    "intruder": _intruder,
    "simulation": _simulation,
    "surprisal": _surprisal,
}
