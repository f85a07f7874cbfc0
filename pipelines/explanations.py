"""Stage `explanations`: training windows → words, and the permuted baseline."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from builders.contexts import CONTEXTS, by_latent
from builders.explainers import lexical
from builders.explainers.explanations import EXPLANATIONS, explanation, permuted
from builders.failures import FAILURES, failure
from builders.progress import track
from builders.seeds import seed_of
from builders.shards import Shards
from builders.vocabulary import VOCABULARY
from pipelines.params import load
from pipelines.stage import folder, run, shelf


def main(name: str, explainer: str) -> None:
    """Write what *explainer* says of every latent of SAE *name*."""
    params = load()
    spec = params.explainers[explainer]
    contexts = shelf("contexts", name)
    shards = Shards(folder("explanations", name, explainer), {"contexts": contexts.digest}, {"seed": params.seed, **spec.model_dump()})
    pieces = contexts.read(VOCABULARY)["piece"].to_pylist()
    settings = lexical.Settings(cues=spec.cues)
    records, failed = [], []
    for path in track(contexts.paths(CONTEXTS), f"explaining {name}"):
        columns = ["latent", "split", "example", "kind", "tokens", "activations"]
        for examples in by_latent(pq.read_table(path, columns=columns), "train"):
            text = lexical.explain(examples, pieces, settings)
            status = "ok" if text else "nothing recurs"
            records.append(explanation(name, examples.latent, explainer, status, text))
            if not text:
                failed.append(failure(name, examples.latent, "explanations", explainer, status))
    rows = EXPLANATIONS.rows(records)
    if spec.baseline == "permuted":
        seed = seed_of(params.seed, "permuted", name, explainer)
        rows = EXPLANATIONS.sort(pa.concat_tables([rows, permuted(rows, seed)]))
    shards.write(EXPLANATIONS, [rows])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    shards.finish()


if __name__ == "__main__":
    run(main)
