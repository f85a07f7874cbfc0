"""Stage `lab` (frozen; `make lab` runs it): train the lab checkpoint and write what it learned into its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from builders import corpus, subjects
from cards.render import render
from checkpoints import recipe as lab
from pipelines.params import load_lab
from pipelines.stage import run

FOLDER = Path("checkpoints/lab-transformer")


def main() -> None:
    """Train the tokenizer and the model on the documents that are not held out; write both and their card."""
    params = load_lab()
    recipe = lab.Recipe(seed=params.seed, **params.transformer.model_dump(exclude={"held_out"}))
    sides = texts(params.transformer.held_out)
    tokenizer = lab.train_tokenizer(sides[0]["text"].to_pylist(), recipe)
    rows, held_out = (rows_of(side, tokenizer, recipe.length) for side in sides)
    model = lab.train(rows, held_out, recipe)
    lab.save(model, tokenizer, FOLDER)
    write_card(recipe, sides)


def texts(share: float) -> tuple[pa.Table, pa.Table]:
    """Return the documents to train on and the held-out *share* of them."""
    source = corpus.documents(corpus.python_docs(), share)
    documents = pa.concat_tables(source)
    return documents.filter(pc.invert(documents["held_out"])), documents.filter(documents["held_out"])


def write_card(recipe: lab.Recipe, sides: tuple[pa.Table, pa.Table]) -> None:
    """Measure the checkpoint as it was stored and write its card."""
    source = subjects.Source(path=str(FOLDER))
    tokenizer = subjects.tokenizer_of(source, FOLDER)
    model = subjects.load(source, FOLDER, "float32", "cpu")
    rows, held_out = (rows_of(side, tokenizer, recipe.length) for side in sides)
    tokens = int((held_out[:, 1:] >= 0).sum())
    mean, se = lab.mean_loss(model, held_out)
    facts = {
        "recipe": recipe,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": int((rows[:, 1:] >= 0).sum()),
        "held_out_tokens": tokens,
        "loss": mean,
        "loss_se": se,
        "training_loss": lab.mean_loss(model, rows[:: max(1, len(rows) // len(held_out))])[0],
        "baselines": lab.baselines(rows, held_out, recipe.vocabulary),
        "bytes_per_token": sum(len(text.encode()) for text in sides[1]["text"].to_pylist()) / tokens,
    }
    (FOLDER / "README.md").write_text(render("lab.md.j2", facts))


def rows_of(texts: pa.Table, tokenizer: PreTrainedTokenizerBase, length: int) -> npt.NDArray[np.int64]:
    """Return the token rows of DOCUMENTS rows *texts* [rows, length], -1 where there is no token."""
    packing = corpus.Packing(length, "row", join=False, keep_partial=True)
    packed = [ids for _, _, ids in corpus.pack(corpus.encode(texts, tokenizer), tokenizer, packing)]
    rows = np.full((len(packed), length), -1, dtype=np.int64)
    for row, ids in zip(rows, packed, strict=True):
        row[: len(ids)] = ids
    return rows


if __name__ == "__main__":
    run(main)
