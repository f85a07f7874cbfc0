"""The ways in which scorers of params ask a judge for yes or no: by name, such as `fuzzing-active`, and as params."""

from __future__ import annotations

from builders.scorers.judges import EVEN, way
from pipelines.params import DetectionScorerParams, FuzzingScorerParams, Params

Spec = DetectionScorerParams | FuzzingScorerParams


def way_of(spec: Spec) -> str:
    """Return the name of the way in which a scorer asks its judge."""
    return way(spec.kind, spec.negatives, getattr(spec, "marks", "borrowed"))


def asking(params: Params) -> dict[str, Spec]:
    """Return the scorers of params that ask a judge for yes or no."""
    return {scorer_id: spec for scorer_id, spec in params.scorers.items() if isinstance(spec, Spec)}


def ways_of(params: Params, judge_id: str) -> dict[str, Spec]:
    """Return the ways in which a judge is asked: those of its scorers, and both kinds with random negatives."""
    plain: list[Spec] = [DetectionScorerParams(kind="detection", judge=judge_id), FuzzingScorerParams(kind="fuzzing", judge=judge_id)]
    own = [spec for spec in asking(params).values() if spec.judge == judge_id]
    found = {way_of(spec): spec.model_copy(update={"negatives": "random"} if spec.negatives in EVEN else {}) for spec in (*plain, *own)}
    return dict(sorted(found.items()))
