"""A project whose dictionaries are compared: sisters, a copy, another layer, neurons, rules, and subjects that differ in one thing each."""

from __future__ import annotations

import pydoc_data.topics
from contextlib import chdir
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from project import TOPICS, small_params, write_params
from recurrent import tiny

from builders.saes import formats
from builders.saes.coder import SparseCoder
from builders.saes.latents import LATENTS
from pipelines.graph.closure import ROOT
from pipelines.graph.stage import folder, shelf
from pipelines.stages import activations, contexts, corpora, explanations, saes, similarity, subjects, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from builders.arrays import Ints
    from builders.lake.shards import Shelf
    from builders.lake.table import Table

WIDTH = 64
TOPK = {"source": "train", "subject": "lab", "hookpoint": "layers.1", "activation": "topk", "width": WIDTH, "k": 6}
RANDOM = {"source": "random", "hookpoint": "layers.1", "width": 24, "k": 4}
NEURONS = {"source": "neurons", "k": 8}
SAES: dict[str, dict[str, Any]] = {
    "apart": {**RANDOM, "subject": "apart"},
    "blank": {**RANDOM, "subject": "blank"},
    "copy": {"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "copy"},
    "far": {**TOPK, "hookpoint": "layers.3"},
    "mamba": {**NEURONS, "subject": "mamba", "hookpoint": "layers.1"},
    "mamba-rules": {"source": "planted", "subject": "mamba"},
    "neurons": {**NEURONS, "subject": "lab", "hookpoint": "layers.1.mlp.down_proj.input"},
    "one": {**TOPK, "seed": 0},
    "rules": {"source": "planted", "subject": "lab"},
    "two": {**TOPK, "seed": 1},
}
# `two` is a sister of `one`, so it is compared with no other dictionary.
PAIRS = [pair for pair in combinations(sorted(SAES), 2) if "two" not in pair or pair == ("one", "two")]
MEASURES = ("decoder", "encoder", "pearson", "jaccard", "explanation")
DEAD = 10  # the latent of `copy` that never fires; the others are those of `one` in another order
ORIGIN = np.insert(np.random.default_rng(0).permutation(WIDTH), DEAD, -1)  # of each latent of `copy`: the latent of `one`
SIMILARITY = {
    "measures": list(MEASURES),
    "rows": 60,
    "explainer": "lexical",
    "embedder": "letters",
    "geometry": ["seed", "recipe"],
    "spliced": ["seed", "recipe"],
    "splice_rows": 8,
    "scorer": "detection",
    "transfers": 5,
}


def params_of() -> dict[str, Any]:
    """Return the project's params."""
    params, lab = small_params(), str(ROOT / "checkpoints/lab-transformer")
    params["corpora"]["other"] = {"source": "files", "paths": ["other/*.txt"], "held_out": 0.8}
    params["subjects"] = {
        "lab": {"path": lab, "corpus": "topics"},
        "apart": {"path": lab, "corpus": "other"},
        "blank": {"path": lab, "corpus": "topics", "reinitialised": True},
        "mamba": {"path": "mamba", "corpus": "topics"},
    }
    lexical = {"lexical": {"kind": "lexical", "cues": 6, "baseline": "none"}}
    scorers = {"detection": {"kind": "detection", "judge": "lexical"}}
    return params | {"saes": SAES, "explainers": lexical, "scorers": scorers, "direct_scorers": {}, "similarity": SIMILARITY}


def fill(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Build the project in *folder* up to stage `similarity`; subject `mamba` reads with *tokenizer*, and the others as the lab model."""
    for place, topics, length in (("text", TOPICS, 4000), ("other", ("lambda", "while", "try", "with"), 150)):
        (folder / place).mkdir()
        for topic in topics:
            (folder / place / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:length], encoding="utf-8")
    tiny("mamba2", len(tokenizer)).save_pretrained(folder / "mamba")
    tokenizer.save_pretrained(folder / "mamba")
    params = params_of()
    write_params(folder, params)
    with chdir(folder):
        for corpus_id in params["corpora"]:
            corpora.main(corpus_id)
        for subject_id in params["subjects"]:
            subjects.main(subject_id)
            tokens.main(subject_id)
        saes.main("one")
        formats.write(reordered(formats.read(shelf("saes", "one").folder / "weights")), folder / "copy")
        make(*SAES)
        similarity.main()


def reordered(coder: SparseCoder) -> SparseCoder:
    """Return *coder* with its latents in the order ORIGIN; latent DEAD writes what another one writes, and never fires."""
    order, dead = torch.from_numpy(ORIGIN), torch.from_numpy(ORIGIN < 0)
    w_enc, b_enc = coder.w_enc[order], coder.b_enc[order]
    w_enc[dead], b_enc[dead] = 0, -1
    return SparseCoder(w_enc, b_enc, coder.w_dec[order], coder.b_dec, coder.activation, coder.b_pre)


def make(*names: str) -> None:
    """Run the stages of these dictionaries up to their explanations, in the working folder."""
    for stage in (saes, activations, contexts):
        for sae_id in names:
            stage.main(sae_id)
    for sae_id in names:
        explanations.main("lexical", sae_id)


def change(folder: Path, **sections: dict[str, Any]) -> None:
    """Change params: each section gets these entries or fields."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    write_params(folder, params | {name: params.get(name, {}) | fields for name, fields in sections.items()})


def pair_of(*saes: str) -> Shelf:
    """Open what stage `similarity` left of two dictionaries."""
    return shelf("similarity", *sorted(saes))


def rows(table: Table, *saes: str, **equal: Any) -> list[dict[str, Any]]:
    """Return the rows of *table* of two dictionaries whose columns are *equal* to these values."""
    found: list[dict[str, Any]] = pair_of(*saes).read(table).to_pylist()
    return [row for row in found if equal.items() <= row.items()]


def alive(sae_id: str) -> Ints:
    """Return the latents of a dictionary that ever fire."""
    return np.flatnonzero(shelf("activations", sae_id).read(LATENTS)["count"].to_numpy())


def written(*pairs: tuple[str, str]) -> dict[tuple[str, str], int]:
    """Return when the manifest of each of *pairs* was written."""
    return {pair: (folder("similarity", *pair) / "manifest.json").stat().st_mtime_ns for pair in pairs}
