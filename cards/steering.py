"""What steering does, from STEERING rows: effects on the test half at the layer that the other half chose, and one scale for all sites."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import pandas as pd
import pyarrow as pa

from builders.steering.effects import NONE
from builders.steering.ways import BOTH, DIFFERENCE, LDA, RESIDUAL, STATE
from cards.paper import STEERED
from cards.render import points, render
from cards.summary import none_if_nan

PLACE = ["subject", "behaviour"]
WAY = ["method", "site"]
SITES = (RESIDUAL, STATE, BOTH)
ORDER = {"method": (DIFFERENCE, LDA), "site": SITES}
WITHOUT = {"without": "matching", "without_se": "matching_se", "nonsense_without": "nonsense"}
CLEAR = 2  # standard errors
MOST_NONSENSE = 0.5  # with more, a subject does not answer but says something else


def steering_summary(steering: pa.Table) -> list[dict[str, Any]]:
    """Return one record per subject, behaviour, method and site, from the test half at the chosen layer; effects are shares, 0 to 1.

    A way to steer that was skipped has the reason as its *status*, and no numbers.
    """
    test = _test_half(steering)
    without = {key: rows.iloc[0] for key, rows in test[test["method"] == NONE].groupby(PLACE)}
    records = [
        {**dict(zip([*PLACE, *WAY], key, strict=True)), **_figures(rows, without.get(key[:2]))}
        for key, rows in _steered(test).groupby([*PLACE, *WAY])
    ]
    return sorted(records, key=lambda record: tuple(_rank(name, record[name]) for name in (*PLACE, *WAY)))


def _test_half(steering: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = steering.to_pandas()
    return frame[frame["half"] == "test"].sort_values(["layer", "multiplier"])


def _steered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["method"] != NONE) & (frame["multiplier"] != 0)]


def _rank(name: str, value: str) -> tuple[int, str]:
    known = ORDER.get(name, ())
    return (known.index(value) if value in known else len(known)), value


def _figures(rows: pd.DataFrame, without: pd.Series | None) -> dict[str, Any]:
    """Return the figures of one way to steer, whose rows are those of all layers and multipliers."""
    there = rows[rows["chosen"] & (rows["status"] == "ok")]
    at = rows[rows["chosen"]] if len(there) else there
    names = ("effect", "effect_se", "nonsense", "nonsense_se")
    effects = [{"multiplier": float(row["multiplier"]), **{name: none_if_nan(row[name]) for name in names}} for _, row in at.iterrows()]
    plain = None if without is None or not len(there) else without
    return {
        "status": "ok" if len(there) else "; ".join(sorted(rows["status"].unique())),
        "layer": int(at["layer"].iloc[0]) if len(there) else None,
        "layers": int(rows["layer"].nunique()),
        "n": int(at["n"].min()) if len(there) else 0,
        "n_failed": int(rows["n_failed"].max()),
        **{name: int(rows[name].iloc[0]) for name in ("pairs", "last")},
        **{name: None if plain is None else none_if_nan(plain[column]) for name, column in WITHOUT.items()},
        "effects": effects,
        **half_range(effects),
        "monotone": rises(effects),
        "clear_of_zero": clear_of_zero(effects),
    }


def half_range(effects: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return (effect(+m) - effect(-m)) / 2 at the largest multiplier m, and its standard error.

    Both effects are of the same questions, so the error is the largest that any correlation of theirs allows: the mean of both errors.
    None where the multipliers do not end at -m and +m.
    """
    found: dict[str, float | None] = {"half_range": None, "half_range_se": None}
    ends = _ends(effects)
    if len(ends) < 2 or ends[0]["multiplier"] != -ends[1]["multiplier"]:
        return found
    low, high = ends
    if _there(ends, "effect"):
        found["half_range"] = (high["effect"] - low["effect"]) / 2
    if _there(ends, "effect_se"):
        found["half_range_se"] = (high["effect_se"] + low["effect_se"]) / 2
    return found


def rises(effects: Sequence[dict[str, Any]]) -> bool | None:
    """Return whether each effect, and the 0 of no steering, is above that of the next lower multiplier; None where one is missing."""
    known = {some["multiplier"]: some["effect"] for some in effects} | {0.0: 0.0}
    if len(known) == 1 or None in known.values():
        return None
    return all(known[low] < known[high] for low, high in pairwise(sorted(known)))


def clear_of_zero(effects: Sequence[dict[str, Any]]) -> bool | None:
    """Return whether the effect at each end goes its multiplier's way by more than two standard errors; None where one is missing."""
    ends = _ends(effects)
    if not ends or not _there(ends, "effect") or not _there(ends, "effect_se"):
        return None
    return all((end["effect"] if end["multiplier"] > 0 else -end["effect"]) > CLEAR * end["effect_se"] for end in ends)


