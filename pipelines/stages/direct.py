"""Stage `direct`: test windows → judgements and scores of the latents themselves, without explanations."""

from __future__ import annotations

from builders.progress import track
from builders.scorers.judging import Task
from pipelines.graph.declared import declared
from pipelines.graph.stage import chosen, code, folder, keep_only, run, shelf
from pipelines.opened.engines import Engines
from pipelines.opened.scorers import open_panel, settings_of
from pipelines.params import Params
from pipelines.parts.ahead import Job
from pipelines.parts.judging import judge_all
from pipelines.parts.windows import judged_windows, scored_latents, windows


def main(scorer_id: str, *only: str) -> None:
    """Write the judgements and scores of scorer *scorer_id* for every dictionary, or for *only* the one given."""
    params, engines = declared("direct", scorer_id), Engines()
    for (sae_id,) in chosen("direct", zip(sorted(params.saes)), only):
        score(params, sae_id, scorer_id, engines)
    keep_only(folder("direct", scorer_id), [folder("direct", sae_id, scorer_id) for sae_id in params.saes])


def score(params: Params, sae_id: str, scorer_id: str, engines: Engines) -> None:
    """Write the judgements and scores of scorer *scorer_id* for the latents of dictionary *sae_id*."""
    spec, contexts = params.direct_scorers[scorer_id], shelf("contexts", sae_id)
    settings = {**settings_of(params, spec), "scored": params.saes[sae_id].scored}
    job = Job("direct", (sae_id, scorer_id), {"contexts": contexts.digest}, settings, code("direct", scorer_id))
    wanted = scored_latents(params, sae_id, spec, contexts)
    tasks = (Task(judged_windows(examples, spec)) for examples in windows(contexts, "test") if examples.latent in wanted)
    shown = track(tasks, f"{scorer_id} of {sae_id}")
    job.fill(lambda shards: judge_all(sae_id, shown, open_panel(params, sae_id, scorer_id, spec, engines), shards))


if __name__ == "__main__":
    run(main)
