"""Stage `agreement`: all scores → how far scorers agree."""

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
    """Write the correlations between all scorers of params, permuted explanations left out."""
    params = declared("agreement")
    shelves = [Shelf(path) for stage in ("scores", "direct") for path in folders(params, stage)]
    inputs = {f"scores {number}": shelf.digest for number, shelf in enumerate(shelves)}
    kinds = {name: shelf("saes", name).read(SAES, columns=["kind"])["kind"][0].as_py() for name in params.saes}
    shards = Shards(folder("agreement"), inputs, {"seed": params.seed, "kinds": kinds}, code("agreement"))
    scores = scores_of(shelves)
    scores["kind"] = scores["sae"].map(kinds)
    shards.write(AGREEMENT, [AGREEMENT.rows(agreement_records(scores, params.seed))])
    shards.finish()


def scores_of(shelves: list[Shelf]) -> pd.DataFrame:
    """Return all scores that are there, but for permuted explanations."""
    columns = ["sae", "latent", "explainer", "scorer", "score"]
    rows = pa.concat_tables([SCORES.empty().select(columns), *(shelf.read(SCORES, columns=columns) for shelf in shelves)])
    frame: pd.DataFrame = rows.to_pandas().dropna(subset="score")
    return frame.loc[~frame["explainer"].str.endswith(PERMUTED)]


if __name__ == "__main__":
    run(main)
