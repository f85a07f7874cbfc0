"""Files of other tools: JSON lines in gzip, in batches, whose bytes depend on their records alone."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from gzip import GzipFile
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from builders.errors import UserError, first_line

Record = dict[str, Any]
BATCH = 1024  # records of a file
NUMBERED = re.compile(r"batch-(\d+)\.jsonl\.gz")


def dumped(record: Any) -> str:
    """Return a record as JSON on one line, every character as it is."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def gzipped(data: bytes) -> bytes:
    """Return *data* in gzip; the bytes name no file and no time."""
    buffer = BytesIO()
    with GzipFile("", "wb", 6, buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write one record a line, in gzip where the name ends in .gz; write nothing where there is no record."""
    lines = "".join(f"{dumped(record)}\n" for record in records).encode()
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzipped(lines) if path.suffix == ".gz" else lines)


def write_batches(folder: Path, records: Iterable[Record]) -> int:
    """Write *records* as batch-0.jsonl.gz, batch-1.jsonl.gz, … of BATCH records each; return how many they are."""
    left, number, count = iter(records), 0, 0
    while batch := list(islice(left, BATCH)):
        write_lines(folder / f"batch-{number}.jsonl.gz", batch)
        number, count = number + 1, count + len(batch)
    return count


def batches_of(folder: Path) -> list[Path]:
    """Return the batches in *folder*, by their number."""
    found = {int(name[1]): path for path in folder.glob("batch-*.jsonl.gz") if (name := NUMBERED.fullmatch(path.name))}
    return [found[number] for number in sorted(found)]


def read_lines(path: Path) -> Iterator[Record]:
    """Yield the records of a file of JSON lines; raise UserError, with the line's number, where one cannot be read."""
    number = 0
    try:
        with GzipFile(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise UserError(f"{path}: line {number} is no JSON object; correct the file")
                yield record
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read after line {number} ({first_line(error)}); correct the file or fetch it again") from error


def read_batches(folder: Path) -> Iterator[Record]:
    """Yield the records of all batches in *folder*, in order."""
    for path in batches_of(folder):
        yield from read_lines(path)
