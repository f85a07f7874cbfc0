"""The `lens_transfer` config: a lens that was made for one layer, on the vectors of another.

It says how alike two layers keep what they know: a lens that reads another layer's vectors as well as its own has found the same directions
there (Belrose et al. 2023, arXiv:2303.08112, section 3). The logit lens has no rows, since it does not depend on the layer: its transfer
to layer j is its row of layer j in `lenses`. So is that of any lens's layer L, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import nn

from builders.errors import UserError
from builders.lake.table import Column, Reference, Table
from builders.lenses.comparison import QUANTITIES, Sums, compared, error_of
from builders.lenses.lens import Lens, LogitLens, chunks
from builders.progress import track
from builders.subjects.anatomy import Anatomy
from builders.subjects.harvest import row_batches

LENS_TRANSFER = Table(
    name="lens_transfer",
    row="a layer's lens on the vectors of a layer, the same one or another",
    key=("subject", "lens", "layer", "vectors_layer"),
    columns=(
        Column("subject", "string", "the language model", categorical=True),
        Column("lens", "string", "tuned, jacobian, jacobian-later or jacobian-state", categorical=True),
        Column("layer", "int32", "the layer that the lens was made for", unit="blocks", low=0),
        Column("vectors_layer", "int32", "the layer whose vectors it reads", unit="blocks", low=0),
        Column("kl", "float64", "mean KL(model ‖ lens), from the model's own distribution to the lens's", unit="nats", low=0),
        Column("kl_se", "float64", "its standard error, rows being independent; null for a single row", unit="nats", low=0, nullable=True),
        Column("ce", "float64", "mean cross-entropy of the next token under the lens", unit="nats", low=0),
        Column("ce_se", "float64", "its standard error, rows being independent; null for a single row", unit="nats", low=0, nullable=True),
        Column("n", "int64", "tokens that were predicted", unit="tokens", low=1),
        Column("rows", "int32", "rows of tokens that they stand in", unit="rows", low=1),
    ),
    references=(Reference(("subject", "lens", "layer"), "lenses", ("subject", "lens", "layer")),),
)


@torch.no_grad()
def transfer(
    model: nn.Module, anatomy: Anatomy, lenses: Sequence[Lens], subject: str, rows: pa.Table, batch: int, device: str, ahead: int = 0
) -> pa.Table:
    """Return the LENS_TRANSFER rows of *lenses* but the logit lens, on TOKENS *rows*; it takes L² unembeddings of each token.

    Where a model keeps its stream at different sizes (RWKV), vectors are brought to the size of the lens's own layer first. *ahead* is
    as in :func:`builders.lenses.lenses.measure`. Raises UserError if the rows hold no token to predict.
    """
    some = [lens for lens in lenses if lens.name != LogitLens.name]
    pairs = [(lens, layer, other) for lens in some for layer in range(anatomy.last) for other in range(anatomy.last)]
    sums = Sums(rows.num_rows)
    for number, part in enumerate(track(list(row_batches(rows, batch)), "lenses on other layers")):
        for chunk in chunks(model, anatomy, part, device, ahead):
            row = number * batch + chunk.place
            sums.count(row)
            for lens, layer, other in pairs:
                vectors = chunk.hidden[other] * (anatomy.scales[layer] / anatomy.scales[other])
                values, _ = compared(chunk, anatomy.logits(lens.carried(layer, vectors)))
                sums.add((lens.name, layer, other), row, values)
    if not sums.tokens.any():
        raise UserError(f"lens_transfer: no row of {rows.num_rows} has a token to predict; make rows longer or hold more of the corpus out")
    return LENS_TRANSFER.rows([_record(subject, lens.name, layer, other, sums) for lens, layer, other in pairs])


def _record(subject: str, lens: str, layer: int, other: int, sums: Sums) -> dict[str, object]:
    means = dict(zip(QUANTITIES, sums.means((lens, layer, other)), strict=True))
    return {
        "subject": subject,
        "lens": lens,
        "layer": layer,
        "vectors_layer": other,
        **{name: means[name].mean for name in ("kl", "ce")},
        **{f"{name}_se": error_of(means[name]) for name in ("kl", "ce")},
        "n": int(means["ce"].tokens.sum()),
        "rows": len(means["ce"].tokens),
    }
