"""Stage `lenses`: subjects × tokens → lenses, and what each says at each layer of held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders.arrays import Ints
from builders.errors import UserError
from builders.lake.shards import Shards, Shelf
from builders.lenses.accumulator import LENS_CONVERGENCE
from builders.lenses.convergence import LENS_TRAINING
from builders.lenses.decisions import LENS_DECISIONS, decision_rows
from builders.lenses.jacobian_files import REACHES
from builders.lenses.lens import Lens, LogitLens
from builders.lenses.lenses import LENSES, measure
from builders.lenses.trajectories import PROMPTS, TRAJECTORIES, trajectory_rows
from builders.lenses.transfer import LENS_TRANSFER, transfer
from builders.seeds import drawn, seed_of
from builders.subjects import checkpoints, places
from builders.subjects.anatomy import anatomy_of
from builders.text.tokens import TOKENS
from builders.text.vocabulary import VOCABULARY
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import code, for_each, run, shelf
from pipelines.opened.subjects import Subjects, source_of
from pipelines.params import Params
from pipelines.parts.ahead import Job
from pipelines.parts.lenses import MAKERS, Bench, ahead_of

TABLES = (LENSES, LENS_TRANSFER, LENS_DECISIONS, TRAJECTORIES, LENS_TRAINING, LENS_CONVERGENCE)
COLUMNS = ["row", "document", "held_out", "ids", "special", "bytes"]  # of TOKENS


def main(*only: str) -> None:
    """Make and measure the lenses of every subject, or of *only* the one given."""
    params = declared("lenses")
    subjects = Subjects(params)
    for_each("lenses", params.subjects, only, lambda subject_id: look(subjects, subject_id))


def look(subjects: Subjects, subject_id: str) -> None:
    """Write the lenses of subject *subject_id* and what they say, unless they are finished.

    A subject with random weights says nothing, so it has no lenses.
    """
    params, spec = subjects.params, subjects.params.subjects[subject_id]
    inputs: dict[str, str] = {}
    settings: dict[str, Any] = {}
    if params.lenses.kinds and not spec.reinitialised:
        inputs = {stage: shelf(stage, subject_id).digest for stage in ("subjects", "tokens")}
        settings = {"seed": params.seed, "bos": params.tokens.bos, "batch_rows": spec.batch_rows, "norm": spec.norm}
        settings["lenses"] = params.lenses.model_dump()
    job = Job("lenses", (subject_id,), inputs, settings, code("lenses"))
    job.fill(lambda shards: write(subjects, subject_id, shards, asked=bool(settings)))


def write(subjects: Subjects, subject_id: str, shards: Shards, *, asked: bool) -> bool:
    """Write all TABLES of a subject, empty where nothing is asked, and the weights of its lenses; another try gives the same."""
    if asked:
        params, tokens = subjects.params, shelf("tokens", subject_id)
        opened = subjects.open(subject_id)
        anatomy = anatomy_of(opened.model, params.subjects[subject_id].norm)
        rows = tokens.read(TOKENS, columns=COLUMNS)
        bench = Bench(subject_id, params, opened, anatomy, rows.filter(pc.invert(rows["held_out"])), shards)
        lenses = [MAKERS[kind](bench) for kind in params.lenses.kinds]
        require_same("subjects", subject_id, params.subjects[subject_id])
        held_out = measured(params, subject_id, rows.filter(rows["held_out"]))
        for ahead in sorted({ahead_of(lens) for lens in lenses}):
            read_through(bench, [lens for lens in lenses if ahead_of(lens) == ahead], held_out, tokens, ahead)
        follow(bench, [lens for lens in lenses if not ahead_of(lens)], tokens)
    for table in TABLES:
        if not any(shards.done(table, number) for number in range(len(REACHES))):
            shards.write(table, [table.empty()])
    return True


def measured(params: Params, subject_id: str, held_out: pa.Table) -> pa.Table:
    """Return the rows to measure on: as many of *held_out* as params say, drawn by address, or all if there are fewer."""
    if not held_out.num_rows:
        raise UserError(f"corpora.{params.subjects[subject_id].corpus}: no row is held out to measure lenses on; raise `held_out`")
    seed = seed_of(params.seed, "lens rows measured")  # for all subjects: those with one tokenizer are measured on one text
    return held_out.take(drawn(np.arange(held_out.num_rows), params.lenses.rows, seed))


def read_through(bench: Bench, lenses: Sequence[Lens], rows: pa.Table, tokens: Shelf, ahead: int) -> None:
    """Write what *lenses* that look *ahead* equally far say on *rows*: LENSES, LENS_DECISIONS and LENS_TRANSFER, each a shard."""
    model, subject_id, shards, settings = bench.opened.model, bench.subject_id, bench.shards, bench.settings
    batch, device = bench.batch(settings.batch_rows), bench.opened.device
    if not (shards.done(LENSES, ahead) and shards.done(LENS_DECISIONS, ahead)):
        found = measure(model, bench.anatomy, lenses, subject_id, rows, batch, device, ahead)
        shards.write(LENSES, [found.lenses], ahead)
        counts = counts_of(tokens, bench.anatomy.vocabulary)
        shards.write(LENS_DECISIONS, [decision_rows(subject_id, found.tops, counts, bench.params.seed)], ahead)
    of_layers = [lens for lens in lenses if not isinstance(lens, LogitLens)]
    if settings.transfer_rows and of_layers and not shards.done(LENS_TRANSFER, ahead):
        some = rows.slice(0, settings.transfer_rows)
        shards.write(LENS_TRANSFER, [transfer(model, bench.anatomy, of_layers, subject_id, some, batch, device, ahead)], ahead)


def counts_of(tokens: Shelf, vocabulary: int) -> Ints:
    """Return how often each token occurs in the corpus [vocabulary]; a model may have ids that its tokenizer never makes."""
    known = tokens.read(VOCABULARY, columns=["token", "count"])
    counts: Ints = np.zeros(max(vocabulary, known.num_rows), dtype=np.int64)
    counts[known["token"].to_numpy()] = known["count"].to_numpy()
    return counts


def follow(bench: Bench, lenses: Sequence[Lens], tokens: Shelf) -> None:
    """Write TRAJECTORIES: what *lenses* that read their own position say, layer by layer, of the built-in prompts and those of params."""
    if not lenses or bench.shards.done(TRAJECTORIES):
        return
    source = source_of(bench.params.subjects[bench.subject_id])
    tokenizer = checkpoints.tokenizer_of(source, places.fetch(source))
    pieces = tokens.read(VOCABULARY, columns=["bytes"])["bytes"].to_pylist()
    prompts, bos = {**PROMPTS, **bench.settings.prompts}, bench.params.tokens.bos
    found = trajectory_rows(
        bench.subject_id, bench.opened.model, bench.anatomy, lenses, prompts, tokenizer, pieces, bos, bench.opened.device
    )
    bench.shards.write(TRAJECTORIES, TRAJECTORIES.row_groups(found))


if __name__ == "__main__":
    run(main)
