"""Filling templates of cards/templates. A template variable without a value is an error, never a gap in the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Return *template* filled with *facts*; raise UndefinedError where a variable is missing."""
    environment = Environment(
        loader=PackageLoader("cards", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": figure, "decimal": decimal, "points": points, "commas": lambda number: f"{number:,}"}
    return environment.get_template(template).render(facts)


def figure(number: float | None, digits: int = 3) -> str:
    """Return a number with *digits* significant figures, or a dash for None and NaN."""
    if number is None or number != number:
        return "–"
    return f"{number:.{digits}g}" if abs(number) < 1000 else f"{number:,.0f}"


def decimal(number: float | None) -> str:
    """Return a number with two decimals, or a dash for None and NaN."""
    return "–" if number is None or number != number else f"{number:.2f}"


def points(share: float | None, digits: int = 1) -> str:
    """Return a share, or a difference of shares, in percent with *digits* decimals, or a dash for None and NaN."""
    return "–" if share is None or share != share else f"{100 * share:z.{digits}f}"
