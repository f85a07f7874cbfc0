"""Stage `explanations`: training windows → explanations, and the permuted baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from builders.engines.requests import Answer, Chat, Engine, Failure, Outcome
from builders.explainers import chat, copies, effects, imported, lexical, short
from builders.explainers.explanations import EXPLANATIONS, explanation_record, named, permuted
from builders.interventions.interventions import INTERVENTIONS
from builders.lake.failures import FAILURES, failure
from builders.lake.shards import Shards, Shelf
from builders.progress import track
from builders.saes.latents import LATENTS
from builders.seeds import seed_of
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same, seen
from pipelines.graph.stage import chosen, code, folder, keep_only, run, shelf
from pipelines.opened.engines import Engines, account, asked, require_share
from pipelines.params import (
    AskingExplainerParams,
    ChatExplainerParams,
    ImportedExplainerParams,
    InterventionExplainerParams,
    LexicalExplainerParams,
    Params,
)
from pipelines.parts.ahead import Job
from pipelines.parts.windows import drawn_latents, windows

Record = dict[str, Any]
Asked = tuple[Chat, tuple[str, Outcome]]
NOTHING = "nothing recurs"


def main(explainer_id: str, *only: str) -> None:
    """Write the explanations by explainer *explainer_id* for every dictionary, or for *only* the one given."""
    params, engines = declared("explanations", explainer_id), Engines()
    for (sae_id,) in chosen("explanations", zip(sorted(params.saes)), only):
        explain(params, sae_id, explainer_id, engines)
    keep_only(folder("explanations", explainer_id), [folder("explanations", sae_id, explainer_id) for sae_id in params.saes])


def explain(params: Params, sae_id: str, explainer_id: str, engines: Engines) -> None:
    """Write the explanations by explainer *explainer_id* of the latents of dictionary *sae_id*, unless they are finished."""
    spec = params.explainers[explainer_id]
    inputs = {"contexts": shelf("contexts", sae_id).digest}
    settings = {"seed": params.seed, **spec.model_dump()}
    if isinstance(spec, ImportedExplainerParams):
        settings["file"] = seen("explainers", explainer_id, spec)
    if isinstance(spec, AskingExplainerParams):
        settings["engine"] = params.engines[spec.engine].model_dump()
    if isinstance(spec, InterventionExplainerParams):
        inputs["interventions"] = shelf("interventions", sae_id).digest
    job = Job("explanations", (sae_id, explainer_id), inputs, settings, code("explanations", explainer_id))
    job.fill(lambda shards: write(params, sae_id, explainer_id, engines, shards))


def write(params: Params, sae_id: str, explainer_id: str, engines: Engines, shards: Shards) -> bool:
    """Write EXPLANATIONS and FAILURES of dictionary *sae_id*; return whether every request has an answer."""
    spec, contexts = params.explainers[explainer_id], shelf("contexts", sae_id)
    if isinstance(spec, LexicalExplainerParams):
        records = list(lexical_records(sae_id, explainer_id, spec, contexts))
    elif isinstance(spec, ImportedExplainerParams):
        records = imported_records(sae_id, explainer_id, spec, contexts)
    else:
        records = asked_records(sae_id, explainer_id, params, spec, engines, shards)
    rows = EXPLANATIONS.rows(records)
    if spec.baseline == "permuted":
        seed = seed_of(params.seed, "permuted", sae_id, explainer_id)
        rows = EXPLANATIONS.sort(pa.concat_tables([rows, permuted(rows, seed)]))
    bad = [record for record in records if record["status"] != "ok"]
    failed = [failure(sae_id, each["latent"], "explanations", each["explainer"], each.get("reason") or each["status"]) for each in bad]
    shards.write(EXPLANATIONS, [rows])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    return not (failed and isinstance(spec, AskingExplainerParams))


def lexical_records(sae_id: str, explainer_id: str, spec: LexicalExplainerParams, contexts: Shelf) -> Iterator[Record]:
    """Yield the explanation of each latent by token statistics."""
    pieces = contexts.read(VOCABULARY)["piece"].to_pylist()
    settings = lexical.Settings(cues=spec.cues)
    for examples in track(windows(contexts, "train"), f"explaining {sae_id}"):
        text = lexical.explain(examples, pieces, settings)
        yield explanation_record(sae_id, examples.latent, explainer_id, "ok" if text else NOTHING, text)


def imported_records(sae_id: str, explainer_id: str, spec: ImportedExplainerParams, contexts: Shelf) -> list[Record]:
    """Return the explanation of each latent that has contexts, from a file."""
    texts = imported.read(Path(spec.path), sae_id, contexts.rows(LATENTS))
    require_same("explainers", explainer_id, spec)
    found = [(latent, texts.get(latent)) for latent in sorted(drawn_latents(contexts, 0, sae_id, None))]
    return [explanation_record(sae_id, latent, explainer_id, "ok" if text else "not in the file", text, "import") for latent, text in found]


def asked_records(
    sae_id: str, explainer_id: str, params: Params, spec: AskingExplainerParams, engines: Engines, shards: Shards
) -> list[Record]:
    """Return the explanations of each latent by a language model; raise UserError where too many requests fail."""
    requests = sampled(sae_id, params, spec)
    engine = engines.open(params.engines[spec.engine])
    last, outcomes = asked_last(engine, list(requests.values()), f"explaining {sae_id}")
    fixed = {"engine": engine.kind, "model": engine.model, "prompt_sha256": chat.prompt_sha256(spec.kind)}
    records = []
    for (latent, sample), (request, (key, outcome)) in zip(requests, last, strict=True):
        told = copies.read(request, outcome)
        status, text = (told.status, None) if isinstance(told, Failure) else ("ok", told)
        record = explanation_record(sae_id, latent, named(explainer_id, sample), status, text, **fixed, request_sha256=key)
        if isinstance(told, Failure):
            record["reason"] = told.reason
        if isinstance(outcome, Answer):
            counts = {field: getattr(outcome, field) for field in ("prompt_tokens", "cached_tokens", "output_tokens")}
            record |= {"response": outcome.text, **counts}
        records.append(record)
    what = "latents" if spec.samples == 1 else "explanations"
    require_share(f"explanations of {sae_id} by {explainer_id}", records, spec.max_failed_share, what)
    account(shards, outcomes, params.engines[spec.engine])
    return records


def asked_last(engine: Engine, requests: list[Chat], what: str) -> tuple[list[Asked], dict[str, Outcome]]:
    """Return what was asked last in place of each request, with its address and outcome, and the outcomes of all requests by address.

    A request is made once more where the answer copies a worked example, and then without that example.
    """
    outcomes = asked(engine, requests, what)
    again = copies.again(requests, [outcome for _, outcome in outcomes])
    seconds = asked(engine, list(again.values()), f"{what} once more")
    last = dict(enumerate(zip(requests, outcomes, strict=True)))
    last |= dict(zip(again, zip(again.values(), seconds, strict=True), strict=True))
    return list(last.values()), dict(outcomes + seconds)


def sampled(sae_id: str, params: Params, spec: AskingExplainerParams) -> dict[tuple[int, int], Chat]:
    """Return the requests by latent and sample: all samples of a latent are asked in the same words, each with a seed of its own."""
    if isinstance(spec, InterventionExplainerParams):
        requests = intervention_requests(sae_id, params, spec)
    else:
        requests = chat_requests(sae_id, params, spec)
    found = {}
    for latent, request in requests.items():
        for sample in range(spec.samples):
            seed = seed_of(params.seed, "explanation", sae_id, latent, *([sample] if sample else []))
            found[latent, sample] = replace(request, seed=seed % 2**31)
    return found


def chat_requests(sae_id: str, params: Params, spec: ChatExplainerParams) -> dict[int, Chat]:
    """Return the request for each drawn latent of dictionary *sae_id* that has contexts."""
    contexts = shelf("contexts", sae_id)
    pieces = text_pieces(contexts.read(VOCABULARY))
    latents = contexts.read(LATENTS, columns=["latent", "max", "promotes", "suppresses"]).to_pylist()
    settings = chat.Settings(spec.kind, spec.examples, spec.silent, spec.max_tokens, spec.temperature)
    requests, wanted = {}, drawn_latents(contexts, params.seed, sae_id, spec.latents, spec.saes)
    for examples in track(windows(contexts, "train"), f"prompts for {sae_id}"):
        if examples.latent not in wanted:
            continue
        own = latents[examples.latent]
        known = chat.Known(own["max"], own["promotes"], own["suppresses"])
        asks = short.conversation if spec.kind == "short" else partial(chat.conversation, known=known)
        requests[examples.latent] = asks(examples, pieces=pieces, settings=settings)
    return requests


def intervention_requests(sae_id: str, params: Params, spec: InterventionExplainerParams) -> dict[int, Chat]:
    """Return the request for each drawn latent of dictionary *sae_id* whose effects were measured."""
    contexts = shelf("contexts", sae_id)
    pieces = text_pieces(contexts.read(VOCABULARY))
    rows = shelf("interventions", sae_id).read(INTERVENTIONS, filters=[("kl_asked", "==", spec.kl)]).to_pylist()
    wanted = drawn_latents(contexts, params.seed, sae_id, spec.latents, spec.saes)
    by_latent: dict[int, list[Record]] = {latent: [] for latent in sorted(wanted)}
    for row in rows:
        if row["latent"] in by_latent:  # other latents are there for explainers that ask about more
            by_latent[row["latent"]].append(row)
    by_latent = {latent: own for latent, own in by_latent.items() if own}
    settings = effects.Settings(spec.examples, spec.max_tokens, spec.temperature)
    return {latent: effects.conversation(own, pieces, settings) for latent, own in by_latent.items()}


if __name__ == "__main__":
    run(main)
