"""Stage `subjects`: checkpoints → one row each with the hashes of its files, which pin it."""

from __future__ import annotations

from builders.lake.shards import Shards
from builders.library import spare_torch
from builders.subjects import checkpoints, places
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same, seen
from pipelines.graph.stage import code, for_each, run
from pipelines.opened.subjects import source_of
from pipelines.params import Params
from pipelines.parts.ahead import Job


def main(*only: str) -> None:
    """Write the row of every subject, or of *only* the one given."""
    params = declared("subjects")
    for_each("subjects", params.subjects, only, lambda subject_id: pin(params, subject_id))


def pin(params: Params, subject_id: str) -> None:
    """Write the row of subject *subject_id*, unless it is finished."""
    spec = params.subjects[subject_id]
    settings = spec.model_dump(exclude={"corpus", "template", "batch_rows", "norm"})  # of these the row says nothing

    def write(shards: Shards) -> bool:
        """Write the row of SUBJECTS; another try gives the same."""
        source = source_of(spec)
        device = checkpoints.resolve_device(spec.device)
        row = checkpoints.subject_row(subject_id, source, places.fetch(source), spec.dtype, device)
        shards.write(checkpoints.SUBJECTS, [checkpoints.SUBJECTS.rows([row])])
        require_same("subjects", subject_id, spec)
        return True

    files = seen("subjects", subject_id, spec)
    Job("subjects", (subject_id,), {"files": files}, settings, code("subjects")).fill(write)


if __name__ == "__main__":
    spare_torch()
    run(main)
