"""A task, scored as a stage scores it: by a judge that answers itself, or with the answers of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builders.scorers.judgements import JUDGEMENTS, SCORES, Identity, judgement_rows, score_record

if TYPE_CHECKING:
    import pyarrow as pa

    from builders.engines.requests import Engine
    from builders.scorers.judging import Scorer, Task


def scored(scorer: Scorer, task: Task, engine: Engine | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Return the JUDGEMENTS rows and the SCORES record of *task*, both valid."""
    requests = list(scorer.requests(task))
    found = dict(engine.run(requests)) if engine is not None else {}
    outcomes = [found[place] for place in range(len(requests))]
    judged = scorer.judged(task, outcomes)
    identity = Identity("toy", task.latent, task.explainer, "some-scorer", scorer.negatives, "some-judge")
    rows = judgement_rows([(identity, judged)])
    record = score_record(identity, scorer, judged, engine.model if engine is not None else None, outcomes)
    JUDGEMENTS.validate(rows)
    SCORES.validate(SCORES.rows([record]))
    return rows, record
