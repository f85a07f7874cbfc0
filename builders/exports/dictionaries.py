"""The dictionaries of a release as other tools name them: by subject and by the number of the layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builders.errors import UserError, one_of
from builders.releases.release import Release

Row = dict[str, Any]  # of a table, by column
EMBEDDING = "e"  # stands for the layer of a dictionary that reads no block, as on Neuronpedia


@dataclass(frozen=True)
class Dictionary:
    """A dictionary: its row of `saes`, and *layer*, the number of the block that it reads; None where it reads none."""

    row: Row
    layer: int | None

    @property
    def sae(self) -> str:
        """Its id."""
        return str(self.row["sae"])

    @property
    def subject(self) -> str:
        """The language model that it reads."""
        return str(self.row["subject"])

    @property
    def hookpoint(self) -> str:
        """What it reads; `tokens` where it reads token ids."""
        return self.row["hookpoint"] or "tokens"

    @property
    def place(self) -> str:
        """The layer as text: its number, or EMBEDDING."""
        return EMBEDDING if self.layer is None else str(self.layer)


def layer_of(hookpoint: str | None) -> int | None:
    """Return the first whole number among the parts of a hookpoint, such as 3 of `layers.3.mlp`; None where there is none."""
    numbers = [part for part in (hookpoint or "").split(".") if part.isdecimal()]
    return int(numbers[0]) if numbers else None


def dictionaries(release: Release, saes: Sequence[str] = ()) -> list[Dictionary]:
    """Return the dictionaries of *release* in order of id, or those that *saes* names; raise UserError where it lacks one of them."""
    rows = {row["sae"]: row for row in release.read("saes").to_pylist()}
    unknown = [sae for sae in saes if sae not in rows]
    if unknown:
        raise UserError(f"{release.root}: has no dictionary {one_of(unknown)}; --sae takes {one_of(rows)}")
    return [Dictionary(rows[sae], layer_of(rows[sae]["hookpoint"])) for sae in sorted(set(saes) or rows)]


def sets_of(chosen: Sequence[Dictionary]) -> dict[str, list[Dictionary]]:
    """Return dictionaries by set: those of one subject whose ids differ in the number of their layer only belong together.

    A set of one has the id of its dictionary; in that of a larger one, `x` stands for the number.
    """
    found: dict[tuple[str, str], list[Dictionary]] = {}
    for each in chosen:
        name = each.sae if each.layer is None else re.sub(rf"(?<!\d){each.layer}(?!\d)", "x", each.sae, count=1)
        found.setdefault((each.subject, name), []).append(each)
    return {name if len(members) > 1 else members[0].sae: members for (_, name), members in sorted(found.items())}
