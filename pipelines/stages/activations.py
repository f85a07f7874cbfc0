"""Stage `activations`: subject × SAE × tokens → activations and latents; resumes after a crash."""

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
from pipelines.graph.stage import folder, run, shelf
from pipelines.opened.dictionaries import reopened
from pipelines.params import Params
from pipelines.parts.reading import job_of, read


def main(name: str) -> None:
    """Write the activations and latents of dictionary *name*."""
    params = declared("activations", name)
    settings, tokens, job = params.activations, shelf("tokens", params.saes[name].subject), job_of(params, name)
    shards = Shards(folder("activations", name), job.inputs, job.settings, job.code)
    rows = tokens.read(TOKENS, columns=["row", "ids", "special"])
    dictionary = reopened(params, name, shelf("saes", name), tokens)
    files = merged(name, params, shards, read(params, job, dictionary, rows), dictionary, tokens)
    seed = seed_of(params.seed, "self test", name)
    count, worst = encoder.self_test(dictionary, rows, files, settings.self_test, seed)
    print(f"{name}: {count} stored activations recomputed; largest difference {worst:.1e} of the largest")
    shards.finish()
    job.note_done()


def merged(name: str, params: Params, shards: Shards, paths: list[Path], dictionary: Dictionary, tokens: Shelf) -> list[Path]:
    """Write the files of activations and of latents, a range of latents each; return those of activations."""
    settings = params.activations
    spills = builder.Spills(paths)
    rows, vocabulary = tokens.read(TOKENS, columns=["ids", "special"]), tokens.read(VOCABULARY)
    text = int(pc.sum(pc.invert(pc.list_flatten(rows["special"]))).as_py())
    lengths = pc.list_value_length(rows["ids"]).to_numpy().astype(np.int64)
    scope = latents.Scope(Corpus(padded(rows, "ids", 0), lengths), params.tokens.window, text)
    pieces = np.array(vocabulary["piece"].to_pylist(), dtype=object)
    effects, truths = dictionary.effects(), dictionary.truths
    files = []
    for number, (low, high) in enumerate(track(builder.ranges(spills.counts, settings.file_rows), f"sorting {name}")):
        files.append(shards.path(builder.ACTIVATIONS, number))
        if shards.done(builder.ACTIVATIONS, number) and shards.done(latents.LATENTS, number):
            continue
        firings = spills.read(low, high)
        shards.write(builder.ACTIVATIONS, builder.row_groups(name, firings), number)
        found = latents.latent_rows(name, low, high, firings, scope, settings.rare_windows, pieces, effects, truths)
        shards.write(latents.LATENTS, [found], number)
    return files


if __name__ == "__main__":
    run(main)
