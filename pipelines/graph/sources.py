"""Hashes of the code of every stage, one small file for each stage; stage `sources` writes them.

DVC compares these files to decide what runs, and a half-finished output folder is continued only where they are the same. A line is a hash
and what it belongs to: a module, a prompt or template, or the JSON schema of a section of params with its defaults. `pipelines/params`
itself is left out, since these sections are all that a stage reads of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from pipelines.graph.closure import code_of, digest
from pipelines.graph.declared import stages
from pipelines.graph.prompts import ASKING, prompts_of
from pipelines.params import Params

WORDS = {"title", "description"}  # fields of a JSON schema that come from names and docstrings


def sources(params: Params) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file: one for each stage, or one for each id where explainers or scorers use different prompts."""
    for stage, found in stages().items():
        if stage in ASKING:
            yield from ((f"{stage}/{entry_id}", source_of(stage, params, entry_id)) for entry_id in getattr(params, ASKING[stage]))
        elif not found.always:
            yield stage, source_of(stage, params)


def source_of(stage: str, params: Params, entry_id: str = "") -> str:
    """Return the hashes of the code of *stage*, with the prompts that its explainer or scorer *entry_id* uses, as a file's text."""
    lines = code_of(stage)
    if stage in ASKING:
        used = prompts_of(params, getattr(params, ASKING[stage])[entry_id])
        lines = {path: sha256 for path, sha256 in lines.items() if "/prompts/" not in path or path in used}
    lines |= {f"params.{section}": schema(section) for section in stages()[stage].sections}
    return "".join(f"{lines[name]} {name}\n" for name in sorted(lines))


@cache
def schema(section: str) -> str:
    """Return the hash of the JSON schema of a section of params; names of classes and docstrings do not count."""
    field = Params.model_fields[section]
    adapter: TypeAdapter[Any] = TypeAdapter(field.annotation)  # type: ignore[arg-type]  # it has an annotation
    found = adapter.json_schema() | {"default": _plain(field.get_default(call_default_factory=True))}
    return digest(json.dumps(_without_words(found, found.get("$defs", {})), sort_keys=True).encode())


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else repr(value)


def _without_words(schema: Any, classes: dict[str, Any]) -> Any:
    """Return a JSON schema without titles and descriptions, each reference to one of *classes* replaced by that class's own schema."""
    if isinstance(schema, list):
        return [_without_words(part, classes) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = classes[schema["$ref"].rpartition("/")[2]] | {name: part for name, part in schema.items() if name != "$ref"}
    kept = {name: part for name, part in schema.items() if name not in {"$defs", "discriminator"}}  # both repeat names of classes
    return {name: _without_words(part, classes) for name, part in kept.items() if name not in WORDS or not isinstance(part, str)}
