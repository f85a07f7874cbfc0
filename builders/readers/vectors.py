"""The rows of every dictionary's encoder and decoder: the config `vectors`, and `biases`, one row for each dictionary.

Both together are all that a code takes, `activation` and `k` of `saes` aside. The lists of a config have one length, so dictionaries of
several sizes have a config each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from builders.errors import UserError
from builders.lake.table import Column, Reference, Table
from builders.saes.coder import Gated, JumpReLU, ReLU, SparseCoder

OF_GATED = "; null in other dictionaries"
VECTORS = Table(
    name="vectors",
    row="the directions that a latent reads and writes, as lists of one length, and its own numbers",
    key=("sae", "latent"),
    columns=(
        Column(
            "sae", "string", "the dictionary; one without a file, such as a neuron basis or planted rules, has no rows", categorical=True
        ),
        Column("latent", "int32", "the latent", low=0),
        Column(
            "encoder",
            "list<float32>",
            "its encoder row; encoder · (norm(x) − shift) + bias is its pre-activation on a vector x, with `norm` and `shift` of `biases`; "
            "factors by which a file scales what it reads or writes are part of the rows",
        ),
        Column("bias", "float32", "its encoder bias"),
        Column(
            "threshold", "float32", "JumpReLU: what the pre-activation must exceed, beside 0; null in other dictionaries", nullable=True
        ),
        Column("gate", "float32", f"gated SAEs: it fires where pre-activation + gate is above 0{OF_GATED}", nullable=True),
        Column(
            "scale", "float32", f"gated SAEs: its activation is scale · pre-activation + magnitude, if above 0{OF_GATED}", nullable=True
        ),
        Column("magnitude", "float32", f"gated SAEs: see `scale`{OF_GATED}", nullable=True),
        Column("decoder", "list<float32>", "its decoder row: what an activation of 1 adds to the reconstruction"),
    ),
    references=(Reference(("sae", "latent"), "latents", ("sae", "latent")), Reference(("sae",), "biases", ("sae",))),
)
BIASES = Table(
    name="biases",
    row="what a dictionary does to a vector before its encoder, and adds after its decoder",
    key=("sae",),
    columns=(
        Column("sae", "string", "the dictionary, as in `vectors`", categorical=True),
        Column(
            "norm",
            "string",
            "how a vector x is normalised first: none; centered: x − mean(x); layer_norm: (x − mean(x)) / (std(x) + 1e-5), with the sample "
            "standard deviation; constant_norm: √d · x / length of x",
            categorical=True,
        ),
        Column("shift", "list<float32>", "what is then subtracted"),
        Column(
            "bias", "list<float32>", "what is added to the sum of activation · decoder row; then `norm` is undone, but not by a transcoder"
        ),
        Column("transcodes", "bool", "whether it is a transcoder, which writes at another hookpoint than it reads"),
        Column("skips", "bool", "whether a matrix times x is added at last; only the dictionary's own file holds it"),
    ),
    references=(Reference(("sae",), "saes", ("sae",)),),
)
Size = tuple[int, int]  # d_in, d_out


def of_size(table: Table, size: Size, dtype: str, *, alone: bool) -> Table:
    """Return VECTORS or BIASES of dictionaries of one *size*, named after it unless it is the only one; *dtype* is that of the lists."""
    d_in, d_out = size
    ending = "" if alone else f"_{d_in}" if d_in == d_out else f"_{d_in}x{d_out}"
    named = replace(table, name=f"{table.name}{ending}", columns=tuple(_stored(column, dtype) for column in table.columns))
    if table.name == VECTORS.name:
        references = (*table.references[:1], replace(table.references[1], to=f"{BIASES.name}{ending}"))
        return replace(named, references=references).sized(encoder=d_in, decoder=d_out)
    return named.sized(shift=d_in, bias=d_out)


def _stored(column: Column, dtype: str) -> Column:
    if not column.is_list or column.element == dtype:
        return column
    return replace(column, dtype=f"list<{dtype}>", doc=f"{column.doc}; rounded to {dtype}")


def vector_groups(table: Table, sae: str, coder: SparseCoder) -> Iterator[pa.Table]:
    """Yield the rows of *table*, VECTORS of one size, for one dictionary, a row group at a time.

    Raises UserError where a number is too large for the table's type.
    """
    for low in range(0, coder.width, table.row_group):
        own = slice(low, low + table.row_group)
        matrices = {"encoder": coder.w_enc[own], "decoder": coder.directions(low, min(low + table.row_group, coder.width))}
        yield table.build(
            {
                "sae": sae,
                "latent": np.arange(low, low + len(matrices["encoder"]), dtype=np.int32),
                "bias": _numbers(coder.b_enc[own]),
                **{name: None if some is None else _numbers(some[own]) for name, some in _of_activation(coder).items()},
                **{name: _rounded(table, name, sae, matrix) for name, matrix in matrices.items()},
            }
        )


def _of_activation(coder: SparseCoder) -> dict[str, Tensor | None]:
    """Return the numbers that an activation function has for each latent."""
    kind = coder.activation
    jumps = kind.threshold if isinstance(kind, JumpReLU) and not isinstance(kind, ReLU) else None
    gated = {name: getattr(kind, name) if isinstance(kind, Gated) else None for name in ("gate", "scale", "magnitude")}
    return {"threshold": jumps, **gated}


def bias_row(table: Table, sae: str, coder: SparseCoder) -> pa.Table:
    """Return the row of *table*, BIASES of one size, for one dictionary."""
    vectors = {"shift": coder.b_pre[None], "bias": coder.b_dec[None]}
    facts = {"sae": sae, "norm": coder.norm, "transcodes": coder.transcodes, "skips": coder.w_skip is not None}
    return table.build({**facts, **{name: _rounded(table, name, sae, vector) for name, vector in vectors.items()}})


def _numbers(values: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = values.detach().to("cpu", torch.float32).numpy()
    return found


def _rounded(table: Table, name: str, sae: str, matrix: Tensor) -> npt.NDArray[np.floating]:
    """Return *matrix* in the type of the column *name*."""
    (dtype,) = (column.element for column in table.columns if column.name == name)
    with np.errstate(over="ignore"):
        found = _numbers(matrix).astype(dtype)
    if np.isinf(found).any():
        raise UserError(f"release.vectors: {dtype} cannot hold the {name} rows of {sae}, which exceed 65,504; choose float32")
    return found
