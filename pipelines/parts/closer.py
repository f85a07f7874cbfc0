"""What stage `similarity` does for some pairs of dictionaries only, since it takes longer: geometry, splices, transfers of explanations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from builders.arrays import Ints
from builders.engines.requests import Failure, Outcome
from builders.lake.shards import Shards
from builders.saes.coder import Coder
from builders.scorers.bootstrap import bootstrapped
from builders.scorers.judging import Task
from builders.seeds import drawn, seed_of, uniforms
from builders.similarity.partners import Partners
from builders.similarity.similarity import TRANSFERS, Pair, Record
from builders.similarity.splices import SPLICES, splices
from builders.similarity.subspaces import Overlap, overlap, rsa, svcca
from builders.text.tokens import TOKENS
from pipelines.graph.stage import shelf
from pipelines.opened.dictionaries import mounted
from pipelines.opened.engines import Engines, account, require_share
from pipelines.opened.scorers import open_panel
from pipelines.params import InModelParams, ModelJudgeParams, Params
from pipelines.parts.judging import scored_tasks, status_of
from pipelines.parts.views import Compared, Views, explanations_of
from pipelines.parts.windows import judged_windows, scored_windows


def overlap_records(pair: Pair, views: Views, own: Partners, threshold: float) -> Iterator[Record]:
    """Yield how much of the space that latents of A write into is that of their partners, for shared latents and for the rest."""
    rows = [views.views[sae_id].directions("decoder") for sae_id in (pair.sae_a, pair.sae_b)]
    has = own.place >= 0
    shared = has & (np.where(has, own.value, -1) >= threshold)
    for statistic, which in (("overlap-shared", shared), ("overlap-rest", has & ~shared)):
        found: Overlap | None = overlap(rows[0][which], rows[1][own.place[which]]) if which.any() else None  # type: ignore[index]  # both have
        if found is not None:
            yield pair.record("decoder", statistic, n=int(which.sum()), value=found.value, permuted=found.chance)


def geometry_records(pair: Pair, compared: Compared, own: Partners, twin: tuple[Compared, Partners] | None, seed: int) -> Iterator[Record]:
    """Yield how alike the latents with partners are as a set, by their activations; the untrained twin's level beside it."""
    address = seed_of(seed, "geometry", pair.sae_a, pair.sae_b)
    for statistic, measured in (("svcca", svcca), ("rsa", rsa)):
        found = measured(*_paired(compared, own), address)
        other = None if twin is None else measured(*_paired(*twin), address).value
        if found.value is not None:
            levels = {"value": _bounded(found.value), "permuted": found.chance, "untrained": _bounded(other)}
            yield pair.record("pearson", statistic, n=int((own.place >= 0).sum()), **levels)


def _bounded(value: float | None) -> float | None:
    return None if value is None else min(max(value, -1.0), 1.0)  # rounding goes beyond 1


def _paired(compared: Compared, own: Partners) -> tuple[Any, Any]:
    """Return the activations of the latents that have partners, and those of the partners, in the same order."""
    measure: Any = compared.measure
    has = own.place >= 0
    return measure.a[has], measure.b[own.place[has]]


def splice_rows(params: Params, pair: Pair, views: Views, own: Partners, twin: Partners | None) -> pa.Table:
    """Return the SPLICES rows of two dictionaries of one hookpoint, and those of A and an untrained twin of B.

    Fewer than two pairs of latents leave none, and transcoders between vectors of different sizes have no twin.
    """
    a, b = views.views[pair.sae_a], views.views[pair.sae_b]
    if not (isinstance(a.spec, InModelParams) and isinstance(b.spec, InModelParams)):
        return SPLICES.empty()
    opened = views.subjects.open(a.spec.subject)
    rows = shelf("tokens", a.spec.subject).read(TOKENS, columns=["row", "ids", "special", "held_out"])
    held_out = rows.filter(rows["held_out"])
    seed = seed_of(params.seed, "spliced rows", a.spec.subject)
    text = held_out.take(np.sort(np.argsort(uniforms(seed, np.arange(held_out.num_rows)))[: params.similarity.splice_rows]))
    records = []
    mate = b.twin() if b.row["d_in"] == b.row["d_out"] else None
    for name, some, coder in (("sae_b", own, b.coder), ("untrained", twin, mate)):
        pairs = None if some is None else _pairs(some, a.alive if name == "untrained" else None)
        if coder is not None and pairs is not None and len(pairs) > 1:
            places = mounted(a.spec, _on(a.coder, opened.device)), mounted(b.spec, _on(coder, opened.device))
            found = splices(opened.model, *places, pairs, text, opened.batch or params.activations.batch_rows, opened.device, seed)
            records += [{"sae_a": pair.sae_a, "sae_b": pair.sae_b, "partners": name, **asdict(each)} for each in found]
    return SPLICES.rows(records)


