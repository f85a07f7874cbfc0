"""The anatomy of all scores of detection and fuzzing, from scores, how often latents fire, and how often judges err."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from builders.lake.shards import Shelf
from builders.saes.latents import LATENTS
from builders.scorers.anatomy import READ, anatomy_rows
from builders.scorers.judgements import SCORES
from builders.scorers.judges import JUDGES
from pipelines.graph.stage import shelf
from pipelines.params import Params
from pipelines.parts.ways import asking, way_of


def inputs_of(params: Params) -> dict[str, str]:
    """Return the hashes of what anatomy reads beside scores."""
    return {"calibration": shelf("calibration").digest} | {f"contexts {sae_id}": shelf("contexts", sae_id).digest for sae_id in params.saes}


def anatomy_of(params: Params, scores: Sequence[Shelf]) -> pa.Table:
    """Return the ANATOMY rows of all *scores*."""
    ways = {scorer_id: way_of(spec) for scorer_id, spec in asking(params).items()}
    found = pa.concat_tables([SCORES.empty().select(READ), *(some.read(SCORES, columns=READ) for some in scores)])
    density = ["sae", "latent", "window_density"]
    latents = pa.concat_tables([shelf("contexts", sae_id).read(LATENTS, columns=density) for sae_id in sorted(params.saes)])
    return anatomy_rows(found.to_pandas(), ways, latents.to_pandas(), shelf("calibration").read(JUDGES).to_pandas())
