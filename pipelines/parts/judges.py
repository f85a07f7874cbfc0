"""Judges of params on planted rules: each is asked in every way in which scorers ask it, with true explanations and with false ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from builders.contexts.contexts import Examples
from builders.engines.requests import Answer, Outcome
from builders.scorers import calibration
from builders.scorers.judges import OTHER, TOKENS, TRUE
from builders.scorers.judging import Task
from builders.seeds import drawn, seed_of
from pipelines.opened.engines import Engines, require_share
from pipelines.opened.scorers import Panel, open_panel
from pipelines.params import EngineParams, ModelJudgeParams, Params
from pipelines.parts.judging import scored_tasks, status_of
from pipelines.parts.ways import Spec, ways_of


@dataclass
class Told:
    """What judges told: CALIBRATION records; by judge and way what JUDGES says of models and tokens; answers, with the engines' params."""

    records: list[dict[str, Any]] = field(default_factory=list)
    spent: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    bills: list[tuple[dict[str, Outcome], EngineParams]] = field(default_factory=list)


def ask_judges(params: Params, sae_id: str, rules: Sequence[Examples], engines: Engines, told: Told) -> None:
    """Add to *told* what all judges of params say of the planted *rules* of dictionary *sae_id*, given by their test windows."""
    there = {"active", *(kind for examples in rules for kind in np.unique(examples.kind).tolist())}
    for judge_id in sorted(params.judges):
        for name, spec in ways_of(params, judge_id).items():
            tasks = list(tasks_of(params, sae_id, rules, spec))
            if tasks and spec.negatives in there:
                ask(sae_id, name, tasks, open_panel(params, sae_id, name, spec, engines), told)


def tasks_of(params: Params, sae_id: str, rules: Sequence[Examples], spec: Spec) -> Iterator[Task]:
    """Yield the rules, each with its true explanation and another's; a language model gets only what its params allow."""
    judge, some, seed = params.judges[spec.judge], list(rules), seed_of(params.seed, "calibrated rules", sae_id)
    if isinstance(judge, ModelJudgeParams):
        limit = judge.calibration
        places = drawn(np.arange(len(some)), limit.rules, seed)
        some = [some[place].some(spec.negatives, limit.windows) for place in places]
    yield from (task for task in calibration.tasks_of(some, seed) if task.explainer in {TRUE, OTHER})


def ask(sae_id: str, name: str, tasks: Sequence[Task], panel: Panel, told: Told) -> None:
    """Add to *told* what a judge, opened as *panel*, says of all *tasks* when it is asked in the way *name*."""
    answered: dict[str, Outcome] = {}
    tokens = dict.fromkeys(TOKENS, 0)
    for scored in scored_tasks(sae_id, tasks, panel, answered):
        told.records.append(calibration.calibration_record(sae_id, panel.judge_id, name, panel.scorer, scored.task, scored.judged))
        answers = [outcome for outcome in scored.outcomes if isinstance(outcome, Answer)]
        tokens = {kind: n + sum(getattr(answer, kind) for answer in answers) for kind, n in tokens.items()}
    if panel.spec is None:
        return
    what = f"calibration of {panel.judge_id}, {name}"
    require_share(what, [status_of(outcome) for outcome in answered.values()], panel.max_failed_share, "requests")
    told.bills.append((answered, panel.spec))
    before = told.spent.get((panel.judge_id, name), {})
    tokens = {kind: n + before.get(kind, 0) for kind, n in tokens.items()}
    told.spent[panel.judge_id, name] = {"model": panel.model, "prompt_sha256": panel.scorer.prompt_sha256, **tokens}
