"""Stage `explanations`: training windows → words, and the permuted baseline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from builders.engines.requests import Answer, Chat, Failure
from builders.explainers import chat, effects, imported, lexical
from builders.explainers.explanations import EXPLANATIONS, explanation, permuted
from builders.interventions.interventions import INTERVENTIONS
from builders.lake.failures import FAILURES, failure
from builders.lake.shards import Shards, Shelf
from builders.progress import track
from builders.saes.latents import LATENTS
from builders.seeds import seed_of
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.declared import declared
from pipelines.graph.outside import require_same
from pipelines.graph.stage import code, folder, keep_only, run, shelf
from pipelines.opened.engines import Engines, account, asked, require_share
from pipelines.params import AskingExplainer, ChatExplainer, ImportedExplainer, InterventionExplainer, LexicalExplainer, Params
from pipelines.parts.ahead import Job
from pipelines.parts.windows import drawn_latents, windows

Record = dict[str, Any]
NOTHING = "nothing recurs"


def main(explainer: str, *only: str) -> None:
    """Write what *explainer* says of every latent of every SAE (or *only* of one)."""
    params, engines = declared("explanations", explainer), Engines()
    for name in sorted(params.saes):
        if set(only) <= {name}:
            explain(params, name, explainer, engines)
    keep_only("explanations", explainer, [folder("explanations", name, explainer) for name in params.saes])


def explain(params: Params, name: str, explainer: str, engines: Engines) -> None:
    """Write what *explainer* says of every latent of SAE *name*."""
    spec = params.explainers[explainer]
    inputs = {"contexts": shelf("contexts", name).digest}
    settings = {"seed": params.seed, **spec.model_dump()}
    if isinstance(spec, AskingExplainer):
        settings["engine"] = params.engines[spec.engine].model_dump()
    if isinstance(spec, InterventionExplainer):
        inputs["interventions"] = shelf("interventions", name).digest
    job = Job("explanations", (name, explainer), inputs, settings, code("explanations", explainer))
    job.fill(lambda shards: write(params, name, explainer, engines, shards))


def write(params: Params, name: str, explainer: str, engines: Engines, shards: Shards) -> bool:
    """Write EXPLANATIONS and FAILURES of SAE *name*; return whether every request has an answer."""
    spec, contexts = params.explainers[explainer], shelf("contexts", name)
    if isinstance(spec, LexicalExplainer):
        records = list(lexical_records(name, explainer, spec, contexts))
    elif isinstance(spec, ImportedExplainer):
        records = imported_records(name, explainer, spec, contexts)
    else:
        records = asked_records(name, explainer, params, spec, engines, shards)
    rows = EXPLANATIONS.rows(records)
    if spec.baseline == "permuted":
        seed = seed_of(params.seed, "permuted", name, explainer)
        rows = EXPLANATIONS.sort(pa.concat_tables([rows, permuted(rows, seed)]))
    failed = [failure(name, r["latent"], "explanations", explainer, r.get("reason") or r["status"]) for r in records if r["status"] != "ok"]
    shards.write(EXPLANATIONS, [rows])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    return not (failed and isinstance(spec, AskingExplainer))


def lexical_records(name: str, explainer: str, spec: LexicalExplainer, contexts: Shelf) -> Iterator[Record]:
    """Yield what token statistics say of each latent."""
    pieces = contexts.read(VOCABULARY)["piece"].to_pylist()
    settings = lexical.Settings(cues=spec.cues)
    for examples in track(windows(contexts, "train"), f"explaining {name}"):
        text = lexical.explain(examples, pieces, settings)
        yield explanation(name, examples.latent, explainer, "ok" if text else NOTHING, text)


def imported_records(name: str, explainer: str, spec: ImportedExplainer, contexts: Shelf) -> list[Record]:
    """Return what a file says of each latent that has contexts."""
    texts = imported.read(Path(spec.path), name, contexts.rows(LATENTS))
    require_same("explainers", explainer, spec)
    found = [(latent, texts.get(latent)) for latent in sorted(drawn_latents(contexts, 0, name, None))]
    return [explanation(name, latent, explainer, "ok" if text else "not in the file", text, "import") for latent, text in found]


def asked_records(name: str, explainer: str, params: Params, spec: AskingExplainer, engines: Engines, shards: Shards) -> list[Record]:
    """Return what a language model says of each latent; raise UserError where too many requests fail."""
    requests = intervention_requests(name, params, spec) if isinstance(spec, InterventionExplainer) else chat_requests(name, params, spec)
    engine = engines.open(params.engines[spec.engine])
    outcomes = asked(engine, list(requests.values()), f"explaining {name}")
    fixed = {"engine": engine.kind, "model": engine.model, "prompt_sha256": chat.prompt_sha256(spec.kind)}
    records = []
    for latent, (key, outcome) in zip(requests, outcomes, strict=True):
        told = chat.read(outcome) if isinstance(outcome, Answer) else outcome
        if isinstance(told, Failure):
            record = explanation(name, latent, explainer, told.status, None, **fixed, request_sha256=key)
            record["reason"] = told.reason
        else:
            record = explanation(name, latent, explainer, "ok", told, **fixed, request_sha256=key)
        if isinstance(outcome, Answer):
            counts = {field: getattr(outcome, field) for field in ("prompt_tokens", "cached_tokens", "output_tokens")}
            record |= {"response": outcome.text, **counts}
        records.append(record)
    require_share(f"explanations of {name} by {explainer}", records, spec.max_failed_share)
    account(shards, dict(outcomes), params.engines[spec.engine])
    return records


def chat_requests(name: str, params: Params, spec: ChatExplainer) -> dict[int, Chat]:
    """Return what is asked about each latent of SAE *name* that has contexts."""
    contexts = shelf("contexts", name)
    pieces = text_pieces(contexts.read(VOCABULARY))
    latents = contexts.read(LATENTS, columns=["latent", "max", "promotes", "suppresses"]).to_pylist()
    settings = chat.Settings(spec.kind, spec.examples, spec.silent, spec.max_tokens, spec.temperature)
    requests, wanted = {}, drawn_latents(contexts, params.seed, name, spec.latents)
    for examples in track(windows(contexts, "train"), f"prompts for {name}"):
        if examples.latent not in wanted:
            continue
        own = latents[examples.latent]
        known = chat.Known(own["max"], own["promotes"], own["suppresses"])
        seed = seed_of(params.seed, "explanation", name, examples.latent) % 2**31
        requests[examples.latent] = chat.conversation(examples, known, pieces, settings, seed)
    return requests


def intervention_requests(name: str, params: Params, spec: InterventionExplainer) -> dict[int, Chat]:
    """Return what is asked about each latent whose effects were measured."""
    contexts = shelf("contexts", name)
    pieces = text_pieces(contexts.read(VOCABULARY))
    rows = shelf("interventions", name).read(INTERVENTIONS, filters=[("kl_asked", "==", spec.kl)]).to_pylist()
    by_latent: dict[int, list[Record]] = {latent: [] for latent in sorted(drawn_latents(contexts, params.seed, name, spec.latents))}
    for row in rows:
        if row["latent"] in by_latent:  # others may be there for an explainer that asks about more
            by_latent[row["latent"]].append(row)
    by_latent = {latent: own for latent, own in by_latent.items() if own}
    settings = effects.Settings(spec.examples, spec.max_tokens, spec.temperature)
    seeds = {latent: seed_of(params.seed, "explanation", name, latent) % 2**31 for latent in by_latent}
    return {latent: effects.conversation(own, pieces, settings, seeds[latent]) for latent, own in by_latent.items()}


if __name__ == "__main__":
    run(main)
