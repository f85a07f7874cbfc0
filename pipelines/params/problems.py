"""What is wrong with a file of params, in plain words: pydantic's own never reach a person where a type of problem is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from builders.errors import UserError
from pipelines.params.base import PATTERNS


def no_yaml(path: Path, error: yaml.YAMLError) -> UserError:
    """Return what is told of a file that is not YAML, in one line."""
    return UserError(f"{path}: not YAML: {' '.join(str(error).split())}")


def explain(error: ValidationError) -> str:
    """Return the first problems of a pydantic error as one line, each with its key, what is wrong, and what is allowed."""
    problems = [_problem(detail) for detail in error.errors()]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


# What is wrong with a value, by the type of pydantic's error; names in braces are fields of the error's context.
SENTENCES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must hold keys and values, not one value",
    "extra_forbidden": "unknown key; remove it or correct its name",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "missing; add it",
    "model_attributes_type": "must hold keys and values, not one value",
    "model_type": "must hold keys and values, not one value",
    "string_type": "must be text; put it in quotes",
    "too_short": "has too few entries; give at least {min_length}",
    "tuple_type": "must be a list",
    "union_tag_invalid": "`{discriminator}` must be {expected_tags}",
    "union_tag_not_found": "`{discriminator}` is missing; add it",
    "value_error": "{error}",
}
# The sections whose entries are of several kinds or sources, each with params of its own.
OF_KINDS = {"behaviours", "checkpoints", "corpora", "direct_scorers", "embedders", "engines", "explainers", "judges", "saes", "scorers"}
SAID_IN_FULL = {"extra_forbidden", "missing", "too_short", "union_tag_not_found", "value_error"}  # the given value would add nothing


def _problem(detail: Any) -> str:
    """Return one problem as `key: what is wrong`, with the value that was given where that helps."""
    kind, loc, given = detail["type"], detail["loc"], detail.get("input")
    place = ".".join(str(part) for part in _keys(loc))
    context = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in detail.get("ctx", {}).items()}
    if "discriminator" in context:
        context["discriminator"] = context["discriminator"].strip("'")
    if kind == "union_tag_invalid":
        context["expected_tags"] = " or ".join(context["expected_tags"].rsplit(", ", 1))
        given = context["tag"]
    if kind == "string_pattern_mismatch" and context["pattern"] in PATTERNS:
        said = PATTERNS[context["pattern"]]
    else:
        said = SENTENCES[kind].format(**context) if kind in SENTENCES else detail["msg"].lower()
    if kind not in SAID_IN_FULL and not isinstance(given, dict):
        said += f" (given: {given!r})"
    return f"{place}: {said}" if place else said


def _keys(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the keys that lead to a problem as the file has them: without the kind that pydantic puts after an entry's id."""
    keys = tuple(part for part in loc if part != "[key]")
    return keys[:2] + keys[3:] if keys and keys[0] in OF_KINDS else keys
