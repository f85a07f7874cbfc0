"""The `explanations` config; the permuted baseline, with which every explainer is compared; and the names of several samples."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa

from builders.lake.references import OF_LATENT, to_latents
from builders.lake.table import Column, Table
from builders.seeds import uniforms

PERMUTED = "-permuted"  # ends the name of the baseline that gives each latent another latent's explanation
SAMPLE = re.compile(r"-sample-([1-9]\d*)$")  # ends the name under which an explainer's second, third, … answer about a latent stands
EXPLANATIONS = Table(
    name="explanations",
    row="an explanation of a latent by an explainer, or the reason there is none",
    key=("sae", "latent", "explainer"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column(
            "explainer",
            "string",
            f"who explains; `{PERMUTED}` at its end marks the baseline, another latent's explanation, and `-sample-1` a further sample",
            categorical=True,
        ),
        Column("sample", "int32", "which of the explainer's answers about the latent it is; 0 is the first", low=0),
        Column("status", "string", "ok, or why there is no explanation", categorical=True),
        Column("text", "string", "the explanation", nullable=True),
        Column("response", "string", "the explainer's whole answer", nullable=True),
        Column("source_latent", "int32", "the latent whose windows the explainer read", low=0),
        Column("engine", "string", "what ran the explainer", categorical=True),
        Column("model", "string", "the language model that explained", nullable=True, categorical=True),
        Column("prompt_sha256", "string", "SHA-256 of the files that the prompt was made from", nullable=True, categorical=True),
        Column("request_sha256", "string", "SHA-256 of the request and of the engine's identity", nullable=True),
        Column("prompt_tokens", "int64", "tokens read", unit="tokens", nullable=True, low=0),
        Column("cached_tokens", "int64", "those of the tokens read that the engine had read before", unit="tokens", nullable=True, low=0),
        Column("output_tokens", "int64", "tokens written", unit="tokens", nullable=True, low=0),
    ),
    references=(OF_LATENT, to_latents("sae", "source_latent")),
)


def named(explainer: str, sample: int) -> str:
    """Return the name under which the answer number *sample* of *explainer* stands, such as `default` or `default-sample-2`."""
    return f"{explainer}-sample-{sample}" if sample else explainer


def sample_of(explainer: str) -> int:
    """Return the number of the sample that an explainer's name tells, 0 for the first."""
    found = SAMPLE.search(explainer)
    return int(found[1]) if found else 0


def explanation_record(
    sae: str, latent: int, explainer: str, status: str, explanation: str | None, engine: str = "lexical", **more: Any
) -> dict[str, Any]:
    """Return an EXPLANATIONS record; *more* are the columns that only an explainer with a language model has."""
    record: dict[str, Any] = {column.name: None for column in EXPLANATIONS.columns}
    own = {"sae": sae, "latent": latent, "explainer": explainer, "sample": sample_of(explainer), "status": status, "text": explanation}
    return record | own | {"source_latent": latent, "engine": engine} | more


def permuted(rows: pa.Table, seed: int) -> pa.Table:
    """Return the baseline of one explainer's *rows*: every latent gets the first explanation of another latent, never its own.

    The latents are put in a circle in random order (by *seed* and latent), and each takes the explanation of the next. Without two
    explanations there is no baseline. Source: the random interpretations of Paulo et al. 2024 (arXiv:2410.13928).
    """
    explained = [record for record in rows.to_pylist() if record["status"] == "ok" and not record["sample"]]
    if len(explained) < 2:
        return EXPLANATIONS.empty()
    draw = uniforms(seed, np.array([record["latent"] for record in explained]))
    order = np.argsort(draw)
    records = []
    for mine, other in zip(order.tolist(), np.roll(order, -1).tolist(), strict=True):
        own = {name: explained[mine][name] for name in ("sae", "latent")}
        records.append({**explained[other], **own, "explainer": f"{explained[mine]['explainer']}{PERMUTED}"})
    return EXPLANATIONS.rows(records)
