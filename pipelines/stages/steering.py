"""Stage `steering`: subjects × behaviours → vectors, their effects on answers, and texts that the steered subjects write."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from builders.arrays import Floats
from builders.errors import UserError
from builders.lake.shards import Shards
from builders.lake.table import Table
from builders.seeds import seed_of
from builders.steering.effects import (
    STEERING,
    STEERING_ANSWERS,
    STEERING_VECTORS,
    Setting,
    answer_rows,
    effect_rows,
    skipped_rows,
    vector_rows,
)
from builders.steering.nulls import Nulls, null_pushes, null_vectors
from builders.steering.orders import count_of, numbers_of
from builders.steering.ranges import STEERING_RANGES, best_layers, range_rows
from builders.steering.ratings import STEERING_TEXTS
from builders.steering.steerer import Steerer
from builders.steering.vectors import METHODS, Contrast, Directions, contrast, labels_of
from builders.steering.ways import Push
from builders.steering.weights import coins
from builders.subjects import checkpoints, places
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import code, for_each, run, shelf
from pipelines.opened.behaviours import Questions, hashes, questions_of
from pipelines.opened.subjects import Opened, open_subject, source_of
from pipelines.params import Params, SteeringParams
from pipelines.parts.ahead import Job
from pipelines.parts.steered_answers import Tests, matching_effects, tests_of, unread, ways
from pipelines.parts.steered_texts import Asker, Rater, judge_settings, steered_texts

TABLES = (STEERING_VECTORS, STEERING_ANSWERS, STEERING, STEERING_RANGES, STEERING_TEXTS)


def main(*only: str) -> None:
    """Steer every subject, or *only* the one given."""
    params = declared("steering")
    for_each("steering", params.subjects, only, lambda subject_id: steer(params, subject_id))


def steer(params: Params, subject_id: str) -> None:
    """Write the vectors of subject *subject_id* and their effects for every behaviour of params, unless they are finished.

    A subject with random weights answers no question, so it is not steered.
    """
    behaviours = {} if params.subjects[subject_id].reinitialised else params.behaviours
    inputs = {"subject": shelf("subjects", subject_id).digest}
    for behaviour_id, spec in behaviours.items():
        inputs |= {f"{behaviour_id}.{file}": digest for file, digest in hashes(behaviour_id, spec).items()}
    kept: dict[str, Any] = {"seed": params.seed, "bos": params.tokens.bos, "template": params.subjects[subject_id].template}
    kept |= {"steering": params.steering.model_dump(), "judge": judge_settings(params)}
    kept["behaviours"] = {behaviour_id: spec.model_dump() for behaviour_id, spec in behaviours.items()}
    job = Job("steering", (subject_id,), inputs, kept, code("steering"))
    job.fill(lambda shards: write(params, subject_id, list(behaviours), shards))


def write(params: Params, subject_id: str, behaviour_ids: Sequence[str], shards: Shards) -> bool:
    """Write all TABLES of a subject, one shard for each behaviour; return whether every request of a judge has an answer."""
    questions_by_behaviour = {behaviour_id: questions_of(behaviour_id, params) for behaviour_id in sorted(behaviour_ids)}
    for behaviour_id in behaviour_ids:
        require_same("behaviours", behaviour_id, params.behaviours[behaviour_id])
    bench = Bench(subject_id, params, Rater(params) if params.steering.open.judge and questions_by_behaviour else None)
    for number, (behaviour_id, questions) in enumerate(questions_by_behaviour.items()):
        if not all(shards.done(table, number) for table in TABLES):
            for table, rows in bench.tables(behaviour_id, questions).items():
                shards.write(table, table.row_groups(rows), number)
    for table in TABLES if not questions_by_behaviour else ():
        shards.write(table, [table.empty()])
    return bench.rater is None or bench.rater.account(shards)


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
        return Asker(checkpoints.tokenizer_of(source, places.fetch(source)), template, self.settings.opening, bos)

    def tables(self, behaviour_id: str, questions: Questions) -> dict[Table, pa.Table]:
        """Return the rows of one behaviour."""
        settings, seed, run_seed = self.settings, seed_of(self.params.seed, "steering", behaviour_id), self.params.seed
        found = self.contrast(behaviour_id, questions)
        directions: dict[str, Directions] = {method: METHODS[method](found) for method in settings.methods}
        nulls = null_vectors(found, directions, settings.nulls.random, seed)
        every = {name: some for drawn in nulls.values() for name, some in drawn.items()} | directions
        steerer = Steerer(self.opened.model, every, settings.batch, settings.last)
        template, pairs = self.asker.template + settings.opening, int((found.labels.weights[0] > 0).sum())
        setting = Setting(self.subject_id, behaviour_id, pairs, settings.last, template, settings.answers)
        pushes, skipped = ways(settings, [list(parts) for parts in found.state], steerer.family)
        tests = tests_of(
            questions.tests,
            self.asker.prompts(questions.tests),
            checkpoints.context_of(self.opened.model.config),
            settings.last,
            seed_of(run_seed, "halves", behaviour_id),
        )
        logprobs = tests.logprobs(steerer, [None, *pushes])
        answers = tests.frame(setting, pushes, logprobs)
        ranges = ranges_of(setting, settings, tests, steerer, (pushes, logprobs), nulls, run_seed)
        effects = effect_rows(setting, answers, run_seed, best_layers(ranges))
        told(self.subject_id, behaviour_id, count_of(questions.tests), pairs, skipped)
        return {
            STEERING_VECTORS: vector_rows(setting, directions, steerer.blocks),
            STEERING_ANSWERS: answer_rows(answers),
            STEERING: with_skipped(setting, effects, skipped),
            STEERING_RANGES: ranges,
            STEERING_TEXTS: steered_texts(self.params, setting, steerer, self.asker, effects, questions.open, self.rater),
        }

    def contrast(self, behaviour_id: str, questions: Questions) -> Contrast:
        """Return what the subject holds after the answers to the pairs that it can read, under the true and under permuted labels."""
        made, limit = self.asker.prompts(questions.pairs), checkpoints.context_of(self.opened.model.config)
        reasons = [unread(prompt, limit, self.settings.last) for prompt in made]
        readable = [place for place, reason in enumerate(reasons) if reason is None]
        if not readable:
            raise UserError(
                f"behaviours.{behaviour_id}: no question can be asked of {self.subject_id}: the first is {reasons[0]}; take others"
            )
        letters = [(questions.pairs[place].matching, questions.pairs[place].other) for place in readable]
        numbers = np.array(numbers_of(questions.pairs))
        seed = seed_of(self.params.seed, "steering", behaviour_id, "permuted")
        signs = coins(count_of(questions.pairs), self.settings.nulls.permuted, seed)[:, numbers[readable]]
        return contrast(self.opened.model, [made[place] for place in readable], self.settings.batch, labels_of(letters, signs))


def ranges_of(
    setting: Setting,
    settings: SteeringParams,
    tests: Tests,
    steerer: Steerer,
    real: tuple[Sequence[Push], Floats],
    nulls: Nulls,
    seed: int,
) -> pa.Table:
    """Return the STEERING_RANGES rows; *real* are pushes and the log-probabilities of no push and of these."""
    pushes, logprobs = real
    wanted = {key: null_pushes(list(vectors), key[1], pushes, settings.nulls.sites) for key, vectors in nulls.items()}
    every = list(dict.fromkeys(push for some in wanted.values() for push in some))
    kept = tests.whole
    plain = logprobs[kept, :1]
    effects = matching_effects(plain, tests.logprobs(steerer, every)[kept])
    places = {push: place for place, push in enumerate(every)}
    drawn = {key: (some, effects[:, [places[push] for push in some]]) for key, some in wanted.items()}
    return range_rows(setting, tests.sheet.take(kept), (pushes, matching_effects(plain, logprobs[kept, 1:])), drawn, seed)


def told(subject_id: str, behaviour_id: str, tests: int, pairs: int, skipped: Sequence[tuple[Push, str]]) -> None:
    """Print what was done."""
    reasons = sorted({f"; skipped {push.method}, {push.site}: {reason}" for push, reason in skipped})
    print(f"steering {subject_id} towards {behaviour_id}: {tests} questions, {pairs} pairs{''.join(reasons)}")


def with_skipped(setting: Setting, effects: pa.Table, skipped: Sequence[tuple[Push, str]]) -> pa.Table:
    """Return the STEERING rows of *effects* and of the skipped ways to steer."""
    parts = [skipped_rows(setting, [push], reason) for push, reason in skipped]
    return STEERING.sort(pa.concat_tables([effects, *parts]))


if __name__ == "__main__":
    run(main)
