"""One pass of a subject reads its text for every dictionary that is still to be read; chunks of firings wait for their stages."""

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
from pipelines.params import InModel, Params, load
from pipelines.parts.ahead import Job


def job_of(params: Params, name: str) -> Job:
    """Return what is to be done to read dictionary *name*."""
    inputs = {"tokens": shelf("tokens", params.saes[name].subject).digest, "sae": shelf("saes", name).digest}
    settings = {**params.activations.model_dump(exclude={"together"}), "window": params.tokens.window}
    return Job("activations", (name,), inputs, settings, code("activations"))


def companions(whole: Params, name: str) -> list[Job]:
    """Return the jobs of the other dictionaries in the same subject that are made, and still to be read."""
    subject = whole.saes[name].subject
    kin = [other for other, spec in whole.saes.items() if isinstance(spec, InModel) and spec.subject == subject and other != name]
    jobs = [job_of(whole, other) for other in kin if is_finished(folder("saes", other))]
    return [job for job in jobs if not job.done]


def read(params: Params, job: Job, dictionary: Dictionary, rows: pa.Table) -> list[Path]:
    """Return the chunks of firings of *dictionary* on *rows*, read now, with its companions, or when one of them was."""
    chunk = params.activations.chunk_rows
    paths, waiting = spill_paths(job, rows.num_rows, chunk), waiting_for(job)
    held = sum(waiting.holds(path) for path in paths)
    if held < len(paths):
        print(f"{job.name}: {held} of {len(paths)} chunks were read before")
        jobs = {job: dictionary}
        if isinstance(dictionary, Encoder):
            whole = load()  # companions decide no byte of this stage's output, so it does not declare them
            kin = companions(whole, job.name)[: whole.activations.together - 1]
            jobs |= {other: beside(dictionary, whole, other.name) for other in kin}
        read_for(jobs, rows, chunk)
    return paths


def beside(encoder: Encoder, whole: Params, name: str) -> Encoder:
    """Return dictionary *name* at work in the model of *encoder*."""
    spec, coder = whole.saes[name], coder_of(whole, name, shelf("saes", name)).to(encoder.device)
    if not isinstance(spec, InModel):
        raise TypeError(f"{name} is no dictionary in a model")
    return replace(encoder, mounted=mounted(spec, coder))


def waiting_for(job: Job) -> Shards:
    """Open the folder in which the chunks of *job* wait for its stage."""
    return Shards(job.ready, job.inputs, job.settings, job.code)


def spill_paths(job: Job, rows: int, chunk: int) -> list[Path]:
    """Return where the chunks of *rows* wait, so many rows a chunk."""
    return [job.ready / f"spill-{number:05d}.safetensors" for number in range(-(-rows // chunk))]


def read_for(jobs: Mapping[Job, Dictionary], rows: pa.Table, chunk: int) -> None:
    """Spill the firings on *rows* for every job that still lacks a chunk; each chunk is read once for all of them."""
    waiting = {job: waiting_for(job) for job in jobs}
    paths = {job: spill_paths(job, rows.num_rows, chunk) for job in jobs}
    starts = range(0, rows.num_rows, chunk)
    for number, start in enumerate(track(starts, f"activations of {', '.join(job.name for job in jobs)}")):
        lacking = [job for job in jobs if not waiting[job].holds(paths[job][number])]
        found = read_together([jobs[job] for job in lacking], rows.slice(start, chunk)) if lacking else []
        for job, firings in zip(lacking, found, strict=True):
            builder.spill(firings, jobs[job].width, paths[job][number])
            waiting[job].enter(paths[job][number])
