"""What dvc.yaml declares for each stage, and params cut down to what a stage declares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from builders.errors import UserError, one_of
from pipelines.graph.closure import ROOT
from pipelines.params import Params, load

PIPELINE = ROOT / "dvc.yaml"  # beside the code, whatever the working folder is
WHOLE = {"build/inputs", "build/inputs/sections"}  # a stage that depends on one of these may read all params
SECTION = re.compile(r"^build/inputs/sections/(\w+)\.txt$")  # a stage that depends on such a file may read that section


@dataclass(frozen=True)
class Declared:
    """A stage of dvc.yaml: the params that it reads, as they are written there, what it depends on, and whether it always runs.

    A section of params may be one of its `params`, or a file among its `deps`.
    """

    params: tuple[str, ...]
    deps: tuple[str, ...]
    over: str  # the section of params: the stage runs once for each of its ids; empty where it runs once
    always: bool

    @property
    def sections(self) -> list[str]:
        """The sections of params that it reads, or reads a part of."""
        return sorted({path.split(".")[0] for path in self.params})

    def paths(self, ids: Sequence[str]) -> list[str]:
        """Return the paths of the params that it reads for *ids*: one id of its section, or none where it runs once."""
        return [path.replace("${key}", ids[0]) if ids else path for path in self.params]


@cache
def stages() -> dict[str, Declared]:
    """Return every stage of dvc.yaml."""
    found = {}
    for name, entry in yaml.load(PIPELINE.read_bytes(), yaml.CSafeLoader)["stages"].items():  # a safe loader
        body, over = entry.get("do", entry), entry.get("foreach", "")
        deps = tuple(body.get("deps", ()))
        as_files = [section for dep in deps for section in SECTION.findall(dep)]
        params = tuple(Params.model_fields) if WHOLE & set(deps) else (*body.get("params", ()), *as_files)
        section = over.removeprefix("${").removesuffix("}") if isinstance(over, str) else ""
        found[name] = Declared(params, deps, section, bool(body.get("always_changed")))
    return found


def require_sections(params: Path) -> None:
    """Raise UserError where the YAML file *params* lacks a section that dvc.yaml names: DVC knows nothing of defaults."""
    there = yaml.load(params.read_bytes(), yaml.CSafeLoader)
    some = [stage for stage in stages().values() if not WHOLE & set(stage.deps)]
    absent = sorted({section for stage in some for section in (*stage.sections, stage.over) if section} - there.keys())
    if absent:
        raise UserError(f"{params}: lacks {', '.join(absent)}, which dvc.yaml reads; write what you do not need as `{absent[0]}: {{}}`")


class Undeclared(Params):
    """Params that hold only what a stage declares."""

    def __getattr__(self, name: str) -> Any:
        """Refuse a section that is not declared."""
        raise AttributeError(f"params.{name} is read but not declared; name it among the `params` of the stage in dvc.yaml")


class Named(dict[str, Any]):
    """A section that holds only the ids that a stage declares."""

    def __missing__(self, entry_id: str) -> Any:
        """Refuse an id that is not declared."""
        raise KeyError(f"{entry_id} is read but not declared; name its section among the `params` of the stage in dvc.yaml")


def declared(stage: str, *ids: str) -> Params:
    """Return the params that *stage* declares for *ids*; raise UserError where params do not have such an id.

    Reading any other raises AttributeError or KeyError: a mistake in the code, not the user's.
    """
    whole = load()
    return restricted(whole, stages()[stage].paths(ids))


def restricted(whole: Params, paths: Sequence[str]) -> Params:
    """Return *whole* with only the *paths* in it; a path is a section, an id of a section, or a field of a section."""
    kept: dict[str, Any] = {}
    for path in paths:
        section, _, part = path.partition(".")
        held = getattr(whole, section)
        if not part:
            kept[section] = held
        elif isinstance(held, dict):
            if part not in held:
                raise UserError(f"{section}.{part}: params have no such entry; there are {one_of(held)}")
            kept.setdefault(section, Named())[part] = held[part]
        else:
            kept.setdefault(section, _emptied(type(held))).__dict__[part] = getattr(held, part)
    view: Params = _emptied(Undeclared)
    view.__dict__.update(kept)
    return view


def _emptied(kind: type[Any]) -> Any:
    """Return a section without fields, even those that have a default."""
    section = kind.model_construct()
    section.__dict__.clear()
    return section
