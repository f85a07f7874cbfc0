"""Neuronpedia's records and our rows: one function each way for each kind of record.

The fields are those of github.com/hijohnnylin/neuronpedia: the dataclasses in utils/neuronpedia-utils, and, for scores, the table
`ExplanationScore` of its database. What no field is for goes as JSON into a field of free text: `notes`, `jsonDetails`, `dataIndex`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.explainers.explanations import explanation_record
from builders.exports.dictionaries import Dictionary, Row
from builders.exports.files import Record, dumped
from builders.exports.rows import Firing

CREATOR = "clkht01d40000jv08hvalcvly"  # the user whom every new Neuronpedia has
OURS = "interplake_"  # begins our names where all projects share one list of names
MISSING = -10_000.0  # shown as missing, in place of a logit that the release does not hold
NAMED = ("sae", "latent", "explainer", "text", "model")  # columns of explanations that have a field
SCORED = ("sae", "latent", "explainer", "scorer", "score")  # columns of scores that have a field
PLACE = ("split", "example", "quantile", "row", "start")  # columns of contexts that say which window it is


@dataclass(frozen=True)
class Source:
    """What Neuronpedia calls a dictionary: *model* is the subject, *id* its layer and, after a dash, its id here."""

    model: str
    id: str

    @staticmethod
    def of(dictionary: Dictionary) -> Source:
        """Return the source that a dictionary becomes."""
        return Source(dictionary.subject, f"{dictionary.place}-{dictionary.sae}")

    @property
    def sae(self) -> str:
        """The id of the dictionary."""
        return self.id.partition("-")[2].partition("__")[0]

    def at(self, latent: int) -> Record:
        """Return the fields that name a latent."""
        return {"modelId": self.model, "layer": self.id, "index": str(latent)}


def feature(source: Source, row: Mapping[str, Any], firing: Firing) -> Record:
    """Return the Feature of a row of `latents`."""
    return {
        **source.at(row["latent"]),
        "sourceSetName": source.sae,
        "creatorId": CREATOR,
        "maxActApprox": row["max"] or 0.0,
        "frac_nonzero": row["density"],
        "pos_str": row["promotes"],
        "pos_values": [MISSING] * len(row["promotes"]),
        "neg_str": row["suppresses"],
        "neg_values": [MISSING] * len(row["suppresses"]),
        "freq_hist_data_bar_heights": firing.counts,
        "freq_hist_data_bar_values": firing.centres,
    }


def feature_row(record: Record) -> Row:
    """Return the columns of `latents` that a Feature holds."""
    fires = record["frac_nonzero"] > 0
    own = {"density": record["frac_nonzero"], "max": record["maxActApprox"] if fires else None}
    return {**_latent(record), **own, "promotes": record["pos_str"], "suppresses": record["neg_str"]}


def explanation(source: Source, row: Mapping[str, Any]) -> Record:
    """Return the Explanation of a row of `explanations`, which has a text."""
    return {
        "id": _id(source, row["latent"], row["explainer"]),
        **source.at(row["latent"]),
        "authorId": CREATOR,
        "description": row["text"],
        "typeName": OURS + row["explainer"],
        "explanationModelName": row["model"],
        "notes": _rest(row, NAMED),
    }


def explanation_row(record: Record) -> Row:
    """Return the row of `explanations` of an Explanation, whoever made it; its explainer is the type."""
    explainer = str(record.get("typeName") or "unknown").removeprefix(OURS)
    latent = _latent(record)
    known = explanation_record(**latent, explainer=explainer, status="ok", explanation=record["description"], engine="import")
    return known | {"model": record.get("explanationModelName")} | _notes(record, "notes")


def score(source: Source, row: Mapping[str, Any]) -> Record:
    """Return the ExplanationScore of a row of `scores`, which has a score."""
    names = [row[name] for name in ("explainer", "scorer", "negatives", "judge")]
    return {
        "id": _id(source, row["latent"], *names),
        "initiatedByUserId": CREATOR,
        "value": row["score"],
        "explanationId": _id(source, row["latent"], row["explainer"]),
        "explanationScoreTypeName": OURS + row["scorer"],
        "explanationScoreModelName": judge_of(row),
        "jsonDetails": _rest(row, SCORED),
    }


def judge_of(row: Mapping[str, Any]) -> str:
    """Return who scored: the model that answered, or the judge where it is no model."""
    return str(row["model"] or row["judge"])


def score_row(record: Record, explained: Mapping[str, Row]) -> Row:
    """Return the row of `scores` of an ExplanationScore; *explained* are the rows of `explanations` by the id of their record."""
    of = explained[record["explanationId"]]
    known = {name: of[name] for name in ("sae", "latent", "explainer")}
    own = {"scorer": record["explanationScoreTypeName"].removeprefix(OURS), "score": record["value"]}
    return known | own | _notes(record, "jsonDetails")


def activation(source: Source, row: Mapping[str, Any], pieces: npt.NDArray[np.object_]) -> Record:
    """Return the Activation of a row of `contexts`, a window in which the latent fires; *pieces* holds the text of each token id."""
    values = row["activations"]
    return {
        "id": _id(source, row["latent"], row["split"], row["example"]),
        **source.at(row["latent"]),
        "creatorId": CREATOR,
        "tokens": pieces[row["tokens"]].tolist(),
        "values": values,
        "maxValue": max(values),
        "minValue": min(values),
        "maxValueTokenIndex": values.index(max(values)),
        "dataIndex": dumped({name: row[name] for name in PLACE}),
    }


def activation_row(record: Record) -> Row:
    """Return the columns of `contexts` that an Activation holds; *pieces* are the texts of its tokens, in place of their ids."""
    own = {"kind": "activating", "pieces": record["tokens"], "activations": record["values"]}
    return _latent(record) | own | _notes(record, "dataIndex")


def _latent(record: Record) -> Row:
    return {"sae": Source(record["modelId"], record["layer"]).sae, "latent": int(record["index"])}


def _rest(row: Mapping[str, Any], named: Sequence[str]) -> str:
    return dumped({name: value for name, value in row.items() if name not in named and value is not None})


def _notes(record: Record, field: str) -> Row:
    """Return the columns that a field of free text holds; none where somebody else wrote it, or nobody."""
    try:
        found = json.loads(record.get(field) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _id(source: Source, *names: object) -> str:
    """Return an id of the length and letters that theirs have, made from what it names."""
    told = "\x1f".join(map(str, (source.model, source.id, *names)))
    return f"c{hashlib.sha256(told.encode()).hexdigest()[:24]}"
