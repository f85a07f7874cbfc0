"""Stage `agreement`: all scores → how far they agree and differ, the best of several samples, what they are made of, what predicts them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from builders.explainers.explanations import PERMUTED
from builders.lake.shards import Shards, Shelf
from builders.saes.table import SAES
from builders.scorers.agreement import AGREEMENT, Facts, agreement_records
from builders.scorers.anatomy import ANATOMY
from builders.scorers.best import BEST, OF_PART, READ, best_records, figures, half_scores
from builders.scorers.judgements import JUDGEMENTS, SCORES
from builders.seeds import seed_of
from builders.similarity.stability import STABILITY, STABILITY_SCORES, stability_score_records
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, folder, folders, run, shelf
from pipelines.params import AskingExplainerParams, Params
from pipelines.parts.anatomy import anatomy_of, inputs_of
from pipelines.parts.sisters import counts, pair_folders, stability

NEGATIVES = ("negatives", "marks")  # the params of a scorer that say which its negatives are, and how they are marked


def main() -> None:
    """Write what all scorers of params have in common, what explanations have with the same ones permuted, and what choosing brings."""
    params = declared("agreement")
    shelves = [Shelf(path) for stage in ("scores", "direct") for path in folders(params, stage)]
    inputs = {f"scores {number}": scores.digest for number, scores in enumerate(shelves)} | inputs_of(params)
    inputs |= {f"similarity {sae_id}": " ".join(found.digest for found in pair_folders(params, sae_id)) for sae_id in params.saes}
    kinds = {sae_id: shelf("saes", sae_id).read(SAES, columns=["kind"])["kind"][0].as_py() for sae_id in params.saes}
    frame = scores_of(shelves)
    frame["kind"] = frame["sae"].map(kinds)
    facts = facts_of(params, frame)
    settings = {"seed": params.seed, "kinds": kinds, "scorers": {scorer: vars(known) for scorer, known in facts.items()}}
    settings["samples"] = samples = samples_of(params)
    shards = Shards(folder("agreement"), inputs, settings, code("agreement"))
    shards.write(AGREEMENT, [AGREEMENT.rows(agreement_records(frame, facts, params.seed))])
    shards.write(BEST, [BEST.rows(list(best_of_samples(params, samples, facts, kinds)))])
    shards.write(ANATOMY, [anatomy_of(params, shelves)])
    stable = pa.concat_tables(stability(params, sae_id) for sae_id in sorted(params.saes))
    shards.write(STABILITY, STABILITY.row_groups(stable))
    known = frame[~frame["explainer"].str.endswith(PERMUTED)]
    related = stability_score_records(stable.to_pandas(), known, counts(params), params.seed)
    shards.write(STABILITY_SCORES, [STABILITY_SCORES.rows(list(related))])
    shards.finish()


def scores_of(shelves: list[Shelf]) -> pd.DataFrame:
    """Return all scores that have a number."""
    columns = ["sae", "latent", "explainer", "scorer", "unit", "chance", "score"]
    rows = pa.concat_tables([SCORES.empty().select(columns), *(scores.read(SCORES, columns=columns) for scores in shelves)])
    frame: pd.DataFrame = rows.to_pandas()
    return frame.dropna(subset="score")


def facts_of(params: Params, scores: pd.DataFrame) -> dict[str, Facts]:
    """Return the facts of each scorer; the params of scorers of one family are the same but for NEGATIVES and the number of latents."""
    specs = {**params.scorers, **params.direct_scorers}
    found = {}
    for scorer, unit, chance in scores.drop_duplicates("scorer")[["scorer", "unit", "chance"]].itertuples(index=False, name=None):
        spec = specs[scorer].model_dump()
        negatives = " ".join(str(spec[name]) for name in NEGATIVES if name in spec)
        family = {name: value for name, value in spec.items() if name not in {*NEGATIVES, "latents"}}
        found[scorer] = Facts(unit, chance, negatives, json.dumps(family, sort_keys=True))
    return found


def samples_of(params: Params) -> dict[str, int]:
    """Return how many explanations of each latent an explainer was asked for, by explainer; those asked once are left out."""
    asking = {name: spec for name, spec in sorted(params.explainers.items()) if isinstance(spec, AskingExplainerParams)}
    return {name: spec.samples for name, spec in asking.items() if spec.samples > 1}


def best_of_samples(
    params: Params, samples: Mapping[str, int], facts: Mapping[str, Facts], kinds: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the BEST records of every explainer with several *samples* and every scorer whose scores follow from judgements."""
    for explainer, count in samples.items():
        for scorer in sorted(set(params.scorers) & set(facts)):
            known, of_sae = facts[scorer], {}
            if known.unit not in OF_PART or getattr(params.scorers[scorer], "ablate", False):  # there the best score is the lowest
                continue
            for sae_id in kinds:
                rows = shelf("scores", sae_id, explainer, scorer).read(JUDGEMENTS, columns=READ)
                seed = seed_of(params.seed, "halves", sae_id, scorer)
                of_sae[sae_id] = figures(half_scores(rows, explainer, count, known.unit, seed))
            own = {"explainer": explainer, "scorer": scorer, "unit": known.unit, "chance": known.chance, "samples": count}
            yield from best_records(own, of_sae, kinds, params.seed)


if __name__ == "__main__":
    run(main)
