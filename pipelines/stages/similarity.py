"""Stage `similarity`: every two dictionaries → the partners of their latents, and how alike they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from builders.engines.requests import Outcome
from builders.lake.shards import Shards
from builders.progress import track
from builders.similarity.partners import MATCHES, Partners, match_rows, partners_of
from builders.similarity.similarity import SIMILARITY, Pair, Record, means, permuted, statistic_records, values_of
from builders.similarity.splices import SPLICES
from pipelines.graph.declared import declared
from pipelines.graph.stage import BUILD, code, folders, keep_only, run, shelf
from pipelines.opened.scorers import settings_of
from pipelines.params import Params
from pipelines.parts.ahead import Job
from pipelines.parts.closer import geometry_records, overlap_records, settle, splice_rows, transfer_records
from pipelines.parts.pairs import pair_of
from pipelines.parts.views import Compared, Views

Twin = tuple[Compared, Partners]


def main() -> None:
    """Write the partners of the latents of every two dictionaries, and how alike they are; pairs that have not changed are kept."""
    params = declared("similarity")
    views = Views(params)
    for sae_a, sae_b in track(params.pairs, "comparing dictionaries"):
        compare(params, sae_a, sae_b, views)
    keep_only(BUILD / "similarity", folders(params, "similarity"))


def compare(params: Params, sae_a: str, sae_b: str, views: Views) -> None:
    """Write what two dictionaries have in common, unless it is finished."""
    inputs = {f"{stage} {sae_id}": shelf(stage, sae_id).digest for sae_id in (sae_a, sae_b) for stage in ("saes", "activations")}
    inputs |= {f"tokens {sae_id}": shelf("tokens", params.saes[sae_id].subject).digest for sae_id in (sae_a, sae_b)}
    pair = pair_of(params, sae_a, sae_b)
    related = {"relation": pair.relation, "layers": pair.layers}
    settings: dict[str, Any] = {"seed": params.seed, **params.similarity.model_dump(exclude={"saes"}), **related}
    if params.similarity.explainer is not None:
        explainer_id = params.similarity.explainer
        inputs |= {f"explanations {sae_id}": shelf("explanations", sae_id, explainer_id).digest for sae_id in (sae_a, sae_b)}
    if "explanation" in params.similarity.measures:
        settings["embedded by"] = {**views.embedder.identity, "name": views.embedder.name}
    if params.similarity.scorer is not None:
        inputs |= {f"contexts {sae_id}": shelf("contexts", sae_id).digest for sae_id in (sae_a, sae_b)}
        settings["scoring"] = settings_of(params, params.scorers[params.similarity.scorer])
    Job("similarity", (sae_a, sae_b), inputs, settings, code("similarity")).fill(lambda shards: write(params, pair, views, shards))


def write(params: Params, pair: Pair, views: Views, shards: Shards) -> bool:
    """Write MATCHES, SIMILARITY and SPLICES of two dictionaries; return whether another try would give the same."""
    asked: dict[str, Compared | str] = {measure: views.compared(pair.sae_a, pair.sae_b, measure) for measure in params.similarity.measures}
    compared = {measure: found for measure, found in asked.items() if isinstance(found, Compared)}
    found = {measure: partners(each, params) for measure, each in compared.items()}
    twins = twins_of(params, pair, views, compared)
    records = [pair.record(measure, "none", status=reason) for measure, reason in asked.items() if isinstance(reason, str)]
    records += similarity_records(params, pair, compared, found, {measure: partners for measure, (_, partners) in twins.items()})
    records += closer_records(params, pair, views, compared, found, twins)
    answered: dict[str, Outcome] = {}
    nearest = next((found[measure] for measure in ("pearson", "decoder") if measure in found), None)
    if pair.relation in params.similarity.transferred and nearest is not None:
        records += transfer_records(params, pair, nearest, views.engines, answered)
    settled = settle(params, pair, answered, shards)  # before anything is written, so that failed requests are made again
    spliced = pair.relation in params.similarity.spliced and "decoder" in found
    twin = twins["decoder"][1] if "decoder" in twins else None
    shards.write(MATCHES, MATCHES.row_groups(match_rows(pair.sae_a, pair.sae_b, found)))
    shards.write(SIMILARITY, [SIMILARITY.rows(records)])
    shards.write(SPLICES, [splice_rows(params, pair, views, found["decoder"], twin) if spliced else SPLICES.empty()])
    return settled


def closer_records(
    params: Params, pair: Pair, views: Views, compared: Mapping[str, Compared], found: Mapping[str, Partners], twins: Mapping[str, Twin]
) -> Iterator[Record]:
    """Yield the SIMILARITY records that compare two dictionaries as wholes, which is done for some relations only."""
    settings = params.similarity
    if pair.relation in settings.geometry:
        if "decoder" in found:
            yield from overlap_records(pair, views, found["decoder"], settings.threshold)
        if "pearson" in found:
            yield from geometry_records(pair, compared["pearson"], found["pearson"], twins.get("pearson"), params.seed)


def twins_of(params: Params, pair: Pair, views: Views, compared: Mapping[str, Compared]) -> dict[str, Twin]:
    """Return the measures of A and an untrained twin of B, whose latents are numbered from 0, with the partners by them."""
    measures = {measure: views.beside_twin(pair.sae_a, pair.sae_b, measure) for measure in compared}
    known = {name: Compared(each, *map(np.arange, each.shape)) for name, each in measures.items() if each is not None and all(each.shape)}
    return {name: (each, partners(each, params)) for name, each in known.items()}


def partners(compared: Compared, params: Params) -> Partners:
    """Return the partners by a measure."""
    return partners_of(compared.measure, compared.latents, compared.others, params.similarity.most)


def similarity_records(
    params: Params, pair: Pair, compared: Mapping[str, Compared], found: Mapping[str, Partners], twins: Mapping[str, Partners]
) -> Iterator[Record]:
    """Yield the SIMILARITY records of two dictionaries: every statistic of every measure, beside its chance levels."""
    thresholds = params.similarity.thresholds
    for measure, each in compared.items():
        chance = {"permuted": permuted(each.measure, thresholds)}
        if measure in twins:
            chance["untrained"] = means(values_of(twins, measure, thresholds))
        yield from statistic_records(pair, measure, values_of(found, measure, thresholds), chance, params.seed)


if __name__ == "__main__":
    run(main)
