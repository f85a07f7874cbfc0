"""Sources of text, and the documents that are read from them."""

from __future__ import annotations

import ast
import glob
import json
import pydoc_data.topics
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError, first_line
from builders.lake.table import Column, Table
from builders.progress import track
from builders.seeds import seed_of

DOCUMENTS = Table(
    name="documents",
    row="a document of the corpus, before any tokenizer",
    key=("document",),
    columns=(
        Column("document", "int64", "position of the document in its source", low=0),
        Column("name", "string", "its name in the source: a module, a file, or a row of a file"),
        Column("text", "string", "the document"),
        Column("held_out", "bool", "whether no SAE that is trained here sees it (nor, at the default share, the lab model)"),
    ),
    row_group=1_000,
)

Document = tuple[str, str]  # name, text
LONG = 20_000  # characters


def python_docs() -> Iterator[Document]:
    """Yield the documentation of the running Python (about 2 MB): its language topics, then the docstrings of each module."""
    for topic, text in sorted(pydoc_data.topics.topics.items()):
        yield f"topic {topic}", text.strip()
    library = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "test", "tests", "idle_test", "__pycache__"}
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if skipped.isdisjoint(relative.parts):
            text = "\n\n".join(_docstrings(path, seen))
            if text:
                yield f"module {'.'.join(relative.with_suffix('').parts)}", text


def _docstrings(path: Path, seen: set[str]) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # lib2to3 and some others ship files that this Python cannot parse
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and text not in seen:
                seen.add(text)
                yield text if isinstance(node, ast.Module) else f"{node.name}\n{text}"


def files(paths: list[str], column: str) -> Iterator[Document]:
    """Yield the documents of the .txt, .jsonl and .parquet files that the globs *paths* match; *column* names the field of the text.

    Raises UserError if a glob matches nothing, a file has another ending, or a row lacks the column.
    """
    for path in matched(paths):
        yield from _read_file(path, column)


def matched(paths: list[str]) -> Iterator[Path]:
    """Yield the files that the globs *paths* match, glob by glob; raise UserError if a glob matches nothing."""
    for pattern in paths:
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise UserError(f"corpus: no file matches {pattern!r}; give a path or a glob of .txt, .jsonl or .parquet files")
        yield from map(Path, found)


def _read_file(path: Path, column: str) -> Iterator[Document]:
    reader = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}.get(path.suffix)
    if reader is None:
        raise UserError(f"corpus: {path} ends in {path.suffix!r}; .txt, .jsonl and .parquet files can be read")
    yield from reader(path, column)


def _read_txt(path: Path, column: str) -> Iterator[Document]:
    try:
        yield from _parts(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"corpus: {path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error


def _parts(name: str, text: str) -> Iterator[Document]:
    """Cut a long text at blank lines into documents of at least LONG characters, so that part of one large file can be held out."""
    start = number = 0
    while len(text) - start > 2 * LONG and (cut := text.find("\n\n", start + LONG)) > 0:
        yield f"{name}#{number}", text[start:cut]
        start, number = cut + 2, number + 1
    yield (f"{name}#{number}" if number else name), text[start:]


def _read_jsonl(path: Path, column: str) -> Iterator[Document]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)[column]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"corpus: {path}:{number} has no text under {column!r}; set `column` to the field of the text") from error
            yield f"{path.name}:{number}", _text(text, path, column)


def _read_parquet(path: Path, column: str) -> Iterator[Document]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"corpus: {path} is no parquet file ({first_line(error)}); correct `paths`") from error
    if column not in file.schema_arrow.names:
        raise UserError(f"corpus: {path} has no column {column!r}; set `column` to one of: {', '.join(file.schema_arrow.names)}")
    number = 0
    for batch in file.iter_batches(columns=[column]):
        for text in batch.column(0).to_pylist():
            yield f"{path.name}:{number}", _text(text, path, column)
            number += 1


def _text(value: object, path: Path, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"corpus: {path} holds {type(value).__name__} under {column!r}, not text; set `column` to the field of the text")
    return value


def hub(repo: str, revision: str, split: str, column: str, config: str | None, limit: int) -> Iterator[Document]:
    """Stream the first *limit* documents of a Hub dataset at a pinned *revision*.

    Raises UserError if the Hub or the dataset cannot be reached, or if the column does not exist.
    """
    from datasets import load_dataset

    try:
        stream = load_dataset(repo, config, split=split, revision=revision, streaming=True)
        for number, record in enumerate(stream.take(limit)):
            if column not in record:
                raise UserError(f"corpus: {repo} has no column {column!r}; set `column` to one of: {', '.join(record)}")
            yield f"{repo}:{number}", _text(record[column], Path(repo), column)
    except (OSError, ValueError) as error:  # datasets' own errors derive from these two
        raise UserError(f"corpus: cannot stream {repo}@{revision}: {first_line(error)}; offline, use `source: files`") from error


def documents(source: Iterator[Document], held_out_share: float) -> Iterator[pa.Table]:
    """Yield the DOCUMENTS rows of *source*, a thousand at a time; raise UserError if there is no text at all."""
    batch: list[dict[str, Any]] = []
    number = characters = 0
    for name, text in track(source, "reading the corpus"):
        characters += len(text.strip())
        # The name alone decides, so a document stays held out (or not) when other documents come or go, and whatever the run's seed is.
        held_out = seed_of(0, "held_out", name) / 2**63 < held_out_share
        batch.append({"document": number, "name": name, "text": text, "held_out": held_out})
        number += 1
        if len(batch) == DOCUMENTS.row_group:
            yield DOCUMENTS.rows(batch)
            batch = []
    if not characters:
        raise UserError(f"corpus: {number} documents hold no text; check the source's paths and column")
    if batch:
        yield DOCUMENTS.rows(batch)
