"""Stage `neighbours`: which latents of a dictionary are near which, by what params ask for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from builders.lake.shards import Shards, Shelf
from builders.progress import track
from builders.saes.activations import ACTIVATIONS
from builders.saes.latents import LATENTS
from builders.saes.neighbours import NEIGHBOURS, Near, cofiring, neighbour_rows
from builders.seeds import drawn, seed_of
from builders.text.tokens import TOKENS
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, folder, run, shelf
from pipelines.params import Params, PlantedRules


def main(name: str) -> None:
    """Write the neighbours of the latents of dictionary *name*."""
    params = declared("neighbours", name)
    settings = params.neighbours
    shelves = {kind: shelf(kind, name) for kind in ("activations", "saes")}
    shelves["tokens"] = shelf("tokens", params.saes[name].subject)
    inputs = {kind: held.digest for kind, held in shelves.items()}
    shards = Shards(folder("neighbours", name), inputs, {"seed": params.seed, **settings.model_dump()}, code("neighbours"))
    count = shelves["activations"].read(LATENTS, columns=["count"])["count"].to_numpy()
    found: dict[str, Near] = {}
    if "cofiring" in settings.measures:
        latent, token = firings_on(drawn_rows(params, name, shelves["tokens"]), name, shelves["activations"])
        found["cofiring"] = cofiring(latent, token, len(count), settings.most)
    found |= by_direction(params, name, shelves["saes"], count > 0)
    shards.write(NEIGHBOURS, NEIGHBOURS.row_groups(neighbour_rows(name, found)))
    shards.finish()


def drawn_rows(params: Params, name: str, tokens: Shelf) -> npt.NDArray[np.integer]:
    """Return the token rows on which firings are counted: the same for all dictionaries of a subject."""
    seed = seed_of(params.seed, "cofiring rows", params.saes[name].subject)
    return drawn(np.arange(tokens.rows(TOKENS)), params.neighbours.rows, seed)


def firings_on(rows: npt.NDArray[np.integer], name: str, activations: Shelf) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the latent and the token of every firing on token *rows*, a number for each token."""
    latents, tokens = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
    counted = np.zeros(int(rows.max(initial=-1)) + 2, dtype=bool)
    counted[rows] = True
    for path in track(activations.paths(ACTIVATIONS), f"firings of {name}"):
        table = pq.read_table(path, columns=["latent", "row", "position"])
        latent, row, position = (table[column].to_numpy() for column in table.column_names)
        kept = counted[np.minimum(row, len(counted) - 1)]
        latents.append(latent[kept])
        tokens.append(row[kept].astype(np.int64) << 32 | position[kept])
    return np.concatenate(latents), np.concatenate(tokens)


def by_direction(params: Params, name: str, sae: Shelf, alive: npt.NDArray[np.bool_]) -> dict[str, Near]:
    """Return the neighbours by the directions of a dictionary; rules over text have none."""
    measures = sorted({"decoder", "encoder"} & set(params.neighbours.measures))
    spec = params.saes[name]
    if isinstance(spec, PlantedRules) or not measures:
        return {}
    from builders.saes.geometry import cosines, directions_of  # torch is loaded only where somebody asks
    from builders.subjects.checkpoints import resolve_device
    from pipelines.opened.dictionaries import coder_of

    coder = coder_of(params, name, sae).to(resolve_device(params.subjects[spec.subject].device))
    directions = {measure: directions_of(coder, measure) for measure in measures}
    most = params.neighbours.most
    return {measure: cosines(rows, alive, most) for measure, rows in directions.items() if rows is not None}


if __name__ == "__main__":
    run(main)
