"""Published curves of lenses on 15 models: the `lens_reference` config, beside which a rerun can be laid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builders.lake.table import Column, Table
from builders.lenses.published_curves import CE, KL, MODELS

PAPER = "arXiv 2404.05971"
FILES = "github.com/EleutherAI/rnngineering, Lenses/results/{model}/aggregate_metrics.json"

LENS_REFERENCE = Table(
    name="lens_reference",
    row="a lens at one layer of a model, as arXiv 2404.05971 published it",
    key=("model", "lens", "layer"),
    columns=(
        Column("model", "string", "family and size, as its result files call it", categorical=True),
        Column("lens", "string", "`logit` or `tuned`", categorical=True),
        Column("layer", "int32", "how many blocks the vectors have gone through", unit="blocks", low=0),
        Column("family", "string", "`mamba`, `pythia` or `rwkv`", categorical=True),
        Column("recorded", "int32", "number of the layer in the result files, which do not count as we do", low=0),
        Column(
            "alignment", "string", "`known` if it is certain which layer that is, `likely` if it may be one block off", categorical=True
        ),
        Column("layers", "int32", "blocks of the model", unit="blocks", low=1),
        Column("depth", "float64", "layer / layers", low=0, high=1),
        Column("ce_bits", "float64", "cross-entropy of the true next token, to three digits", unit="bits per byte", low=0),
        Column(
            "kl_bits",
            "float64",
            "KL divergence of the lens from the model, to three digits; at five layers of each curve only",
            unit="bits per byte",
            low=0,
            nullable=True,
        ),
        Column("baseline_ce_bits", "float64", "cross-entropy of the model itself", unit="bits per byte", low=0),
        Column("source", "string", "paper and file", categorical=True),
    ),
)


@dataclass(frozen=True)
class Recording:
    """How a family's vectors are numbered: the layer of the first one, and whether that is `known` or `likely`."""

    first: int
    alignment: str


# The lens code evaluates all vectors that a model returns, except the last one. What that one is differs by family.
FAMILIES = {
    # L − 1 vectors. The result files do not say which. Of the two readers of Mamba that are kept in public, one returns what L blocks give
    # (so layers 1 … L − 1 are evaluated) and one the embeddings too (L vectors would be): only the first gives as many as were recorded.
    "mamba": Recording(1, "likely"),
    # L vectors. The transformers library returns what enters each block, and then the normed output, which is left out.
    "pythia": Recording(0, "known"),
    # L vectors. The library returns what each block gives, and then the normed output: the last one recorded is the model, with KL 0.
    "rwkv": Recording(1, "known"),
}


def reference_rows() -> pa.Table:
    """Return the LENS_REFERENCE rows: 15 models, two lenses, all recorded layers.

    Source: Paulo, Marshall & Belrose 2024 (arXiv 2404.05971), the result files named in `source`. The divergences of the logit
    lens in their `layer_transfer` are all 0, and no transfer is taken from them.
    """
    return LENS_REFERENCE.rows([row for model, lens in CE for row in _curve(model, lens)])


def _curve(model: str, lens: str) -> list[dict[str, Any]]:
    family = model.partition("/")[0]
    own, (layers, baseline) = FAMILIES[family], MODELS[model]
    values = [float(value) for value in CE[model, lens].split()]
    places = five_of(len(values))
    divergences = dict(zip(places, map(float, KL[model, lens].split()), strict=True))
    return [
        {
            "model": model,
            "lens": lens,
            "layer": own.first + number,
            "family": family,
            "recorded": number,
            "alignment": own.alignment,
            "layers": layers,
            "depth": (own.first + number) / layers,
            "ce_bits": value,
            "kl_bits": divergences.get(number),
            "baseline_ce_bits": baseline,
            "source": f"{PAPER}; {FILES.format(model=model)}",
        }
        for number, value in enumerate(values)
    ]


def five_of(recorded: int) -> tuple[int, ...]:
    """Return the places, counted from 0, of the first of *recorded* vectors, of those at ¼, ½ and ¾ of their number, and of the last."""
    return (0, recorded // 4, recorded // 2, 3 * recorded // 4, recorded - 1)
