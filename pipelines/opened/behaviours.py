"""Behaviours of params, opened: their questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builders.errors import UserError
from builders.lake.shards import file_sha256
from builders.seeds import drawn, seed_of
from builders.steering import townsfolk
from builders.steering.behaviours import Pair, read_open, read_pairs
from builders.steering.orders import count_of, in_both_orders, numbered, numbers_of
from pipelines.params import BehaviourParams, FilesBehaviourParams, Params

FEWEST = 4  # test questions: one half chooses a layer and the other measures, with two questions each


@dataclass(frozen=True)
class Questions:
    """The questions of a behaviour: pairs from which vectors are made, pairs that test the vectors, and open questions."""

    pairs: list[Pair]
    tests: list[Pair]
    open: list[str]


def hashes(behaviour_id: str, spec: BehaviourParams) -> dict[str, str]:
    """Return the SHA-256 of each of a behaviour's files; raise UserError where a file does not exist."""
    if not isinstance(spec, FilesBehaviourParams):
        return {}
    paths = {"generate": spec.generate, "test": spec.test, **({"open": spec.open} if spec.open else {})}
    for place, path in paths.items():
        if not Path(path).is_file():
            raise UserError(f"behaviours.{behaviour_id}.{place}: {path} is not there; correct the path")
    return {place: file_sha256(Path(path)) for place, path in paths.items()}


def questions_of(behaviour_id: str, params: Params) -> Questions:
    """Return as many questions of a behaviour as params ask for, drawn by address; only test questions may name options by numbers.

    Raises UserError where there are fewer than FEWEST test questions, or where a test question is also one that vectors are made from.
    """
    spec, settings = params.behaviours[behaviour_id], params.steering
    if isinstance(spec, FilesBehaviourParams):
        pairs, tests = read_pairs(Path(spec.generate)), read_pairs(Path(spec.test))
        open_ = read_open(Path(spec.open)) if spec.open else []
    else:
        names = townsfolk.NUMBERS if settings.answers == "numbers" else townsfolk.LETTERS
        pairs, tests = (townsfolk.pairs(spec.disposition, *some) for some in ((False, townsfolk.LETTERS), (True, names)))
        open_ = townsfolk.open_questions(spec.disposition)
    if (count := count_of(tests)) < FEWEST:
        raise UserError(f"behaviours.{behaviour_id}.test: {count} questions, of which half choose a layer; give at least {FEWEST}")
    if both := {pair.question for pair in pairs} & {pair.question for pair in tests}:
        raise UserError(f"behaviours.{behaviour_id}.test: {len(both)} of its questions are in `generate` too; test with others")
    seed = seed_of(params.seed, "steering", behaviour_id)
    known, held_out = some_of(pairs, settings.pairs, seed), some_of(tests, settings.questions, seed)
    if isinstance(spec, FilesBehaviourParams):
        if settings.orders == "both":
            known, held_out = in_both_orders(known), in_both_orders(held_out)
        if settings.answers == "numbers":
            held_out = [numbered(pair) for pair in held_out]
    return Questions(known, held_out, open_[: settings.open.questions])


def some_of(pairs: list[Pair], most: int, seed: int) -> list[Pair]:
    """Return the pairs of at most *most* questions, drawn by address."""
    numbers = numbers_of(pairs)
    kept = set(drawn(np.arange(count_of(pairs)), most, seed).tolist())
    return [pair for pair, number in zip(pairs, numbers, strict=True) if number in kept]
