"""Stage `lab` (frozen; `make lab` runs it): train a lab checkpoint and write what it learned into its card."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from builders.seeds import seed_of
from builders.steering import townsfolk
from builders.steering.behaviours import Prompt, numbers_of, prompts
from builders.steering.steerer import Steerer
from builders.subjects import checkpoints
from builders.text import sources, tokens
from cards.render import render
from checkpoints import recipe as lab
from checkpoints.architectures import Shape, build
from pipelines.graph.stage import run
from pipelines.params import Lab, LabFurther, load_lab

FOLDER = Path("checkpoints")
Ids = npt.NDArray[np.int64]


def main(name: str) -> None:
    """Train the checkpoint *name* as its recipe says and write it with its tokenizer and its card."""
    params = load_lab()
    spec = params.checkpoints[name]
    known, held_out = texts(params)
    if isinstance(spec, LabFurther):
        model, tokenizer = stored(spec.start)
    else:
        tokenizer = lab.train_tokenizer(known["text"].to_pylist(), params.vocabulary)
        model = build(Shape(**spec.shape.model_dump()), params.vocabulary, params.length, seed_of(params.seed, "lab", "weights"))
    rows, watched = (rows_of(side, tokenizer, params.length) for side in (known, held_out))
    if not isinstance(spec, LabFurther):
        lab.train(model, rows, rows, watched, lab.Recipe(seed_of(params.seed, "lab"), epochs=spec.epochs, **params.reading.model_dump()))
    for lesson in spec.talks:
        how = params.talking[lesson]
        some = rows[: int(how.documents * len(rows))]
        talks, replies = talk_rows(how.talks, townsfolk.LESSONS[lesson], tokenizer, params.length)
        recipe = lab.Recipe(seed_of(params.seed, "lab", lesson), epochs=1, **how.model_dump(exclude={"talks", "documents"}))
        lab.train(model, np.concatenate([some, talks]), np.concatenate([some, replies]), watched, recipe)
    lab.save(model, tokenizer, FOLDER / name)
    write_card(name, params)


def stored(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the checkpoint *name* as it was stored, in float32, and its tokenizer."""
    source = checkpoints.Source(path=str(FOLDER / name))
    return checkpoints.load(source, FOLDER / name, "float32", "cpu"), checkpoints.tokenizer_of(source, FOLDER / name)


def texts(params: Lab) -> tuple[pa.Table, pa.Table]:
    """Return the documents to train on and the held-out documents."""
    documents = pa.concat_tables(sources.documents(sources.python_docs(), params.held_out))
    return documents.filter(pc.invert(documents["held_out"])), documents.filter(documents["held_out"])


def talk_rows(count: int, lesson: townsfolk.Lesson, tokenizer: PreTrainedTokenizerBase, length: int) -> tuple[Ids, Ids]:
    """Return *count* talks of *lesson* as token rows [count, length], and the same with -1 at all that is no reply: it is not learned."""
    rows, replies = np.full((2, count, length), -1, dtype=np.int64)
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        texts, own = zip(*townsfolk.parts(number, lesson), strict=True)
        ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        tokens = np.array([tokenizer.bos_token_id, *chain.from_iterable(ids)])[:length]
        learned = np.array([False, *chain.from_iterable([said] * len(part) for said, part in zip(own, ids, strict=True))])[:length]
        row[: len(tokens)] = tokens
        reply[: len(tokens)] = np.where(learned, tokens, -1)
    return rows, replies


def write_card(name: str, params: Lab) -> None:
    """Measure the checkpoint as it was stored and write its card."""
    model, tokenizer = stored(name)
    known, held_out = texts(params)
    rows, watched = (rows_of(side, tokenizer, params.length) for side in (known, held_out))
    tokens = int((watched[:, 1:] >= 0).sum())
    mean, se = lab.mean_loss(model, watched)
    facts = {
        "name": name,
        "params": params,
        "spec": params.checkpoints[name],
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
    (FOLDER / name / "README.md").write_text(render("lab.md.j2", facts))


def traits() -> list[tuple[str, str | None]]:
    """Return every disposition with each of its traits, and with none."""
    return [(name, trait) for name, some in townsfolk.DISPOSITIONS.items() for trait in (some.name, some.opposite, None)]


def questions_put(tokenizer: PreTrainedTokenizerBase, name: str, trait: str | None) -> list[Prompt]:
    """Return held-out questions about the disposition *name*, to be replied to in the manner of *trait*, or in any."""
    manner = "" if trait is None else townsfolk.BEING.format(trait=trait)
    return prompts(townsfolk.pairs(name, held_out=True), f"{townsfolk.TEMPLATE}{manner} (", tokenizer, bos=True)


def replies_right(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, trait: str | None) -> dict[str, object]:
    """Return how often the model's letter agrees with *trait*, or with the disposition where none is said."""
    asked = questions_put(tokenizer, name, trait)
    matching, other = Steerer(model, {}, batch=256).answers(asked, [None])[:, 0].T
    right = (matching > other) == (trait in (name, None))
    return {"name": name, "trait": trait, **share_right(right.tolist(), numbers_of(townsfolk.pairs(name, held_out=True)))}


def share_right(right: list[bool], questions: list[int]) -> dict[str, float]:
    """Return the number of *questions*, the mean of their shares of answers that are *right*, and its standard error."""
    shares = pd.Series(right, dtype="float64").groupby(questions).mean().to_numpy()
    return {"n": len(shares), "share": float(shares.mean()), "se": float(shares.std(ddof=1)) / math.sqrt(len(shares))}


def rows_of(texts: pa.Table, tokenizer: PreTrainedTokenizerBase, length: int) -> Ids:
    """Return the token rows of DOCUMENTS rows *texts* [rows, length], -1 where there is no token."""
    packing = tokens.Packing(length, "row", join=False, keep_partial=True)
    packed = [ids for _, _, ids in tokens.pack(tokens.encode(texts, tokenizer), tokenizer, packing)]
    rows = np.full((len(packed), length), -1, dtype=np.int64)
    for row, ids in zip(rows, packed, strict=True):
        row[: len(ids)] = ids
    return rows


if __name__ == "__main__":
    run(main)
