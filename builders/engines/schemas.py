"""JSON schemas of answers: whether a value fits one, and all the values that fit one. Schemas are of three kinds, put into each other.

These are an `enum`; an array of a fixed length; and an object of named properties that are all required. What such a schema allows can be
counted out, so an engine without a grammar of its own can keep to it, too; and it can be written as a grammar of llama.cpp (GBNF).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

Schema = dict[str, Any]


def one_of(values: Sequence[int]) -> Schema:
    """Return the schema of one of these whole numbers."""
    return {"type": "integer", "enum": list(values)}


def several(items: Schema, n: int) -> Schema:
    """Return the schema of a list of exactly *n* values that fit *items*."""
    return {"type": "array", "items": items, "minItems": n, "maxItems": n}


def named(**properties: Schema) -> Schema:
    """Return the schema of an object with these properties and no others. Some services, OpenAI's among them, take no other root."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _items(schema: Schema) -> list[Schema]:
    """Return the schemas of a value's parts, in order; raise ValueError where *schema* is of no kind that this module knows."""
    kind, properties = schema.get("type"), schema.get("properties", {})
    if kind == "array" and schema.get("minItems", -1) == schema.get("maxItems"):
        return [schema["items"]] * int(schema["maxItems"])
    if kind == "object" and schema.get("additionalProperties") is False and schema.get("required") == list(properties):
        return list(properties.values())
    raise ValueError(f"a schema of no known kind: {schema}")


def fits(schema: Schema, value: Any) -> bool:
    """Return whether *value* fits a schema; raise ValueError where the schema is of no known kind."""
    if "enum" in schema:
        return value in schema["enum"] and not isinstance(value, bool)
    items = _items(schema)
    if schema["type"] == "object":
        if not isinstance(value, dict) or value.keys() != schema["properties"].keys():
            return False
        value = [value[name] for name in schema["properties"]]
    return isinstance(value, list) and len(value) == len(items) and all(fits(*pair) for pair in zip(items, value, strict=True))


def values(schema: Schema) -> Iterator[Any]:
    """Yield every value that fits a schema, one by one, since there may be many; raise ValueError where it is of no known kind."""
    if "enum" in schema:
        yield from schema["enum"]
        return
    for parts in product(*map(values, _items(schema))):
        yield dict(zip(schema["properties"], parts, strict=True)) if schema["type"] == "object" else list(parts)


def grammar(schema: Schema) -> str:
    """Return a GBNF grammar of the values that fit a schema, written as `json.dumps` writes them but for letters beyond ASCII.

    White space has no choice, as it would have in llama.cpp's own translation: small models write it until they are cut off. Raises
    ValueError where the schema is of no known kind.
    """
    return f"root ::= {_rule(schema)}"


def _rule(schema: Schema) -> str:
    if "enum" in schema:
        return f"({' | '.join(_literal(json.dumps(value, ensure_ascii=False)) for value in schema['enum'])})"
    parts = [_rule(items) for items in _items(schema)]
    if schema["type"] == "array":
        return " ".join((_literal("["), f" {_literal(', ')} ".join(parts), _literal("]")))
    names = (_literal(json.dumps(name, ensure_ascii=False) + ": ") for name in schema["properties"])
    pairs = (f"{name} {part}" for name, part in zip(names, parts, strict=True))
    return " ".join((_literal("{"), f" {_literal(', ')} ".join(pairs), _literal("}")))


def _literal(text: str) -> str:
    """Return JSON as a literal of GBNF; it holds no control characters, so quotes and backslashes are all there is to escape."""
    return json.dumps(text, ensure_ascii=False)


def continuations(texts: Iterable[Sequence[int]], ends: Iterable[int]) -> dict[tuple[int, ...], list[int]]:
    """Return the token ids that may follow each beginning of *texts*, which are token ids, too; after a whole text one of *ends* may."""
    found: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for ids in texts:
        for place, token in enumerate(ids):
            found[tuple(ids[:place])].add(token)
        found[tuple(ids)].update(ends)
    return {begun: sorted(tokens) for begun, tokens in found.items()}
