"""Stage `subject`: a checkpoint → one row with the hashes of its files, which pin it."""

from __future__ import annotations

from builders.lake.shards import Shards
from builders.library import spare_torch
from builders.subjects import checkpoints
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import code, folder, run
from pipelines.opened.subjects import source_of


def main(subject_id: str) -> None:
    """Write the row of subject *subject_id*."""
    subject = declared("subject", subject_id).subjects[subject_id]
    source = source_of(subject)
    device = checkpoints.resolve_device(subject.device)
    row = checkpoints.subject_row(subject_id, source, checkpoints.fetch(source), subject.dtype, device)
    shards = Shards(folder("subjects", subject_id), {}, {"revision": subject.revision, "dtype": subject.dtype}, code("subject"))
    shards.write(checkpoints.SUBJECTS, [checkpoints.SUBJECTS.rows([row])])
    require_same("subjects", subject_id, subject)
    shards.finish()


if __name__ == "__main__":
    spare_torch()
    run(main)