def _pairs(own: Partners, latents: Ints | None) -> Ints:
    """Return the one-to-one pairs as numbers of latents [n, 2]; *latents* are A's numbers where *own* counts from 0."""
    has = own.place >= 0
    numbers = own.latents if latents is None else latents
    return np.stack([numbers[has], own.others[own.place[has]]], axis=1)


def _on(coder: Coder | None, device: str) -> Coder:
    if coder is None:
        raise TypeError("a dictionary without a coder cannot be spliced")
    return coder.to(device)


def transfer_records(params: Params, pair: Pair, own: Partners, engines: Engines, answered: dict[str, Outcome]) -> Iterator[Record]:
    """Yield how well explanations of A's latents score on the windows of their partners, beside the partners' own and other latents'.

    A latent for which one of the three has no score is left out. The outcome of each request goes into *answered* by its address.
    """
    texts = [explanations_of(sae_id, str(params.similarity.explainer)) for sae_id in (pair.sae_a, pair.sae_b)]
    known = {a: b for a, b in _pairs(own, None).tolist() if a in texts[0] and b in texts[1]}
    seed = seed_of(params.seed, "transfers", pair.sae_a, pair.sae_b)
    chosen = drawn(np.array(sorted(known), dtype=np.int64), params.similarity.transfers, seed).tolist()
    turned = dict(zip(chosen, [*chosen[1:], *chosen[:1]], strict=True))  # each latent's other latent
    wanted = {
        known[a]: {"transfer": texts[0][a], "transfer-own": texts[1][known[a]], "transfer-other": texts[0][turned[a]]} for a in chosen
    }
    scores: dict[int, dict[str, float]] = {}
    for latent, statistic, score in _scored(params, pair.sae_b, wanted, engines, answered):
        scores.setdefault(latent, {})[statistic] = score
    whole = [each for each in scores.values() if len(each) == len(TRANSFERS)]
    for statistic in TRANSFERS if len(whole) > 1 else ():
        values = np.array([[each[statistic]] for each in whole])
        value, low, high = bootstrapped(values, seed_of(seed, statistic))[0].tolist()
        yield pair.record("explanation", statistic, n=len(whole), value=value, low=low, high=high)


def _scored(
    params: Params, sae_id: str, wanted: Mapping[int, Mapping[str, str]], engines: Engines, answered: dict[str, Outcome]
) -> Iterator[tuple[int, str, float]]:
    """Yield the latent of *sae_id*, the name and the score of each text in *wanted*, by latent and name, on the latent's test windows."""
    scorer_id = str(params.similarity.scorer)
    spec = params.scorers[scorer_id]
    panel = open_panel(params, sae_id, scorer_id, spec, engines)
    found = scored_windows(shelf("contexts", sae_id), wanted, getattr(spec, "negatives", "none"))
    cut = (judged_windows(examples, spec) for examples in found)
    tasks = (Task(examples, name, text) for examples in cut for name, text in wanted[examples.latent].items())
    for scored in scored_tasks(sae_id, tasks, panel, answered):
        score = scored.judged.measures.get("score")
        if score is not None:
            yield scored.task.latent, scored.task.explainer, score


def settle(params: Params, pair: Pair, answered: Mapping[str, Outcome], shards: Shards) -> bool:
    """Write what the answers about transferred explanations cost; return whether every request has one.

    Raises UserError where more of them failed than the judge's `max_failed_share` allows.
    """
    judge = params.judges[params.scorers[str(params.similarity.scorer)].answered_by[1]] if answered else None
    if not isinstance(judge, ModelJudgeParams):
        return True
    outcomes = [status_of(outcome) for outcome in answered.values()]
    require_share(f"explanations of {pair.sae_a} on {pair.sae_b}", outcomes, judge.max_failed_share, "requests")
    account(shards, answered, params.engines[judge.engine])
    return not any(isinstance(outcome, Failure) for outcome in answered.values())
