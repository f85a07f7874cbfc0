"""Stage `scores`: explanations × test windows → judgements and scores."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from builders.contexts import CONTEXTS, Examples, by_latent
from builders.explainers.explanations import EXPLANATIONS
from builders.failures import FAILURES, failure
from builders.progress import track
from builders.scorers import SCORERS
from builders.scorers.judgements import JUDGEMENTS, SCORES, Identity, judge_trials
from builders.scorers.lexical import LexicalJudge
from builders.seeds import seed_of
from builders.shards import Shards, Shelf
from builders.vocabulary import VOCABULARY
from pipelines.params import load
from pipelines.stage import folder, run, shelf


def main(name: str, explainer: str, scorer: str) -> None:
    """Write how *scorer* judges what *explainer* says of the latents of SAE *name*."""
    params = load()
    spec = params.scorers[scorer]
    contexts, explained = shelf("contexts", name), shelf("explanations", name, explainer)
    inputs = {"contexts": contexts.digest, "explanations": explained.digest}
    settings = {"seed": params.seed, **spec.model_dump(), "judge_settings": params.judges[spec.judge].model_dump()}
    shards = Shards(folder("scores", name, explainer, scorer), inputs, settings)
    vocabulary = contexts.read(VOCABULARY)
    special = vocabulary["special"].to_numpy(zero_copy_only=False)
    judge = LexicalJudge(vocabulary["piece"].to_pylist())
    seed = seed_of(params.seed, scorer, name)  # not by explainer: all explanations are judged on equal trials
    texts = explanations_of(explained)
    judged, scores, failed = [], [], []
    for examples in track(test_windows(contexts), f"{scorer} on {name}", total=len(texts)):
        trials = SCORERS[spec.kind](examples, special, seed)
        for who, text in texts.get(examples.latent, []):
            identity = Identity(name, examples.latent, who, scorer, spec.judge)
            rows, score = judge_trials(identity, text, trials, judge)
            judged.append(rows)
            scores.append(score)
            if score["n_failed"]:
                reason = f"{score['n_failed']} of {len(trials.number)} examples without an answer"
                failed.append(failure(name, examples.latent, "scores", f"{who}/{scorer}", reason))
    shards.write(JUDGEMENTS, JUDGEMENTS.row_groups(pa.concat_tables(judged or [JUDGEMENTS.empty()])))
    shards.write(SCORES, [SCORES.rows(scores)])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    shards.finish()


def test_windows(contexts: Shelf) -> Iterator[Examples]:
    """Yield the test windows of every latent."""
    columns = ["latent", "split", "example", "kind", "tokens", "activations"]
    for path in contexts.paths(CONTEXTS):
        yield from by_latent(pq.read_table(path, columns=columns), "test")


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
