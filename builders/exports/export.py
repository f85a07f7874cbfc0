"""A release written in the layout that another tool reads, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError, one_of
from builders.exports import circuit_tracer, neuronpedia_export, original
from builders.exports.dictionaries import Dictionary, dictionaries
from builders.releases.release import Release


@dataclass(frozen=True)
class Layout:
    """A layout: what writes it, and whether it takes only dictionaries that have the number of a layer."""

    write: Callable[[Release, Sequence[Dictionary], Path], None]
    layered: bool = False


LAYOUTS = {
    "neuronpedia": Layout(neuronpedia_export.export),
    "original": Layout(original.export),
    "circuit-tracer": Layout(circuit_tracer.export, layered=True),
}


def export(release: Release, layout: str, out: Path, saes: Sequence[str] = ()) -> list[str]:
    """Write dictionaries of *release*, all or those that *saes* names, into the new folder *out*; return lines that say what was done.

    Raises UserError where *out* is not empty, and where a dictionary is unknown or has no place in the layout.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; name a new folder")
    chosen = dictionaries(release, saes)
    without = [each.sae for each in chosen if LAYOUTS[layout].layered and each.layer is None]
    kept = [each for each in chosen if each.sae not in without]
    if without and (saes or not kept):
        raise UserError(f"{one_of(without)}: the hookpoint names no layer, which {layout} needs; name other dictionaries with --sae")
    staging = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    LAYOUTS[layout].write(release, kept, staging)
    if out.exists():
        out.rmdir()
    staging.rename(out)
    left = [f"left out, since their hookpoints name no layer: {one_of(without)}"] if without else []
    return [f"wrote {release.name} {release.version} to {out}; dictionaries: {len(kept)}", *left]
