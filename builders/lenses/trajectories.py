"""What lenses read in a few short texts, layer by layer: the `trajectories` config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Reference, Table
from builders.lenses.lens import Lens
from builders.subjects.anatomy import Anatomy
from builders.subjects.harvest import Harvest, harvest
from builders.text.tokens import Encoded, Packing, pack, token_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOP = 5  # tokens that are kept of each distribution
LONGEST = 128  # tokens of a prompt; more than that nobody can read as a grid

# Texts whose end a model can guess for different reasons: it knows the documentation, it has just read the same, it knows the world.
PROMPTS = {
    "documentation": "Return the number of items in the list. Raise a ValueError if the list is",
    "repetition": "The first line of the file is empty. The first line of the file is",
    "world": "The capital of Italy is Rome, and the capital of France is",
}

TRAJECTORIES = Table(
    name="trajectories",
    row="one of the five tokens that a lens finds most likely to follow, at one layer and position of a prompt",
    key=("subject", "lens", "prompt", "position", "layer", "rank"),
    columns=(
        Column("subject", "string", "the language model", categorical=True),
        Column("lens", "string", "the lens", categorical=True),
        Column("prompt", "string", "id of the prompt", categorical=True),
        Column("position", "int32", "position in the prompt's token ids; BOS counts, where there is one", unit="tokens", low=0),
        Column("layer", "int32", "how many blocks the vector has gone through", unit="blocks", low=0),
        Column("rank", "int32", "1 for the likeliest token", low=1, high=TOP),
        Column("depth", "float64", "layer / blocks of the model", low=0, high=1),
        Column("read", "string", "the token at the position: the last one that the model has read there", categorical=True),
        Column("token", "int32", "id of the token that the lens expects next", low=0),
        Column("piece", "string", "its text, written as in `vocabulary`"),
        Column("probability", "float32", "its probability", low=0, high=1),
        Column("final", "int32", "id of the token that the model itself finds likeliest to follow", low=0),
        Column("final_probability", "float32", "the probability that the lens gives to `final`", low=0, high=1),
    ),
    references=(OF_SUBJECT, *(Reference(("subject", token), "vocabulary", ("subject", "token")) for token in ("token", "final"))),
)


def trajectory_rows(
    subject: str,
    model: nn.Module,
    anatomy: Anatomy,
    lenses: Sequence[Lens],
    prompts: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase,
    pieces: list[bytes],
    bos: str,
    device: str,
) -> pa.Table:
    """Return the TRAJECTORIES rows of *lenses* on *prompts* (text by id): all layers, and all positions but those of special tokens.

    The lenses must read the position whose next token they tell: jacobian-state, which reads ahead, would be shown one place off.
    *pieces* holds the bytes of each token id, and *bos* is as in :class:`builders.text.tokens.Packing`. One layer's logits of one prompt
    are in memory at a time, [positions, vocabulary]. Raises UserError for a prompt without tokens or with more than LONGEST.
    After nostalgebraist 2020 (the logit lens) and Belrose et al. 2023, figure 1 (arXiv 2303.08112).
    """
    records: list[dict[str, Any]] = []
    for name, rows in _read(subject, prompts, tokenizer, pieces, bos):
        seen = harvest(model, anatomy.layers, rows, device)
        ids = rows["ids"][0].as_py()
        known = {"subject": subject, "prompt": name}
        records += ({**known, **row} for row in _of_prompt(anatomy, lenses, seen, ids, pieces))
    return TRAJECTORIES.rows(records)


def _read(
    subject: str, prompts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, pieces: list[bytes], bos: str
) -> Iterable[tuple[str, pa.Table]]:
    """Yield each prompt's id with its one TOKENS row."""
    for name, text in prompts.items():
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if not 0 < len(ids) <= LONGEST:
            raise UserError(f"lenses.prompts.{name}: it has {len(ids)} tokens of {subject}; give it 1 to {LONGEST}")
        whole: list[Encoded] = [(0, False, ids)]
        packing = Packing(length=len(ids) + 1, bos=bos, join=False, keep_partial=True)
        (rows,) = token_rows(pack(whole, tokenizer, packing), subject, tokenizer, pieces)
        yield name, rows


@torch.no_grad()
def _of_prompt(
    anatomy: Anatomy, lenses: Sequence[Lens], seen: Harvest, ids: Sequence[int], pieces: list[bytes]
) -> Iterable[dict[str, Any]]:
    """Yield the columns of a prompt's rows, of every lens and layer."""
    final = anatomy.logits(seen.vectors[anatomy.layers[-1]]).argmax(-1)
    for lens in lenses:
        for layer, hookpoint in enumerate(anatomy.layers):
            logits = anatomy.logits(lens.carried(layer, seen.vectors[hookpoint]))
            known = {"lens": lens.name, "layer": layer, "depth": layer / anatomy.last}
            yield from ({**known, **row} for row in _of_layer(logits, final, seen.position, ids, pieces))


def _of_layer(logits: Tensor, final: Tensor, position: Tensor, ids: Sequence[int], pieces: list[bytes]) -> Iterable[dict[str, Any]]:
    """Yield the columns of one layer's rows: TOP tokens at each position, from *logits* [positions, vocabulary]."""
    probabilities = logits.softmax(-1).cpu()
    top = probabilities.topk(TOP)
    own = probabilities.gather(1, final.cpu()[:, None])[:, 0]
    for number, place in enumerate(position.tolist()):
        known = {
            "position": place,
            "read": _written(pieces, ids[place]),
            "final": int(final[number]),
            "final_probability": float(own[number]),
        }
        for rank in range(TOP):
            token = int(top.indices[number, rank])
            likely = {"token": token, "piece": _written(pieces, token), "probability": float(top.values[number, rank])}
            yield {**known, "rank": rank + 1, **likely}


def _written(pieces: list[bytes], token: int) -> str:
    """Return a token's text as VOCABULARY writes it; an id that the model has and the tokenizer never makes has none."""
    return pieces[token].decode("utf-8", "backslashreplace") if token < len(pieces) else ""
