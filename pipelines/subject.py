"""Stage `subject`: a checkpoint, pinned by the hashes of its files."""

from __future__ import annotations

from builders import subjects
from builders.library import spare_torch
from builders.shards import Shards
from pipelines.declared import declared
from pipelines.inputs import require_same
from pipelines.opened import source_of
from pipelines.stage import code, folder, run


def main(name: str) -> None:
    """Write the row of subject *name*."""
    subject = declared("subject", name).subjects[name]
    source = source_of(subject)
    device = subjects.resolve_device(subject.device)
    row = subjects.subject_row(name, source, subjects.fetch(source), subject.dtype, device)
    shards = Shards(folder("subjects", name), {}, {"revision": subject.revision, "dtype": subject.dtype}, code("subject"))
    shards.write(subjects.SUBJECTS, [subjects.SUBJECTS.rows([row])])
    require_same("subjects", name, subject)
    shards.finish()


if __name__ == "__main__":
    spare_torch()
    run(main)
