"""The `explanations` config, and the baseline that every explainer is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from builders.lake.table import Column, Table
from builders.seeds import uniforms

PERMUTED = "-permuted"  # ends the name of the baseline that gives each latent another's text
EXPLANATIONS = Table(
    name="explanations",
    row="an explanation of a latent by an explainer, or the reason there is none",
    key=("sae", "latent", "explainer"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column(
            "explainer", "string", f"who explains; `{PERMUTED}` marks the baseline that gives each latent another's text", categorical=True
        ),
        Column("status", "string", "ok, or why there is no text", categorical=True),
        Column("text", "string", "the explanation", nullable=True),
        Column("response", "string", "all that the explainer answered", nullable=True),
        Column("source_latent", "int32", "the latent whose windows the explainer read", low=0),
        Column("engine", "string", "what ran the explainer", categorical=True),
        Column("model", "string", "the language model that explained", nullable=True, categorical=True),
        Column("prompt_sha256", "string", "hash of the files that the prompt was made from", nullable=True, categorical=True),
        Column("request_sha256", "string", "hash of everything that was asked, of whom", nullable=True),
        Column("prompt_tokens", "int64", "tokens read", unit="tokens", nullable=True, low=0),
        Column("cached_tokens", "int64", "those of them that the engine had read before", unit="tokens", nullable=True, low=0),
        Column("output_tokens", "int64", "tokens written", unit="tokens", nullable=True, low=0),
    ),
)


def explanation(
    sae: str, latent: int, explainer: str, status: str, text: str | None, engine: str = "lexical", **more: Any
) -> dict[str, Any]:
    """Return an EXPLANATIONS record; *more* are the columns of an explainer that is a language model."""
    record: dict[str, Any] = {column.name: None for column in EXPLANATIONS.columns}
    own = {"sae": sae, "latent": latent, "explainer": explainer, "status": status, "text": text, "source_latent": latent, "engine": engine}
    return record | own | more


def permuted(rows: pa.Table, seed: int) -> pa.Table:
    """Return *rows* with every text given to another latent (never its own): SCIENCE A3's random interpretation.

    Latents are put in a random order by address and each takes the text of the next one round the circle.
    """
    fine = [record for record in rows.to_pylist() if record["status"] == "ok"]
    if len(fine) < 2:
        return EXPLANATIONS.empty()
    draw = uniforms(seed, np.array([record["latent"] for record in fine]))
    order = np.argsort(draw)
    records = []
    for mine, other in zip(order.tolist(), np.roll(order, -1).tolist(), strict=True):
        own = {name: fine[mine][name] for name in ("sae", "latent")}
        records.append({**fine[other], **own, "explainer": f"{fine[mine]['explainer']}{PERMUTED}"})
    return EXPLANATIONS.rows(records)
