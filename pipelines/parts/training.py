"""SAEs trained together: one pass over a subject's activations serves every SAE that is still to be trained.

What an SAE learns does not depend on its companions: every SAE sees the same rows in the same order and has its own seed. The one that
comes first leaves the coders of the others in a folder beside the outputs, where they are found when their turn comes, or after a crash.
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
from pipelines.graph.outside import seen
from pipelines.graph.stage import code, shelf
from pipelines.opened.subjects import Opened
from pipelines.params import Params, TrainedSaeParams
from pipelines.parts.ahead import Job


def settings_of(params: Params, sae_id: str) -> dict[str, Any]:
    """Return what decides SAE *sae_id*: params, and the files outside the project that they name."""
    spec = params.saes[sae_id]
    return {
        "seed": params.seed,
        "sae": spec.model_dump(exclude={"scored"}),
        "training": params.training.model_dump(),
        "batch_rows": params.subjects[spec.subject].batch_rows,
        "files": seen("saes", sae_id, spec),
    }


def trained(sae_id: str, params: Params, opened: Opened, rows: pa.Table) -> SparseCoder:
    """Return SAE *sae_id* trained on the vectors of *rows*: with a companion before, or else now, with its companions."""
    job = job_of(params, sae_id)
    if not job.ready.exists():
        jobs = [job, *companions(params, sae_id)][: params.training.together]
        coders = trained_together([each.sae_id for each in jobs], params, opened, rows)
        for each in jobs:
            unfinished = each.ready.with_suffix(".tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            formats.write(coders[each.sae_id].to("cpu"), unfinished)
            unfinished.rename(each.ready)
    return formats.read(job.ready)


def job_of(params: Params, sae_id: str) -> Job:
    """Return the job that makes dictionary *sae_id*."""
    subject_id = params.saes[sae_id].subject
    inputs = {"tokens": shelf("tokens", subject_id).digest, "subject": shelf("subjects", subject_id).digest}
    return Job("saes", (sae_id,), inputs, settings_of(params, sae_id), code("saes"))


def companions(params: Params, sae_id: str) -> list[Job]:
    """Return the jobs of the other SAEs of the same subject that are still to be trained."""
    subject = params.saes[sae_id].subject
    in_subject = [other_id for other_id, spec in params.saes.items() if isinstance(spec, TrainedSaeParams) and spec.subject == subject]
    jobs = [job_of(params, other_id) for other_id in in_subject if other_id != sae_id]
    return [job for job in jobs if not job.noted and not job.ready.exists()]


def trained_together(sae_ids: list[str], params: Params, opened: Opened, rows: pa.Table) -> dict[str, SparseCoder]:
    """Return SAEs of one subject, trained on the vectors of *rows*, streamed once through a shuffled buffer."""
    shared, specs = params.training, {sae_id: _spec(params, sae_id) for sae_id in sae_ids}
    count = pc.sum(pc.list_value_length(rows["ids"])).as_py() or 0
    if count < 2 * shared.batch:
        raise UserError(
            f"saes.{sae_ids[0]}: {count} training tokens are fewer than two batches of {shared.batch}; lower training.batch or add text"
        )
    steps = shared.passes * count // shared.batch
    generator = torch.Generator().manual_seed(seed_of(params.seed, "training rows", specs[sae_ids[0]].subject))
    order = torch.randperm(rows.num_rows, generator=generator)
    batches = list(row_batches(rows.take(pa.array(order.numpy())), opened.batch or shared.batch_rows))
    hookpoints = sorted({spec.hookpoint for spec in specs.values()})

    def vectors() -> Iterator[dict[str, Tensor]]:
        for part in track(batches, f"training {', '.join(sae_ids)}"):
            yield harvest(opened.model, hookpoints, part, opened.device).vectors

    trainers: dict[str, Trainer] = {}
    for batch in shuffled(vectors(), shared.buffer, shared.passes, shared.batch, generator):
        for sae_id, spec in specs.items():
            x = batch[spec.hookpoint]
            if sae_id not in trainers:
                start = torch.Generator().manual_seed(seed_of(params.seed, "sae", sae_id, spec.seed))
                trainers[sae_id] = Trainer(recipe_of(spec, params), x, steps, start)
            trainers[sae_id].step(x)
    return {sae_id: trainer.coder() for sae_id, trainer in trainers.items()}


def _spec(params: Params, sae_id: str) -> TrainedSaeParams:
    spec = params.saes[sae_id]
    if not isinstance(spec, TrainedSaeParams):
        raise TypeError(f"{sae_id} is no SAE of source `train`")
    return spec


def recipe_of(spec: TrainedSaeParams, params: Params) -> Recipe:
    """Return the training recipe of an SAE."""
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
