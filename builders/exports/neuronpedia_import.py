"""The rows of a folder in Neuronpedia's bulk layout, ours or anybody's.

What the layout has no place for does not come back: explanations and scores without text or number, the permuted baseline, scores of no
explanation, windows in which the latent is silent, token ids, and of `latents` all but a few columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from builders.errors import UserError, first_line
from builders.explainers.explanations import EXPLANATIONS
from builders.exports import neuronpedia_records as records
from builders.exports.dictionaries import Row
from builders.exports.files import Record, read_batches, read_lines
from builders.lake.table import Table, TableError
from builders.scorers.judgements import SCORES


def sources_of(root: Path) -> list[Path]:
    """Return the folders of the dictionaries below *root*; raise UserError where there is none."""
    found = sorted(path.parent for path in root.glob("v1/*/*/source.jsonl"))
    if not found:
        raise UserError(f"{root}: holds no v1/<model>/<source>/source.jsonl; give the folder that holds v1")
    return found


def dictionary_of(folder: Path) -> Row:
    """Return the row of `saes` of a source; only one that we exported has it."""
    (source,) = read_lines(folder / "source.jsonl")
    row: Row = json.loads(source["notes"])
    return row


def explanations_of(folder: Path) -> pa.Table:
    """Return the EXPLANATIONS rows of a source."""
    return _rows(EXPLANATIONS, _each(records.explanation_row, folder / "explanations"), folder)


def scores_of(folder: Path) -> pa.Table:
    """Return the SCORES rows of a source, which only an export of ours has."""
    ids = (record["id"] for record in read_batches(folder / "explanations"))
    explained = dict(zip(ids, _each(records.explanation_row, folder / "explanations"), strict=True))
    return _rows(SCORES, _each(partial(records.score_row, explained=explained), folder / "scores"), folder)


def latents_of(folder: Path) -> Iterator[Row]:
    """Yield what a source tells of each latent: density, largest activation, and tokens that it promotes and suppresses."""
    return _each(records.feature_row, folder / "features")


def windows_of(folder: Path) -> Iterator[Row]:
    """Yield the windows in which latents of a source fire: the texts of their tokens, and the activations."""
    return _each(records.activation_row, folder / "activations")


def _rows(table: Table, rows: Iterator[Row], folder: Path) -> pa.Table:
    """Return *rows* as rows of *table*, null where they say nothing; raise UserError where they break its rules."""
    blank = dict.fromkeys(column.name for column in table.columns)
    try:
        found = table.rows([{name: row.get(name) for name in blank} for row in rows])
        table.validate(found)
    except TableError as error:
        raise UserError(f"{folder}: holds records that make no {table.name} ({first_line(error)}); correct its batches") from error
    return found


def _each(make: Callable[[Record], Row], folder: Path) -> Iterator[Row]:
    """Yield the row that *make* makes of each record in *folder*; raise UserError where one lacks a field."""
    for number, record in enumerate(read_batches(folder), start=1):
        try:
            yield make(record)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{folder}: record {number} cannot be read ({error!r}); correct its batches") from error
