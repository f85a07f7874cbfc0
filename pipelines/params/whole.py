"""params.yaml as types: a typo, a wrong type or an id that is not defined is reported in one line before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from builders.errors import UserError, one_of
from builders.explainers.explanations import PERMUTED, sample_of
from pipelines.params.base import Id, Section
from pipelines.params.dictionaries import SaeParams, TrainingParams, are_sisters
from pipelines.params.explainers import AskingExplainerParams, ExplainerParams
from pipelines.params.lab import LabParams
from pipelines.params.layers import text_of
from pipelines.params.lenses import LensesParams
from pipelines.params.models import EngineParams
from pipelines.params.problems import explain, no_yaml
from pipelines.params.release import ReleaseParams
from pipelines.params.scoring import (
    DirectScorerParams,
    EmbedderParams,
    JudgeParams,
    ModelJudgeParams,
    ScorerParams,
)
from pipelines.params.similarity import SimilarityParams
from pipelines.params.sources import ActivationsParams, ContextsParams, CorpusParams, NeighboursParams, SubjectParams, TokensParams
from pipelines.params.steering import BehaviourParams, SteeringParams

FILE = "params.yaml"
LAB = Path("checkpoints/recipe.yaml")
LICENSED = ("corpora", "subjects", "saes", "engines", "embedders")  # sections whose entries a release is made from
Read = TypeVar("Read", bound=Section)


class Params(Section):
    """The whole of params.yaml."""

    seed: int
    corpora: dict[Id, CorpusParams]
    subjects: dict[Id, SubjectParams]
    tokens: TokensParams
    saes: Annotated[dict[Id, SaeParams], Field(min_length=1)]
    training: TrainingParams
    activations: ActivationsParams
    neighbours: NeighboursParams = NeighboursParams()
    contexts: ContextsParams
    engines: dict[Id, EngineParams] = Field(default_factory=dict)
    explainers: dict[Id, ExplainerParams]
    embedders: dict[Id, EmbedderParams] = Field(default_factory=dict)
    judges: dict[Id, JudgeParams] = Field(default_factory=dict)
    scorers: dict[Id, ScorerParams] = Field(default_factory=dict)
    direct_scorers: dict[Id, DirectScorerParams] = Field(default_factory=dict)
    behaviours: dict[Id, BehaviourParams] = Field(default_factory=dict)
    steering: SteeringParams = SteeringParams()
    similarity: SimilarityParams = SimilarityParams()
    lenses: LensesParams = LensesParams()
    release: ReleaseParams

    @property
    def by_subject(self) -> list[str]:
        """The ids of all dictionaries; those of a subject follow each other, so that it is loaded once."""
        return sorted(self.saes, key=lambda sae_id: (self.saes[sae_id].subject, sae_id))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of dictionaries that are compared, each in order of id; of sisters, the first is compared with other dictionaries."""
        ids = sorted(set(self.similarity.saes or self.saes))
        sisters = {pair for pair in combinations(ids, 2) if are_sisters(*(self.saes[sae_id] for sae_id in pair))}
        later = {sae_id for _, sae_id in sisters}
        return [pair for pair in combinations(ids, 2) if pair in sisters or not later & set(pair)]

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        for place, used_id, section in self._uses():
            known = getattr(self, section)
            if used_id not in known:
                raise ValueError(f"{place}: {used_id!r} is not defined; defined are {one_of(known) or 'none'}")
        for section, taken_id, why in self._taken():
            raise ValueError(f"{section}.{taken_id}: {why}; choose another id")
        return self

    @model_validator(mode="after")
    def _licenses_are_of_something(self) -> Params:
        known = {entry_id for section in LICENSED for entry_id in getattr(self, section)}
        if unknown := set(self.release.licenses) - known:
            raise ValueError(f"release.licenses.{min(unknown)}: not an id of {one_of(LICENSED)}; correct it or take it out")
        return self

    def _taken(self) -> Iterator[tuple[str, str, str]]:
        """Yield the section and the id of each entry whose id means something else already, and what it means."""
        for explainer_id in self.explainers:
            if explainer_id.endswith(PERMUTED):
                yield "explainers", explainer_id, f"`{PERMUTED}` at the end of an id stands for a baseline"
            if sample_of(explainer_id):
                yield "explainers", explainer_id, "`-sample-` and a number at the end of an id stand for a further sample"
            if explainer_id == "none":
                yield "explainers", explainer_id, "`none` stands for rows without an explanation"
        if "all" in self.saes:
            yield "saes", "all", "`all` stands for all dictionaries together"
        if "lenses" in self.saes:
            yield "saes", "lenses", "a release keeps the weights of lenses in the folder of that name"
        for scorer_id in self.direct_scorers:
            if scorer_id in self.scorers:
                yield "direct_scorers", scorer_id, "`scorers` has the same id"

    def _uses(self) -> Iterator[tuple[str, str, str]]:
        """Yield each place where an id of another section is used, that id, and the section."""
        yield from ((f"subjects.{subject_id}.corpus", subject.corpus, "corpora") for subject_id, subject in self.subjects.items())
        yield from ((f"saes.{sae_id}.subject", sae.subject, "subjects") for sae_id, sae in self.saes.items())
        for place, asking in (*self._explainers(), *self._scorers()):
            yield from ((f"{place}.saes", sae_id, "saes") for sae_id in getattr(asking, "saes", None) or ())
        for place, explainer in self._explainers():
            if isinstance(explainer, AskingExplainerParams):
                yield f"{place}.engine", explainer.engine, "engines"
        for judge_id, judge in self.judges.items():
            if isinstance(judge, ModelJudgeParams):
                yield f"judges.{judge_id}.engine", judge.engine, "engines"
        for place, scorer in self._scorers():
            section, answerer_id = scorer.answered_by
            yield f"{place}.{section.removesuffix('s')}", answerer_id, section
        if self.steering.open.judge is not None:
            yield "steering.open.judge", self.steering.open.judge, "judges"
        if self.contexts.negatives.embedder is not None:
            yield "contexts.negatives.embedder", self.contexts.negatives.embedder, "embedders"
        yield from (("similarity.saes", sae_id, "saes") for sae_id in self.similarity.saes or ())
        for part, name in (("similarity", "explainer"), *product(("similarity", "release"), ("embedder", "scorer"))):
            if (used_id := getattr(getattr(self, part), name)) is not None:
                yield f"{part}.{name}", used_id, f"{name}s"

    def _explainers(self) -> Iterator[tuple[str, ExplainerParams]]:
        yield from ((f"explainers.{explainer_id}", explainer) for explainer_id, explainer in self.explainers.items())

    def _scorers(self) -> Iterator[tuple[str, ScorerParams | DirectScorerParams]]:
        yield from ((f"scorers.{scorer_id}", scorer) for scorer_id, scorer in self.scorers.items())
        yield from ((f"direct_scorers.{scorer_id}", scorer) for scorer_id, scorer in self.direct_scorers.items())

    @model_validator(mode="after")
    def _negatives_are_drawn(self) -> Params:
        asked = self.contexts.negatives
        end = asked.row_start + self.tokens.window
        if asked.row and end > self.tokens.length:
            raise ValueError(f"contexts.negatives.row_start: no row has {end} tokens (`tokens.length` is {self.tokens.length}); lower it")
        for kind in asked.measures:
            if kind not in self.neighbours.measures:
                raise ValueError(f"contexts.negatives.{kind}: {kind!r} is not among `neighbours.measures`; add it there")
        for place, scorer in self._scorers():
            kind = getattr(scorer, "negatives", "random")
            if kind in {"random", "active", "internal"}:
                continue
            if not getattr(asked, kind):
                raise ValueError(f"{place}.negatives: no {kind} windows are drawn; set `contexts.negatives.{kind}`")
            most = asked.latents if kind in asked.counts else None  # all latents share the pool
            if most is not None and (scorer.latents is None or scorer.latents > most):
                raise ValueError(
                    f"{place}.latents: only {most} latents have {kind} windows (`contexts.negatives.latents`); ask for no more"
                )
        return self

    @model_validator(mode="after")
    def _judges_can_answer(self) -> Params:
        for place, scorer in self._scorers():
            if scorer.needs_model and not isinstance(self.judges.get(scorer.answered_by[1]), ModelJudgeParams):
                raise ValueError(f"{place}.judge: {scorer.kind} asks a language model; choose a judge of kind `model`")
        rated_by = self.steering.open.judge
        if rated_by is not None and not isinstance(self.judges.get(rated_by), ModelJudgeParams):
            raise ValueError("steering.open.judge: ratings ask a language model; choose a judge of kind `model`")
        return self


def path_of(file: Path | str | None = None) -> Path:
    """Return *file*, or else $INTERPLAKE_PARAMS, or else params.yaml."""
    return Path(file or os.environ.get("INTERPLAKE_PARAMS", FILE))


def load(file: Path | str | None = None) -> Params:
    """Read the params at :func:`path_of` *file*; raise UserError that names the file, the key and what is allowed.

    Entries for many layers are written out in a *file* that is named. The project's own must not have them, since DVC reads it as it is.
    """
    path = path_of(file)
    whole = text_of(path)
    if file is None and whole != path.read_text():
        raise UserError(f"{path}: an entry of `saes` stands for many layers, and DVC would take it for one; run `interplake expand`")
    return _read(path, whole, Params)


def load_lab() -> LabParams:
    """Read the recipe of the lab checkpoints."""
    return _read(LAB, LAB.read_text(), LabParams)


def _read(path: Path, text: str, section: type[Read]) -> Read:
    try:
        return section.model_validate(yaml.load(text, yaml.CSafeLoader))  # a safe loader, ten times as fast as the default
    except yaml.YAMLError as error:
        raise no_yaml(path, error) from error
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from error
