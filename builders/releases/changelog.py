"""The changelog of a release: an entry for each version, made from what differs from the version before."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builders.errors import one_of
from builders.releases.compare import Difference
from builders.releases.shifts import ALL
from builders.releases.versions import Level, demands

HEAD = "# Changelog\n\nWhat each version of this dataset changed since the one before, as `interplake diff` finds it.\n"
ENTRY = re.compile(r"^## ", flags=re.MULTILINE)


def changelog(difference: Difference, before: str = "", date: str | None = None) -> str:
    """Return the changelog *before* with the entry of a new version above its entries, in Markdown.

    An entry of the same version gives way. *date* stands beside the version where it is given.
    """
    entries = [entry for entry in ENTRY.split(before)[1:] if entry.split(maxsplit=1)[0] != difference.after]
    title = difference.after if date is None else f"{difference.after} ({date})"
    lines = _first(difference) if difference.before is None else _later(difference)
    new = f"{title}\n\n" + "".join(f"- {line}\n" for line in lines)
    return "\n".join([HEAD, *(f"## {entry.strip()}\n" for entry in (new, *entries))])


def _first(difference: Difference) -> Iterator[str]:
    rows = sum(difference.rows_after.values())
    yield f"First release: {len(difference.configs.added)} configs with {rows:,} rows, {difference.bytes_after / 1e6:.1f} MB."
    if difference.dictionaries.added:
        yield f"Dictionaries: {_named(difference.dictionaries.added)}."


def _later(difference: Difference) -> Iterator[str]:
    breaking = [what for level, what in demands(difference) if level is Level.MAJOR]
    yield from (f"**Breaking:** {what}." for what in breaking)
    for what, names in (("New", difference.dictionaries.added), ("Changed", difference.dictionaries.changed)):
        if names:
            yield f"{what} dictionaries: {_named(names)}."
    if difference.configs.added:
        yield f"New configs: {_named(difference.configs.added)}."
    for table in difference.tables:
        if table.schema.added:
            yield f"New columns of `{table.name}`: {_named(table.schema.added)}."
    for table in difference.tables:
        counts = {} if table.rows is None else {what: number for what, number in vars(table.rows).items() if number}
        if counts:
            yield f"Rows of `{table.name}`: {', '.join(f'{number:,} {what}' for what, number in counts.items())}; now {table.rows_after:,}."
    if difference.explanations:
        yield f"Explanations with another text: {len(difference.explanations):,}."
    for row in difference.scores:
        if row.kind == ALL and (row.up or row.down):
            mean = f"mean {row.unit} {row.before:.3f} → {row.after:.3f} over {row.n:,} scores"
            yield f"Scores by `{row.scorer}` of explanations by `{row.explainer}`: {mean}."
    files = difference.files
    yield f"Files: {len(files.added)} added, {len(files.removed)} removed, {len(files.changed)} changed, {files.same} the same."


def _named(names: tuple[str, ...]) -> str:
    return one_of(f"`{name}`" for name in names)
