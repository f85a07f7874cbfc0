"""Stage `steering`: a subject and a behaviour → vectors, what they do to answers, and what the subject writes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from builders import subjects, townsfolk
from builders.behaviours import Pair, Prompt, count_of, halves, numbered, numbers_of, read_open, read_pairs
from builders.contrasts import METHODS, Directions, contrast
from builders.errors import UserError
from builders.ratings import STEERING_TEXTS
from builders.seeds import drawn, seed_of
from builders.shards import Shards, file_sha256
from builders.steered import Steerer
from builders.steering import (
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
from builders.table import Table
from builders.ways import LDA, RESIDUAL, Push
from pipelines.declared import declared
from pipelines.inputs import require_same
from pipelines.opened import Opened, open_subject, source_of
from pipelines.params import BehaviourSpec, FilesBehaviour, Params, Steering
from pipelines.stage import code, folder, run, shelf
from pipelines.steered_texts import Asker, Rater, judge_settings, steered_texts

if TYPE_CHECKING:
    import pandas as pd

TABLES = (STEERING_VECTORS, STEERING_ANSWERS, STEERING, STEERING_TEXTS)
FEWEST = 4  # test questions: two to a half
STATELESS, NO_LDA = "no recurrent state to be steered", "lda makes vectors for the residual stream only"


@dataclass(frozen=True)
class Questions:
    """What a behaviour asks: pairs to make vectors from, pairs to test them, and open questions."""

    pairs: list[Pair]
    tests: list[Pair]
    open: list[str]


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
        return Asker(subjects.tokenizer_of(source, subjects.fetch(source)), template, self.settings.opening, bos)

    def tables(self, behaviour: str, questions: Questions) -> dict[Table, pa.Table]:
        """Return the rows of one behaviour."""
        settings = self.settings
        made, tests, numbers = self.asker.prompts(questions.pairs), self.asker.prompts(questions.tests), numbers_of(questions.tests)
        limit = subjects.context_of(self.opened.model.config)
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


def hashes(behaviour: str, spec: BehaviourSpec) -> dict[str, str]:
    """Return the SHA-256 of a behaviour's files; raise UserError where one is not there."""
    if not isinstance(spec, FilesBehaviour):
        return {}
    paths = {"generate": spec.generate, "test": spec.test, **({"open": spec.open} if spec.open else {})}
    for place, path in paths.items():
        if not Path(path).is_file():
            raise UserError(f"behaviours.{behaviour}.{place}: {path} is not there; correct the path")
    return {place: file_sha256(Path(path)) for place, path in paths.items()}


def questions_of(behaviour: str, params: Params) -> Questions:
    """Return the questions of a behaviour, as many as params want, drawn by address, and with options named as they want them.

    Raises UserError where there are too few to test with, or where what is tested is also what vectors are made from.
    """
    spec, settings = params.behaviours[behaviour], params.steering
    if isinstance(spec, FilesBehaviour):
        pairs, tests = read_pairs(Path(spec.generate)), read_pairs(Path(spec.test))
        open_ = read_open(Path(spec.open)) if spec.open else []
    else:
        letters = townsfolk.NUMBERS if settings.answers == "numbers" else townsfolk.LETTERS
        pairs, tests = (townsfolk.pairs(spec.disposition, held_out, letters) for held_out in (False, True))
        open_ = townsfolk.open_questions(spec.disposition)
    if (count := count_of(tests)) < FEWEST:
        raise UserError(f"behaviours.{behaviour}.test: {count} questions, of which half choose a layer; give at least {FEWEST}")
    if both := {pair.question for pair in pairs} & {pair.question for pair in tests}:
        raise UserError(f"behaviours.{behaviour}.test: {len(both)} of its questions are in `generate` too; test with others")
    seed = seed_of(params.seed, "steering", behaviour)
    known, held_out = some_of(pairs, settings.pairs, seed), some_of(tests, settings.questions, seed)
    if settings.answers == "numbers" and isinstance(spec, FilesBehaviour):
        known, held_out = ([numbered(pair) for pair in some] for some in (known, held_out))
    return Questions(known, held_out, open_[: settings.open.questions])


def some_of(pairs: list[Pair], most: int, seed: int) -> list[Pair]:
    """Return the pairs of at most *most* questions, drawn by address."""
    numbers = numbers_of(pairs)
    kept = set(drawn(np.arange(count_of(pairs)), most, seed).tolist())
    return [pair for pair, number in zip(pairs, numbers, strict=True) if number in kept]


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
