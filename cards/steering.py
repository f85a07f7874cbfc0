"""Figures of steering from STEERING rows: effects on the test half, at the layer that the validation half chose."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import pandas as pd
import pyarrow as pa

from builders.steering.ranges import BEST, LARGEST, PAPER
from builders.steering.ways import ALIGNED, BOTH, DIFFERENCE, LATE, LDA, NONE, RESIDUAL, STATE
from cards.paper import STEERED
from cards.render import points, render
from cards.summary import none_if_nan

PLACE = ["subject", "behaviour"]
WAY = ["method", "site", "phase"]
SITES = (RESIDUAL, STATE, BOTH)
ORDER = {"method": (DIFFERENCE, LDA), "site": SITES, "phase": (NONE, LATE, ALIGNED)}
WITHOUT = {"without": "matching", "without_se": "matching_se", "nonsense_without": "nonsense"}
CHOICES = (BEST, LARGEST, PAPER)
UNCHOSEN = "no layer could be chosen"  # no question of the validation half tells letter and behaviour apart
MOST_NONSENSE = 0.5  # probability of neither answer; with more, the subject does not answer the question


def steering_summary(steering: pa.Table, ranges: pa.Table) -> list[dict[str, Any]]:
    """Return one record per subject, behaviour, method, site and phase. Effects are shares, −1 to 1.

    *effects* are those of the test half at the chosen layer; *best*, *largest* and *paper* are the rows of STEERING_RANGES by these
    choices. A way to steer that was skipped has the reason as its *status*, and no numbers.
    """
    test = _test_half(steering)
    without = {key: rows.iloc[0] for key, rows in test[test["method"] == NONE].groupby(PLACE)}
    chosen: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in ranges.to_pylist():
        if row["choice"] in CHOICES:
            chosen.setdefault(tuple(row[name] for name in (*PLACE, *WAY)), {})[row["choice"]] = row
    records = [
        {
            **dict(zip([*PLACE, *WAY], key, strict=True)),
            **_figures(rows, without.get(key[:2])),
            **{choice: chosen.get(tuple(map(str, key)), {}).get(choice) for choice in CHOICES},
        }
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
    """Return the figures of one way to steer from its *rows*, those of all layers and multipliers.

    *without* is the row without steering, if there is one.
    """
    there = rows[rows["chosen"] & (rows["status"] == "ok")]
    at = rows[rows["chosen"]] if len(there) else there
    names = ("effect", "effect_se", "nonsense", "nonsense_se")
    effects = [{"multiplier": float(row["multiplier"]), **{name: none_if_nan(row[name]) for name in names}} for _, row in at.iterrows()]
    plain = None if without is None or not len(there) else without
    return {
        "status": "ok" if len(there) else "; ".join(sorted(set(rows["status"].unique()) - {"ok"})) or UNCHOSEN,
        "layer": int(at["layer"].iloc[0]) if len(there) else None,
        "layers": int(rows["layer"].nunique()),
        "n": int(at["n"].min()) if len(there) else 0,
        "n_failed": int(rows["n_failed"].max()),
        **{name: int(rows[name].iloc[0]) for name in ("pairs", "last")},
        **{name: None if plain is None else none_if_nan(plain[column]) for name, column in WITHOUT.items()},
        "effects": effects,
        "monotone": rises(effects),
    }


def rises(effects: Sequence[dict[str, Any]]) -> bool | None:
    """Return whether effects rise with every multiplier, where multiplier 0 has effect 0; None where an effect is missing."""
    known = {some["multiplier"]: some["effect"] for some in effects} | {0.0: 0.0}
    if len(known) == 1 or None in known.values():
        return None
    return all(known[low] < known[high] for low, high in pairwise(sorted(known)))


def layer_effects(steering: pa.Table) -> list[dict[str, Any]]:
    """Return the test half's effects at the smallest and largest multiplier for every layer; skipped ways are left out."""
    test = _steered(_test_half(steering))
    ends = test.groupby([*PLACE, *WAY])["multiplier"].transform(_ends).astype(bool)
    kept = test[ends & (test["status"] == "ok")]
    kept = kept[kept["site"].isin(SITES)]
    columns = [*PLACE, *WAY, "layer", "multiplier", "effect", "effect_se", "chosen"]
    records: list[dict[str, Any]] = pa.Table.from_pandas(kept[columns], preserve_index=False).to_pylist()
    return records


def _ends(multipliers: pd.Series) -> pd.Series:
    """Return which of *multipliers* are the largest positive one or the most negative one."""
    return multipliers.isin([multipliers[multipliers > 0].max(), multipliers[multipliers < 0].min()])


