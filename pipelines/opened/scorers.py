"""Scorers of params, opened, each with the judge or the embedder that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builders.arrays import Bools
from builders.embedders.kept import Kept
from builders.engines.requests import Engine, Outcome, Request
from builders.interventions.generations import GENERATIONS, passages
from builders.saes.latents import LATENTS, largest
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
from builders.scorers.trials import WindowScorer
from builders.seeds import seed_of
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.stage import shelf
from pipelines.opened.embedders import open_embedder
from pipelines.opened.engines import Engines, require_logprobs
from pipelines.params import EngineParams, ModelJudgeParams, Params


def nothing(tasks: Sequence[Task]) -> None:
    """Prepare nothing."""


def no_more(*_: object) -> tuple[()]:
    """Ask nothing again."""
    return ()


@dataclass(frozen=True)
class Panel:
    """A scorer of params, opened: its id, the id of the judge or embedder that answers, and the model and engine behind it.

    At most *max_failed_share* of its requests may fail. *prepare* is called with many tasks before any of them is judged. *again* returns
    a task's further requests, given the outcomes so far: those about examples whose answers cannot be read.
    """

    scorer_id: str
    judge_id: str
    scorer: Scorer
    model: str | None = None
    engine: Engine | None = None
    spec: EngineParams | None = None
    max_failed_share: float = 1.0
    prepare: Callable[[Sequence[Task]], None] = nothing
    again: Callable[[Task, Sequence[Outcome]], Sequence[Request]] = no_more

    def identity(self, sae_id: str, task: Task) -> Identity:
        """Return the columns that say what is scored, and by whom."""
        return Identity(sae_id, task.latent, task.explainer, self.scorer_id, self.scorer.negatives, self.judge_id)


@dataclass(frozen=True)
class Setup:
    """What a scorer is opened with: params, the ids of dictionary and scorer, the scorer's params, the vocabulary, and the stage's engines.

    *pieces* are the names of the token ids, *texts* the bytes that they stand for, and *special* says which are special tokens.
    """

    params: Params
    sae_id: str
    scorer_id: str
    spec: Any
    pieces: list[str]
    texts: list[bytes]
    special: Bools
    engines: Engines

    @property
    def seed(self) -> int:
        """The seed of the scorer's draws: the same for every explainer, so that all explanations of a latent have equal trials."""
        return seed_of(self.params.seed, self.scorer_id, self.sae_id)

    @property
    def judge(self) -> Any:
        """The params of the scorer's judge."""
        return self.params.judges[self.spec.judge]


def settings_of(params: Params, spec: Any) -> dict[str, Any]:
    """Return the params that decide a scorer's rows; how its judge is calibrated is none of them."""
    section, answerer_id = spec.answered_by
    answerer = getattr(params, section)[answerer_id]
    engine = {"engine_settings": params.engines[answerer.engine].model_dump()} if isinstance(answerer, ModelJudgeParams) else {}
    return {"seed": params.seed, **spec.model_dump(), "judge_settings": answerer.model_dump(exclude={"calibration"}), **engine}


def open_panel(params: Params, sae_id: str, scorer_id: str, spec: Any, engines: Engines) -> Panel:
    """Return a scorer of params, ready to score latents of dictionary *sae_id*."""
    vocabulary = shelf("contexts", sae_id).read(VOCABULARY)
    special = vocabulary["special"].to_numpy(zero_copy_only=False)
    setup = Setup(params, sae_id, scorer_id, spec, vocabulary["piece"].to_pylist(), text_pieces(vocabulary), special, engines)
    return OPEN[spec.kind](setup)


def judged(setup: Setup, scorer: Scorer, *, scores_text: bool = False) -> Panel:
    """Return a scorer with its judge's engine, if the judge is a language model; with *scores_text* the engine must score given text."""
    judge_id, judge = setup.spec.judge, setup.judge
    if not isinstance(judge, ModelJudgeParams):
        return Panel(setup.scorer_id, judge_id, scorer)
    spec = setup.params.engines[judge.engine]
    engine = setup.engines.open(spec)
    if scores_text:
        require_logprobs(engine, judge_id)
    return Panel(setup.scorer_id, judge_id, scorer, engine.model, engine, spec, judge.max_failed_share)


