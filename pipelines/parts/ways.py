"""The ways in which scorers of params ask a judge: by name, such as `fuzzing-active`, and as params."""

from __future__ import annotations

from builders.scorers.judges import EVEN, way
from pipelines.params import (
    DetectionScorerParams,
    FuzzingScorerParams,
    ModelJudgeParams,
    Params,
    SimulationScorerParams,
    SurprisalScorerParams,
)

Asking = DetectionScorerParams | FuzzingScorerParams  # for yes or no
Spec = Asking | SimulationScorerParams | SurprisalScorerParams


def way_of(spec: Spec) -> str:
    """Return the name of the way in which a scorer asks its judge."""
    kind = f"{spec.kind}-{spec.form}" if isinstance(spec, SimulationScorerParams) else spec.kind
    return way(kind, spec.negatives, getattr(spec, "marks", "borrowed"))


def asking(params: Params) -> dict[str, Asking]:
    """Return the scorers of params that ask a judge for yes or no."""
    return {scorer_id: spec for scorer_id, spec in params.scorers.items() if isinstance(spec, Asking)}


def ways_of(params: Params, judge_id: str) -> dict[str, Spec]:
    """Return the ways in which a judge is asked: those of its scorers, and both kinds that ask for yes or no, with random negatives.

    A judge that is no language model is asked for yes or no only.
    """
    plain: list[Spec] = [DetectionScorerParams(kind="detection", judge=judge_id), FuzzingScorerParams(kind="fuzzing", judge=judge_id)]
    kinds = Spec if isinstance(params.judges[judge_id], ModelJudgeParams) else Asking
    own = [spec for spec in params.scorers.values() if isinstance(spec, kinds) and spec.judge == judge_id]
    found = {way_of(spec): spec.model_copy(update={"negatives": "random"} if spec.negatives in EVEN else {}) for spec in (*plain, *own)}
    return dict(sorted(found.items()))
