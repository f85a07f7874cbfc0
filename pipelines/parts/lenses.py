"""Lenses of a subject, made by their kinds; what a run that was cut off has finished is taken from the output folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from builders.lake.shards import Shards
from builders.lenses import formats, jacobian_files
from builders.lenses.accumulator import LENS_CONVERGENCE, Trace
from builders.lenses.convergence import LENS_TRAINING
from builders.lenses.formats import Origin
from builders.lenses.jacobian import JacobianLens, Reach, Sampling, fit, lens_of
from builders.lenses.jacobian_files import REACHES
from builders.lenses.lens import Lens, LogitLens
from builders.lenses.recipe import Recipe, split
from builders.lenses.training import Training, train
from builders.lenses.translators import TunedLens
from builders.seeds import seed_of, uniforms
from builders.subjects.anatomy import Anatomy
from pipelines.graph.stage import WEIGHTS
from pipelines.opened.subjects import Opened, source_of
from pipelines.params import LensesParams, Params

STATE_FILE = "tuned.state"  # of the training of a tuned lens; it is in no manifest, so it goes when the folder is finished


@dataclass(frozen=True)
class Bench:
    """A subject for which lenses are made, the TOKENS *rows* they may learn from (none is held out), and the output folder."""

    subject_id: str
    params: Params
    opened: Opened
    anatomy: Anatomy
    rows: pa.Table
    shards: Shards

    @property
    def settings(self) -> LensesParams:
        """The params of lenses."""
        return self.params.lenses

    def batch(self, usual: int) -> int:
        """Return how many rows the subject reads at once: *usual*, or what its own params say."""
        return self.opened.batch or usual

    @cached_property
    def origin(self) -> Origin:
        """What files say of the model that they belong to."""
        source = source_of(self.params.subjects[self.subject_id])
        unembedding = self.anatomy.unembedding.weight
        return Origin(source.label, source.revision, self.anatomy.last, unembedding)  # type: ignore[arg-type]  # a Linear

    def drawn_rows(self, most: int) -> pa.Table:
        """Return at most *most* of the rows, drawn by address and in the order of the draw: averages that stop early are of any text."""
        draw = uniforms(seed_of(self.params.seed, "jacobian rows", self.subject_id), self.rows["row"].to_numpy())
        return self.rows.take(pa.array(np.argsort(draw, kind="stable")[:most]))


def logit(bench: Bench) -> Lens:  # noqa: ARG001  # there is nothing to be made
    """Return the logit lens."""
    return LogitLens()


def tuned(bench: Bench) -> TunedLens:
    """Train a tuned lens, or go on with it, and write its weights and LENS_TRAINING rows."""
    params, subject_id, seed = bench.settings.tuned, bench.subject_id, bench.params.seed
    recipe = Recipe(**{**params.model_dump(), "batch_rows": bench.batch(params.batch_rows)})
    rows = split(bench.rows, recipe, subject_id, seed)
    training = Training(bench.opened.model, bench.anatomy, rows, recipe, subject_id, seed, bench.opened.device)
    lens, told = train(training, bench.shards.folder / STATE_FILE)
    for file in formats.write(lens, bench.shards.folder / WEIGHTS / lens.name, bench.origin):
        bench.shards.enter(file)
    bench.shards.write(LENS_TRAINING, [told])
    return lens


def jacobian(bench: Bench, reach: Reach) -> JacobianLens:
    """Average the Jacobians of *reach*, and write them with LENS_CONVERGENCE rows; or read them where they are finished."""
    path, number = bench.shards.folder / WEIGHTS / f"{reach.name}.safetensors", list(REACHES).index(reach.name)
    if bench.shards.done(LENS_CONVERGENCE, number) and bench.shards.holds(path):
        return jacobian_files.read(path, bench.origin, bench.opened.device)
    params = bench.settings.jacobian
    sampling = Sampling(
        seed_of(bench.params.seed, "jacobian", bench.subject_id),
        params.positions,
        params.together,
        params.skip,
        params.length,
        batch=bench.batch(bench.settings.batch_rows),
    )
    trace = Trace(params.every, params.tolerance)
    sums = fit(bench.opened.model, bench.anatomy.layers, bench.drawn_rows(params.rows), reach, sampling, trace, bench.opened.device)
    lens = lens_of(sums, reach, bench.opened.device)
    jacobian_files.write(lens, path, bench.origin, sums.positions)
    bench.shards.write(LENS_CONVERGENCE, [LENS_CONVERGENCE.rows(trace.rows(bench.subject_id, reach.name))], number)
    bench.shards.enter(path)
    return lens


MAKERS: dict[str, Callable[[Bench], Lens]] = {
    "logit": logit,
    "tuned": tuned,
    **{name: partial(jacobian, reach=reach) for name, reach in REACHES.items()},
}


def ahead_of(lens: Lens) -> int:
    """Return how many positions a lens looks ahead."""
    return (lens.reach.offset or 0) if isinstance(lens, JacobianLens) else 0
