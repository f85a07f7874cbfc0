"""Stage `neighbours`: firings and weights of dictionaries → the nearest latents of each latent, by the measures of params."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from builders.arrays import Bools, Ints
from builders.lake.shards import Shards, Shelf
from builders.progress import track
from builders.saes.activations import ACTIVATIONS
from builders.saes.latents import LATENTS
from builders.saes.neighbours import NEIGHBOURS, Near, cofiring, neighbour_rows
from builders.seeds import drawn, seed_of
from builders.text.tokens import TOKENS
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, for_each, run, shelf
from pipelines.params import Params, PlantedRulesParams
from pipelines.parts.ahead import Job


def main(*only: str) -> None:
    """Write the neighbours of the latents of every dictionary, or of *only* the one given."""
    params = declared("neighbours")
    for_each("neighbours", params.by_subject, only, lambda sae_id: find(params, sae_id))


def find(params: Params, sae_id: str) -> None:
    """Write the neighbours of the latents of dictionary *sae_id*, unless they are finished."""
    activations, sae, tokens = shelf("activations", sae_id), shelf("saes", sae_id), shelf("tokens", params.saes[sae_id].subject)
    inputs = {"activations": activations.digest, "saes": sae.digest, "tokens": tokens.digest}
    settings = {"seed": params.seed, **params.neighbours.model_dump()}
    job = Job("neighbours", (sae_id,), inputs, settings, code("neighbours"))
    job.fill(lambda shards: write(params, sae_id, (activations, sae, tokens), shards))


def write(params: Params, sae_id: str, read: tuple[Shelf, Shelf, Shelf], shards: Shards) -> bool:
    """Write NEIGHBOURS of dictionary *sae_id* from its activations, itself and its subject's tokens; another try gives the same."""
    activations, sae, tokens = read
    count = activations.read(LATENTS, columns=["count"])["count"].to_numpy()
    found: dict[str, Near] = {}
    if "cofiring" in params.neighbours.measures:
        latent, token = firings_on(drawn_rows(params, sae_id, tokens), sae_id, activations)
        found["cofiring"] = cofiring(latent, token, len(count), params.neighbours.most)
    found |= by_direction(params, sae_id, sae, count > 0)
    shards.write(NEIGHBOURS, NEIGHBOURS.row_groups(neighbour_rows(sae_id, found)))
    return True


def drawn_rows(params: Params, sae_id: str, tokens: Shelf) -> npt.NDArray[np.integer]:
    """Return the token rows on which firings are counted; they are the same for all dictionaries of a subject."""
    seed = seed_of(params.seed, "cofiring rows", params.saes[sae_id].subject)
    return drawn(np.arange(tokens.rows(TOKENS)), params.neighbours.rows, seed)


def firings_on(rows: npt.NDArray[np.integer], sae_id: str, activations: Shelf) -> tuple[npt.NDArray[np.int32], Ints]:
    """Return the latent and the token of every firing on token *rows*; a token's number is row · 2³² + position."""
    latents, tokens = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
    counted = np.zeros(int(rows.max(initial=-1)) + 2, dtype=bool)
    counted[rows] = True
    for path in track(activations.paths(ACTIVATIONS), f"firings of {sae_id}"):
        table = pq.read_table(path, columns=["latent", "row", "position"])
        latent, row, position = (table[column].to_numpy() for column in table.column_names)
        kept = counted[np.minimum(row, len(counted) - 1)]
        latents.append(latent[kept])
        tokens.append(row[kept].astype(np.int64) << 32 | position[kept])
    return np.concatenate(latents), np.concatenate(tokens)


def by_direction(params: Params, sae_id: str, sae: Shelf, alive: Bools) -> dict[str, Near]:
    """Return the neighbours by decoder and encoder rows, as params ask; planted rules have none."""
    measures = sorted({"decoder", "encoder"} & set(params.neighbours.measures))
    spec = params.saes[sae_id]
    if isinstance(spec, PlantedRulesParams) or not measures:
        return {}
    from builders.saes.geometry import cosines, directions_of  # torch is loaded only where it is needed
    from builders.subjects.checkpoints import resolve_device
    from pipelines.opened.dictionaries import coder_of

    coder = coder_of(params, sae_id, sae).to(resolve_device(params.subjects[spec.subject].device))
    directions = {measure: directions_of(coder, measure) for measure in measures}
    most = params.neighbours.most
    return {measure: cosines(rows, alive, most) for measure, rows in directions.items() if rows is not None}


if __name__ == "__main__":
    run(main)
