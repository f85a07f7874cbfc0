"""Stage `agreement`: all scores → how well scorers agree."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from builders.explainers.explanations import PERMUTED
from builders.lake.shards import Shards, Shelf
from builders.saes.table import SAES
from builders.scorers.agreement import AGREEMENT, agreement_records
from builders.scorers.judgements import SCORES
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, folder, folders, run, shelf


def main() -> None:
    """Write the correlations between all scorers of params; scores of permuted explanations are left out."""
    params = declared("agreement")
    shelves = [Shelf(path) for stage in ("scores", "direct") for path in folders(params, stage)]
    inputs = {f"scores {number}": scores.digest for number, scores in enumerate(shelves)}
    kinds = {sae_id: shelf("saes", sae_id).read(SAES, columns=["kind"])["kind"][0].as_py() for sae_id in params.saes}
    shards = Shards(folder("agreement"), inputs, {"seed": params.seed, "kinds": kinds}, code("agreement"))
    frame = scores_of(shelves)
    frame["kind"] = frame["sae"].map(kinds)
    shards.write(AGREEMENT, [AGREEMENT.rows(agreement_records(frame, params.seed))])
    shards.finish()


def scores_of(shelves: list[Shelf]) -> pd.DataFrame:
    """Return all scores that have a number, without those of permuted explanations."""
    columns = ["sae", "latent", "explainer", "scorer", "score"]
    rows = pa.concat_tables([SCORES.empty().select(columns), *(scores.read(SCORES, columns=columns) for scores in shelves)])
    frame: pd.DataFrame = rows.to_pandas().dropna(subset="score")
    return frame.loc[~frame["explainer"].str.endswith(PERMUTED)]


if __name__ == "__main__":
    run(main)
