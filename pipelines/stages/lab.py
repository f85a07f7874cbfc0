"""Stage `lab` (frozen; `make lab` runs it): train a lab checkpoint, measure what it learned, and write its card."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from builders.arrays import Ints
from builders.seeds import seed_of
from builders.steering import townsfolk
from builders.steering.asking import Prompt, prompts
from builders.steering.orders import numbers_of
from builders.steering.steerer import Steerer
from builders.subjects import checkpoints, places
from builders.text import sources, tokens
from cards.render import render
from checkpoints import recipe as lab
from checkpoints.architectures import Shape, build
from pipelines.graph.stage import chosen, run
from pipelines.params import LabFurtherParams, LabParams, load_lab

FOLDER = Path("checkpoints")


def main(checkpoint_id: str) -> None:
    """Train lab checkpoint *checkpoint_id* by its recipe, and write it with its tokenizer and its card."""
    params = load_lab()
    chosen("lab", zip(params.checkpoints), [checkpoint_id])
    spec = params.checkpoints[checkpoint_id]
    known, held_out = texts(params)
    if isinstance(spec, LabFurtherParams):
        model, tokenizer = stored(spec.start)
    else:
        tokenizer = lab.train_tokenizer(known["text"].to_pylist(), params.vocabulary)
        model = build(Shape(**spec.shape.model_dump()), params.vocabulary, params.length, seed_of(params.seed, "lab", "weights"))
    rows, watched = (rows_of(side, tokenizer, params.length) for side in (known, held_out))
    if not isinstance(spec, LabFurtherParams):
        lab.train(model, rows, rows, watched, lab.Recipe(seed_of(params.seed, "lab"), epochs=spec.epochs, **params.reading.model_dump()))
    for lesson in spec.talks:
        how = params.talking[lesson]
        some = rows[: int(how.documents * len(rows))]
        talks, replies = talk_rows(how.talks, townsfolk.LESSONS[lesson], tokenizer, params.length)
        recipe = lab.Recipe(seed_of(params.seed, "lab", lesson), epochs=1, **how.model_dump(exclude={"talks", "documents"}))
        lab.train(model, np.concatenate([some, talks]), np.concatenate([some, replies]), watched, recipe)
    lab.save(model, tokenizer, FOLDER / checkpoint_id)
    write_card(checkpoint_id, params)


def stored(checkpoint_id: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the stored checkpoint *checkpoint_id* in float32, and its tokenizer."""
    source = places.Source(path=str(FOLDER / checkpoint_id))
    return checkpoints.load(source, FOLDER / checkpoint_id, "float32", "cpu"), checkpoints.tokenizer_of(source, FOLDER / checkpoint_id)


def texts(params: LabParams) -> tuple[pa.Table, pa.Table]:
    """Return the documents to train on and the held-out documents."""
    documents = pa.concat_tables(sources.documents(sources.python_docs(), params.held_out))
    return documents.filter(pc.invert(documents["held_out"])), documents.filter(documents["held_out"])


def talk_rows(count: int, lesson: townsfolk.Lesson, tokenizer: PreTrainedTokenizerBase, length: int) -> tuple[Ints, Ints]:
    """Return *count* talks of *lesson* as token rows [count, length], and the same rows with -1 at every token that is not learned.

    Only the tokens of replies are learned.
    """
    rows, replies = np.full((2, count, length), -1, dtype=np.int64)
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        texts, own = zip(*townsfolk.parts(number, lesson), strict=True)
        ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        tokens = np.array([tokenizer.bos_token_id, *chain.from_iterable(ids)])[:length]
        learned = np.array([False, *chain.from_iterable([said] * len(part) for said, part in zip(own, ids, strict=True))])[:length]
        row[: len(tokens)] = tokens
        reply[: len(tokens)] = np.where(learned, tokens, -1)
    return rows, replies


def write_card(checkpoint_id: str, params: LabParams) -> None:
    """Measure the stored checkpoint and write its card."""
    model, tokenizer = stored(checkpoint_id)
    known, held_out = texts(params)
    rows, watched = (rows_of(side, tokenizer, params.length) for side in (known, held_out))
    tokens = int((watched[:, 1:] >= 0).sum())
    mean, se = lab.mean_loss(model, watched)
    facts = {
        "name": checkpoint_id,
        "params": params,
        "spec": params.checkpoints[checkpoint_id],
        "config": model.config,
        "architecture": type(model).__name__.removesuffix("ForCausalLM"),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": int((rows[:, 1:] >= 0).sum()),
        "held_out_tokens": tokens,
        "loss": mean,
        "loss_se": se,
        "baselines": lab.baselines(rows, watched, params.vocabulary),
        "bytes_per_token": sum(len(text.encode()) for text in held_out["text"].to_pylist()) / tokens,
        "replies": [replies_right(model, tokenizer, disposition, trait) for disposition, trait in traits()],
    }
    (FOLDER / checkpoint_id / "README.md").write_text(render("lab.md.j2", facts))


def traits() -> list[tuple[str, str | None]]:
    """Return every disposition with each of its two traits, and with None."""
    return [(disposition, trait) for disposition, own in townsfolk.DISPOSITIONS.items() for trait in (own.name, own.opposite, None)]


def questions_put(tokenizer: PreTrainedTokenizerBase, disposition: str, trait: str | None) -> list[Prompt]:
    """Return held-out questions about *disposition* that ask for a reply in the manner of *trait*, or of the answerer's choice."""
    manner = "" if trait is None else townsfolk.BEING.format(trait=trait)
    return prompts(townsfolk.pairs(disposition, held_out=True), f"{townsfolk.TEMPLATE}{manner} (", tokenizer, bos=True)


def replies_right(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, disposition: str, trait: str | None) -> dict[str, object]:
    """Return how often the model's letter agrees with *trait*, or with *disposition* where *trait* is None."""
    asked = questions_put(tokenizer, disposition, trait)
    matching, other = Steerer(model, {}, batch=256).answers(asked, [None])[:, 0].T
    right = (matching > other) == (trait in (disposition, None))
    return {"name": disposition, "trait": trait, **share_right(right.tolist(), numbers_of(townsfolk.pairs(disposition, held_out=True)))}


def share_right(right: list[bool], questions: list[int]) -> dict[str, float]:
    """Return the number of *questions*, the mean over questions of the share of *right* answers, and its standard error."""
    shares = pd.Series(right, dtype="float64").groupby(questions).mean().to_numpy()
    return {"n": len(shares), "share": float(shares.mean()), "se": float(shares.std(ddof=1)) / math.sqrt(len(shares))}


def rows_of(texts: pa.Table, tokenizer: PreTrainedTokenizerBase, length: int) -> Ints:
    """Return the tokens of the DOCUMENTS rows *texts* as rows [rows, length], padded with -1."""
    packing = tokens.Packing(length, "row", join=False, keep_partial=True)
    packed = [ids for _, _, ids in tokens.pack(tokens.encode(texts, tokenizer), tokenizer, packing)]
    rows = np.full((len(packed), length), -1, dtype=np.int64)
    for row, ids in zip(rows, packed, strict=True):
        row[: len(ids)] = ids
    return rows


if __name__ == "__main__":
    run(main)
