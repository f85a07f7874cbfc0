"""Stage `activations`: subjects × dictionaries × tokens → activations and latents; it resumes after a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from builders.lake.shards import Shards, Shelf
from builders.progress import track
from builders.saes import activations as builder
from builders.saes import encoder, latents
from builders.saes.encoder import Dictionary
from builders.seeds import seed_of
from builders.text.rows import Corpus, padded
from builders.text.tokens import TOKENS
from builders.text.vocabulary import VOCABULARY
from pipelines.graph.declared import declared
from pipelines.graph.stage import for_each, run, shelf
from pipelines.opened.dictionaries import reopened
from pipelines.opened.subjects import Subjects
from pipelines.params import Params
from pipelines.parts.reading import job_of, read


def main(*only: str) -> None:
    """Write the activations and latents of every dictionary, or of *only* the one given, unless they are finished."""
    params = declared("activations")
    subjects = Subjects(params)

    def fill(sae_id: str) -> None:
        job_of(params, sae_id).fill(lambda shards: write(subjects, sae_id, shards))

    for_each("activations", params.by_subject, only, fill)


def write(subjects: Subjects, sae_id: str, shards: Shards) -> bool:
    """Write the activations and latents of dictionary *sae_id*; another try gives the same."""
    params = subjects.params
    tokens = shelf("tokens", params.saes[sae_id].subject)
    rows = tokens.read(TOKENS, columns=["row", "ids", "special"])
    dictionary = reopened(subjects, sae_id, shelf("saes", sae_id), tokens)
    files = merged(sae_id, params, shards, read(params, job_of(params, sae_id), dictionary, rows), dictionary, tokens)
    seed = seed_of(params.seed, "self test", sae_id)
    count, worst = encoder.self_test(dictionary, rows, files, params.activations.self_test, seed)
    print(f"{sae_id}: {count} stored activations recomputed; largest difference {worst:.1e} of the largest")
    return True


def merged(sae_id: str, params: Params, shards: Shards, paths: list[Path], dictionary: Dictionary, tokens: Shelf) -> list[Path]:
    """Write files of activations and of latents, each for a range of latents; return the files of activations."""
    settings = params.activations
    spills = builder.Spills(paths)
    rows, vocabulary = tokens.read(TOKENS, columns=["ids", "special"]), tokens.read(VOCABULARY)
    text = int(pc.sum(pc.invert(pc.list_flatten(rows["special"]))).as_py())
    lengths = pc.list_value_length(rows["ids"]).to_numpy().astype(np.int64)
    scope = latents.Scope(Corpus(padded(rows, "ids", 0), lengths), params.tokens.window, text)
    pieces = np.array(vocabulary["piece"].to_pylist(), dtype=object)
    effects, truths = dictionary.effects(), dictionary.truths
    files = []
    for number, (low, high) in enumerate(track(builder.ranges(spills.counts, settings.file_rows), f"sorting {sae_id}")):
        files.append(shards.path(builder.ACTIVATIONS, number))
        if shards.done(builder.ACTIVATIONS, number) and shards.done(latents.LATENTS, number):
            continue
        firings = spills.read(low, high)
        shards.write(builder.ACTIVATIONS, builder.row_groups(sae_id, firings), number)
        found = latents.latent_rows(sae_id, low, high, firings, scope, settings.rare_windows, pieces, effects, truths)
        shards.write(latents.LATENTS, [found], number)
    return files


if __name__ == "__main__":
    run(main)
