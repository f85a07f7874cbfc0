"""The rows of one dictionary, a latent at a time."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import exported
import numpy as np
import pyarrow as pa
import pytest
from rows import rows_of

from builders.errors import UserError
from builders.exports.dictionaries import dictionaries, layer_of, sets_of
from builders.exports.rows import BINS, beside, by_latent, firing, key_rows, pieces_of, shortest
from builders.lake.shards import write_parquet
from builders.releases.release import open_release, write_contents
from builders.saes.activations import ACTIVATIONS

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_come_latent_by_latent_from_all_files(tmp_path: Path) -> None:
    """Files that are sorted each for itself are merged by latent, rows of other dictionaries are left out, and key order is restored."""
    release = exported.write(tmp_path)
    groups = [(latent, rows["example"].to_pylist()) for latent, rows in by_latent(release, "contexts", exported.SAE, ["example"])]
    judged = [row["explainer"] for row in key_rows(release, "judgements", exported.SAE)]

    assert groups == [(0, [0, 1, 2, 0, 1, 2]), (1, [0, 0])]
    assert judged == ["default"] * 4 + ["lexical"] * 3
    assert list(by_latent(release, "neighbours", exported.SAE, [])) == []


def test_a_latent_may_be_longer_than_a_row_group(tmp_path: Path) -> None:
    """The rows of a latent that ends in another row group of its file than it began in come whole."""
    counts = {0: ACTIVATIONS.row_group - 1, 1: ACTIVATIONS.row_group + 3, 5: 2}
    groups = [
        rows_of(ACTIVATIONS, *({"sae": "one", "latent": latent, "row": 0, "position": n, "value": 1.0} for n in range(count)))
        for latent, count in counts.items()
    ]
    write_parquet(tmp_path / "activations/train-00000-of-00001.parquet", ACTIVATIONS, ACTIVATIONS.row_groups(pa.concat_tables(groups)))
    write_contents(tmp_path, "long", "1.0.0", [ACTIVATIONS])
    found = list(by_latent(open_release(tmp_path), "activations", "one", ["position"]))

    assert {latent: rows.num_rows for latent, rows in found} == counts
    assert [rows["position"].to_pylist() for _, rows in found] == [list(range(count)) for count in counts.values()]


def test_groups_are_put_beside_latents() -> None:
    """Every latent gets its own rows or None, whichever of the two lists has gaps."""
    rows = {latent: pa.table({"n": [latent]}) for latent in (1, 2, 5, 9)}

    assert list(beside([0, 2, 3, 5], iter(rows.items()))) == [None, rows[2], None, rows[5]]


def test_how_a_latent_fires() -> None:
    """Bins reach from 0 to the largest activation, and percentiles are activations that occurred."""
    found = firing(np.arange(1, 101, dtype=np.float32))

    assert found.counts == [1] + [2] * (BINS - 2) + [3]
    assert found.centres[:2] == [1.0, 3.0]
    assert found.percentiles == [float(n) for n in range(1, 100)]


def test_numbers_are_written_as_the_shortest_decimals() -> None:
    """A decimal has no digit more than float32 needs, and is read as the same float32."""
    values = pa.array([0.1, 1 / 3, 1e-30, 16777217.0], pa.float32())

    assert shortest(values).to_pylist() == [0.1, 0.33333334, 1e-30, 16777216.0]
    assert shortest(values).cast(pa.float32()).equals(values)


@pytest.mark.parametrize(
    ("hookpoint", "layer"),
    [("layers.3", 3), ("layers.12.mlp", 12), ("h.5.input", 5), ("layers.1.mlp.down_proj.input", 1), ("embed_tokens", None), (None, None)],
)
def test_the_layer_of_a_hookpoint(hookpoint: str | None, layer: int | None) -> None:
    """It is the first whole number among the parts of the path."""
    assert layer_of(hookpoint) == layer


def test_dictionaries_are_chosen_by_id(tmp_path: Path) -> None:
    """All are chosen by default, in order; an unknown one is named with those that there are."""
    release = exported.write(tmp_path)

    assert [each.sae for each in dictionaries(release)] == sorted(exported.WIDTHS)
    assert [(each.sae, each.place, each.hookpoint) for each in dictionaries(release, ["toy-rules"])] == [("toy-rules", "e", "tokens")]
    with pytest.raises(UserError, match=r"has no dictionary gone, lost; --sae takes toy-l1-top, toy-l2-top, toy-rules"):
        dictionaries(release, ["gone", "toy-rules", "lost"])


def test_layers_of_one_kind_make_a_set(tmp_path: Path) -> None:
    """Ids that differ in the number of their layer only belong together; any other dictionary is a set of its own."""
    sets = sets_of(dictionaries(exported.write(tmp_path)))

    assert {name: [each.sae for each in members] for name, members in sets.items()} == {
        "toy-lx-top": ["toy-l1-top", "toy-l2-top"],
        "toy-rules": ["toy-rules"],
    }


def test_pieces_are_texts_of_tokens(tmp_path: Path) -> None:
    """A token's id is the place of its text."""
    assert pieces_of(exported.write(tmp_path), "lab").tolist() == exported.PIECES


def test_no_language_model_is_needed() -> None:
    """Neither exports nor imports load PyTorch."""
    code = "import sys, builders.exports.export, builders.exports.neuronpedia_import; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout == "False\n"
