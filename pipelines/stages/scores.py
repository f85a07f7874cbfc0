"""Stage `scores`: explanations × test windows → judgements and scores."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import Shelf
from builders.progress import track
from builders.scorers.judging import Task
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, folder, keep_only, run, shelf
from pipelines.opened.engines import Engines
from pipelines.opened.scorers import open_panel, settings_of
from pipelines.params import InterventionScorer, Params
from pipelines.parts.ahead import Job
from pipelines.parts.judging import judge_all
from pipelines.parts.windows import drawn_latents, windows


def main(scorer: str, *only: str) -> None:
    """Write how *scorer* judges what every explainer says of the latents of every SAE (or *only* one SAE, and one explainer)."""
    params, engines = declared("scores", scorer), Engines()
    every = list(product(sorted(params.saes), sorted(params.explainers)))
    for name, explainer in every:
        if set(only) <= {name, explainer}:
            score(params, name, explainer, scorer, engines)
    keep_only("scores", scorer, [folder("scores", *ids, scorer) for ids in every])


def score(params: Params, name: str, explainer: str, scorer: str, engines: Engines) -> None:
    """Write how *scorer* judges what *explainer* says of the latents of SAE *name*."""
    spec = params.scorers[scorer]
    inputs = {"contexts": shelf("contexts", name).digest, "explanations": shelf("explanations", name, explainer).digest}
    if isinstance(spec, InterventionScorer):
        inputs["interventions"] = shelf("interventions", name).digest
    job = Job("scores", (name, explainer, scorer), inputs, settings_of(params, spec), code("scores", scorer))
    tasks = track(tasks_of(params, name, explainer, spec.latents), f"{scorer} of {name}")
    job.fill(lambda shards: judge_all(name, tasks, open_panel(params, name, scorer, spec, engines), shards))


def tasks_of(params: Params, name: str, explainer: str, most: int | None) -> Iterator[Task]:
    """Yield every explanation of the latents drawn, with the test windows."""
    contexts = shelf("contexts", name)
    wanted = drawn_latents(contexts, params.seed, name, most)
    texts = explanations_of(shelf("explanations", name, explainer))
    for examples in windows(contexts, "test"):
        if examples.latent in wanted:
            yield from (Task(examples, who, text) for who, text in texts.get(examples.latent, []))


def explanations_of(explained: Shelf) -> dict[int, list[tuple[str, str]]]:
    """Return (explainer, text) of every latent that has an explanation, in order of explainer."""
    rows = explained.read(EXPLANATIONS, columns=["latent", "explainer", "text", "status"])
    texts: dict[int, list[tuple[str, str]]] = {}
    for record in rows.to_pylist():
        if record["status"] == "ok":
            texts.setdefault(record["latent"], []).append((record["explainer"], record["text"]))
    return texts


if __name__ == "__main__":
    run(main)
