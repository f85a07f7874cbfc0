"""What the code of every stage is, a small file a stage, which stage `sources` writes; DVC and half-finished folders compare it.

A line is a hash and what it is of: a module, a prompt or template, or the JSON schema of a section of params, whose defaults count.
`pipelines/params` itself is left out: what is read of it is these sections.
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

WORDS = {"title", "description"}  # what a JSON schema takes from names and docstrings


def sources(params: Params) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file: one a stage, and where explainers or scorers differ in their prompts, one an id of these."""
    for stage, found in stages().items():
        if stage in ASKING:
            yield from ((f"{stage}/{name}", source_of(stage, params, name)) for name in getattr(params, ASKING[stage]))
        elif not found.always:
            yield stage, source_of(stage, params)


def source_of(stage: str, params: Params, name: str = "") -> str:
    """Return what the code of *stage* is, with the prompts that its explainer or scorer *name* uses."""
    lines = code_of(stage)
    if stage in ASKING:
        used = prompts_of(params, getattr(params, ASKING[stage])[name])
        lines = {path: one for path, one in lines.items() if "/prompts/" not in path or path in used}
    lines |= {f"params.{section}": schema(section) for section in stages()[stage].sections}
    return "".join(f"{lines[name]} {name}\n" for name in sorted(lines))


@cache
def schema(section: str) -> str:
    """Return the hash of the JSON schema of a section of params, names and docstrings left out."""
    field = Params.model_fields[section]
    adapter: TypeAdapter[Any] = TypeAdapter(field.annotation)  # type: ignore[arg-type]  # it has an annotation
    found = adapter.json_schema() | {"default": _plain(field.get_default(call_default_factory=True))}
    return digest(json.dumps(_without_words(found), sort_keys=True).encode())


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else repr(value)


def _without_words(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_words(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _without_words(one) for name, one in schema.items() if name not in WORDS or not isinstance(one, str)}
