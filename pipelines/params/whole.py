"""params.yaml as types: a typo, a wrong type or a dangling name is one line before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from builders.errors import UserError, one_of
from builders.explainers.explanations import PERMUTED
from pipelines.params.base import Count, Id, Section, Share, Whole
from pipelines.params.dictionaries import Sae, Training
from pipelines.params.explainers import AskingExplainer, ExplainerSpec
from pipelines.params.models import EngineSpec
from pipelines.params.scoring import (
    DirectScorerSpec,
    EmbedderSpec,
    JudgeSpec,
    ModelJudge,
    ScorerSpec,
)
from pipelines.params.sources import Activations, Contexts, Corpus, Neighbours, Subject, Tokens
from pipelines.params.steering import BehaviourSpec, Steering

FILE = "params.yaml"
LAB = Path("checkpoints/recipe.yaml")
Read = TypeVar("Read", bound=Section)
LessonName = Literal["short", "same", "free"]


class LabShape(Section):
    """The sizes of a lab checkpoint."""

    architecture: Literal["llama", "mamba2", "rwkv"]
    width: Count
    layers: Count
    heads: Count = 1
    hidden: Whole = 0
    state: Whole = 0


class LabTraining(Section):
    """How lab checkpoints are trained on text; *batch* in rows."""

    batch: Count
    lr: Annotated[float, Field(gt=0)]
    dropout: Share
    weight_decay: Annotated[float, Field(ge=0)]


class LabLesson(LabTraining):
    """How they go on with so many *talks*, beside a share of the documents so that these are not forgotten."""

    talks: Count
    documents: Share


class LabCheckpoint(Section):
    """A new model of a *shape* that reads the documents so many *epochs*, and then the talks of some lessons."""

    shape: LabShape
    epochs: Count
    talks: tuple[LessonName, ...] = ()


class LabFurther(Section):
    """The lab checkpoint *start*, as it was stored, which goes on with the talks of some lessons."""

    start: Id
    talks: tuple[LessonName, ...]


class Lab(Section):
    """The recipe of the lab checkpoints, in a file beside them: Python's documentation, then talks; *length* in tokens."""

    seed: int
    held_out: Share
    vocabulary: Count
    length: Count
    reading: LabTraining
    talking: dict[LessonName, LabLesson]
    checkpoints: dict[Id, LabCheckpoint | LabFurther]

    @model_validator(mode="after")
    def _names(self) -> Lab:
        for name, spec in self.checkpoints.items():
            if unknown := set(spec.talks) - set(self.talking):
                raise ValueError(f"checkpoints.{name}.talks: no lesson {one_of(unknown)} in `talking`; it has {one_of(self.talking)}")
            if isinstance(spec, LabFurther) and spec.start not in self.checkpoints:
                raise ValueError(f"checkpoints.{name}.start: no checkpoint {spec.start}; there are {one_of(self.checkpoints)}")
        return self


