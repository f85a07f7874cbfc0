"""The configs for readers as params ask for them: which tables there are, of which dictionaries, by which scorer and embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from coders import random_coder
from project import small_params
from releases import released
from rows import rows_of

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import Shards
from builders.releases.release import Release
from builders.saes import formats
from builders.saes.coder import SparseCoder, TopK
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.scorers.judgements import SCORES
from builders.text.vocabulary import VOCABULARY
from pipelines.graph.stage import WEIGHTS, folder
from pipelines.params import Params
from pipelines.parts import readers

pytestmark = pytest.mark.numeric

SIZES = {"large": 6, "small": 4, "tiny": 4}
WIDTH = 5


def params_of(**release: Any) -> Params:
    """Return params of three dictionaries of two sizes and a neuron basis, with changes of the section `release`."""
    params = small_params()
    own = {"source": "train", "subject": "lab", "hookpoint": "layers.1", "activation": "topk", "width": WIDTH, "k": 2}
    neurons = {"source": "neurons", "subject": "lab", "hookpoint": "layers.2", "k": 2}
    params["saes"] = {**dict.fromkeys(SIZES, own), "neurons": neurons}
    params["release"] |= release
    return Params.model_validate(params)


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Return a release of what stages wrote for these dictionaries; the working folder holds the output of stage `saes`."""
    monkeypatch.chdir(tmp_path)
    for sae_id, d in SIZES.items():
        shards = Shards(folder("saes", sae_id), {}, {}, "")
        formats.write(coder(d), shards.folder / WEIGHTS)
        for path in (shards.folder / WEIGHTS).iterdir():
            shards.enter(path)
        shards.finish()
    saes: list[dict[str, Any]] = [{"sae": name, "subject": "lab", "format": "sparsify", "d_in": d, "d_out": d} for name, d in SIZES.items()]
    saes.append({"sae": "neurons", "subject": "lab", "format": "none", "d_in": 9, "d_out": 9})
    own = {"sae": "tiny", "latent": 0, "explainer": "lexical"}
    rows = {
        SAES: rows_of(SAES, *saes),
        LATENTS: rows_of(LATENTS, *({"sae": row["sae"], "latent": latent} for row in saes for latent in range(2))),
        EXPLANATIONS: rows_of(EXPLANATIONS, {**own, "status": "ok", "text": "words"}),
        SCORES: rows_of(SCORES, *({**own, "scorer": name, "score": score} for name, score in (("detection", 0.75), ("fuzzing", 0.5)))),
        VOCABULARY: rows_of(VOCABULARY, {"subject": "lab", "token": 0}),
    }
    return released(tmp_path / "release", rows)


def coder(d: int) -> SparseCoder:
    """Return the dictionary of vectors of size *d*."""
    return random_coder(d, WIDTH, d, TopK(2))


def made(found: readers.Made) -> dict[str, pa.Table]:
    """Return the valid rows of each table that was made, by name."""
    tables = {}
    for table, groups in found:
        tables[table.name] = pa.concat_tables(groups)
        table.validate(tables[table.name])
    return tables


def test_each_size_has_a_config(release: Release) -> None:
    """Dictionaries of two sizes have two configs each of directions and of biases; one without a file is in none."""
    vectors, biases = made(readers.vectors(params_of(), release)), made(readers.biases(params_of(), release))

    assert {name: rows["sae"].unique().to_pylist() for name, rows in vectors.items()} == {
        "vectors_4": ["small", "tiny"],
        "vectors_6": ["large"],
    }
    assert {name: rows["sae"].to_pylist() for name, rows in biases.items()} == {"biases_4": ["small", "tiny"], "biases_6": ["large"]}
    assert vectors["vectors_6"]["decoder"].to_pylist() == coder(6).w_dec.tolist()


def test_directions_may_be_left_out(release: Release) -> None:
    """With `release.vectors: null` there are neither directions nor biases, and float16 is their type if it is asked for."""
    nothing, half = params_of(vectors=None), params_of(vectors="float16")

    assert made(readers.vectors(nothing, release)) == made(readers.biases(nothing, release)) == {}
    assert made(readers.vectors(half, release))["vectors_4"].schema.field("encoder").type == pa.list_(pa.float16(), 4)


@pytest.mark.parametrize(("scorer", "score"), [(None, 0.75), ("detection", 0.75), ("fuzzing", 0.5)])
def test_params_name_the_main_scorer(scorer: str | None, score: float, release: Release) -> None:
    """The scorer that params name tells the best explanation; without a name it is the first one. All dictionaries are browsed."""
    rows = made(readers.browse(params_of(scorer=scorer), release))["browse"].to_pylist()

    assert [(row["sae"], row["latent"]) for row in rows] == [(sae, n) for sae in ("large", "neurons", "small", "tiny") for n in range(2)]
    assert [(row["explanation"], row["score"]) for row in rows if row["explanation"]] == [("words", score)]


def test_params_name_the_embedder(release: Release) -> None:
    """Explanations have vectors by the embedder that params name, and none without a name or without explanations."""
    (rows,) = made(readers.embeddings(params_of(), release)).values()
    bare = released(Path("bare"), {SAES: release.read("saes")})

    assert (rows["embedder"].to_pylist(), rows["text"].to_pylist()) == (["letters"], ["words"])
    assert made(readers.embeddings(params_of(embedder=None), release)) == made(readers.embeddings(params_of(), bare)) == {}
