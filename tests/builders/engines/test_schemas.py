"""JSON schemas of answers: what fits, what all the answers are, and which tokens may follow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.engines.schemas import continuations, fits, grammar, named, one_of, several, values

DIGITS = several(one_of([0, 1]), 3)
SCHEMAS: dict[str, tuple[Any, int]] = {
    "a digit": (one_of([0, 1]), 2),
    "words": ({"type": "string", "enum": ["yes", "no"]}, 2),
    "a list": (DIGITS, 8),
    "an empty list": (several(one_of([0, 1]), 0), 1),
    "an object": (named(answers=DIGITS), 8),
    "two properties": (named(first=one_of([1, 2, 3]), second=DIGITS), 24),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_all_values_of_a_schema(name: str) -> None:
    """As many values as the schema allows come out, each once, and each fits."""
    schema, count = SCHEMAS[name]
    found = list(values(schema))

    assert len(found) == len({json.dumps(value) for value in found}) == count
    assert all(fits(schema, json.loads(json.dumps(value))) for value in found)


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "[0, 1, 1]",
        [],
        [0, 1],
        [0, 1, 1, 0],
        [0, 1, 2],
        [0, 1, None],
        [0, 1, "1"],
        [0, 1, True],
        [[0, 1, 1]],
        {"answers": [0, 1, 1]},
    ],
)
def test_anything_else_does_not_fit_a_list(value: Any) -> None:
    """A list of three digits is no other list, and neither text nor an object."""
    assert not fits(DIGITS, value)
    assert not fits(named(answers=DIGITS), {"answers": value})


@pytest.mark.parametrize("value", [{}, {"answer": [0, 0, 0]}, {"answers": [0, 0, 0], "why": 1}, [0, 0, 0], [[0, 0, 0]], None])
def test_an_object_has_its_properties_and_no_others(value: Any) -> None:
    """A missing, another or one more property does not fit."""
    assert not fits(named(answers=DIGITS), value)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": "array", "items": one_of([0])},
        {"type": "array", "items": one_of([0]), "minItems": 1, "maxItems": 2},
        {"type": "object", "properties": {"a": one_of([0])}},
        {"type": "object", "properties": {"a": one_of([0])}, "required": [], "additionalProperties": False},
        several({"type": "number"}, 2),
    ],
)
def test_other_schemas_are_refused(schema: Any) -> None:
    """What does not say exactly which values it allows is an error, whether one is looked for or all."""
    with pytest.raises(ValueError, match="no known kind"):
        list(values(schema))
    with pytest.raises(ValueError, match="no known kind"):
        fits(schema, [0, 0])


GRAMMARS: dict[str, tuple[Any, str]] = {
    "numbers": (one_of([0, 12]), 'root ::= ("0" | "12")'),
    "words": ({"type": "string", "enum": ["日本", 'a "b\\']}, r'root ::= ("\"日本\"" | "\"a \\\"b\\\\\"")'),
    "a list": (several(one_of([0, 1]), 2), 'root ::= "[" ("0" | "1") ", " ("0" | "1") "]"'),
    "an object": (named(a=one_of([0]), b=several(one_of([1]), 1)), r'root ::= "{" "\"a\": " ("0") ", " "\"b\": " "[" ("1") "]" "}"'),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_schema_is_a_grammar(name: str) -> None:
    """The grammar of a schema writes each value as json.dumps does, with quotes and backslashes escaped, and leaves no other choice."""
    schema, text = GRAMMARS[name]

    assert grammar(schema) == text
    with pytest.raises(ValueError, match="no known kind"):
        grammar(several({"type": "string"}, 2))


def test_many_values_are_not_made_at_once() -> None:
    """The first values of a list of a hundred digits are there before the last of 2¹⁰⁰."""
    assert next(values(several(one_of([0, 1]), 100))) == [0] * 100


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=6))
def test_every_text_can_be_followed_to_its_end(texts: list[list[int]]) -> None:
    """Step by step the tokens that may follow lead through each text to an end, and through nothing else."""
    following = continuations(texts, [9])

    whole, begun = set(), [()]
    while begun:
        now = begun.pop()
        for token in following[now]:
            whole.add(now) if token == 9 else begun.append((*now, token))
    assert whole == {tuple(text) for text in texts}
