"""What the card's lines of code speak of: a latent, a word and a vector that this release holds, so that every line finds something."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.lake.table import Table

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')  # the tokens that an explanation names
TRIED = 100  # of the best explanations, of which the first that names a telling word, or else any word, is shown
WORD = re.compile(r"[^\W\d_]{3,}")
ANY = "the"  # where nothing is explained
TELLING = 5  # letters of a word that is worth looking for
LEARNED = ("trained", "pretrained")  # kinds of dictionaries whose latents are the better examples


def example(release: Path, tables: Sequence[Table]) -> dict[str, Any]:
    """Return what snippets are filled with: the best explained latent (*sae*, *latent*) with a *word* of its explanation.

    *size* is the length of the vectors of `embeddings`, 0 where the release has none; *directed* is a config, dictionary and latent of
    `vectors`, None where it has none.
    """
    by_name = {table.name: table for table in tables}
    found = _best(release) if "browse" in by_name else None
    if found is None:
        found = {**_first(release, "latents"), "explanation": ANY}
    return {
        "sae": found["sae"],
        "latent": found["latent"],
        "word": word_of(found["explanation"]),
        "size": _length(by_name["embeddings"], "vector") if "embeddings" in by_name else 0,
        "directed": next(({"config": name, **_first(release, name)} for name in sorted(by_name) if name.split("_")[0] == "vectors"), None),
    }


def word_of(explanation: str) -> str:
    """Return the longest word that an explanation names in quotes, else the longest that it says; the first of several."""
    return max(_named(explanation) or WORD.findall(explanation) or [ANY], key=len)


def _named(explanation: str) -> list[str]:
    """Return the words in the quoted tokens of an explanation."""
    return WORD.findall(re.sub(r"\\.", " ", " ".join(QUOTED.findall(explanation))))


def _best(release: Path) -> Mapping[str, Any] | None:
    """Return the explained latent with the largest score, those of learned dictionaries first; None where none is explained."""
    columns = ["sae", "latent", "kind", "explanation", "score"]
    rows = pa.concat_tables(pq.read_table(path, columns=columns) for path in sorted((release / "browse").glob("*.parquet")))
    rows = rows.filter(pc.is_valid(rows["explanation"]))
    rows = rows.append_column("learned", pc.is_in(rows["kind"], pa.array(LEARNED)))
    order = [("learned", "descending"), ("score", "descending"), ("sae", "ascending"), ("latent", "ascending")]
    best: list[dict[str, Any]] = rows.sort_by(order).slice(0, TRIED).to_pylist()
    longest = [max(map(len, _named(row["explanation"])), default=0) for row in best]
    return next((row for least in (TELLING, 1, 0) for row, length in zip(best, longest, strict=True) if length >= least), None)


def _first(release: Path, config: str) -> dict[str, Any]:
    """Return the dictionary and latent of the first row of a config."""
    file = pq.ParquetFile(min((release / config).glob("*.parquet")))
    row: dict[str, Any] = next(file.iter_batches(batch_size=1, columns=["sae", "latent"])).to_pylist()[0]
    return row


def _length(table: Table, name: str) -> int:
    """Return the length of the lists of a column of fixed size."""
    return int(table.schema.field(name).type.list_size)
