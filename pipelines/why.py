"""Explains why a stage runs: compares what dvc.lock recorded at its last run with what is there now."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from builders.errors import UserError, one_of
from pipelines.graph.lock import LOCK, Entry, stages_of
from pipelines.graph.outside import NOTHING
from pipelines.graph.stage import INPUTS, SECTIONS, SOURCES
from pipelines.stages import inputs, sources

CACHE = Path(".dvc/cache/files/md5")
CODE = {"added": "now imports {}", "gone": "no longer imports {}", "changed": "{} has changed"}
FILE = {"added": "{} is new", "gone": "{} is gone", "changed": "{} has changed"}


def reasons(stage: str, since: str | None) -> Iterator[str]:
    """Yield a line for each difference between *stage*, such as `scores@detection`, and its record in dvc.lock (at the commit *since*).

    Raises UserError where dvc.lock has no record of the stage.
    """
    lock = stages_of(LOCK.read_text() if since is None and LOCK.exists() else committed(since or "HEAD"))
    if stage not in lock:
        near = [name for name in lock if name.split("@")[0] == stage.split("@")[0]]
        raise UserError(f"{stage}: dvc.lock does not know it, so it has never run; it knows {one_of(near) or 'no such stage'}")
    sources.main()
    inputs.main()
    now = stages_of(LOCK.read_text()) if LOCK.exists() else {}
    made = {out["path"]: out["md5"] for entry in now.values() for out in entry.get("outs", ())}
    for dep in lock[stage].get("deps", ()):
        path = Path(dep["path"])
        if SOURCES in path.parents or INPUTS in path.parents:
            for file, md5 in files_of(path, dep["md5"], lock):
                yield from changes(file, md5, CODE if SOURCES in path.parents else FILE)
        elif made.get(dep["path"], dep["md5"]) != dep["md5"]:
            yield f"{path} was made again, and its content differs"
    for file, values in lock[stage].get("params", {}).items():
        yield from differences(values, yaml.safe_load(Path(file).read_text()))


def committed(revision: str) -> str:
    """Return the text of dvc.lock at a commit; raise UserError where the commit has none."""
    ended = subprocess.run(["git", "show", f"{revision}:{LOCK}"], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if ended.returncode:
        raise UserError(f"{revision}: git has no {LOCK} there ({ended.stderr.strip()}); name a commit that has one")
    return ended.stdout


def files_of(path: Path, md5: str, lock: Mapping[str, Entry]) -> Iterator[tuple[Path, str]]:
    """Yield the files of a dependency with their earlier hashes, "" for one that is new: itself, or those of a folder.

    DVC keeps a list of the files of a whole output, which the folder is a part of.
    """
    whole = next((out["md5"] for out in lock.get("inputs", {}).get("outs", ()) if out["path"] == INPUTS.as_posix()), "")
    listed = CACHE / whole[:2] / whole[2:]
    if not md5.endswith(".dir") or not (whole and listed.exists()):
        yield path, md5
        return
    before = {INPUTS / entry["relpath"]: entry["md5"] for entry in json.loads(listed.read_bytes())}
    own = {file for file in before if path in file.parents} | set(path.rglob("*.txt"))
    yield from ((file, before.get(file, "")) for file in sorted(own))


def changes(path: Path, md5: str, words: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each difference between a file of hashes now and its earlier content, whose hash is *md5* ("": there was none)."""
    kept = CACHE / md5[:2] / md5[2:]
    if md5 and not kept.exists():
        yield f"{path} may have changed: its earlier content is no longer in DVC's cache"
        return
    if SECTIONS in path.parents:
        yield from differences({path.stem: json.loads(kept.read_bytes())} if md5 else {}, {path.stem: json.loads(path.read_bytes())})
        return
    before, now = lines_of(kept) if md5 else {}, lines_of(path)
    for name in sorted(before.keys() | now.keys()):
        how = "gone" if name not in now else "added" if name not in before else "changed" if before[name] != now[name] else None
        if name.startswith("params.") and how:
            yield f"section {name.removeprefix('params.')} of params: a default, a type or a bound has changed"
        elif how:
            yield words[how].format(name)


def lines_of(path: Path) -> dict[str, str]:
    """Return the hash on each line of a file, by what the line names; a line without a hash is a name of its own."""
    lines = path.read_text().splitlines() if path.exists() else []
    parts = [line.partition(" ") for line in lines if line != NOTHING.strip()]
    return {(rest if len(first) >= 16 else f"{first} {rest}"): first for first, _, rest in parts}


def differences(before: Entry, now: Entry, place: str = "") -> Iterator[str]:
    """Yield a line for each param whose value has changed; a name in *before* may be a path, such as `tokens.window`."""
    for name, value in before.items():
        held: Any = now
        for part in [name] if name in now else name.split("."):
            held = held.get(part) if isinstance(held, dict) else None
        if isinstance(value, dict) and isinstance(held, dict):
            yield from differences(value, held, f"{place}{name}.")
            yield from (f"params {place}{name}.{new} is new: {held[new]!r}" for new in held if new not in value)
        elif held != value:
            yield f"params {place}{name}: {value!r} → {held!r}"
