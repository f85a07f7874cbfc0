"""Stage `sae`: train a dictionary, fetch it, or make a baseline; measure it on held-out tokens."""

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
from pipelines.graph.stage import WEIGHTS, code, folder, run, shelf
from pipelines.opened.dictionaries import mounted, neuron_basis, place_of, planted, published
from pipelines.opened.subjects import Opened, open_subject
from pipelines.params import InModel, NeuronBasis, Params, PlantedRules, PretrainedSae, RandomSae, TrainedSae
from pipelines.parts.training import inputs_of, job_of, settings_of, trained

KINDS = {"train": "trained"}


def main(name: str) -> None:
    """Write the dictionary *name* and its row."""
    params = declared("sae", name)
    spec = params.saes[name]
    tokens = shelf("tokens", spec.subject)
    shards = Shards(folder("saes", name), inputs_of(spec.subject), settings_of(params, name), code("sae"))
    rows = tokens.read(TOKENS, columns=["row", "ids", "special", "held_out"])
    held_out = rows.filter(rows["held_out"])
    if held_out.num_rows < 2:  # one row has no spread, hence no standard error
        raise UserError(f"corpora.{params.subjects[spec.subject].corpus}: fewer than two rows are held out to measure on; raise `held_out`")
    measured = held_out.take(measured_rows(name, params, held_out.num_rows))
    if isinstance(spec, PlantedRules):
        shards.write(SAES, [SAES.rows([{**described(name, params), **counted(tokens, measured)}])])
    else:
        opened = open_subject(params, spec.subject)
        found = harvest(opened.model, [spec.reads, spec.rebuilds], rows.slice(0, 1), opened.device).vectors
        sizes = [found[hookpoint].shape[1] for hookpoint in (spec.reads, spec.rebuilds)]
        at_work = mounted(spec, made(name, params, opened, rows, sizes[0]).to(opened.device))
        require_width(at_work, name, *sizes)
        for file in sorted((folder("saes", name) / WEIGHTS).glob("*")):
            shards.enter(file)
        row = {**described(name, params), **of_coder(name, at_work)}
        row |= fidelity(opened.model, at_work, measured, params.training.batch_rows, opened.device)
        shards.write(SAES, [SAES.rows([row])])
    shards.finish()
    if isinstance(spec, TrainedSae):
        job_of(params, name).note_done()


def measured_rows(name: str, params: Params, rows: int) -> pa.Array:
    """Return which of the held-out rows are measured: all, or as many as params say, drawn by address."""
    draw = uniforms(seed_of(params.seed, "measured rows", params.saes[name].subject), np.arange(rows))
    return pa.array(np.sort(np.argsort(draw)[: params.training.measured_rows]))


def made(name: str, params: Params, opened: Opened, rows: pa.Table, d: int) -> Coder:
    """Return the coder, after writing its weights where it has any; *d* is the size of the vectors at its hookpoint."""
    spec, target = params.saes[name], folder("saes", name) / WEIGHTS
    if isinstance(spec, NeuronBasis):
        return neuron_basis(params, name, spec, d)
    if isinstance(spec, PretrainedSae):
        place = place_of(spec)
        formats.copy(place, target)
        require_same("saes", name, spec)
        return published(name, spec, target)
    if isinstance(spec, RandomSae):
        coder = untrained(spec.width, d, spec.k, seed_of(params.seed, "random", name, spec.seed))
    else:
        coder = trained(name, params, opened, rows.filter(pc.invert(rows["held_out"]))).to("cpu")
    formats.write(coder, target)
    return coder


def counted(tokens: Shelf, rows: pa.Table) -> dict[str, Any]:
    """Return the columns of SAES that can be said of rules: how often they fire on *rows*."""
    rules = planted(tokens)
    found = rules.firings(rows)
    places = np.searchsorted(rows["row"].to_numpy(), found.row)
    text = [sum(not special for special in row) for row in rows["special"].to_pylist()]
    nothing = dict.fromkeys(("fvu", "ce_clean", "ce_spliced", "ce_zeroed", "loss_added", "loss_added_se", "loss_recovered"))
    firings = torch.from_numpy(np.bincount(places, minlength=rows.num_rows))
    alive = len(np.unique(found.latent)) / rules.width
    identity = {"activation": "rule", "width": rules.width, "d_in": None, "d_out": None, "k": None, "format": "none", "sha256": None}
    return {**identity, **nothing, **sparsity(firings, torch.tensor(text), alive)}


def described(name: str, params: Params) -> dict[str, Any]:
    """Return the columns of SAES that follow from params."""
    spec = params.saes[name]
    recipe = {"seed": params.seed, **spec.model_dump()} | (params.training.model_dump() if isinstance(spec, TrainedSae) else {})
    own = not isinstance(spec, PretrainedSae)
    return {
        "sae": name,
        "subject": spec.subject,
        "hookpoint": spec.reads if isinstance(spec, InModel) else None,
        "writes": spec.rebuilds if isinstance(spec, InModel) else None,
        "kind": KINDS.get(spec.source, spec.source),
        "source": (spec.repo or Path(str(spec.path)).name) if isinstance(spec, PretrainedSae) else "made here",
        "revision": spec.revision if isinstance(spec, PretrainedSae) else None,
        "recipe": json.dumps(recipe, sort_keys=True) if own else None,
    }


def of_coder(name: str, at_work: Mounted) -> dict[str, Any]:
    """Return the columns of SAES that the coder itself tells."""
    coder, place = at_work.coder, folder("saes", name) / WEIGHTS
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
