"""What a second version really sends, with the client's own xet, which cuts files into chunks and stores those that are new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from dataset_hub import DatasetHub
from huggingface_hub import constants
from published import REPO, TEXTS, Publish, release_of
from releases import small_tables

from builders.lake.table import Table
from builders.saes.activations import ACTIVATIONS
from builders.text.tokens import TOKENS

FIRES, CHANGED = 2_000_000, 20_000


def with_activations(seed: int) -> dict[Table, pa.Table]:
    """Return small tables with many activations, of which the last hundredth, those of dictionary `two`, are drawn by *seed*."""
    value = np.random.default_rng(0).gamma(1.0, size=FIRES).astype(np.float32)
    value[-CHANGED:] = np.random.default_rng(seed).gamma(1.0, size=CHANGED)
    row, position = np.divmod(np.arange(FIRES, dtype=np.int32), 128)
    sae = pa.DictionaryArray.from_arrays(np.repeat(np.int32([0, 1]), [FIRES - CHANGED, CHANGED]), ["one", "two"]).cast(pa.string())
    rows = ACTIVATIONS.build({"sae": sae, "latent": np.zeros(FIRES, np.int32), "row": row, "position": position, "value": value})
    read = np.arange(row[-1] + 1, dtype=np.int32)
    known = {"row": read, "document": read.astype(np.int64), "bytes": read, "ids": [[]] * len(read), "special": [[]] * len(read)}
    tokens = TOKENS.build({"subject": "lab", "held_out": False, "text": "", **known})
    return {**small_tables(TEXTS), ACTIVATIONS: rows, TOKENS: tokens}


def stored(hub: DatasetHub) -> int:
    """Return how many bytes of chunks the client has stored."""
    return sum(path.stat().st_size for path in Path(str(hub.xet)).rglob("*") if path.is_file())


def test_a_second_version_sends_only_changed_bytes(
    publish: Publish, hub: DatasetHub, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one activation in a hundred is another, at most 15 % of the bytes of the first version are stored anew."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.xet = tmp_path / "cas"
    hub.xet.mkdir()
    first = release_of(lake, "1.0.1", with_activations(1))
    assert publish().exit_code == 0
    for path in first.rglob("*.parquet"):
        hub.entry(path.read_bytes(), large=True)  # the stand-in cannot put a file together from chunks, and the comparison reads it
    before = stored(hub)
    release_of(lake, "1.0.2", with_activations(2))
    said = publish()

    assert said.exit_code == 0, said.output
    assert before > 5_000_000
    assert 0 < stored(hub) - before <= 0.15 * before
    assert list(hub.repos[REPO].tags) == ["v1.0.1", "v1.0.2"]
