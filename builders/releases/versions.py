"""Semantic versions of releases: what a change demands of the next version.

A schema is a promise to code that reads it. A config, column or dictionary that is gone, and another key, type or unit, break the promise
and need a new major version. What is new needs a minor one; other values, a patch. Below 1.0.0 the minor number plays the major's part,
and the patch number the parts of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from builders.errors import UserError
from builders.releases.compare import ConfigDifference, Difference
from builders.releases.release import Release

Version = tuple[int, int, int]
NULLS = "null allowed → never"  # a column without nulls keeps every promise of one with nulls


class Level(IntEnum):
    """How much a change means to those who read a release."""

    PATCH = 0
    MINOR = 1
    MAJOR = 2


def required(difference: Difference) -> Level:
    """Return the level that a difference demands."""
    return max((level for level, _ in demands(difference)), default=Level.PATCH)


def demands(difference: Difference) -> Iterator[tuple[Level, str]]:
    """Yield each change that demands more than a patch, in words, with its level."""
    for level, what, names in (
        (Level.MAJOR, "config {} removed", difference.configs.removed),
        (Level.MAJOR, "dictionary {} removed", difference.dictionaries.removed),
        (Level.MINOR, "config {} added", difference.configs.added),
        (Level.MINOR, "dictionary {} added", difference.dictionaries.added),
    ):
        yield from ((level, what.format(name)) for name in names)
    for table in difference.tables:
        yield from ((level, f"{table.name}: {what}") for level, what in _of_config(table))


def _of_config(table: ConfigDifference) -> Iterator[tuple[Level, str]]:
    if table.key:
        yield Level.MAJOR, f"key {', '.join(table.key[0])} → {', '.join(table.key[1])}"
    yield from ((Level.MAJOR, f"column {name} removed") for name in table.schema.removed)
    yield from ((Level.MAJOR, change) for change in table.changes if not change.endswith(NULLS))
    yield from ((Level.MINOR, f"column {name} added") for name in table.schema.added)
    if table.rows is not None and (table.rows.added or table.rows.removed):
        yield Level.MINOR, f"{table.rows.added:,} rows added, {table.rows.removed:,} removed"


def next_version(version: str, level: Level) -> Version:
    """Return the smallest version that may follow *version* with a change of *level*."""
    major, minor, patch = parsed(version)
    if major == 0:
        return (0, minor + 1, 0) if level is Level.MAJOR else (0, minor, patch + 1)
    return {Level.MAJOR: (major + 1, 0, 0), Level.MINOR: (major, minor + 1, 0), Level.PATCH: (major, minor, patch + 1)}[level]


def require_version(a: Release | None, b: Release, difference: Difference) -> None:
    """Raise UserError where release *b* has a version too low to follow *a*, as the *difference* between both demands."""
    if a is None:
        return
    if parsed(b.version) <= parsed(a.version):
        raise UserError(
            f"release.version in params.yaml is {b.version}, and {a.version} is released already; set a higher version and run `dvc repro`"
        )
    level = required(difference)
    least = next_version(a.version, level)
    if parsed(b.version) < least:
        changes = [what for found, what in demands(difference) if found is level]
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        named, kind = ".".join(map(str, least)), "schema change" if level is Level.MAJOR else "change"
        raise UserError(
            f"{kind} since {a.version} ({changes[0]}{more}) needs at least {named}; release.version in params.yaml is {b.version}: "
            f"set it to {named} and run `dvc repro`"
        )


def parsed(version: str) -> Version:
    """Return a version's three numbers."""
    major, minor, patch = map(int, version.split("."))
    return major, minor, patch
