"""Somebody's existing explanations: a table, the published release's JSON of latent → text, or a folder of one file a latent."""

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

TEXTS = ("explanation", "text", "interpretation", "description")  # what a table's column of texts may be called
NUMBERED = re.compile(r"_(?:latent|feature)(\d+)\.txt$")
KEY = re.compile(r"(?:.*_(?:latent|feature))?(\d+)")
AS_TEXT = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.string()))  # also where all look like numbers

Explanations = dict[int, str]


def _table(table: pa.Table, path: Path) -> Explanations:
    column = next((name for name in TEXTS if name in table.column_names), None)
    if "latent" not in table.column_names or column is None:
        raise UserError(f"{path}: needs a column `latent` and one of {one_of(TEXTS)}; it has {one_of(table.column_names)}")
    latents, texts = table["latent"].cast(pa.int64()).to_pylist(), table[column].cast(pa.string()).to_pylist()
    return _once([(latent, text) for latent, text in zip(latents, texts, strict=True) if latent is not None and text], path)


def _once(pairs: list[tuple[int, str]], path: Path) -> Explanations:
    """Return *pairs* by latent; raise UserError where a latent comes twice, as where several dictionaries are in one file."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = {latent for latent, count in Counter(latent for latent, _ in pairs).items() if count > 1}
        raise UserError(f"{path}: latents that come twice, which belong in files of their own: {one_of(twice)}")
    return found


def _published(path: Path) -> Explanations:
    """Read a JSON object of latent → text (SCIENCE A18); its keys may be as long as `.model.layers.3_feature17`."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise UserError(f"{path}: is no JSON object of latent → explanation; a list of records belongs in .jsonl")
    numbers = {key: KEY.fullmatch(key) for key in found}
    strange = [key for key, number in numbers.items() if number is None or not isinstance(found[key], str)]
    if strange:
        raise UserError(f"{path}: entries that are no latent with a text: {one_of(strange)}")
    return _once([(int(number[1]), found[key]) for key, number in numbers.items() if number and found[key]], path)


def _folder(path: Path) -> Explanations:
    """Read files called …_latent7.txt, each a JSON string."""
    files = [(int(number[1]), file) for file in sorted(path.iterdir()) if (number := NUMBERED.search(file.name))]
    if not files:
        raise UserError(f"{path}: holds no files called …_latent<number>.txt")
    texts = [(latent, json.loads(file.read_text(encoding="utf-8"))) for latent, file in files]
    strange = [file.name for (_, file), (_, text) in zip(files, texts, strict=True) if not isinstance(text, str)]
    if strange:
        raise UserError(f"{path}: files that hold no JSON string: {one_of(strange)}")
    return _once([(latent, text) for latent, text in texts if text], path)


READERS: dict[str, Callable[[Path], Explanations]] = {
    ".parquet": lambda path: _table(pq.read_table(path), path),
    ".csv": lambda path: _table(pyarrow.csv.read_csv(path, convert_options=AS_TEXT), path),
    ".jsonl": lambda path: _table(pyarrow.json.read_json(path), path),
    ".json": _published,
    "": _folder,
}


def read(path: Path, sae: str, width: int) -> Explanations:
    """Return the explanations in *path* by latent of dictionary *sae*, which has *width* latents.

    Raises UserError where the file is missing, cannot be read, or speaks of latents that the dictionary does not have.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file of explanations")
    if path.suffix not in READERS and path.is_file():
        raise UserError(f"{path}: ends in {path.suffix!r}; {one_of(name for name in READERS if name)} are read, or a folder")
    try:
        found = (READERS[path.suffix] if path.is_file() else _folder)(path)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    beyond = sorted(latent for latent in found if not 0 <= latent < width)
    if beyond:
        raise UserError(f"{path}: explains latents that {sae} does not have (its latents are 0 to {width - 1}): {one_of(beyond)}")
    return found
