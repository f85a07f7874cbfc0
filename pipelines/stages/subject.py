"""Stage `subject`: a checkpoint, pinned by the hashes of its files."""

from __future__ import annotations

from builders.lake.shards import Shards
from builders.library import spare_torch
from builders.subjects import checkpoints
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import code, folder, run
from pipelines.opened.subjects import source_of


def main(name: str) -> None:
    """Write the row of subject *name*."""
    subject = declared("subject", name).subjects[name]
    source = source_of(subject)
    device = checkpoints.resolve_device(subject.device)
    row = checkpoints.subject_row(name, source, checkpoints.fetch(source), subject.dtype, device)
    shards = Shards(folder("subjects", name), {}, {"revision": subject.revision, "dtype": subject.dtype}, code("subject"))
    shards.write(checkpoints.SUBJECTS, [checkpoints.SUBJECTS.rows([row])])
    require_same("subjects", name, subject)
    shards.finish()


if __name__ == "__main__":
    spare_torch()
    run(main)
