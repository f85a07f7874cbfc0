"""How far steering moves answers, beside the same procedure with vectors that mean nothing: the `steering_ranges` config.

A half-range is half the distance between the effects of the largest multiplier and of its opposite. It is given for every layer, for the
layer that the validation half calls best, for the layer that it calls largest in either direction (so that a large effect of the wrong sign
does not hide behind a small one of the right sign), and as the paper reads it. Each of these is repeated with null vectors: from labels
exchanged by coins, and random ones of equal length. See docs/science.md#steering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from builders.arrays import Bools, Floats, Ints
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table
from builders.seeds import seed_of
from builders.steering.effects import IDENTITY, WAY, Setting
from builders.steering.ways import Push
from builders.steering.weights import Letters, balanced, counted, mean_and_error, weighted

LAYER, BEST, LARGEST, PAPER = "layer", "best", "largest", "paper"
PERMUTED, RANDOM = "permuted", "random"
NULLS = {PERMUTED: "labels exchanged by a coin for each question", RANDOM: "random vectors of equal length"}


def _null_columns(kind: str) -> tuple[Column, ...]:
    return (
        Column(f"{kind}_low", "float64", f"the smallest of the same with {NULLS[kind]}", nullable=True, low=-1, high=1),
        Column(f"{kind}_high", "float64", "the largest of these", nullable=True, low=-1, high=1),
        Column(f"{kind}_sd", "float64", "their standard deviation", nullable=True, low=0),
        Column(f"{kind}_draws", "int32", "how many of these there are", unit="draws", low=0),
    )


STEERING_RANGES = Table(
    name="steering_ranges",
    row="how far one way to steer moves the answers on the test half, beside vectors that mean nothing",
    key=("subject", "behaviour", "method", "site", "phase", "choice", "layer"),
    columns=(
        *IDENTITY[:5],
        Column(
            "choice",
            "string",
            "layer: this layer, unchosen; best: the layer that goes furthest towards the behaviour on the validation half; largest: the "
            "layer that goes furthest in either direction there; paper: for each multiplier apart the layer that does best on all "
            "questions, which also report it, and letters are not balanced",
            categorical=True,
        ),
        Column("layer", "int32", "the layer; -1 where each multiplier has its own", low=-1),
        Column("multiplier", "float64", "the largest multiplier", low=0),
        Column(
            "half_range",
            "float64",
            "(effect at the largest multiplier − effect at its opposite) / 2; the mean of those along their sign if one is missing",
            nullable=True,
            low=-1,
            high=1,
        ),
        Column("half_range_se", "float64", "its standard error (paired bootstrap over questions)", nullable=True, low=0),
        Column(
            "letter_low",
            "float64",
            "the smallest half-range over questions whose matching option has one and the same letter; what moves a behaviour moves it "
            "whatever its letter is",
            nullable=True,
            low=-1,
            high=1,
        ),
        Column("letter_high", "float64", "the largest of these", nullable=True, low=-1, high=1),
        Column("n", "int32", "questions", unit="questions", low=0),
        *_null_columns(PERMUTED),
        *_null_columns(RANDOM),
        Column(
            "p",
            "float64",
            "share of permuted half-ranges that are as far from 0, this one counted among them",
            nullable=True,
            low=0,
            high=1,
        ),
        Column(
            "clear",
            "bool",
            "whether the half-range lies outside of all half-ranges with null vectors, and more than two standard errors from 0; null "
            "where there is no error",
            nullable=True,
        ),
    ),
    references=(OF_SUBJECT,),
)


@dataclass(frozen=True)
class Sheet:
    """The questions behind effects: number, half and letters of each answer [n]."""

    questions: Ints
    validation: Bools
    letters: Letters

    def take(self, places: Sequence[int]) -> Sheet:
        """Return the answers at *places*."""
        kept = list(places)
        return Sheet(self.questions[kept], self.validation[kept], [self.letters[place] for place in kept])

    def side(self, where: Bools) -> Letters:
        """Return the letters of the answers in *where* [n]."""
        return [some for some, there in zip(self.letters, where, strict=True) if there]


FURTHER = 2  # standard errors that a clear half-range lies from 0
NOTHING = dict.fromkeys(("half_range_se", "letter_low", "letter_high"))
Way = tuple[str, str, str]  # vectors by name, site, phase


@dataclass(frozen=True)
class Moved:
    """How far each answer goes along the sign of the largest multipliers, *up* and *down* [n, cells] (nan where that was not tried).

    *cells* are the columns of each way to steer, by layer.
    """

    cells: dict[Way, dict[int, int]]
    up: Floats
    down: Floats

    @property
    def both(self) -> Floats:
        """The half-range of each answer [n, cells], or the one side that was tried."""
        tried = [np.isfinite(side).any(0) for side in (self.up, self.down)]
        half: Floats = np.where(tried[0] & tried[1], (self.up + self.down) / 2, np.where(tried[0], self.up, self.down))
        return half


def moved(pushes: Sequence[Push], effects: Floats) -> Moved:
    """Return how far *effects* [n, pushes] go at the ends of the multipliers of each cell."""
    places: dict[tuple[Way, int], list[int]] = {}
    for place, push in enumerate(pushes):
        places.setdefault(((push.method, push.site, push.when), push.layer), []).append(place)
    cells: dict[Way, dict[int, int]] = {}
    for column, (way, layer) in enumerate(places):
        cells.setdefault(way, {})[layer] = column
    padded = np.concatenate([effects, np.full((len(effects), 1), np.nan)], axis=1)  # the last column, -1: not tried
    multipliers = np.array([push.multiplier for push in pushes])

    def end(own: list[int], sign: int) -> int:
        there = [place for place in own if multipliers[place] * sign > 0]
        return max(there, key=lambda place: float(multipliers[place] * sign), default=-1)

    return Moved(cells, *(sign * padded[:, [end(own, sign) for own in places.values()]] for sign in (1, -1)))


@dataclass(frozen=True)
class Means:
    """Mean half-ranges of *cells*: on the *validation* and *test* half [cells]; *up* and *down* apart over all answers as they are."""

    cells: dict[Way, dict[int, int]]
    validation: Floats
    test: Floats
    up: Floats
    down: Floats

    def of(self, way: Way, choice: str, layer: int) -> tuple[int, float]:
        """Return the layer and the half-range of *way*; *layer* is taken where nothing is chosen."""
        own = self.cells[way]
        columns = list(own.values())
        if choice == PAPER:
            sides = [values[columns] for values in (self.up, self.down) if np.isfinite(values[columns]).any()]
            return -1, float(np.mean([np.nanmax(side) for side in sides])) if sides else np.nan
        if choice != LAYER:
            validated = self.validation[columns] if choice == BEST else np.abs(self.validation[columns])
            if not np.isfinite(validated).any():
                return -1, np.nan
            layer = list(own)[int(np.nanargmax(validated))]
        return layer, float(self.test[own[layer]])


def means_of(found: Moved, sheet: Sheet) -> Means:
    """Return the mean half-ranges of cells, letters counted alike; for the paper's choice, over all answers as they are."""
    halves = [weighted(found.both[where], balanced(sheet.side(where))) for where in (sheet.validation, ~sheet.validation)]
    sides = [weighted(side, np.ones(len(side))) for side in (found.up, found.down)]
    return Means(found.cells, *halves, *sides)