class Release(Section):
    """What the release is called and how it may be used."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    title: str
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    license: str
    language: list[str]


class Params(Section):
    """The whole of params.yaml."""

    seed: int
    corpora: dict[Id, Corpus]
    subjects: dict[Id, Subject]
    tokens: Tokens
    saes: Annotated[dict[Id, Sae], Field(min_length=1)]
    training: Training
    activations: Activations
    neighbours: Neighbours = Neighbours()
    contexts: Contexts
    engines: dict[Id, EngineSpec] = Field(default_factory=dict)
    explainers: dict[Id, ExplainerSpec]
    embedders: dict[Id, EmbedderSpec] = Field(default_factory=dict)
    judges: dict[Id, JudgeSpec] = Field(default_factory=dict)
    scorers: dict[Id, ScorerSpec] = Field(default_factory=dict)
    direct_scorers: dict[Id, DirectScorerSpec] = Field(default_factory=dict)
    behaviours: dict[Id, BehaviourSpec] = Field(default_factory=dict)
    steering: Steering = Steering()
    release: Release

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        for place, name, section in self._uses():
            known = getattr(self, section)
            if name not in known:
                raise ValueError(f"{place}: {name!r} is not defined; defined are {one_of(known) or 'none'}")
        for section, name, why in self._taken():
            raise ValueError(f"{section}.{name}: {why}; choose another id")
        return self

    def _taken(self) -> Iterator[tuple[str, str, str]]:
        """Yield section and id of what is called as something else is, and what that is."""
        yield from (
            ("explainers", name, f"`{PERMUTED}` is how baselines are called") for name in self.explainers if name.endswith(PERMUTED)
        )
        yield from (("explainers", name, "so rows without an explanation are called") for name in self.explainers if name == "none")
        yield from (("saes", name, "so all dictionaries together are called") for name in self.saes if name == "all")
        yield from (("direct_scorers", name, "is also one of `scorers`") for name in self.direct_scorers if name in self.scorers)

    def _uses(self) -> Iterator[tuple[str, str, str]]:
        """Yield where an id of another section is used, the id, and that section."""
        yield from ((f"subjects.{name}.corpus", subject.corpus, "corpora") for name, subject in self.subjects.items())
        yield from ((f"saes.{name}.subject", sae.subject, "subjects") for name, sae in self.saes.items())
        asking = ((name, spec) for name, spec in self.explainers.items() if isinstance(spec, AskingExplainer))
        yield from ((f"explainers.{name}.engine", spec.engine, "engines") for name, spec in asking)
        models = ((name, judge) for name, judge in self.judges.items() if isinstance(judge, ModelJudge))
        yield from ((f"judges.{name}.engine", judge.engine, "engines") for name, judge in models)
        for place, scorer in self._scorers():
            section, name = scorer.answered_by
            yield f"{place}.{section.removesuffix('s')}", name, section
        if self.steering.open.judge is not None:
            yield "steering.open.judge", self.steering.open.judge, "judges"
        if self.contexts.negatives.embedder is not None:
            yield "contexts.negatives.embedder", self.contexts.negatives.embedder, "embedders"

    def _scorers(self) -> Iterator[tuple[str, ScorerSpec | DirectScorerSpec]]:
        yield from ((f"scorers.{name}", scorer) for name, scorer in self.scorers.items())
        yield from ((f"direct_scorers.{name}", scorer) for name, scorer in self.direct_scorers.items())

    @model_validator(mode="after")
    def _negatives_are_drawn(self) -> Params:
        drawn = self.contexts.negatives.counts
        for kind in drawn:
            if kind != "similar" and kind not in self.neighbours.measures:
                raise ValueError(f"contexts.negatives.{kind}: {kind!r} is not among `neighbours.measures`; add it there")
        for place, scorer in self._scorers():
            kind = getattr(scorer, "negatives", "random")
            if kind in {"random", "active", "internal"}:
                continue
            if kind not in drawn:
                raise ValueError(f"{place}.negatives: no {kind} windows are drawn; set `contexts.negatives.{kind}`")
            most = self.contexts.negatives.latents
            if most is not None and (scorer.latents is None or scorer.latents > most):
                raise ValueError(
                    f"{place}.latents: only {most} latents have {kind} windows (`contexts.negatives.latents`); ask for no more"
                )
        return self

    @model_validator(mode="after")
    def _judges_can_answer(self) -> Params:
        for place, scorer in self._scorers():
            if scorer.needs_model and not isinstance(self.judges.get(scorer.answered_by[1]), ModelJudge):
                raise ValueError(f"{place}.judge: {scorer.kind} asks a language model; choose a judge of kind `model`")
        rated_by = self.steering.open.judge
        if rated_by is not None and not isinstance(self.judges.get(rated_by), ModelJudge):
            raise ValueError("steering.open.judge: ratings ask a language model; choose a judge of kind `model`")
        return self


def load(file: Path | str | None = None) -> Params:
    """Read params.yaml (or *file*, or $INTERPLAKE_PARAMS); raise UserError with file, key and what is allowed."""
    path = Path(file or os.environ.get("INTERPLAKE_PARAMS", FILE))
    if not path.is_file():
        raise UserError(f"{path}: not found; run this in the project's folder")
    return _read(path, Params)


def load_lab() -> Lab:
    """Read the recipe of the lab checkpoints."""
    return _read(LAB, Lab)


def _read(path: Path, section: type[Read]) -> Read:
    try:
        return section.model_validate(yaml.load(path.read_text(), yaml.CSafeLoader))  # safe, and ten times as fast
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """Return the first problems of a pydantic error as one line."""
    problems = [_problem(detail) for detail in error.errors()]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _problem(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    given = "" if isinstance(detail.get("input"), dict) else f" (given: {detail.get('input')!r})"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{place}: unknown key; remove it or correct its name"
    if kind == "missing":
        return f"{place}: missing"
    if "[key]" in detail["loc"]:
        return f"{place}: an id may hold a-z, 0-9 and single dashes only"
    if kind == "value_error":
        return (f"{place}: " if place else "") + str(context["error"])
    return f"{place}: {detail['msg'].lower()}{given}"
