"""What `vectors` and `biases` hold is all that a code takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from coders import dense, noise, random_coder, random_transcoder

from builders.errors import UserError
from builders.readers.vectors import BIASES, VECTORS, bias_row, of_size, vector_groups
from builders.saes.coder import Gated, GroupMax, JumpReLU, ReLU, SparseCoder, TopK

if TYPE_CHECKING:
    import numpy.typing as npt

    from builders.saes.coder import Activation, Norm

pytestmark = pytest.mark.numeric

WIDTH, D = 12, 5
KINDS: dict[str, Activation] = {
    "topk": TopK(3),
    "groupmax": GroupMax(3, 4),
    "jumprelu": JumpReLU(noise(7, WIDTH)),
    "relu": ReLU(torch.zeros(WIDTH)),
    "gated": Gated(noise(7, WIDTH), 1 + noise(8, WIDTH).abs(), noise(9, WIDTH)),
}
NORMS: tuple[Norm, ...] = ("none", "centered", "layer_norm", "constant_norm")


def rows_of(coder: SparseCoder, dtype: str = "float32") -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows of `vectors` and the row of `biases` of a dictionary."""
    sizes = (coder.d_in, coder.d_out)
    table, biases = (of_size(some, sizes, dtype, alone=True) for some in (VECTORS, BIASES))
    rows, row = pa.concat_tables(vector_groups(table, "sae", coder)), bias_row(biases, "sae", coder)
    table.validate(rows)
    biases.validate(row)
    return rows, row.to_pylist()[0]


def codes(rows: pa.Table, biases: dict[str, Any], activation: str, k: int, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what the docs of both configs say of vectors *x* [n, d]: the activations [n, width], in numpy alone."""
    mean, size = x.mean(axis=1, keepdims=True), np.linalg.norm(x, axis=1, keepdims=True)
    deviation = x.std(axis=1, ddof=1, keepdims=True)
    root = np.sqrt(x.shape[1])
    norms = {"none": x, "centered": x - mean, "layer_norm": (x - mean) / (deviation + 1e-5), "constant_norm": x * root / size}
    column = {name: np.array(rows[name].to_pylist(), dtype=np.float64) for name in rows.column_names if name != "sae"}
    pre = (norms[biases["norm"]] - np.array(biases["shift"])) @ column["encoder"].T + column["bias"]
    if activation == "gated":
        return np.where(pre + column["gate"] > 0, np.maximum(column["scale"] * pre + column["magnitude"], 0), 0)
    if activation == "jumprelu":
        return np.where(pre > np.maximum(column["threshold"], 0), pre, 0)
    runs = pre.reshape(len(pre), k, -1) if activation == "groupmax" else pre[:, None, :]
    kept = {"topk": k, "groupmax": 1, "relu": pre.shape[1]}[activation]
    least = np.sort(runs, axis=2)[:, :, -kept, None]
    return np.where(runs >= least, np.maximum(runs, 0), 0).reshape(pre.shape)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_follow_from_the_rows_alone(kind: str, norm: Norm) -> None:
    """Codes computed in numpy from the rows of both configs are those of the dictionary, whatever its activation and normalisation."""
    coder = random_coder(3, WIDTH, D, KINDS[kind], norm)
    x = noise(11, 40, D)
    rows, biases = rows_of(coder)

    found = codes(rows, biases, kind, 3, x.double().numpy())

    expected = dense(coder.encode(x), WIDTH).numpy()
    assert (expected > 0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_reconstructions_follow_from_the_rows_alone() -> None:
    """Activations times decoder rows, plus the bias, are the dictionary's reconstruction."""
    coder = random_coder(3, WIDTH, D, TopK(3))
    x = noise(11, 40, D)
    rows, biases = rows_of(coder)
    code = coder.encode(x)

    found = dense(code, WIDTH).numpy() @ np.array(rows["decoder"].to_pylist()) + np.array(biases["bias"])

    np.testing.assert_allclose(found, coder.decode(code, x).numpy(), rtol=1e-4, atol=1e-5)


def test_numbers_of_an_activation_stand_where_it_has_them() -> None:
    """Only JumpReLU has thresholds, and only gated SAEs have gates, scales and magnitudes; others have nulls."""
    own = ("threshold", "gate", "scale", "magnitude")
    filled = {kind: [name for name in own if not rows_of(random_coder(0, WIDTH, D, KINDS[kind]))[0][name].null_count] for kind in KINDS}

    assert filled == {"topk": [], "groupmax": [], "jumprelu": ["threshold"], "relu": [], "gated": ["gate", "scale", "magnitude"]}


def test_a_transcoder_has_rows_of_two_sizes() -> None:
    """A transcoder reads vectors of one size and writes those of another; its row says that it transcodes and skips."""
    rows, biases = rows_of(random_transcoder(0, WIDTH, 4, 6, TopK(2)))

    assert (rows.schema.field("encoder").type, rows.schema.field("decoder").type) == (pa.list_(pa.float32(), 4), pa.list_(pa.float32(), 6))
    assert (len(biases["shift"]), len(biases["bias"]), biases["transcodes"], biases["skips"]) == (4, 6, True, True)


@pytest.mark.parametrize(
    ("size", "alone", "names"),
    [((4, 4), True, ("vectors", "biases")), ((4, 4), False, ("vectors_4", "biases_4")), ((4, 6), False, ("vectors_4x6", "biases_4x6"))],
)
def test_a_size_has_its_name(size: tuple[int, int], alone: bool, names: tuple[str, str]) -> None:
    """One size needs no name; of several, each is named, and rows of `vectors` refer to the `biases` of their size."""
    vectors, biases = (of_size(table, size, "float32", alone=alone) for table in (VECTORS, BIASES))

    assert (vectors.name, biases.name) == names
    assert [reference.to for reference in vectors.references] == ["latents", names[1]]


def test_rounded_rows_say_so() -> None:
    """Of half precision are the lists alone; their values are those of the dictionary, rounded, and their columns say it."""
    coder = random_coder(0, WIDTH, D, TopK(2))
    rows, biases = rows_of(coder, "float16")
    table = of_size(VECTORS, (D, D), "float16", alone=True)

    assert np.array_equal(np.array(rows["encoder"].to_pylist()), coder.w_enc.numpy().astype(np.float16))
    assert np.array_equal(np.array(rows["bias"]), coder.b_enc.numpy())
    assert np.array_equal(np.array(biases["shift"]), coder.b_pre.numpy().astype(np.float16))
    assert {column.name: column.type for column in table.columns if column.doc.endswith("; rounded to float16")} == {
        "encoder": f"list<float16>[{D}]",
        "decoder": f"list<float16>[{D}]",
    }


def test_what_half_precision_cannot_hold_is_one_line() -> None:
    """A number that would become infinite is refused by the dictionary's name, with the remedy."""
    coder = random_coder(0, WIDTH, D, TopK(2))
    coder.w_dec[3, 1] = 70_000

    said = r"^release\.vectors: float16 cannot hold the decoder rows of sae, which exceed 65,504; choose float32$"
    with pytest.raises(UserError, match=said):
        rows_of(coder, "float16")


def test_rows_come_a_row_group_at_a_time() -> None:
    """No more latents are made at once than a row group holds, and none is lost."""
    coder = random_coder(0, WIDTH, D, JumpReLU(noise(7, WIDTH)))
    table = replace(of_size(VECTORS, (D, D), "float32", alone=True), row_group=5)

    groups = list(vector_groups(table, "sae", coder))

    assert [group.num_rows for group in groups] == [5, 5, 2]
    assert pa.concat_tables(groups).equals(rows_of(coder)[0])