Effects = tuple[Sequence[Push], Floats]  # pushes, and the effect of each on each answer [n, pushes]


def range_rows(setting: Setting, sheet: Sheet, real: Effects, nulls: Mapping[tuple[str, str], Effects], seed: int) -> pa.Table:
    """Return the STEERING_RANGES rows of one subject and behaviour; *nulls* are the effects of null vectors by kind of null and method."""
    found = moved(*real)
    means = means_of(found, sheet)
    drawn = {key: means_of(moved(*some), sheet) for key, some in nulls.items()}
    top = max((abs(push.multiplier) for push in real[0]), default=0.0)
    answered = _answered(found, sheet, seed_of(seed, "steering", setting.subject, setting.behaviour, "test"))
    records = []
    for way, layers in found.cells.items():
        for choice, layer in [*((LAYER, layer) for layer in layers), (BEST, -1), (LARGEST, -1), (PAPER, -1)]:
            at, value = means.of(way, choice, layer)
            facts = answered[layers[at]] if at in layers else {"n": len(np.unique(sheet.questions)) if choice == PAPER else 0}
            bands = {kind: _band(drawn.get((kind, way[0])), way, choice, layer) for kind in NULLS}
            record = {**setting.identity, **dict(zip(WAY, way, strict=True)), "choice": choice, "layer": at, "multiplier": top}
            records.append({**NOTHING, **record, **facts, **_beside(value, facts.get("half_range_se"), bands)})
    return STEERING_RANGES.rows(records)


def best_layers(ranges: pa.Table) -> dict[Way, int]:
    """Return the layer that the validation half calls best, by method, site and phase, from STEERING_RANGES rows of one behaviour."""
    rows = [row for row in ranges.to_pylist() if row["choice"] == BEST and row["layer"] >= 0]
    return {(row["method"], row["site"], row["phase"]): row["layer"] for row in rows}


def _answered(found: Moved, sheet: Sheet, seed: int) -> list[dict[str, Any]]:
    """Return what the test half says of each cell: the standard error, the number of questions, and the half-ranges of single letters."""
    test = ~sheet.validation
    weights = counted(sheet.questions[test], sheet.side(test), seed)
    _, errors = mean_and_error(found.both[test], weights)
    there = np.isfinite(found.both[test]) & (weights.own > 0)[:, None]
    counts = [len(np.unique(sheet.questions[test][column])) for column in there.T]
    letters = np.array([match for match, _ in sheet.side(test)])
    each = [weighted(found.both[test], (letters == letter).astype(np.float64)) for letter in dict.fromkeys(letters.tolist())]
    single = np.stack(each or [np.full(len(counts), np.nan)])
    columns = {"half_range_se": errors, "letter_low": single.min(0), "letter_high": single.max(0)}
    return [
        {"n": count, **{name: float(values[place]) if np.isfinite(values[place]) else None for name, values in columns.items()}}
        for place, count in enumerate(counts)
    ]


def _band(means: Means | None, way: Way, choice: str, layer: int) -> list[float]:
    """Return the half-ranges of *way* under the null vectors of one kind, by the same choice of layer."""
    ways = [some for some in means.cells if some[1:] == way[1:]] if means else []
    values = [means.of(some, choice, layer)[1] for some in ways] if means else []
    return [value for value in values if np.isfinite(value)]


def _beside(value: float, error: float | None, bands: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return the columns of a half-range with its standard *error*, and of the half-ranges under null vectors."""
    known = np.isfinite(value)
    record: dict[str, Any] = {"half_range": value if known else None, "clear": None}
    for kind, band in bands.items():
        record |= {f"{kind}_low": min(band, default=None), f"{kind}_high": max(band, default=None), f"{kind}_draws": len(band)}
        record[f"{kind}_sd"] = float(np.std(band, ddof=1)) if len(band) > 1 else None
    permuted, every = bands[PERMUTED], [some for band in bands.values() for some in band]
    record["p"] = (1 + sum(abs(some) >= abs(value) for some in permuted)) / (1 + len(permuted)) if known and permuted else None
    if known and every and error is not None:
        record["clear"] = abs(value) > FURTHER * error and bool(value < min(every) or value > max(every))
    return record
