"""Stage `direct`: test windows → judgements and scores of latents themselves, without any explanation."""

from __future__ import annotations

from builders.progress import track
from builders.scorers.judging import Task
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, folder, keep_only, run, shelf
from pipelines.opened.engines import Engines
from pipelines.opened.scorers import open_panel, settings_of
from pipelines.params import Params
from pipelines.parts.ahead import Job
from pipelines.parts.judging import judge_all
from pipelines.parts.windows import drawn_latents, windows


def main(scorer: str, *only: str) -> None:
    """Write how well *scorer* can tell what the latents of every SAE (or *only* one) fire on."""
    params, engines = declared("direct", scorer), Engines()
    for name in sorted(params.saes):
        if set(only) <= {name}:
            score(params, name, scorer, engines)
    keep_only("direct", scorer, [folder("direct", name, scorer) for name in params.saes])


def score(params: Params, name: str, scorer: str, engines: Engines) -> None:
    """Write how well *scorer* can tell what the latents of SAE *name* fire on."""
    spec, contexts = params.direct_scorers[scorer], shelf("contexts", name)
    job = Job("direct", (name, scorer), {"contexts": contexts.digest}, settings_of(params, spec), code("direct", scorer))
    wanted = drawn_latents(contexts, params.seed, name, spec.latents)
    tasks = track((Task(examples) for examples in windows(contexts, "test") if examples.latent in wanted), f"{scorer} of {name}")
    job.fill(lambda shards: judge_all(name, tasks, open_panel(params, name, scorer, spec, engines), shards))


if __name__ == "__main__":
    run(main)
