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
from pipelines.opened.engines import account, asked, require_form, require_share
from pipelines.opened.scorers import Panel

TOGETHER, REQUESTS = 256, 4096  # a group ends at so many tasks, or once it has so many requests
Group = list[tuple[Task, Sequence[Request]]]


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
    """Yield every task with its judgements, and put the outcome of each request into *answered* by its address.

    A failed request whose examples were all answered in another one is left out of *answered*.
    """
    tried = False
    for group in groups(tasks, panel.scorer):
        panel.prepare([task for task, _ in group])
        first = next((request for _, some in group for request in some), None)
        if panel.engine is not None and first is not None and not tried:
            require_form(panel.engine, first, panel.judge_id)
            tried = True
        for (task, _), found in zip(group, asked_all(group, panel, f"{panel.scorer_id} of {sae_id}"), strict=True):
            outcomes = [outcome for _, outcome in found]
            judged = panel.scorer.judged(task, outcomes)
            lost = any(isinstance(outcome, Failure) and outcome.status in judged.status for outcome in outcomes)
            answered.update((key, bare(outcome)) for key, outcome in found if lost or isinstance(outcome, Answer))
            yield Scored(task, judged, outcomes)


def asked_all(group: Group, panel: Panel, what: str) -> list[list[tuple[str, Outcome]]]:
    """Return the address and outcome of each task's requests, and after them those of what the panel asks again, until it asks no more."""
    found: list[list[tuple[str, Outcome]]] = [[] for _ in group]
    waiting = [some for _, some in group]
    while panel.engine is not None and (flat := [request for some in waiting for request in some]):
        answers = iter(asked(panel.engine, flat, what))
        for told, some in zip(found, waiting, strict=True):
            told += islice(answers, len(some))
        waiting = [panel.again(task, [outcome for _, outcome in told]) for (task, _), told in zip(group, found, strict=True)]
    return found


def groups(tasks: Iterable[Task], scorer: Scorer) -> Iterator[Group]:
    """Yield groups of tasks with their requests; a group ends at TOGETHER tasks, or once it has REQUESTS requests."""
    group: Group = []
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
        return None if "score" in scored.judged.measures else f"no score: {scored.judged.measures['status']}"
    told = (outcome.reason for outcome in scored.outcomes if isinstance(outcome, Failure))
    reason = scored.judged.reason or next(told, str(bad[0]))
    return f"{len(bad)} of {len(scored.judged.status)} examples without an answer: {reason}"


def status_of(outcome: Outcome) -> dict[str, str]:
    """Return the status and reason of an outcome, in the form that `require_share` counts."""
    return {"status": outcome.status, "reason": outcome.reason} if isinstance(outcome, Failure) else {"status": "ok", "reason": ""}
