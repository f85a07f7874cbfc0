"""Filling templates of cards/templates. A template variable without a value is an error, never a gap in the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cards.escaping import cell, fence, one_line, plain

CUT = 100  # characters of an explanation in a cell of a table


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
    environment.filters |= {"cell": cell, "fence": fence, "one_line": one_line, "plain": plain, "told": told}
    environment.filters |= {"upto": upto, "ranged": ranged, "gained": gained, "measured": measured}
    return environment.get_template(template).render(facts)


def figure(number: float | None, digits: int = 3) -> str:
    """Return a number with *digits* significant figures, or a dash for None and NaN."""
    if number is None or number != number:
        return "–"
    return f"{number:.{digits}g}" if abs(number) < 1000 else f"{number:,.0f}"


def decimal(number: float | None) -> str:
    """Return a number with two decimals, or a dash for None and NaN."""
    return "–" if number is None or number != number else f"{number:z.2f}"


def upto(low: float, high: float) -> str:
    """Return an interval with two decimals, as in 0.69–0.70, or -0.02 to 0.01 where an end is below zero."""
    return f"{decimal(low)}{' to ' if low < 0 else '–'}{decimal(high)}"


def measured(value: float | None, error: float | None) -> str:
    """Return a value with its standard error, as in 0.71 ± 0.01; the value alone where it has none, and a dash where there is no value."""
    return decimal(value) if value is None or error is None else f"{decimal(value)} ± {decimal(error)}"


def ranged(known: Mapping[str, Any], *, beside: int | None = None, bold: bool = False) -> str:
    """Return a median with its 95 % interval and n, as in 0.70 (0.69–0.70), n 2,043; a dash where nothing is known.

    n is left out where it is *beside*, the n that a reader sees already.
    """
    if not known["n"]:
        return "–"
    median = f"**{decimal(known['median'])}**" if bold else decimal(known["median"])
    interval = f" ({upto(known['low'], known['high'])})" if known["low"] is not None else ""
    return f"{median}{interval}" + (f", n {known['n']:,}" if known["n"] != beside else "")


def gained(known: Mapping[str, Any]) -> str:
    """Return a mean difference with its 95 % interval and n, as in +0.199 (+0.195 to +0.204), n 2,043; n alone where there is no mean."""
    if known["mean"] is None:
        return f"n {known['n']:,}"
    return f"{known['mean']:+z.3f} ({known['low']:+z.3f} to {known['high']:+z.3f}), n {known['n']:,}"


def points(share: float | None, digits: int = 1) -> str:
    """Return a share, or a difference of shares, in percent with *digits* decimals, or a dash for None and NaN."""
    return "–" if share is None or share != share else f"{100 * share:z.{digits}f}"


def told(explanation: Mapping[str, Any] | None) -> str:
    """Return an explanation as a cell of a table, cut after CUT characters; why there is none, or a dash where none was asked for."""
    if explanation is None:
        return "–"
    if explanation["status"] != "ok":
        return f"*{explanation['status']}*"
    text = explanation["text"].strip()
    return plain(text if len(text) <= CUT else f"{text[: CUT - 1].rstrip()}…")
