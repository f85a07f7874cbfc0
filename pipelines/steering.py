"""Stage `steering`: a subject and a behaviour → vectors, what they do to answers, and what the subject writes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from builders import subjects, townsfolk
from builders.behaviours import Pair, Prompt, halves, numbered, read_open, read_pairs
from builders.contrasts import METHODS, Directions, contrast
from builders.errors import UserError
from builders.ratings import STEERING_TEXTS
from builders.seeds import drawn, seed_of
from builders.shards import Shards, file_sha256
from builders.steered import RESIDUAL, Push, Steerer
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
from pipelines.opened import Opened, open_subject, source_of
from pipelines.params import BehaviourSpec, FilesBehaviour, Params, Steering, load
from pipelines.stage import folder, run, shelf
from pipelines.steered_texts import Asker, account_ratings, steered_texts

if TYPE_CHECKING:
    import pandas as pd

TABLES = (STEERING_VECTORS, STEERING_ANSWERS, STEERING, STEERING_TEXTS)
LDA = "lda"
STATELESS, NO_LDA = "no recurrent state to be steered", "lda makes vectors for the residual stream only"


@dataclass(frozen=True)
class Questions:
    """What a behaviour asks: pairs to make vectors from, pairs to test them, and open questions."""

    pairs: list[Pair]
    tests: list[Pair]
    open: list[str]


def main(name: str) -> None:
    """Write the vectors of subject *name* for every behaviour of params, and their effects: a shard a behaviour."""
    params = load()
    inputs = {"subject": shelf("subjects", name).digest}
    for behaviour, spec in params.behaviours.items():
        inputs |= {f"{behaviour}.{file}": digest for file, digest in hashes(behaviour, spec).items()}
    kept = {"seed": params.seed, "bos": params.tokens.bos, "template": params.subjects[name].template, **params.steering.model_dump()}
    kept |= {behaviour: spec.model_dump() for behaviour, spec in params.behaviours.items()}
    shards = Shards(folder("steering", name), inputs, kept)
    bench = Bench(name, params)
    for number, behaviour in enumerate(sorted(params.behaviours)):
        if not all(shards.done(table, number) for table in TABLES):
            for table, rows in bench.tables(behaviour).items():
                shards.write(table, table.row_groups(rows), number)
    for table in TABLES if not params.behaviours else ():
        shards.write(table, [table.empty()])
    account_ratings(shards, params)
    shards.finish()


class Bench:
    """A subject that is to be steered; its model is loaded only where a behaviour is not done."""

    def __init__(self, name: str, params: Params) -> None:
        self.name, self.params, self.settings = name, params, params.steering

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

    def tables(self, behaviour: str) -> dict[Table, pa.Table]:
        """Return the rows of one behaviour."""
        settings, spec = self.settings, self.params.behaviours[behaviour]
        questions = asked(spec, settings, seed_of(self.params.seed, "steering", behaviour))
        made, tests = self.asker.prompts(questions.pairs), self.asker.prompts(questions.tests)
        limit = subjects.context_of(self.opened.model.config)
        readable = [prompt for prompt in made if fits(prompt, limit)]
        if not readable:
            raise UserError(f"behaviours.{behaviour}: no question fits into the {limit} tokens that {self.name} reads; take shorter ones")
        found = contrast(self.opened.model, readable, settings.batch)
        directions: dict[str, Directions] = {method: METHODS[method](found) for method in settings.methods}
        steerer = Steerer(self.opened.model, directions, settings.batch, settings.last)
        setting = Setting(self.name, behaviour, len(readable), settings.last, self.asker.template + settings.opening, settings.answers)
        allowed, skipped = ways(settings, len(steerer.blocks), stateful=any(found.state))
        validation, _ = halves(len(tests), seed_of(self.params.seed, "halves", behaviour))
        answers = answered(setting, steerer, tests, allowed, set(validation), limit)
        effects = effect_rows(setting, answers, self.params.seed)
        reasons = sorted({f"; skipped {push.method}, {push.site}: {reason}" for push, reason in skipped})
        print(f"steering {self.name} towards {behaviour}: {len(tests)} questions, {len(readable)} pairs{''.join(reasons)}")
        return {
            STEERING_VECTORS: vector_rows(setting, directions, steerer.blocks),
            STEERING_ANSWERS: answer_rows(answers),
            STEERING: with_skipped(setting, effects, skipped),
            STEERING_TEXTS: steered_texts(self.params, setting, steerer, self.asker, effects, questions.open),
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


def asked(spec: BehaviourSpec, settings: Steering, seed: int) -> Questions:
    """Return the questions of a behaviour, as many as *settings* want, drawn by *seed*, and with options named as they want them."""
    if isinstance(spec, FilesBehaviour):
        pairs, tests = read_pairs(Path(spec.generate)), read_pairs(Path(spec.test))
        open_ = read_open(Path(spec.open)) if spec.open else []
    else:
        pairs, tests = (townsfolk.pairs(spec.disposition, held_out) for held_out in (False, True))
        open_ = townsfolk.open_questions(spec.disposition)
    known, held_out = balanced(pairs, settings.pairs, seed), balanced(tests, settings.questions, seed)
    if settings.answers == "numbers":
        known, held_out = ([numbered(pair) for pair in some] for some in (known, held_out))
    return Questions(known, held_out, open_[: settings.open.questions])


def balanced(pairs: list[Pair], most: int, seed: int) -> list[Pair]:
    """Return at most *most* of *pairs*, as many for each letter that matches as there are, so that vectors do not hold a letter."""
    if len(pairs) <= most:
        return pairs
    letters = sorted({pair.matching for pair in pairs})
    share = -(-most // len(letters))
    kept = [drawn(np.array([place for place, pair in enumerate(pairs) if pair.matching == letter]), share, seed) for letter in letters]
    return [pairs[place] for place in np.sort(np.concatenate(kept))[:most]]


def fits(prompt: Prompt, limit: int | None) -> bool:
    """Return whether a subject that reads *limit* tokens can read a prompt and its answer."""
    return limit is None or len(prompt.ids) < limit


def skips(settings: Steering, stateful: bool) -> dict[tuple[str, str], str]:
    """Return why some methods and sites of *settings* are skipped."""
    pairs = [(method, site) for method in settings.methods for site in settings.sites if site != RESIDUAL]
    return {pair: STATELESS if not stateful else NO_LDA for pair in pairs if not stateful or pair[0] == LDA}


def ways(settings: Steering, layers: int, stateful: bool) -> tuple[list[Push], list[tuple[Push, str]]]:
    """Return every way to steer, and the ways that are skipped with the reason."""
    refused = skips(settings, stateful)
    every = [
        Push(method, site, layer, multiplier)
        for method in settings.methods
        for site in settings.sites
        for layer in range(layers)
        for multiplier in sorted(settings.multipliers)
        if multiplier
    ]
    where = [(push, refused.get((push.method, push.site))) for push in every]
    return [push for push, reason in where if reason is None], [(push, reason) for push, reason in where if reason is not None]


def answered(
    setting: Setting, steerer: Steerer, tests: Sequence[Prompt], pushes: Sequence[Push], validation: set[int], limit: int | None
) -> pd.DataFrame:
    """Return the answers to all test questions; those that cannot be read are there with the reason."""
    every: list[Push | None] = [None, *pushes]
    readable = [place for place, prompt in enumerate(tests) if fits(prompt, limit)]
    logprobs = np.full((len(tests), len(every), 2), np.nan)
    logprobs[readable] = steerer.answers([tests[place] for place in readable], every)
    frame = answer_frame(setting, every, range(len(tests)), logprobs, validation)
    unread = ~frame["question"].isin(readable)
    return frame.assign(status=frame["status"].mask(unread, f"longer than the {limit} tokens that the subject reads"))


def with_skipped(setting: Setting, effects: pa.Table, skipped: Sequence[tuple[Push, str]]) -> pa.Table:
    """Return STEERING rows with those of what was skipped."""
    parts = [skipped_rows(setting, [push], reason) for push, reason in skipped]
    return STEERING.sort(pa.concat_tables([effects, *parts]))


if __name__ == "__main__":
    run(main)
