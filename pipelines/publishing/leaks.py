"""The scan for secrets: everything that is to be published is searched for tokens, keys and passwords.

The patterns are our own and few. The rules of detect-secrets lack Hugging Face's tokens, look at text line by line in Python, which takes
minutes for a release, and count every long hexadecimal number as a likely secret, of which a release is full.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.lake.table import Table
from pipelines.publishing.remote import Parcel

# What each secret looks like, in the common part of RE2 (which Arrow uses) and Python's `re`.
KINDS = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}\b",
    "an API key (sk-…)": r"\bsk-(?:(?:proj|svcacct|admin|None|ant-[a-z0-9]+|or-v1)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20,})",
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
    "an AWS secret key": r"(?i:aws_?secret(?:_?access)?_?key)[\"'\s:=]{1,8}[A-Za-z0-9/+]{40}\b",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": r"\bxox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{10,}",
    "a Google API key": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a bearer token": r"(?i:\bbearer )[A-Za-z0-9_.~+/-]{32,}",
}
ANY = "|".join(f"(?:{pattern})" for pattern in KINDS.values())
ROWS = 65_536  # of a batch
PNG = b"\x89PNG\r\n\x1a\n"


def leaks(files: Mapping[str, Parcel], tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield a line for each secret in *files* by path: the file, then column and row or the line, and what it seems to be.

    Rows are counted from 0 within their file, and told by their key where *tables* knows it.
    """
    for name, parcel in files.items():
        if name.endswith(".parquet") and isinstance(parcel.content, Path):
            yield from in_parquet(name, parcel.content, tables.get(name.split("/")[0]))
        else:
            yield from in_bytes(name, parcel.read())


def in_parquet(name: str, path: Path, table: Table | None) -> Iterator[str]:
    """Yield a line for each secret in the texts of a parquet file: its columns, and what it says of itself."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        own = file.metadata.metadata or {}
        for key in own.keys() - {b"ARROW:schema"}:
            yield from in_bytes(f"{name}: metadata {key.decode(errors='replace')}", own[key])
        columns = [field.name for field in file.schema_arrow if is_text(leaf(field.type))]
        start = 0
        for batch in file.iter_batches(ROWS, columns=columns) if columns else ():
            for column in columns:
                for row, kind in in_column(batch[column]):
                    yield f"{name}: column {column}, row {start + row}{told(path, start + row, table)}: {kind}"
            start += batch.num_rows


def in_column(values: pa.Array) -> Iterator[tuple[int, str]]:
    """Yield row and kind of each secret in a column of texts or lists of texts."""
    rows = None
    if pa.types.is_nested(values.type):
        rows, values = pc.list_parent_indices(values), pc.list_flatten(values)
    found = pc.indices_nonzero(pc.fill_null(pc.match_substring_regex(values, ANY), fill_value=False)).to_pylist()
    for place in found:
        text = values[place].as_py()
        yield (place if rows is None else rows[place].as_py()), kind_of(text if isinstance(text, bytes) else text.encode())[0]


def in_bytes(name: str, content: bytes) -> Iterator[str]:
    """Yield a line for the first secret of each kind in a file that is no parquet; what a picture packs is unpacked."""
    for part, whole in {"": content, **packed(content)}.items():
        if pc.match_substring_regex(pa.array([whole], pa.large_binary()), ANY)[0].as_py():
            kind, start = kind_of(whole)
            place = part or f"line {whole[:start].count(10) + 1}"
            yield f"{name}: {place}: {kind}"


def kind_of(text: bytes) -> tuple[str, int]:
    """Return the kind of the first secret in a text that holds one, with the first of its characters, and where it begins."""
    found = [(match.start(), kind, match) for kind, pattern in KINDS.items() if (match := re.search(pattern.encode(), text))]
    start, kind, match = min(found, key=lambda one: one[0])
    shown = match[0][:8].decode("latin-1")
    return f"{kind} ({shown if shown.isprintable() else ascii(shown)}…)", start


def packed(content: bytes) -> dict[str, bytes]:
    """Return the compressed texts of a PNG picture by name of their chunk, and nothing for any other file."""
    found: dict[str, bytes] = {}
    place = len(PNG) if content.startswith(PNG) else len(content)
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        name, _, rest = content[place + 8 : place + 8 + length].partition(b"\0")
        translated = rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""  # after the names of languages
        if whole := {b"zTXt": rest[1:], b"iTXt": translated}.get(kind):
            with suppress(zlib.error):  # a text that cannot be unpacked has been searched as it is
                found[f"text {name.decode('latin-1')!a}"] = zlib.decompress(whole)
        place += 12 + length
    return found


def told(path: Path, row: int, table: Table | None) -> str:
    """Return the key of a row, in brackets."""
    if table is None:
        return ""
    key: dict[str, Any] = pq.read_table(path, columns=list(table.key)).slice(row, 1).to_pylist()[0]
    return " (" + ", ".join(f"{name} {value if str(value).isprintable() else ascii(value)}" for name, value in key.items()) + ")"


def leaf(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values inside lists, or the type itself."""
    while pa.types.is_nested(kind) and kind.num_fields == 1:
        kind = kind.field(0).type
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type may hold text."""
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
