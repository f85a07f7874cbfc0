"""Stage `scores`: explanations × test windows → judgements and scores."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import Shelf
from builders.progress import track
from builders.scorers.judging import Task
from pipelines.graph.declared import declared
from pipelines.graph.stage import chosen, code, folder, keep_only, run, shelf
from pipelines.opened.engines import Engines
from pipelines.opened.scorers import open_panel, settings_of
from pipelines.params import InterventionScorerParams, Params, ScorerParams
from pipelines.parts.ahead import Job
from pipelines.parts.judging import judge_all
from pipelines.parts.windows import judged_windows, scored_latents, scored_windows


def main(scorer_id: str, *only: str) -> None:
    """Write the scores by scorer *scorer_id* of all explainers on all dictionaries, or of *only* the explainer or dictionary given."""
    params, engines = declared("scores", scorer_id), Engines()
    pairs = list(product(sorted(params.saes), sorted(params.explainers)))
    for sae_id, explainer_id in chosen("scores", pairs, only):
        score(params, sae_id, explainer_id, scorer_id, engines)
    keep_only(folder("scores", scorer_id), [folder("scores", *ids, scorer_id) for ids in pairs])


def score(params: Params, sae_id: str, explainer_id: str, scorer_id: str, engines: Engines) -> None:
    """Write the scores by scorer *scorer_id* of explainer *explainer_id* on the latents of dictionary *sae_id*."""
    spec = params.scorers[scorer_id]
    inputs = {"contexts": shelf("contexts", sae_id).digest, "explanations": shelf("explanations", sae_id, explainer_id).digest}
    if isinstance(spec, InterventionScorerParams):
        inputs["interventions"] = shelf("interventions", sae_id).digest
    settings = {**settings_of(params, spec), "scored": params.saes[sae_id].scored}
    job = Job("scores", (sae_id, explainer_id, scorer_id), inputs, settings, code("scores", scorer_id))
    tasks = track(tasks_of(params, sae_id, explainer_id, spec), f"{scorer_id} of {sae_id}")
    job.fill(lambda shards: judge_all(sae_id, tasks, open_panel(params, sae_id, scorer_id, spec, engines), shards))


def tasks_of(params: Params, sae_id: str, explainer_id: str, spec: ScorerParams) -> Iterator[Task]:
    """Yield a task for each explanation of each latent drawn: the explanation and the latent's test windows, or some of them."""
    contexts = shelf("contexts", sae_id)
    wanted = scored_latents(params, sae_id, spec, contexts)
    texts = explanations_of(shelf("explanations", sae_id, explainer_id))
    for found in scored_windows(contexts, wanted, getattr(spec, "negatives", "none")):
        examples = judged_windows(found, spec)
        yield from (Task(examples, explainer, explanation) for explainer, explanation in texts.get(examples.latent, []))


def explanations_of(explanations: Shelf) -> dict[int, list[tuple[str, str]]]:
    """Return (explainer, text) of each explanation, by latent and in order of explainer."""
    rows = explanations.read(EXPLANATIONS, columns=["latent", "explainer", "text", "status"])
    texts: dict[int, list[tuple[str, str]]] = {}
    for record in rows.to_pylist():
        if record["status"] == "ok":
            texts.setdefault(record["latent"], []).append((record["explainer"], record["text"]))
    return texts


if __name__ == "__main__":
    run(main)
