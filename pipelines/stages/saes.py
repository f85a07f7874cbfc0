"""Stage `saes`: train dictionaries, fetch them, or make baselines, and measure each on held-out tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from builders.errors import UserError
from builders.lake.shards import Shards, Shelf, file_sha256
from builders.saes import formats
from builders.saes.coder import Coder, GroupMax, Mounted, TopK
from builders.saes.fidelity import fidelity, require_width, sparsity
from builders.saes.neurons import untrained
from builders.saes.table import SAES
from builders.seeds import seed_of, uniforms
from builders.subjects.harvest import harvest
from builders.text.tokens import TOKENS
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import WEIGHTS, folder, for_each, run, shelf
from pipelines.opened.dictionaries import mounted, neuron_basis, place_of, planted, published
from pipelines.opened.subjects import Opened, Subjects
from pipelines.params import (
    InModelParams,
    NeuronBasisParams,
    Params,
    PlantedRulesParams,
    PretrainedSaeParams,
    RandomSaeParams,
    TrainedSaeParams,
)
from pipelines.parts.training import job_of, trained

KINDS = {"train": "trained"}


def main(*only: str) -> None:
    """Write every dictionary, or *only* the one given, unless it is finished."""
    params = declared("saes")
    subjects = Subjects(params)

    def fill(sae_id: str) -> None:
        job_of(params, sae_id).fill(lambda shards: write(subjects, sae_id, shards))

    for_each("saes", params.by_subject, only, fill)


def write(subjects: Subjects, sae_id: str, shards: Shards) -> bool:
    """Write dictionary *sae_id* and its row; another try gives the same."""
    params = subjects.params
    spec = params.saes[sae_id]
    tokens = shelf("tokens", spec.subject)
    rows = tokens.read(TOKENS, columns=["row", "ids", "special", "held_out"])
    held_out = rows.filter(rows["held_out"])
    if held_out.num_rows < 2:  # the standard error of one row is not defined
        raise UserError(f"corpora.{params.subjects[spec.subject].corpus}: fewer than two rows are held out to measure on; raise `held_out`")
    measured = held_out.take(measured_rows(sae_id, params, held_out.num_rows))
    if isinstance(spec, PlantedRulesParams):
        shards.write(SAES, [SAES.rows([{**described(sae_id, params), **counted(tokens, measured)}])])
    else:
        opened = subjects.open(spec.subject)
        found = harvest(opened.model, [spec.reads, spec.rebuilds], rows.slice(0, 1), opened.device).vectors
        sizes = [found[hookpoint].shape[1] for hookpoint in (spec.reads, spec.rebuilds)]
        mounted_coder = mounted(spec, made(sae_id, params, opened, rows, sizes[0]).to(opened.device))
        require_width(mounted_coder, sae_id, *sizes)
        for file in sorted((folder("saes", sae_id) / WEIGHTS).glob("*")):
            shards.enter(file)
        row = {**described(sae_id, params), **of_coder(sae_id, mounted_coder)}
        row |= fidelity(opened.model, mounted_coder, measured, opened.batch or params.training.batch_rows, opened.device)
        shards.write(SAES, [SAES.rows([row])])
    return True


def measured_rows(sae_id: str, params: Params, rows: int) -> pa.Array:
    """Return the numbers of the held-out rows that are measured: as many as params say, drawn by address, or all if there are fewer."""
    draw = uniforms(seed_of(params.seed, "measured rows", params.saes[sae_id].subject), np.arange(rows))
    return pa.array(np.sort(np.argsort(draw)[: params.training.measured_rows]))


def made(sae_id: str, params: Params, opened: Opened, rows: pa.Table, d: int) -> Coder:
    """Return the coder, and write its weights if it has any; *d* is the size of the vectors at its hookpoint."""
    spec, target = params.saes[sae_id], folder("saes", sae_id) / WEIGHTS
    if isinstance(spec, NeuronBasisParams):
        return neuron_basis(params, sae_id, spec, d)
    if isinstance(spec, PretrainedSaeParams):
        place = place_of(spec)
        formats.copy(place, target)
        require_same("saes", sae_id, spec)
        return published(sae_id, spec, target)
    if isinstance(spec, RandomSaeParams):
        coder = untrained(spec.width, d, spec.k, seed_of(params.seed, "random", sae_id, spec.seed))
    else:
        coder = trained(sae_id, params, opened, rows.filter(pc.invert(rows["held_out"]))).to("cpu")
    formats.write(coder, target)
    return coder


def counted(tokens: Shelf, rows: pa.Table) -> dict[str, Any]:
    """Return the columns of SAES for planted rules: how often they fire on *rows*, and nulls for what only an SAE has."""
    rules = planted(tokens)
    found = rules.firings(rows)
    places = np.searchsorted(rows["row"].to_numpy(), found.row)
    text = [sum(not special for special in row) for row in rows["special"].to_pylist()]
    nothing = dict.fromkeys(("fvu", "ce_clean", "ce_spliced", "ce_zeroed", "loss_added", "loss_added_se", "loss_recovered"))
    firings = torch.from_numpy(np.bincount(places, minlength=rows.num_rows))
    alive = len(np.unique(found.latent)) / rules.width
    identity = {"activation": "rule", "width": rules.width, "d_in": None, "d_out": None, "k": None, "format": "none", "sha256": None}
    return {**identity, **nothing, **sparsity(firings, torch.tensor(text), alive)}


def described(sae_id: str, params: Params) -> dict[str, Any]:
    """Return the columns of SAES that follow from params."""
    spec = params.saes[sae_id]
    training = params.training.model_dump() if isinstance(spec, TrainedSaeParams) else {}
    recipe = {"seed": params.seed, **spec.model_dump(exclude={"scored"}), **training}
    own = not isinstance(spec, PretrainedSaeParams)
    return {
        "sae": sae_id,
        "subject": spec.subject,
        "hookpoint": spec.reads if isinstance(spec, InModelParams) else None,
        "writes": spec.rebuilds if isinstance(spec, InModelParams) else None,
        "kind": KINDS.get(spec.source, spec.source),
        "source": (spec.repo or Path(str(spec.path)).name) if isinstance(spec, PretrainedSaeParams) else "made here",
        "revision": spec.revision if isinstance(spec, PretrainedSaeParams) else None,
        "recipe": json.dumps(recipe, sort_keys=True) if own else None,
    }


def of_coder(sae_id: str, mounted_coder: Mounted) -> dict[str, Any]:
    """Return the columns of SAES that follow from the coder."""
    coder, place = mounted_coder.coder, folder("saes", sae_id) / WEIGHTS
    stored = place.is_dir()
    return {
        "format": formats.format_of(place) if stored else "none",
        "sha256": file_sha256(formats.files(place)[-1]) if stored else None,
        "activation": coder.activation.name,
        "width": coder.width,
        "d_in": coder.d_in,
        "d_out": coder.d_out,
        "k": coder.activation.k if isinstance(coder.activation, (TopK, GroupMax)) else None,
    }


if __name__ == "__main__":
    run(main)
