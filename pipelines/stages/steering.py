"""Stage `steering`: a subject and a behaviour → vectors, what they do to answers, and what the subject writes with them."""

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
from pipelines.params import Params, Steering
from pipelines.parts.steered_texts import Asker, Rater, judge_settings, steered_texts

if TYPE_CHECKING:
    import pandas as pd

TABLES = (STEERING_VECTORS, STEERING_ANSWERS, STEERING, STEERING_TEXTS)
FEWEST = 4  # test questions: two to a half
STATELESS, NO_LDA = "no recurrent state to be steered", "lda makes vectors for the residual stream only"


def main(name: str) -> None:
    """Write the vectors of subject *name* for every behaviour of params, and their effects: a shard a behaviour."""
    params = declared("steering", name)
    inputs = {"subject": shelf("subjects", name).digest}
    for behaviour, spec in params.behaviours.items():
        inputs |= {f"{behaviour}.{file}": digest for file, digest in hashes(behaviour, spec).items()}
    kept: dict[str, Any] = {"seed": params.seed, "bos": params.tokens.bos, "template": params.subjects[name].template}
    kept |= {"steering": params.steering.model_dump(), "judge": judge_settings(params)}
    kept["behaviours"] = {behaviour: spec.model_dump() for behaviour, spec in params.behaviours.items()}
    shards = Shards(folder("steering", name), inputs, kept, code("steering"))
    asked_ = {behaviour: questions_of(behaviour, params) for behaviour in sorted(params.behaviours)}
    for behaviour, spec in params.behaviours.items():
        require_same("behaviours", behaviour, spec)
    bench = Bench(name, params, Rater(params) if params.steering.open.judge and asked_ else None)
    for number, (behaviour, questions) in enumerate(asked_.items()):
        if not all(shards.done(table, number) for table in TABLES):
            for table, rows in bench.tables(behaviour, questions).items():
                shards.write(table, table.row_groups(rows), number)
    for table in TABLES if not asked_ else ():
        shards.write(table, [table.empty()])
    if bench.rater is not None:
        bench.rater.account(shards)
    shards.finish()


class Bench:
    """A subject that is to be steered; its model is loaded only where a behaviour is not done."""

    def __init__(self, name: str, params: Params, rater: Rater | None) -> None:
        self.name, self.params, self.settings, self.rater = name, params, params.steering, rater

    @cached_property
    def opened(self) -> Opened:
        """The model."""
        return open_subject(self.params, self.name)

    @cached_property
    def asker(self) -> Asker:
        """How questions become token ids."""
        source = source_of(self.params.subjects[self.name])
        template, bos = self.params.subjects[self.name].template, self.params.tokens.bos == "row"
        return Asker(checkpoints.tokenizer_of(source, checkpoints.fetch(source)), template, self.settings.opening, bos)

    def tables(self, behaviour: str, questions: Questions) -> dict[Table, pa.Table]:
        """Return the rows of one behaviour."""
        settings = self.settings
        made, tests, numbers = self.asker.prompts(questions.pairs), self.asker.prompts(questions.tests), numbers_of(questions.tests)
        limit = checkpoints.context_of(self.opened.model.config)
        readable = [prompt for prompt in made if unread(prompt, limit, settings.last) is None]
        if not readable:
            why = unread(made[0], limit, settings.last)
            raise UserError(f"behaviours.{behaviour}: no question can be asked of {self.name}: the first is {why}; take others")
        found = contrast(self.opened.model, readable, settings.batch)
        directions: dict[str, Directions] = {method: METHODS[method](found) for method in settings.methods}
        steerer = Steerer(self.opened.model, directions, settings.batch, settings.last)
        setting = Setting(self.name, behaviour, len(readable), settings.last, self.asker.template + settings.opening, settings.answers)
        allowed, skipped = ways(settings, [bool(parts) for parts in found.state])
        validation, _ = halves(count_of(questions.tests), seed_of(self.params.seed, "halves", behaviour))
        answers = answered(setting, steerer, tests, numbers, allowed, set(validation), limit)
        effects = effect_rows(setting, answers, self.params.seed)
        reasons = sorted({f"; skipped {push.method}, {push.site}: {reason}" for push, reason in skipped})
        print(f"steering {self.name} towards {behaviour}: {count_of(questions.tests)} questions, {len(readable)} pairs{''.join(reasons)}")
        return {
            STEERING_VECTORS: vector_rows(setting, directions, steerer.blocks),
            STEERING_ANSWERS: answer_rows(answers),
            STEERING: with_skipped(setting, effects, skipped),
            STEERING_TEXTS: steered_texts(self.params, setting, steerer, self.asker, effects, questions.open, self.rater),
        }


def unread(prompt: Prompt, limit: int | None, last: int) -> str | None:
    """Return why a subject that reads *limit* tokens cannot be asked, with vectors added at the *last* ones; None where it can."""
    if limit is not None and len(prompt.ids) >= limit:
        return f"longer than the {limit} tokens that the subject reads"
    return f"no longer than the {last} tokens at which vectors are added" if len(prompt.ids) <= last else None


def ways(settings: Steering, stateful: Sequence[bool]) -> tuple[list[Push], list[tuple[Push, str]]]:
    """Return every way to steer, and the ways that are skipped with the reason; *stateful* says which layers have a state."""
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
    """Return the answers to all *tests*, of which each puts the question of its number; those that cannot be read have the reason."""
    every: list[Push | None] = [None, *pushes]
    reasons = [unread(prompt, limit, steerer.last) for prompt in tests]
    readable = [place for place, reason in enumerate(reasons) if reason is None]
    logprobs = np.full((len(tests), len(every), 2), np.nan)
    logprobs[readable] = steerer.answers([tests[place] for place in readable], every)
    frame = answer_frame(setting, every, numbers, logprobs, validation)
    return frame.assign(status=[reason or status for reason, status in zip(reasons * len(every), frame["status"], strict=True)])


def with_skipped(setting: Setting, effects: pa.Table, skipped: Sequence[tuple[Push, str]]) -> pa.Table:
    """Return STEERING rows with those of what was skipped."""
    parts = [skipped_rows(setting, [push], reason) for push, reason in skipped]
    return STEERING.sort(pa.concat_tables([effects, *parts]))


if __name__ == "__main__":
    run(main)