def _windows(setup: Setup) -> Panel:
    negatives, judge = setup.spec.negatives, setup.judge
    draw = detection.trials
    if setup.spec.kind == "fuzzing":
        draw = fuzzing.OWN.get(negatives, fuzzing.MARKS[setup.spec.marks])
    if not isinstance(judge, ModelJudgeParams):
        return judged(setup, WindowScorer(draw, LexicalJudge(setup.pieces), negatives, setup.special, setup.seed))
    reading = chat.Reading(judge.shown, judge.max_tokens, judge.logprobs, judge.form)
    model = chat.ModelJudge(setup.texts, reading, seed_of(setup.seed, "batches"))
    scorer = WindowScorer(draw, model, negatives, setup.special, setup.seed)
    panel = judged(setup, scorer)
    return replace(panel, again=lambda task, outcomes: model.again(task.explanation, scorer.trials(task), outcomes))


def _intruder(setup: Setup) -> Panel:
    spec, judge = setup.spec, setup.judge
    finder: Finder = LexicalFinder(seed_of(setup.seed, "ties"))
    if isinstance(judge, ModelJudgeParams):
        finder = ModelFinder(setup.texts, judge.max_tokens, judge.form)
    return judged(setup, IntruderScorer(finder, spec.trials, spec.shown, spec.negatives, setup.special, setup.seed))


def embedded(setup: Setup, scorer: EmbeddingScorer | ExampleEmbeddingScorer) -> Panel:
    """Return a scorer with its embedder; an embedder that keeps its vectors embeds many tasks together."""
    kept = isinstance(scorer.embedder, Kept)
    return Panel(setup.scorer_id, setup.spec.embedder, scorer, scorer.embedder.name, prepare=scorer.prepare if kept else nothing)


def _embedding(setup: Setup) -> Panel:
    spec, embedder = setup.spec, open_embedder(setup.params, setup.spec.embedder)
    return embedded(setup, EmbeddingScorer(embedder, setup.texts, spec.negatives))


def _example_embedding(setup: Setup) -> Panel:
    spec, embedder = setup.spec, open_embedder(setup.params, setup.spec.embedder)
    return embedded(setup, ExampleEmbeddingScorer(embedder, setup.texts, spec.negatives, spec.trials, spec.examples, setup.seed))


def _simulation(setup: Setup) -> Panel:
    spec, asks = setup.spec, isinstance(setup.judge, ModelJudgeParams)
    simulator: Simulator = LexicalSimulator(LexicalJudge(setup.pieces))
    if asks:
        simulator = ModelSimulator(spec.form, [text.decode("utf-8", "replace") for text in setup.texts], spec.shots)
    most = largest(shelf("contexts", setup.sae_id).read(LATENTS, columns=["max"]))
    scorer = SimulationScorer(simulator, spec.negatives, spec.windows, setup.special, most)
    return judged(setup, scorer, scores_text=asks and FORMS[spec.form].scores_text)


def _surprisal(setup: Setup) -> Panel:
    return judged(setup, SurprisalScorer(setup.texts, setup.spec.negatives), scores_text=True)


def _intervention(setup: Setup) -> Panel:
    rows = shelf("interventions", setup.sae_id).read(GENERATIONS, filters=[("scorer", "==", setup.scorer_id)])
    return judged(setup, InterventionScorer(passages(rows)), scores_text=True)


OPEN: dict[str, Callable[[Setup], Panel]] = {
    "detection": _windows,
    "embedding": _embedding,
    "example-embedding": _example_embedding,
    "fuzzing": _windows,
    "intervention": _intervention,
    "intruder": _intruder,
    "simulation": _simulation,
    "surprisal": _surprisal,
}
