"""The body of the stages `scores` and `direct`: tasks → judgements and scores, a group of tasks at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from builders.engines.requests import Answer, Failure, Outcome, Request
from builders.lake.failures import FAILURES, failure
from builders.lake.shards import Shards
from builders.scorers.judgements import JUDGEMENTS, SCORES, Identity, judgement_rows, score_record
from builders.scorers.judging import Judged, Scorer, Task
from pipelines.opened.engines import account, asked, require_share
from pipelines.opened.scorers import Panel

TOGETHER, REQUESTS = 256, 4096  # a group ends at so many tasks, or once it has so many requests


@dataclass(frozen=True)
class Scored:
    """A task, the outcomes of its requests, and the judgements that follow from them."""

    task: Task
    judged: Judged
    outcomes: list[Outcome]


def judge_all(sae_id: str, tasks: Iterable[Task], panel: Panel, shards: Shards) -> bool:
    """Write JUDGEMENTS, SCORES and FAILURES of *tasks*, in order of latent and explainer; return whether every request has an answer."""
    told: list[tuple[Identity, Judged]] = []
    scores: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    answered: dict[str, Outcome] = {}
    for scored in scored_tasks(sae_id, tasks, panel, answered):
        identity = panel.identity(sae_id, scored.task)
        told.append((identity, scored.judged))
        scores.append(score_record(identity, panel.scorer, scored.judged, panel.model, scored.outcomes))
        reason = failure_reason(scored)
        if reason:
            failed.append(failure(sae_id, scored.task.latent, "scores", f"{scored.task.explainer}/{panel.scorer_id}", reason))
    if panel.spec is not None:  # before anything is written, so that failed requests are made again
        statuses = [status_of(outcome) for outcome in answered.values()]
        require_share(f"{panel.scorer_id} of {sae_id}", statuses, panel.max_failed_share, "requests")
        account(shards, answered, panel.spec)
    shards.write(JUDGEMENTS, JUDGEMENTS.row_groups(judgement_rows(told)))
    shards.write(SCORES, [SCORES.rows(scores)])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    return not any(isinstance(outcome, Failure) for outcome in answered.values())


def scored_tasks(sae_id: str, tasks: Iterable[Task], panel: Panel, answered: dict[str, Outcome]) -> Iterator[Scored]:
    """Yield every task with its judgements, and put the outcome of each request into *answered* by its address."""
    for group in groups(tasks, panel.scorer):
        panel.prepare([task for task, _ in group])
        flat = [request for _, some in group for request in some]
        found = asked(panel.engine, flat, f"{panel.scorer_id} of {sae_id}") if panel.engine is not None and flat else []
        answered.update((key, bare(outcome)) for key, outcome in found)
        answers = iter(outcome for _, outcome in found)
        for task, some in group:
            outcomes = list(islice(answers, len(some)))
            yield Scored(task, panel.scorer.judged(task, outcomes), outcomes)


def groups(tasks: Iterable[Task], scorer: Scorer) -> Iterator[list[tuple[Task, Sequence[Request]]]]:
    """Yield groups of tasks with their requests; a group ends at TOGETHER tasks, or once it has REQUESTS requests."""
    group: list[tuple[Task, Sequence[Request]]] = []
    count = 0
    for task in tasks:
        group.append((task, scorer.requests(task)))
        count += len(group[-1][1])
        if len(group) == TOGETHER or count >= REQUESTS:
            yield group
            group, count = [], 0
    if group:
        yield group


def bare(outcome: Outcome) -> Outcome:
    """Return an outcome without its text and tokens, which take much memory; in the end only its counts are needed."""
    return replace(outcome, text="", tokens=()) if isinstance(outcome, Answer) else outcome


def failure_reason(scored: Scored) -> str | None:
    """Return why some examples of a task have no answer, or why it has no score; None where all is well."""
    bad = scored.judged.status[scored.judged.status != "ok"]
    if not len(bad):
        status = scored.judged.measures["status"]
        return None if status == "ok" else f"no score: {status}"
    told = (outcome.reason for outcome in scored.outcomes if isinstance(outcome, Failure))
    reason = scored.judged.reason or next(told, str(bad[0]))
    return f"{len(bad)} of {len(scored.judged.status)} examples without an answer: {reason}"


def status_of(outcome: Outcome) -> dict[str, str]:
    """Return the status and reason of an outcome, in the form that `require_share` counts."""
    return {"status": outcome.status, "reason": outcome.reason} if isinstance(outcome, Failure) else {"status": "ok", "reason": ""}
