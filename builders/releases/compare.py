"""What differs between two releases: files, schemas, rows by key, dictionaries, explanations, and how far scores have moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from builders.lake.table import Column, Table
from builders.releases.release import Release
from builders.releases.rows import RowChanges, RowCounts, RowExamples, changed_rows, examples_of, taken
from builders.releases.shifts import ScoreShift, score_shifts


@dataclass(frozen=True)
class Names:
    """Names of things of two releases: only in the later one, only in the earlier one, in both but different, and the same in both."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    same: int = 0


@dataclass(frozen=True)
class ConfigDifference:
    """What differs in a config that both releases have.

    *schema* names columns; *changes* says in words what changed in a column's type, unit or nulls; *key* is None where it is the same.
    *rows* is None where the keys differ, so that rows cannot be matched; *examples* are keys of some rows that differ.
    """

    name: str
    schema: Names
    changes: tuple[str, ...]
    key: tuple[tuple[str, ...], tuple[str, ...]] | None
    rows_before: int
    rows_after: int
    rows: RowCounts | None
    examples: RowExamples = field(default_factory=RowExamples)

    @property
    def differs(self) -> bool:
        """Whether anything of it differs."""
        moved = self.rows is None or any(vars(self.rows).values())
        return moved or bool(self.schema.added or self.schema.removed or self.changes or self.key)


@dataclass(frozen=True)
class ExplanationChange:
    """An explanation whose text differs; None where a release has none, because explaining failed there."""

    sae: str
    latent: int
    explainer: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Difference:
    """What differs between a release and a later one, *after*; *before* is None where the later one is the first."""

    name: str
    before: str | None
    after: str
    files: Names
    bytes_after: int
    configs: Names
    rows_after: Mapping[str, int]
    tables: tuple[ConfigDifference, ...] = ()
    dictionaries: Names = field(default_factory=Names)
    explanations: tuple[ExplanationChange, ...] = ()
    scores: tuple[ScoreShift, ...] = ()

    @property
    def disjoint(self) -> bool:
        """Whether both releases have dictionaries, and none of one is in the other."""
        held = self.dictionaries
        return bool(held.added and held.removed) and not (held.changed or held.same)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {**asdict(self), "disjoint": self.disjoint}


def compare(a: Release | None, b: Release) -> Difference:
    """Return what differs from release *a* to *b*; all of *b* is new where *a* is None.

    Files that are the same to the byte are not read, and those that differ one after the other: memory holds sixteen bytes for each of
    their rows.
    """
    files = names_of({} if a is None else a.files, b.files)
    configs = names_of({} if a is None else a.tables, b.tables)
    head = Difference(
        name=b.name,
        before=None if a is None else a.version,
        after=b.version,
        files=files,
        bytes_after=sum(file.bytes for file in b.files.values()),
        configs=Names(configs.added, configs.removed),
        rows_after={name: b.rows(name) for name in configs.added},
        dictionaries=names_of({} if a is None else _dictionaries(a), _dictionaries(b)),
    )
    if a is None:
        return head
    rows = {name: changed_rows(a, b, name) for name in b.tables if name in a.tables and a.tables[name].key == b.tables[name].key}
    tables = tuple(_config(a, b, name, rows.get(name)) for name in b.tables if name in a.tables)
    explanations = tuple(_explanations(a, b, rows.get("explanations")))
    changed = tuple(table.name for table in tables if table.differs)
    names = Names(configs.added, configs.removed, changed, len(tables) - len(changed))
    return Difference(**{**vars(head), "configs": names, "tables": tables, "explanations": explanations, "scores": score_shifts(a, b)})


def names_of(before: Mapping[str, object], after: Mapping[str, object]) -> Names:
    """Return which names came, went, and have another value, in order."""
    both = [name for name in before if name in after]
    changed = [name for name in both if before[name] != after[name]]
    came, went = (sorted(set(one) - set(other)) for one, other in ((after, before), (before, after)))
    return Names(tuple(came), tuple(went), tuple(sorted(changed)), len(both) - len(changed))


def _dictionaries(release: Release) -> dict[str, object]:
    return {row["sae"]: row for row in release.read("saes").to_pylist()} if release.has("saes", "sae") else {}


def _config(a: Release, b: Release, name: str, rows: RowChanges | None) -> ConfigDifference:
    before, after = a.tables[name], b.tables[name]
    schema = names_of(*({column.name: _contract(column) for column in table.columns} for table in (before, after)))
    key = None if before.key == after.key else (before.key, after.key)
    counts, examples = (None, RowExamples()) if rows is None else (rows.counts, examples_of(a, b, name, rows))
    return ConfigDifference(name, schema, tuple(_changes(before, after)), key, a.rows(name), b.rows(name), counts, examples)


def _contract(column: Column) -> dict[str, str]:
    """Return what a reader's code may rely on in a column."""
    return {"type": str(column.arrow), "unit": column.unit or "none", "null": "allowed" if column.nullable else "never"}


def _changes(before: Table, after: Table) -> Iterator[str]:
    earlier = {column.name: _contract(column) for column in before.columns}
    for column in after.columns:
        if column.name in earlier:
            for aspect, new in _contract(column).items():
                if (old := earlier[column.name][aspect]) != new:
                    yield f"{column.name}: {aspect} {old} → {new}"


def _explanations(a: Release, b: Release, rows: RowChanges | None) -> Iterator[ExplanationChange]:
    """Yield the explanations that both releases have with different texts, in key order."""
    columns = ["sae", "latent", "explainer", "text"]
    if rows is None or not len(rows.changed) or not all(release.has("explanations", *columns) for release in (a, b)):
        return
    earlier, later = (taken(release, "explanations", rows.changed, columns).to_pylist() for release in (a, b))
    for old, new in zip(earlier, later, strict=True):
        if old["text"] != new["text"]:
            yield ExplanationChange(new["sae"], new["latent"], new["explainer"], old["text"], new["text"])
