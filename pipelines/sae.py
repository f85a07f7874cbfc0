"""Stage `sae`: train a sparse dictionary, or fetch one; measure it on held-out tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from builders.corpus import TOKENS
from builders.errors import UserError
from builders.harvest import harvest, row_batches, shuffled
from builders.progress import track
from builders.saes import sparsify
from builders.saes.coder import SparseCoder, TopK
from builders.saes.fidelity import SAES, fidelity, require_width
from builders.saes.train import Recipe, train
from builders.seeds import seed_of, uniforms
from builders.shards import Shards, file_sha256
from builders.subjects import snapshot
from pipelines.opened import Opened, open_subject
from pipelines.params import Params, SparsifySae, TrainedSae, load
from pipelines.stage import folder, run, shelf


def main(name: str) -> None:
    """Write the SAE *name* and its row."""
    params = load()
    spec = params.saes[name]
    tokens, pinned = shelf("tokens", spec.subject), shelf("subjects", spec.subject)
    settings = {"seed": params.seed, "sae": spec.model_dump(), "training": params.training.model_dump()}
    shards = Shards(folder("saes", name), {"tokens": tokens.digest, "subject": pinned.digest}, settings)
    rows = tokens.read(TOKENS, columns=["row", "ids", "special", "held_out"])
    opened = open_subject(params, spec.subject)
    held_out = rows.filter(rows["held_out"])
    if held_out.num_rows < 2:  # one row has no spread, hence no standard error
        raise UserError(f"corpora.{params.subjects[spec.subject].corpus}: fewer than two rows are held out to measure on; raise `held_out`")
    target = folder("saes", name) / spec.hookpoint
    if isinstance(spec, TrainedSae):
        coder = trained(name, params, opened, rows.filter(pc.invert(rows["held_out"])))
        sparsify.write(coder.to("cpu"), target)
    else:
        coder = sparsify.read(fetched(spec)).to(opened.device)
        sparsify.copy(fetched(spec), target)
    width = harvest(opened.model, spec.hookpoint, rows.slice(0, 1), opened.device).vectors.shape[1]
    require_width(coder, name, spec.hookpoint, width)
    files = [target / sparsify.CONFIG, target / sparsify.WEIGHTS]
    for file in files:
        shards.enter(file)
    held_out = held_out.take(measured_rows(name, params, held_out.num_rows))
    measured = fidelity(opened.model, spec.hookpoint, coder, held_out, params.training.batch_rows, opened.device)
    shards.write(SAES, [SAES.rows([{**described(name, params, coder, files[1]), **measured}])])
    shards.finish()


def measured_rows(name: str, params: Params, rows: int) -> pa.Array:
    """Return which of the held-out rows are measured: all, or as many as params say, drawn by address."""
    draw = uniforms(seed_of(params.seed, "measured rows", params.saes[name].subject), np.arange(rows))
    return pa.array(np.sort(np.argsort(draw)[: params.training.measured_rows]))


def trained(name: str, params: Params, opened: Opened, rows: pa.Table) -> SparseCoder:
    """Return an SAE trained on the vectors of *rows*, streamed once through a shuffled buffer."""
    spec, shared = params.saes[name], params.training
    if not isinstance(spec, TrainedSae):
        raise TypeError(f"{name} is not to be trained")
    generator = torch.Generator().manual_seed(seed_of(params.seed, "sae", name))
    order = torch.randperm(rows.num_rows, generator=generator)
    batches = list(row_batches(rows.take(pa.array(order.numpy())), shared.batch_rows))

    def vectors() -> Iterator[Tensor]:
        for part in track(batches, f"training {name}"):
            yield harvest(opened.model, spec.hookpoint, part, opened.device).vectors

    recipe = Recipe(spec.activation, spec.width, spec.k, shared.lr, shared.batch, shared.dead_after)
    texts = pc.sum(pc.list_value_length(rows["ids"])).as_py() or 0
    if texts < 2 * shared.batch:
        raise UserError(f"saes.{name}: {texts} tokens to train on fill no two batches of {shared.batch}; lower training.batch or add text")
    steps = shared.passes * texts // shared.batch
    return train(shuffled(vectors(), shared.buffer, shared.passes, shared.batch, generator), steps, recipe, generator)


def fetched(spec: SparsifySae) -> Path:
    """Return the folder of an SAE's hookpoint, downloading that one folder if it lies on the Hub."""
    if spec.path is not None:
        return Path(spec.path)
    return snapshot(str(spec.repo), spec.revision, [f"{spec.hookpoint}/*"]) / spec.hookpoint


def described(name: str, params: Params, coder: SparseCoder, weights: Path) -> dict[str, object]:
    """Return the columns of SAES that say what the dictionary is."""
    spec = params.saes[name]
    is_trained = isinstance(spec, TrainedSae)
    recipe = {"seed": params.seed, **spec.model_dump(), **params.training.model_dump()} if is_trained else None
    return {
        "sae": name,
        "subject": spec.subject,
        "hookpoint": spec.hookpoint,
        "format": "sparsify",
        "source": "trained here" if isinstance(spec, TrainedSae) else spec.repo or Path(str(spec.path)).name,
        "revision": None if isinstance(spec, TrainedSae) else spec.revision,
        "sha256": file_sha256(weights),
        "activation": coder.activation.name,
        "width": coder.width,
        "d_model": coder.d_model,
        "k": coder.activation.k if isinstance(coder.activation, TopK) else None,
        "recipe": json.dumps(recipe, sort_keys=True) if recipe else None,
    }


if __name__ == "__main__":
    run(main)
