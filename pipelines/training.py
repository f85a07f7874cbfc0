"""SAEs trained together: one pass over a subject's activations serves every SAE that is still to be trained.

Each SAE is its own stage, and what it learns does not depend on its companions (same rows in the same order, its own
seed). The stage that comes first leaves the others' coders in a folder beside the outputs, where they find them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from builders.errors import UserError
from builders.harvest import harvest, row_batches, shuffled
from builders.progress import track
from builders.saes import formats
from builders.saes.coder import SparseCoder
from builders.saes.train import Recipe, Trainer
from builders.seeds import seed_of
from builders.shards import code_sha256, is_current, write_atomic
from pipelines.opened import Opened
from pipelines.params import Params, TrainedSae
from pipelines.stage import BUILD, folder, shelf

READY = BUILD / ".trained"


def inputs_of(subject: str) -> dict[str, str]:
    """Return the digests of what an SAE of *subject* is made from."""
    return {"tokens": shelf("tokens", subject).digest, "subject": shelf("subjects", subject).digest}


def settings_of(params: Params, name: str) -> dict[str, Any]:
    """Return the params that decide an SAE."""
    return {"seed": params.seed, "sae": params.saes[name].model_dump(), "training": params.training.model_dump()}


def trained(name: str, params: Params, opened: Opened, rows: pa.Table) -> SparseCoder:
    """Return SAE *name* trained on the vectors of *rows*: now, with its companions, or when one of them was."""
    place = _ready(params, name)
    if not place.exists():
        together = [name, *companions(name, params)][: params.training.together]
        for one, coder in trained_together(together, params, opened, rows).items():
            unfinished = _ready(params, one).with_suffix(".tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            formats.write(coder.to("cpu"), unfinished)
            unfinished.rename(_ready(params, one))
    coder = formats.read(place)
    shutil.rmtree(place)
    write_atomic(READY / f"{name}.made", place.name.encode())
    return coder


def companions(name: str, params: Params) -> list[str]:
    """Return the other SAEs of the same subject that are still to be trained."""
    subject = params.saes[name].subject
    kin = [other for other, spec in params.saes.items() if isinstance(spec, TrainedSae) and spec.subject == subject and other != name]
    return [other for other in kin if not _is_trained(params, other)]


def _is_trained(params: Params, name: str) -> bool:
    """Return whether an SAE waits for its stage, or its stage is finished: as far as is known, by this code."""
    ready, made = _ready(params, name), READY / f"{name}.made"
    if ready.exists() or made.exists():
        return ready.exists() or made.read_text() == ready.name
    return is_current(folder("saes", name), inputs_of(params.saes[name].subject), settings_of(params, name))


def _ready(params: Params, name: str) -> Path:
    """Return where a coder waits for its stage, named after all that decides it."""
    address = [settings_of(params, name), inputs_of(params.saes[name].subject), code_sha256()]
    return READY / f"{name}-{hashlib.sha256(json.dumps(address, sort_keys=True).encode()).hexdigest()[:16]}"


def trained_together(names: list[str], params: Params, opened: Opened, rows: pa.Table) -> dict[str, SparseCoder]:
    """Return SAEs of one subject, trained on the vectors of *rows*, streamed once through a shuffled buffer."""
    shared, specs = params.training, {name: _spec(params, name) for name in names}
    texts = pc.sum(pc.list_value_length(rows["ids"])).as_py() or 0
    if texts < 2 * shared.batch:
        raise UserError(
            f"saes.{names[0]}: {texts} tokens to train on fill no two batches of {shared.batch}; lower training.batch or add text"
        )
    steps = shared.passes * texts // shared.batch
    generator = torch.Generator().manual_seed(seed_of(params.seed, "training rows", specs[names[0]].subject))
    order = torch.randperm(rows.num_rows, generator=generator)
    batches = list(row_batches(rows.take(pa.array(order.numpy())), shared.batch_rows))
    hookpoints = sorted({spec.hookpoint for spec in specs.values()})

    def vectors() -> Iterator[dict[str, Tensor]]:
        for part in track(batches, f"training {', '.join(names)}"):
            yield harvest(opened.model, hookpoints, part, opened.device).vectors

    trainers: dict[str, Trainer] = {}
    for batch in shuffled(vectors(), shared.buffer, shared.passes, shared.batch, generator):
        for name, spec in specs.items():
            x = batch[spec.hookpoint]
            if name not in trainers:
                start = torch.Generator().manual_seed(seed_of(params.seed, "sae", name, spec.seed))
                trainers[name] = Trainer(recipe_of(spec, params), x, steps, start)
            trainers[name].step(x)
    return {name: trainer.coder() for name, trainer in trainers.items()}


def _spec(params: Params, name: str) -> TrainedSae:
    spec = params.saes[name]
    if not isinstance(spec, TrainedSae):
        raise TypeError(f"{name} is not to be trained")
    return spec


def recipe_of(spec: TrainedSae, params: Params) -> Recipe:
    """Return how an SAE is trained."""
    return Recipe(
        activation=spec.activation,
        width=spec.width,
        lr=params.training.lr,
        dead_after=params.training.dead_after,
        k=spec.k or 0,
        l1=spec.l1 or 0.0,
        multi_topk=spec.multi_topk,
        aux_weight=spec.auxk,
    )