def steering_block(records: Sequence[dict[str, Any]]) -> str:
    """Return the tables of half-ranges, with those of the paper, for card and README; empty without records."""
    if not records:
        return ""
    done = [record for record in records if record["status"] == "ok"]
    whole = [record for record in done if record["site"] in SITES]
    silent, answering = silent_subjects(done), [record for record in whole if answers(record)]
    places: dict[tuple[str, str], dict[tuple[str, ...], dict[str, Any]]] = {}
    for record in whole:
        places.setdefault((record["subject"], record["behaviour"]), {})[tuple(record[name] for name in WAY)] = record
    judged = [record["best"] for record in answering if record["best"] and record["best"]["clear"] is not None]
    filling = {
        "ways": sorted({way for row in places.values() for way in row}, key=lambda way: list(map(_rank, WAY, way))),
        "places": places,
        "elsewhere": [record for record in answering if further_elsewhere(record)],
        "parts": parts_of_states(done),
        "behaviours": list(dict.fromkeys(record["behaviour"] for record in done)),
        "paper": paper_rows({record["behaviour"] for record in records}),
        "read": read_as_in_the_paper(answering),
        "answering": len(answering),
        "rising": sum(record["monotone"] is True for record in answering),
        "judged": len(judged),
        "clear": sum(row["clear"] for row in judged),
        "along": sum(row["clear"] and row["half_range"] > 0 for row in judged),
        "whatever": sum(row["clear"] and row["half_range"] > 0 and row["letter_low"] > 0 for row in judged),
        "silent": silent,
        "largest": max((some["multiplier"] for record in done for some in record["effects"]), default=0),
        "skipped": skipped(records),
        "lab": any(subject.startswith("lab-") for subject, _ in places),
    }
    return render("steering.md.j2", filling)


def further_elsewhere(record: Mapping[str, Any]) -> bool:
    """Return whether another layer than the best one goes further, in either direction."""
    best, largest = record["best"], record["largest"]
    return bool(best and largest and largest["layer"] != best["layer"])


def parts_of_states(records: Sequence[dict[str, Any]]) -> dict[tuple[str, ...], dict[str, dict[str, Any]]]:
    """Return, by subject, part of the state and phase, the row of each behaviour at the layer where that part goes furthest."""
    found: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for record in records:
        if record["site"] not in SITES and record["largest"]:
            found.setdefault((record["subject"], record["site"], record["phase"]), {})[record["behaviour"]] = record["largest"]
    return found


def phases_of_states(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each subject with a state, its median half-range in either phase over behaviours, and the largest by permuted labels.

    *clear* is how many of the *n* behaviours are clear in phase and towards the behaviour.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for record in records:
        if record["site"] == STATE and record["best"] and answers(record):
            found.setdefault(record["subject"], {}).setdefault(record["phase"], []).append(record["best"])
    return [
        {
            "subject": subject,
            **{phase: median(row["half_range"] for row in rows) for phase, rows in phases.items()},
            "permuted": max(row["permuted_high"] for row in phases[ALIGNED]),
            "clear": sum(bool(row["clear"]) and row["half_range"] > 0 for row in phases[ALIGNED]),
            "n": len(phases[ALIGNED]),
        }
        for subject, phases in found.items()
        if phases.keys() == {LATE, ALIGNED} and all(row["permuted_high"] is not None for rows in phases.values() for row in rows)
    ]


def read_as_in_the_paper(records: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Return medians of the same half-ranges as they are told here and as the paper tells them, beside those of permuted labels."""
    told = [(record["best"], record["paper"]) for record in records if record["best"] and record["paper"]]
    known = [(best, paper) for best, paper in told if None not in (best["half_range"], paper["half_range"], paper["permuted_high"])]
    if not known:
        return None
    return {
        "here": median(best["half_range"] for best, _ in known),
        "paper": median(paper["half_range"] for _, paper in known),
        "permuted": max(paper["permuted_high"] for _, paper in known),
        "n": len(known),
    }


def answers(record: dict[str, Any]) -> bool:
    """Return whether the subject answers the questions without steering: at most MOST_NONSENSE is neither answer."""
    return (record["nonsense_without"] or 0) <= MOST_NONSENSE


def silent_subjects(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the subjects that do not answer, each with the behaviours whose questions it does not answer."""
    found: dict[str, list[str]] = {}
    for subject, behaviour in dict.fromkeys((record["subject"], record["behaviour"]) for record in records if not answers(record)):
        found.setdefault(subject, []).append(behaviour)
    return [f"{subject} ({', '.join(behaviours)})" for subject, behaviours in found.items()]


def paper_rows(behaviours: Collection[str]) -> list[dict[str, Any]]:
    """Return the paper's half-ranges of each of its models: for its behaviours in *behaviours*, and the median over all its behaviours."""
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
    """Return the card's table of the effects at every multiplier, a row for each subject, behaviour and way to steer."""
    done = [{**record, "at": {some["multiplier"]: some for some in record["effects"]}} for record in records if record["status"] == "ok"]
    return render("steering_effects.md.j2", {"done": done, "multipliers": sorted({some for record in done for some in record["at"]})})


def skipped(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return why ways to steer were skipped: one record per reason and ways, with its subjects.

    *behaviours* is empty where the reason holds for every behaviour.
    """
    behaviours: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for record in records:
        if record["status"] != "ok":
            ways = behaviours.setdefault((record["subject"], record["status"]), {})
            ways.setdefault(f"{record['method']} at {record['site']}", {})[record["behaviour"]] = None  # once for both phases
    every = {record["behaviour"] for record in records}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (subject, reason), ways in behaviours.items():
        for where in dict.fromkeys(tuple(some) for some in ways.values()):
            names = [way for way, some in ways.items() if tuple(some) == where]
            record = {"reason": reason, "ways": names, "behaviours": [] if set(where) == every else list(where), "subjects": []}
            found.setdefault((reason, *names, where), record)["subjects"].append(subject)
    return list(found.values())
