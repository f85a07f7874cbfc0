"""Stage `interventions`: what latents cause, where an explainer asks for it; otherwise no rows, at once."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from builders.contexts import CONTEXTS, by_latent
from builders.interventions import INTERVENTIONS, intervention_rows
from builders.progress import track
from builders.shards import Shards
from pipelines.params import InModel, InterventionExplainer, Params, load
from pipelines.stage import folder, run, shelf


def main(name: str) -> None:
    """Write what the latents of dictionary *name* cause, at every strength that explainers ask for."""
    params = load()
    contexts, sae = shelf("contexts", name), shelf("saes", name)
    wanted = targets(params) if isinstance(params.saes[name], InModel) else {}
    inputs = {"contexts": contexts.digest, "sae": sae.digest}
    shards = Shards(folder("interventions", name), inputs, {"targets": [[kl, count] for kl, count in sorted(wanted.items())]})
    shards.write(INTERVENTIONS, rows_of(name, params, wanted) if wanted else [INTERVENTIONS.empty()])
    shards.finish()


def targets(params: Params) -> dict[float, int]:
    """Return the KL divergences that explainers ask for, and on how many beginnings."""
    found: dict[float, int] = {}
    for spec in params.explainers.values():
        if isinstance(spec, InterventionExplainer):
            found[spec.kl] = max(found.get(spec.kl, 0), spec.examples)
    return found


def rows_of(name: str, params: Params, wanted: dict[float, int]) -> Iterator[pa.Table]:
    """Yield INTERVENTIONS rows, one latent's at a time."""
    from builders.encode import Encoder  # the model is loaded only where somebody asks
    from builders.pushing import Pusher
    from pipelines.dictionaries import reopened

    contexts, spec = shelf("contexts", name), params.saes[name]
    encoder = reopened(params, name, shelf("saes", name), shelf("tokens", spec.subject))
    if not isinstance(encoder, Encoder):
        return
    pusher = Pusher(encoder.model, encoder.mounted, encoder.device)
    columns = ["latent", "split", "example", "kind", "tokens", "activations"]
    for path in contexts.paths(CONTEXTS):
        for examples in track(list(by_latent(pq.read_table(path, columns=columns), "train")), f"pushing latents of {name}"):
            for target, count in sorted(wanted.items()):
                yield intervention_rows(name, examples, pusher, count, target)


if __name__ == "__main__":
    run(main)
