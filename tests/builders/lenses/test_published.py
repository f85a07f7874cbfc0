"""Published curves of lenses: how many there are, which layer each number is of, and some of the numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from builders.lenses.published import FAMILIES, LENS_REFERENCE, five_of, reference_rows
from builders.lenses.published_curves import CE, KL, MODELS


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Return all published rows."""
    return reference_rows().to_pandas()


def of(frame: pd.DataFrame, model: str, lens: str) -> pd.DataFrame:
    """Return the rows of one curve, by layer."""
    own: pd.DataFrame = frame[(frame["model"] == model) & (frame["lens"] == lens)].set_index("layer")
    return own


def test_rows_are_those_of_the_table() -> None:
    """All rows have the table's columns, bounds and order."""
    rows = reference_rows()
    LENS_REFERENCE.validate(rows)
    assert rows.column_names == LENS_REFERENCE.schema.names


def test_all_curves_are_there(frame: pd.DataFrame) -> None:
    """There are five models of each family, two lenses of each, and a cross-entropy at every layer that was recorded."""
    counts = frame.groupby(["family", "lens"], observed=True)
    assert counts["model"].nunique().to_dict() == {(family, lens): 5 for family in FAMILIES for lens in ("logit", "tuned")}
    assert counts.size().to_dict() == {
        (family, lens): n for family, n in (("mamba", 227), ("pythia", 124), ("rwkv", 124)) for lens in ("logit", "tuned")
    }
    assert set(CE) == set(KL) == {(model, lens) for model in MODELS for lens in ("logit", "tuned")}
    assert "mamba/160m" not in MODELS


def test_divergences_are_of_five_layers(frame: pd.DataFrame) -> None:
    """Each curve has the divergence of its first and last vector and of three between them."""
    known = frame.dropna(subset="kl_bits")

    assert (known.groupby(["model", "lens"], observed=True).size() == 5).all()
    assert [five_of(n) for n in (12, 23)] == [(0, 3, 6, 9, 11), (0, 5, 11, 17, 22)]
    assert of(known, "mamba/130m", "tuned")["kl_bits"].to_dict() == {1: 5.06, 6: 2.44, 12: 1.63, 18: 1.02, 23: 0.175}


def test_divergence_is_about_what_the_lens_loses(frame: pd.DataFrame) -> None:
    """The model's own entropy is near its cross-entropy, so a lens's divergence is near its cross-entropy above the model's.

    Two curves that were mixed up would be far apart.
    """
    known = frame.dropna(subset="kl_bits")
    lost = known["ce_bits"] - known["baseline_ce_bits"]
    assert (abs(lost - known["kl_bits"]) < 0.05 + 0.01 * known["ce_bits"]).all()


@pytest.mark.parametrize(
    ("model", "first", "last", "alignment"),
    [("mamba/2.8b", 1, 63, "likely"), ("pythia/160m", 0, 11, "known"), ("rwkv/7b", 1, 32, "known")],
)
def test_layers_count_blocks(frame: pd.DataFrame, model: str, first: int, last: int, alignment: str) -> None:
    """Pythia's files begin before the first block, the others' after it; RWKV's go on to the last layer, the others stop one before."""
    own = of(frame, model, "logit")

    assert own.index.tolist() == list(range(first, last + 1))
    assert own["recorded"].tolist() == list(range(len(own)))
    assert set(own["alignment"]) == {alignment}
    assert own["depth"].tolist() == [layer / MODELS[model][0] for layer in own.index]


def test_the_last_layer_is_the_model(frame: pd.DataFrame) -> None:
    """RWKV's curves end with the model's own cross-entropy; nowhere else is a lens as good as the model."""
    last = frame["layer"] == frame["layers"]

    assert set(frame[last]["family"]) == {"rwkv"}
    assert frame[last]["ce_bits"].tolist() == pytest.approx(frame[last]["baseline_ce_bits"].tolist(), abs=5e-4)
    assert (frame[~last]["ce_bits"] > frame[~last]["baseline_ce_bits"]).all()


def test_some_numbers_are_those_of_the_files(frame: pd.DataFrame) -> None:
    """Values at known layers, baselines and sources, as the result files have them."""
    mamba, pythia, rwkv = (of(frame, *key) for key in (("mamba/2.8b", "tuned"), ("pythia/6.9b", "logit"), ("rwkv/3b", "logit")))

    assert mamba["ce_bits"][[1, 32, 63]].tolist() == [8.91, 2.52, 0.703]
    assert pythia["ce_bits"][[0, 16, 31]].tolist() == [4.5, 1.59, 0.853]
    assert rwkv["ce_bits"][[1, 31, 32]].tolist() == [32.1, 7.61, 0.768]
    assert mamba["baseline_ce_bits"].unique().tolist() == [0.670]
    assert rwkv["source"].iloc[0].endswith("Lenses/results/rwkv/3b/aggregate_metrics.json")
