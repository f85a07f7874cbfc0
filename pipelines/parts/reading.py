"""One pass of a subject over its text collects the firings of all dictionaries that lack them; they wait in chunks for their turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from builders.lake.shards import Shards, is_finished
from builders.progress import track
from builders.saes import activations as builder
from builders.saes.encoder import Dictionary, Encoder, read_together
from pipelines.graph.stage import code, folder, shelf
from pipelines.opened.dictionaries import coder_of, mounted
from pipelines.params import InModelParams, Params
from pipelines.parts.ahead import Job


def job_of(params: Params, sae_id: str) -> Job:
    """Return the job that writes the activations of dictionary *sae_id*."""
    inputs = {"tokens": shelf("tokens", params.saes[sae_id].subject).digest, "sae": shelf("saes", sae_id).digest}
    settings = {**params.activations.model_dump(exclude={"together"}), "window": params.tokens.window}
    settings["own batch_rows"] = params.subjects[params.saes[sae_id].subject].batch_rows
    return Job("activations", (sae_id,), inputs, settings, code("activations"))


def companions(params: Params, sae_id: str) -> list[Job]:
    """Return the jobs of the subject's other dictionaries that are made and whose activations are not finished."""
    subject = params.saes[sae_id].subject
    in_subject = [other_id for other_id, spec in params.saes.items() if isinstance(spec, InModelParams) and spec.subject == subject]
    jobs = [job_of(params, other_id) for other_id in in_subject if other_id != sae_id and is_finished(folder("saes", other_id))]
    return [job for job in jobs if not job.noted]


def read(params: Params, job: Job, dictionary: Dictionary, rows: pa.Table) -> list[Path]:
    """Return the files of firings of *dictionary* on *rows*, a chunk each.

    Chunks that were not read with a companion's are read now, for the companions too.
    """
    chunk = params.activations.chunk_rows
    paths, waiting = spill_paths(job, rows.num_rows, chunk), waiting_for(job)
    held = sum(waiting.holds(path) for path in paths)
    if held < len(paths):
        print(f"{job.sae_id}: {held} of {len(paths)} chunks were read before")
        jobs = {job: dictionary}
        if isinstance(dictionary, Encoder):
            others = companions(params, job.sae_id)[: params.activations.together - 1]
            jobs |= {other: beside(dictionary, params, other.sae_id) for other in others}
        read_for(jobs, rows, chunk)
    return paths


def beside(encoder: Encoder, params: Params, sae_id: str) -> Encoder:
    """Return dictionary *sae_id* mounted in the model of *encoder*."""
    spec, coder = params.saes[sae_id], coder_of(params, sae_id, shelf("saes", sae_id)).to(encoder.device)
    if not isinstance(spec, InModelParams):
        raise TypeError(f"{sae_id} is no dictionary in a model")
    return replace(encoder, mounted=mounted(spec, coder))


def waiting_for(job: Job) -> Shards:
    """Open the folder in which the chunks of *job* wait for its stage."""
    return Shards(job.ready, job.inputs, job.settings, job.code)


def spill_paths(job: Job, rows: int, chunk: int) -> list[Path]:
    """Return the paths of the chunks of *job*, for *rows* rows with *chunk* rows each."""
    return [job.ready / f"spill-{number:05d}.safetensors" for number in range(-(-rows // chunk))]


def read_for(jobs: Mapping[Job, Dictionary], rows: pa.Table, chunk: int) -> None:
    """Spill the firings on *rows* for every job that still lacks a chunk; each chunk is read once for all of them."""
    waiting = {job: waiting_for(job) for job in jobs}
    paths = {job: spill_paths(job, rows.num_rows, chunk) for job in jobs}
    starts = range(0, rows.num_rows, chunk)
    for number, start in enumerate(track(starts, f"activations of {', '.join(job.sae_id for job in jobs)}")):
        lacking = [job for job in jobs if not waiting[job].holds(paths[job][number])]
        found = read_together([jobs[job] for job in lacking], rows.slice(start, chunk)) if lacking else []
        for job, firings in zip(lacking, found, strict=True):
            builder.spill(firings, jobs[job].width, paths[job][number])
            waiting[job].enter(paths[job][number])
