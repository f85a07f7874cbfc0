"""SAEs trained together: one pass over a subject's activations serves every SAE that is still to be trained.

Each SAE is its own stage, and what it learns does not depend on its companions (same rows in the same order, its own
seed). The stage that comes first leaves the others' coders in a folder beside the outputs, where they find them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from builders.errors import UserError
from builders.progress import track
from builders.saes import formats
from builders.saes.coder import SparseCoder
from builders.saes.train import Recipe, Trainer
from builders.seeds import seed_of
from builders.subjects.harvest import harvest, row_batches, shuffled
from pipelines.graph.stage import code, shelf
from pipelines.opened.subjects import Opened
from pipelines.params import Params, TrainedSae, load
from pipelines.parts.ahead import Job


def inputs_of(subject: str) -> dict[str, str]:
    """Return the digests of what an SAE of *subject* is made from."""
    return {"tokens": shelf("tokens", subject).digest, "subject": shelf("subjects", subject).digest}


def settings_of(params: Params, name: str) -> dict[str, Any]:
    """Return the params that decide an SAE."""
    return {"seed": params.seed, "sae": params.saes[name].model_dump(), "training": params.training.model_dump()}


def trained(name: str, params: Params, opened: Opened, rows: pa.Table) -> SparseCoder:
    """Return SAE *name* trained on the vectors of *rows*: now, with its companions, or when one of them was."""
    job = job_of(params, name)
    if not job.ready.exists():
        whole = load()  # companions decide no byte of this stage's output, so it does not declare them
        jobs = [job, *companions(whole, name)][: params.training.together]
        coders = trained_together([one.name for one in jobs], whole, opened, rows)
        for one in jobs:
            unfinished = one.ready.with_suffix(".tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            formats.write(coders[one.name].to("cpu"), unfinished)
            unfinished.rename(one.ready)
    return formats.read(job.ready)


def job_of(params: Params, name: str) -> Job:
    """Return what is to be done to train SAE *name*."""
    return Job("saes", (name,), inputs_of(params.saes[name].subject), settings_of(params, name), code("sae"))


def companions(whole: Params, name: str) -> list[Job]:
    """Return the jobs of the other SAEs of the same subject that are still to be trained."""
    subject = whole.saes[name].subject
    kin = [other for other, spec in whole.saes.items() if isinstance(spec, TrainedSae) and spec.subject == subject and other != name]
    jobs = [job_of(whole, other) for other in kin]
    return [job for job in jobs if not job.done and not job.ready.exists()]


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