def _ends(effects: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the effects at the most negative and the most positive multiplier, as far as there are such."""
    ordered = sorted(effects, key=lambda some: float(some["multiplier"]))
    low, high = [some for some in ordered if some["multiplier"] < 0], [some for some in ordered if some["multiplier"] > 0]
    return [*low[:1], *high[-1:]]


def _there(some: Sequence[dict[str, Any]], name: str) -> bool:
    return all(one[name] is not None for one in some)


def layer_effects(steering: pa.Table) -> list[dict[str, Any]]:
    """Return the test half's effects at the ends of the multipliers, layer by layer, of each way to steer that was not skipped."""
    test = _steered(_test_half(steering))
    ends = test.groupby([*PLACE, *WAY])["multiplier"].transform(lambda some: (some == some.min()) | (some == some.max())).astype(bool)
    kept = test[ends & (test["status"] == "ok")]
    columns = [*PLACE, *WAY, "layer", "multiplier", "effect", "effect_se", "chosen"]
    records: list[dict[str, Any]] = pa.Table.from_pandas(kept[columns], preserve_index=False).to_pylist()
    return records


def steering_block(records: Sequence[dict[str, Any]]) -> str:
    """Return half-ranges of all sites on one scale, beside the paper's, as the card and the README show them; nothing without records."""
    if not records:
        return ""
    done = [record for record in records if record["status"] == "ok"]
    silent, answering = silent_subjects(done), [record for record in done if answers(record)]
    places: dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]] = {}
    for record in done:
        places.setdefault((record["subject"], record["behaviour"]), {})[record["method"], record["site"]] = record
    words = {
        "ways": sorted({way for row in places.values() for way in row}, key=lambda way: list(map(_rank, WAY, way))),
        "places": places,
        "paper": paper_rows({record["behaviour"] for record in records}),
        "answering": len(answering),
        "rising": sum(record["monotone"] is True for record in answering),
        "clear": sum(record["clear_of_zero"] is True for record in answering),
        "silent": silent,
        "largest": max((some["multiplier"] for record in done for some in record["effects"]), default=0),
        "skipped": skipped(records),
        "lab": any(subject.startswith("lab-") for subject, _ in places),
    }
    return render("steering.md.j2", words)


def answers(record: dict[str, Any]) -> bool:
    """Return whether a subject answers at all, without steering."""
    return (record["nonsense_without"] or 0) <= MOST_NONSENSE


def silent_subjects(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return which subjects do not answer, each with the behaviours of which that is so."""
    found: dict[str, list[str]] = {}
    for subject, behaviour in dict.fromkeys((record["subject"], record["behaviour"]) for record in records if not answers(record)):
        found.setdefault(subject, []).append(behaviour)
    return [f"{subject} ({', '.join(behaviours)})" for subject, behaviours in found.items()]


def paper_rows(behaviours: Collection[str]) -> list[dict[str, Any]]:
    """Return the paper's half-ranges of each of its models: of those of its behaviours that are in *behaviours*, and the median of all."""
    wanted = {name.lower() for name in behaviours}  # ids have no capitals
    rows: list[dict[str, Any]] = []
    for model in dict.fromkeys(row["model"] for row in STEERED):
        own = [row for row in STEERED if row["model"] == model]
        rows += [row for row in own if row["behaviour"].lower() in wanted]
        ranges = {site: _spread(row[site] for row in own) for site in SITES}
        rows.append({"model": model, "behaviour": f"median of {len(own)} (range)", **ranges})
    return rows


def _spread(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{points(median(found))} ({points(found[0])}–{points(found[-1])})"


def effects_table(records: Sequence[dict[str, Any]]) -> str:
    """Return the effect at every multiplier of each way to steer, as the card shows it."""
    done = [{**record, "at": {some["multiplier"]: some for some in record["effects"]}} for record in records if record["status"] == "ok"]
    return render("steering_effects.md.j2", {"done": done, "multipliers": sorted({some for record in done for some in record["at"]})})


def skipped(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return why ways to steer have no numbers: one record per reason and ways, with subjects, and behaviours where not all are meant."""
    behaviours: dict[tuple[str, str], dict[str, list[str]]] = {}
    for record in records:
        if record["status"] != "ok":
            ways = behaviours.setdefault((record["subject"], record["status"]), {})
            ways.setdefault(f"{record['method']} at {record['site']}", []).append(record["behaviour"])
    every = {record["behaviour"] for record in records}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (subject, reason), ways in behaviours.items():
        for where in dict.fromkeys(tuple(some) for some in ways.values()):
            names = [way for way, some in ways.items() if tuple(some) == where]
            told = {"reason": reason, "ways": names, "behaviours": [] if set(where) == every else list(where), "subjects": []}
            found.setdefault((reason, *names, where), told)["subjects"].append(subject)
    return list(found.values())
