"""Rows of `lenses` of a model of four blocks, whose curves are known."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
BITS = 0.5  # per nat
LAST = 4


def row(lens: str, layer: int, ce: float, kl: float | None = None, subject: str = "one", **more: Any) -> Row:
    """Return a LENSES row of a model of four blocks whose own cross-entropy is 2 nats; its errors are 0.2 nats."""
    lost = max(0.0, ce - 2) if kl is None else kl
    names = {"subject": subject, "lens": lens, "layer": layer, "depth": layer / LAST, "ahead": 0, "n": 1000}
    nats = {"ce": ce, "kl": lost, "baseline_ce": 2.0}
    bits = {f"{name}_bits": value * BITS for name, value in nats.items()}
    return {**names, **nats, **bits, "ce_se": 0.2, "kl_se": 0.2, "bits_per_nat": BITS, "ce_chance": 8.0, "kl_chance": 6.0, **more}


def curve(lens: str, *ces: float, subject: str = "one", **more: Any) -> list[Row]:
    """Return the rows of a lens with these cross-entropies at layers 0, 1, …, in nats."""
    return [row(lens, layer, ce, subject=subject, **more) for layer, ce in enumerate(ces)]


LOGIT = curve("logit", 9, 6, 4, 3, 2)
TUNED = curve("tuned", 5, 4, 4.5, 2.5, 2)
