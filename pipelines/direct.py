"""Stage `direct`: test windows → judgements and scores of latents themselves, without any explanation."""

from __future__ import annotations

from builders.progress import track
from builders.scorers.judging import Task
from builders.shards import Shards
from pipelines.declared import declared
from pipelines.judging import judge_all
from pipelines.scorers import open_panel, settings_of
from pipelines.stage import code, folder, run, shelf
from pipelines.windows import drawn_latents, windows


def main(name: str, scorer: str) -> None:
    """Write how well *scorer* can tell what the latents of SAE *name* fire on."""
    params = declared("direct", name, scorer)
    spec, contexts = params.direct_scorers[scorer], shelf("contexts", name)
    settings = settings_of(params, spec)
    shards = Shards(folder("direct", name, scorer), {"contexts": contexts.digest}, settings, code("direct", scorer))
    wanted = drawn_latents(contexts, params.seed, name, spec.latents)
    tasks = (Task(examples) for examples in windows(contexts, "test") if examples.latent in wanted)
    judge_all(name, track(tasks, f"{scorer} of {name}"), open_panel(params, name, scorer, spec), shards)
    shards.finish()


if __name__ == "__main__":
    run(main)
