"""Stage `steering`: a subject × every behaviour → vectors, their effects on answers, and texts that the steered subject writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from builders.errors import UserError
from builders.lake.shards import Shards
from builders.lake.table import Table
from builders.seeds import seed_of
from builders.steering.behaviours import Prompt, count_of, halves, numbers_of
from builders.steering.effects import (
    STEERING,
    STEERING_ANSWERS,
    STEERING_VECTORS,
    Setting,
    answer_frame,
    answer_rows,
    effect_rows,
    skipped_rows,
    vector_rows,
)
from builders.steering.ratings import STEERING_TEXTS
from builders.steering.steerer import Steerer
from builders.steering.vectors import METHODS, Directions, contrast
from builders.steering.ways import LDA, RESIDUAL, Push
from builders.subjects import checkpoints
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import code, folder, run, shelf
from pipelines.opened.behaviours import Questions, hashes, questions_of
from pipelines.opened.subjects import Opened, open_subject, source_of
from pipelines.params import Params, SteeringParams
from pipelines.parts.steered_texts import Asker, Rater, judge_settings, steered_texts

if TYPE_CHECKING:
    import pandas as pd

TABLES = (STEERING_VECTORS, STEERING_ANSWERS, STEERING, STEERING_TEXTS)
STATELESS, NO_LDA = "no recurrent state to be steered", "lda makes vectors for the residual stream only"


def main(subject_id: str) -> None:
    """Write the vectors of subject *subject_id* and their effects for every behaviour of params, one shard for each behaviour."""
    params = declared("steering", subject_id)
    inputs = {"subject": shelf("subjects", subject_id).digest}
    for behaviour_id, spec in params.behaviours.items():
        inputs |= {f"{behaviour_id}.{file}": digest for file, digest in hashes(behaviour_id, spec).items()}
    kept: dict[str, Any] = {"seed": params.seed, "bos": params.tokens.bos, "template": params.subjects[subject_id].template}
    kept |= {"steering": params.steering.model_dump(), "judge": judge_settings(params)}
    kept["behaviours"] = {behaviour_id: spec.model_dump() for behaviour_id, spec in params.behaviours.items()}
    shards = Shards(folder("steering", subject_id), inputs, kept, code("steering"))
    questions_by_behaviour = {behaviour_id: questions_of(behaviour_id, params) for behaviour_id in sorted(params.behaviours)}
    for behaviour_id, spec in params.behaviours.items():
        require_same("behaviours", behaviour_id, spec)
    bench = Bench(subject_id, params, Rater(params) if params.steering.open.judge and questions_by_behaviour else None)
    for number, (behaviour_id, questions) in enumerate(questions_by_behaviour.items()):
        if not all(shards.done(table, number) for table in TABLES):
            for table, rows in bench.tables(behaviour_id, questions).items():
                shards.write(table, table.row_groups(rows), number)
    for table in TABLES if not questions_by_behaviour else ():
        shards.write(table, [table.empty()])
    if bench.rater is not None:
        bench.rater.account(shards)
    shards.finish()


class Bench:
    """A subject that is to be steered; its model is loaded only if a behaviour is not finished."""

    def __init__(self, subject_id: str, params: Params, rater: Rater | None) -> None:
        self.subject_id, self.params, self.settings, self.rater = subject_id, params, params.steering, rater

    @cached_property
    def opened(self) -> Opened:
        """The model."""
        return open_subject(self.params, self.subject_id)

    @cached_property
    def asker(self) -> Asker:
        """What turns questions into token ids."""
        source = source_of(self.params.subjects[self.subject_id])
        template, bos = self.params.subjects[self.subject_id].template, self.params.tokens.bos == "row"
        return Asker(checkpoints.tokenizer_of(source, checkpoints.fetch(source)), template, self.settings.opening, bos)

    def tables(self, behaviour_id: str, questions: Questions) -> dict[Table, pa.Table]:
        """Return the rows of one behaviour."""
        settings = self.settings
        made, tests, numbers = self.asker.prompts(questions.pairs), self.asker.prompts(questions.tests), numbers_of(questions.tests)
        limit = checkpoints.context_of(self.opened.model.config)
        readable = [prompt for prompt in made if unread(prompt, limit, settings.last) is None]
        if not readable:
            why = unread(made[0], limit, settings.last)
            raise UserError(f"behaviours.{behaviour_id}: no question can be asked of {self.subject_id}: the first is {why}; take others")
        found = contrast(self.opened.model, readable, settings.batch)
        directions: dict[str, Directions] = {method: METHODS[method](found) for method in settings.methods}
        steerer = Steerer(self.opened.model, directions, settings.batch, settings.last)
        template = self.asker.template + settings.opening
        setting = Setting(self.subject_id, behaviour_id, len(readable), settings.last, template, settings.answers)
        pushes, skipped = ways(settings, [bool(parts) for parts in found.state])
        validation, _ = halves(count_of(questions.tests), seed_of(self.params.seed, "halves", behaviour_id))
        answers = answered(setting, steerer, tests, numbers, pushes, set(validation), limit)
        effects = effect_rows(setting, answers, self.params.seed)
        reasons = sorted({f"; skipped {push.method}, {push.site}: {reason}" for push, reason in skipped})
        counts = f"{count_of(questions.tests)} questions, {len(readable)} pairs"
        print(f"steering {self.subject_id} towards {behaviour_id}: {counts}{''.join(reasons)}")
        return {
            STEERING_VECTORS: vector_rows(setting, directions, steerer.blocks),
            STEERING_ANSWERS: answer_rows(answers),
            STEERING: with_skipped(setting, effects, skipped),
            STEERING_TEXTS: steered_texts(self.params, setting, steerer, self.asker, effects, questions.open, self.rater),
        }


def unread(prompt: Prompt, limit: int | None, last: int) -> str | None:
    """Return why a prompt cannot be put to a subject that reads *limit* tokens, with vectors added at the *last* ones; None if it can."""
    if limit is not None and len(prompt.ids) >= limit:
        return f"longer than the {limit} tokens that the subject reads"
    return f"no longer than the {last} tokens at which vectors are added" if len(prompt.ids) <= last else None


def ways(settings: SteeringParams, stateful: Sequence[bool]) -> tuple[list[Push], list[tuple[Push, str]]]:
    """Return all ways to steer, and the skipped ways with their reasons; *stateful* says which layers have a recurrent state."""
    multipliers = [multiplier for multiplier in sorted(settings.multipliers) if multiplier]
    every = product(settings.methods, settings.sites, range(len(stateful)), multipliers)
    allowed, skipped = [], []
    for push in (Push(*some) for some in every):
        if push.site == RESIDUAL or (stateful[push.layer] and push.method != LDA):
            allowed.append(push)
        else:
            skipped.append((push, NO_LDA if stateful[push.layer] else STATELESS))
    return allowed, skipped


def answered(
    setting: Setting,
    steerer: Steerer,
    tests: Sequence[Prompt],
    numbers: Sequence[int],
    pushes: Sequence[Push],
    validation: set[int],
    limit: int | None,
) -> pd.DataFrame:
    """Return the answers to all *tests* under all *pushes*; *numbers* say which question each test puts.

    A test that the subject cannot read has no numbers, and the reason as its status.
    """
    every: list[Push | None] = [None, *pushes]
    reasons = [unread(prompt, limit, steerer.last) for prompt in tests]
    readable = [place for place, reason in enumerate(reasons) if reason is None]
    logprobs = np.full((len(tests), len(every), 2), np.nan)
    logprobs[readable] = steerer.answers([tests[place] for place in readable], every)
    frame = answer_frame(setting, every, numbers, logprobs, validation)
    return frame.assign(status=[reason or status for reason, status in zip(reasons * len(every), frame["status"], strict=True)])


def with_skipped(setting: Setting, effects: pa.Table, skipped: Sequence[tuple[Push, str]]) -> pa.Table:
    """Return the STEERING rows of *effects* and of the skipped ways to steer."""
    parts = [skipped_rows(setting, [push], reason) for push, reason in skipped]
    return STEERING.sort(pa.concat_tables([effects, *parts]))


if __name__ == "__main__":
    run(main)
