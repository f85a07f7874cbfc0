"""Existing explanations read from files: a table, a JSON object of latent → explanation, or a folder.

A folder holds one file for each latent, or Neuronpedia's explanations in batches.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from builders.errors import UserError, first_line, one_of

COLUMNS = ("explanation", "text", "interpretation", "description")  # names that a table's column of explanations may have
NUMBERED = re.compile(r"_(?:latent|feature)(\d+)\.txt$")
KEY = re.compile(r"(?:.*_(?:latent|feature))?(\d+)")
BATCHES = "batch-*.jsonl.gz"  # Neuronpedia's files of explanations; a latent's number is text there
BULK = pyarrow.json.ParseOptions(pa.schema({"index": pa.string(), "description": pa.string()}), unexpected_field_behavior="ignore")
AS_TEXT = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()))  # even if all of them look like numbers

Explanations = dict[int, str]


def _table(table: pa.Table, path: Path) -> Explanations:
    column = next((name for name in COLUMNS if name in table.column_names), None)
    if "latent" not in table.column_names or column is None:
        raise UserError(f"{path}: needs a column `latent` and one of {one_of(COLUMNS)}; it has {one_of(table.column_names)}")
    latents, explanations = table["latent"].cast(pa.int64()).to_pylist(), table[column].cast(pa.string()).to_pylist()
    pairs = zip(latents, explanations, strict=True)
    return _once([(latent, explanation) for latent, explanation in pairs if latent is not None and explanation], path)


def _once(pairs: list[tuple[int, str]], path: Path) -> Explanations:
    """Return *pairs* by latent; raise UserError if a latent comes twice, as where a file holds several dictionaries."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = {latent for latent, count in Counter(latent for latent, _ in pairs).items() if count > 1}
        raise UserError(f"{path}: latents come twice: {one_of(twice)}; give each dictionary and each explainer files of its own")
    return found


def _published(path: Path) -> Explanations:
    """Read a JSON object of latent → explanation, as Paulo et al. 2024 published; a key may be `.model.layers.3_feature17`."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise UserError(f"{path}: is no JSON object of latent → explanation; write a list of records as .jsonl")
    numbers = {key: KEY.fullmatch(key) for key in found}
    strange = [key for key, number in numbers.items() if number is None or not isinstance(found[key], str)]
    if strange:
        raise UserError(f"{path}: entries are no latent with an explanation: {one_of(strange)}; correct them or take them out")
    return _once([(int(number[1]), found[key]) for key, number in numbers.items() if number and found[key]], path)


def _bulk(path: Path) -> Explanations:
    """Read a batch of Neuronpedia's explanations, or the batches in a folder."""
    files = sorted(path.glob(BATCHES)) if path.is_dir() else [path]
    found = pa.concat_tables(pyarrow.json.read_json(file, parse_options=BULK) for file in files)
    if found["index"].null_count == len(found) or found["description"].null_count == len(found):
        raise UserError(f"{path}: no record has an `index` and a `description`; give Neuronpedia's explanations")
    return _table(found.rename_columns({"index": "latent"}), path)


def _folder(path: Path) -> Explanations:
    """Read a folder of files named …_latent7.txt, each holding one explanation as a JSON string; or Neuronpedia's batches."""
    for place in (path, path / "explanations"):
        if any(place.glob(BATCHES)):
            return _bulk(place)
    files = [(int(number[1]), file) for file in sorted(path.iterdir()) if (number := NUMBERED.search(file.name))]
    if not files:
        raise UserError(f"{path}: holds no files called …_latent<number>.txt or {BATCHES}; give a folder that does")
    explanations = [(latent, json.loads(file.read_text(encoding="utf-8"))) for latent, file in files]
    strange = [file.name for (_, file), (_, explanation) in zip(files, explanations, strict=True) if not isinstance(explanation, str)]
    if strange:
        raise UserError(f"{path}: files hold no JSON string: {one_of(strange)}; correct them or take them out")
    return _once([(latent, explanation) for latent, explanation in explanations if explanation], path)


READERS: dict[str, Callable[[Path], Explanations]] = {
    ".parquet": lambda path: _table(pq.read_table(path), path),
    ".csv": lambda path: _table(pyarrow.csv.read_csv(path, convert_options=AS_TEXT), path),
    ".jsonl": lambda path: _table(pyarrow.json.read_json(path), path),
    ".json": _published,
    ".gz": _bulk,
    "": _folder,
}


def read(path: Path, sae: str, width: int) -> Explanations:
    """Return the explanations in *path* by latent of dictionary *sae*, which has *width* latents.

    Raises UserError if the file is missing, cannot be read, or names latents that the dictionary does not have.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file of explanations; correct the path")
    if path.suffix not in READERS and path.is_file():
        raise UserError(f"{path}: ends in {path.suffix!r}; give a folder, or a file in {one_of(name for name in READERS if name)}")
    try:
        found = (READERS[path.suffix] if path.is_file() else _folder)(path)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); correct the file") from error
    beyond = sorted(latent for latent in found if not 0 <= latent < width)
    if beyond:
        raise UserError(f"{path}: explains latents that {sae} does not have (its latents are 0 to {width - 1}): {one_of(beyond)}")
    return found
