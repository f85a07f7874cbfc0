"""What dvc.yaml declares of a stage, and the params that are left to a stage which may read nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from pipelines.graph.closure import ROOT
from pipelines.params import Params, load

PIPELINE = ROOT / "dvc.yaml"  # it belongs to the code
WHOLE = {"build/inputs", "build/inputs/params.txt"}  # what stage `inputs` says of all params: what depends on it may read them all
PLACE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Declared:
    """A stage of dvc.yaml: the params that it reads, as they are written there, what it depends on, and whether it always runs."""

    params: tuple[str, ...]
    deps: tuple[str, ...]
    over: str  # the section for each of whose ids it runs; empty where it runs once
    always: bool

    @property
    def sections(self) -> list[str]:
        """The sections of params that it reads, or reads a part of."""
        return sorted({path.split(".")[0] for path in self.params})

    def paths(self, params: Params, ids: Sequence[str]) -> list[str]:
        """Return the params that it reads when it runs for *ids*: one of its section's, or none."""
        known: dict[str, str] = {}
        for one in ids:
            known = {"key": one} | {f"item.{name}": str(value) for name, value in getattr(params, self.over)[one]}
        return [PLACE.sub(lambda found: known[found[1]], path) for path in self.params]


@cache
def stages() -> dict[str, Declared]:
    """Return every stage of dvc.yaml."""
    found = {}
    for name, entry in yaml.load(PIPELINE.read_bytes(), yaml.CSafeLoader)["stages"].items():  # it is a safe one
        body, over = entry.get("do", entry), entry.get("foreach", "")
        deps = tuple(body.get("deps", ()))
        params = tuple(Params.model_fields) if WHOLE & set(deps) else tuple(body.get("params", ()))
        section = over.removeprefix("${").removesuffix("}") if isinstance(over, str) else ""
        found[name] = Declared(params, deps, section, bool(body.get("always_changed")))
    return found


class Undeclared(Params):
    """Params of which a stage was left what it declares; the rest is not there."""

    def __getattr__(self, name: str) -> Any:
        """Refuse what is not there."""
        raise AttributeError(f"params.{name} is read but not declared; name it among the `params` of the stage in dvc.yaml")


class Named(dict[str, Any]):
    """A section of which a stage was left some ids."""

    def __missing__(self, name: str) -> Any:
        """Refuse what is not there."""
        raise KeyError(f"{name} is read but not declared; name its section among the `params` of the stage in dvc.yaml")


def declared(stage: str, *ids: str) -> Params:
    """Return the params that *stage* declares for *ids*: what it reads beyond them is an error of the code, not of a person."""
    whole = load()
    return left(whole, stages()[stage].paths(whole, ids))


def left(whole: Params, paths: Sequence[str]) -> Params:
    """Return *whole* with nothing in it but *paths*: a section, an id of a section, or a field of one."""
    kept: dict[str, Any] = {}
    for path in paths:
        section, _, part = path.partition(".")
        held = getattr(whole, section)
        if not part:
            kept[section] = held
        elif isinstance(held, dict):
            kept.setdefault(section, Named())[part] = held[part]
        else:
            kept.setdefault(section, _emptied(type(held))).__dict__[part] = getattr(held, part)
    view: Params = _emptied(Undeclared)
    view.__dict__.update(kept)
    return view


def _emptied(kind: type[Any]) -> Any:
    """Return a section without any field, not even those that have a default."""
    section = kind.model_construct()
    section.__dict__.clear()
    return section
