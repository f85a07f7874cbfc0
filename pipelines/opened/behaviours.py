"""Behaviours of params, opened: the questions that they ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builders.errors import UserError
from builders.lake.shards import file_sha256
from builders.seeds import drawn, seed_of
from builders.steering import townsfolk
from builders.steering.behaviours import Pair, count_of, numbered, numbers_of, read_open, read_pairs
from pipelines.params import BehaviourSpec, FilesBehaviour, Params

FEWEST = 4  # test questions: two to a half


@dataclass(frozen=True)
class Questions:
    """What a behaviour asks: pairs to make vectors from, pairs to test them, and open questions."""

    pairs: list[Pair]
    tests: list[Pair]
    open: list[str]


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
