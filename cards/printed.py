"""Latents that a card prints with their contexts, explanations and scores: drawn by address, so that nobody has chosen the good ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.contexts.contexts import evenly, strong
from builders.engines.prompts import free_marks, marked_text
from builders.explainers.explanations import PERMUTED
from builders.seeds import drawn, seed_of
from builders.text.vocabulary import text_of, text_pieces

PRINTED, WINDOWS = 10, 3
OTHERS = ("lexical", "import")  # engines that are no language model


def printed_latents(release: Path, read: Mapping[str, pa.Table], seed: int) -> list[dict[str, Any]]:
    """Return at most PRINTED of the latents that a language model was asked to explain, drawn by address.

    Each has its explanations by every explainer with their scores, and the text of WINDOWS activating test windows, from strong to weak.
    """
    explained = read["explanations"].filter(pc.invert(pc.match_substring(read["explanations"]["explainer"], PERMUTED)))
    asked = explained.filter(pc.invert(pc.is_in(explained["engine"], pa.array(OTHERS))))
    latents = sorted(set(zip(asked["sae"].to_pylist(), asked["latent"].to_pylist(), strict=True)))
    places = drawn(np.arange(len(latents)), PRINTED, seed_of(seed, "printed latents"))
    subjects = dict(zip(read["saes"]["sae"].to_pylist(), read["saes"]["subject"].to_pylist(), strict=True))
    return [
        _printed(release, explained, read["scores"], subjects[sae], sae, latent) for sae, latent in (latents[place] for place in places)
    ]


def _printed(release: Path, explained: pa.Table, scores: pa.Table, subject: str, sae: str, latent: int) -> dict[str, Any]:
    own = [("sae", "==", sae), ("latent", "==", latent)]
    told = [row for row in _of(scores, sae, latent) if row["score"] is not None]
    explanations = [
        {**{name: row[name] for name in ("explainer", "status", "text")}, "scores": list(_scores(told, row["explainer"]))}
        for row in _of(explained, sae, latent)
    ]
    contexts = _read(release, "contexts", [*own, ("split", "==", "test"), ("kind", "==", "activating")]).to_pylist()
    pieces = text_pieces(_read(release, "vocabulary", [("subject", "==", subject)]))
    shown = [contexts[place] for place in evenly(np.arange(len(contexts)), WINDOWS)]
    return {"sae": sae, "latent": latent, "explanations": explanations, "windows": [_window(row, pieces) for row in shown]}


def _of(rows: pa.Table, sae: str, latent: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows.filter((pc.field("sae") == sae) & (pc.field("latent") == latent)).to_pylist()
    return found


def _scores(rows: Sequence[Mapping[str, Any]], explainer: str) -> Iterator[dict[str, Any]]:
    """Yield scorer, judge, score and standard error of an explainer's scores; the AUROC stands for balanced accuracy where there is one."""
    for row in rows:
        if row["explainer"] == explainer:
            score, error = ("score", "score_se") if row["auroc"] is None else ("auroc", "auroc_se")
            yield {"scorer": row["scorer"], "judge": row["judge"], "unit": "AUROC" if score == "auroc" else row["unit"]} | {
                "value": row[score],
                "error": row[error],
            }


def _read(release: Path, name: str, filters: Any) -> pa.Table:
    return pa.concat_tables(pq.read_table(path, filters=filters) for path in sorted((release / name).glob("*.parquet")))


def _window(row: Mapping[str, Any], pieces: Sequence[bytes]) -> str:
    """Return a window's text on one line, with its strong tokens between marks."""
    tokens, values = np.array(row["tokens"], dtype=np.int32), np.array(row["activations"], dtype=np.float32)
    text = marked_text(tokens, strong(values), pieces, free_marks([text_of(tokens, pieces)]))
    return text.replace("\n", "⏎").replace("\t", "⇥")
