"""Activations: sorted by latent, spilled, and merged one range at a time; the result does not depend on the chunks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, cases, firings_of, random_case

from builders.lake.shards import write_parquet
from builders.lake.table import Table, TableError
from builders.saes import activations
from builders.saes.activations import ACTIVATIONS, Firings, Spills, in_order, ranges, row_groups, spill
from builders.saes.coder import JumpReLU, Mounted, SparseCoder, TopK
from builders.saes.encoder import Encoder, self_test
from builders.saes.latents import TOP
from builders.subjects.checkpoints import load
from builders.subjects.harvest import harvest, read_rows, row_batches
from builders.subjects.hookpoints import capture
from builders.subjects.places import Source
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

pytestmark = pytest.mark.numeric

HOOKPOINT = "layers.1"


def triples(firings: Firings) -> list[tuple[int, int, int, float]]:
    """Return the firings one by one: latent, row, position, value."""
    columns = (firings.latent, firings.row, firings.position, firings.value)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def of_rows(firings: Firings, rows: range) -> Firings:
    """Return the firings in *rows*, still in order of latent."""
    kept = np.isin(firings.row, rows)
    return Firings(*(getattr(firings, name)[kept] for name in ("latent", "row", "position", "value")))


# In order of latent


@given(cases())
@settings(max_examples=50)
def test_firings_in_reading_order_come_out_in_key_order(case: Case) -> None:
    """Firings that come row by row are sorted by latent, with rows and positions of a latent still rising."""
    known = case.firings
    reading = np.lexsort((known.latent, known.position, known.row))
    columns = (known.latent, known.row, known.position, known.value)
    assert triples(in_order(*(column[reading] for column in columns))) == triples(known)


def test_a_slice_of_firings_keeps_their_columns_together() -> None:
    """A slice holds the same places of all four columns."""
    firings = firings_of({(0, 0, 1): 1.0, (0, 2, 0): 2.0, (3, 1, 1): 3.0, (3, 1, 2): 4.0})
    assert len(firings) == 4
    assert triples(firings.slice(1, 3)) == [(0, 2, 0, 2.0), (3, 1, 1, 3.0)]


# Spills


@given(case=cases(), cut=st.integers(1, 4))
@settings(max_examples=50)
def test_spilled_chunks_merge_to_the_whole(case: Case, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Chunks of rows spilled and read back, in any ranges of latents, are the firings of all rows in key order."""
    folder = tmp_path_factory.mktemp("spills")
    rows = len(case.corpus.ids)
    paths = []
    for number, start in enumerate(range(0, rows, cut)):
        paths.append(folder / f"{number}.safetensors")
        spill(of_rows(case.firings, range(start, start + cut)), case.width, paths[-1])
    spills = Spills(paths)
    assert spills.counts.tolist() == [sum(latent == key[0] for key in case.at) for latent in range(case.width)]
    assert triples(spills.read(0, case.width)) == triples(case.firings)
    for low, high in ranges(spills.counts, 3):
        assert triples(spills.read(low, high)) == [firing for firing in triples(case.firings) if low <= firing[0] < high]


def test_a_spill_leaves_no_other_file(tmp_path: Path) -> None:
    """A spill replaces an old file and leaves no other file."""
    path = tmp_path / "spill.safetensors"
    spill(firings_of({(0, 0, 0): 1.0}), 2, path)
    spill(firings_of({(1, 0, 0): 2.0}), 2, path)
    assert [file.name for file in tmp_path.iterdir()] == ["spill.safetensors"]
    assert triples(Spills([path]).read(0, 2)) == [(1, 0, 0, 2.0)]


def test_what_is_read_has_the_types_of_the_table(tmp_path: Path) -> None:
    """Merged firings keep the types in which they are published."""
    spill(firings_of({(0, 0, 0): 1.0}), 2, tmp_path / "spill.safetensors")
    found = Spills([tmp_path / "spill.safetensors"]).read(0, 2)
    assert [column.dtype for column in (found.latent, found.row, found.position, found.value)] == [np.int32] * 3 + [np.float32]


# Ranges of latents


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(1, 15))
def test_ranges_cover_every_latent_once_within_the_limit(counts: list[int], limit: int) -> None:
    """Ranges cover the latents in order without gaps; only a range of a single latent may exceed the limit."""
    cut = ranges(np.array(counts), limit)
    assert [latent for low, high in cut for latent in range(low, high)] == list(range(len(counts)))
    assert all(low < high for low, high in cut)
    for low, high in cut:
        held = [count for count in counts[low:high] if count]
        assert sum(held) <= limit or len(held) == 1


def test_ranges_are_filled_before_they_are_cut() -> None:
    """A range takes as many latents as fit."""
    assert ranges(np.array([2, 2, 1, 4, 9, 1, 1]), 5) == [(0, 3), (3, 4), (4, 5), (5, 7)]


# Row groups


@given(cases(), st.integers(1, 9))
@settings(max_examples=60)
def test_row_groups_cut_no_latent_in_two(case: Case, size: int) -> None:
    """Row groups hold all firings in order, each latent in one of them, and reach their size unless they are the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations, "ACTIVATIONS", _sized(size))
        groups = list(row_groups("toy", case.firings))
    assert pa.concat_tables(groups).num_rows == len(case.firings)
    together = pa.concat_tables(groups).select(["latent", "row", "position", "value"]).to_pylist()
    assert [tuple(record.values()) for record in together] == triples(case.firings)
    latents = [set(group["latent"].to_pylist()) for group in groups]
    assert sum(map(len, latents)) == len(set.union(*latents))
    assert all(group.num_rows >= size for group in groups[:-1])


def test_a_filter_on_one_latent_touches_one_row_group(tmp_path: Path) -> None:
    """The statistics in the file's footer name each latent in exactly one row group, so a reader skips the rest."""
    n = np.repeat(np.arange(40, dtype=np.int32), 5_000)
    place = np.tile(np.arange(5_000, dtype=np.int32), 40)
    firings = Firings(n, place // 100, place % 100, np.ones(len(n), dtype=np.float32))
    write_parquet(tmp_path / "a.parquet", ACTIVATIONS, row_groups("toy", firings))
    footer = pq.ParquetFile(tmp_path / "a.parquet").metadata
    column = footer.schema.to_arrow_schema().names.index("latent")
    bounds = [footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)]
    assert footer.num_row_groups > 1
    for latent in range(40):
        assert sum(found.min <= latent <= found.max for found in bounds) == 1
    kept = pq.read_table(tmp_path / "a.parquet", filters=[("latent", "==", 17)])
    assert (kept.num_rows, set(kept["latent"].to_pylist())) == (5_000, {17})


def test_no_firings_are_still_a_table(tmp_path: Path) -> None:
    """A range in which no latent fires is a file of no rows with the schema of the others."""
    assert write_parquet(tmp_path / "a.parquet", ACTIVATIONS, row_groups("toy", firings_of({}))) == 0
    assert pq.read_table(tmp_path / "a.parquet").schema.equals(ACTIVATIONS.schema)


def _sized(size: int) -> Table:
    return Table(ACTIVATIONS.name, ACTIVATIONS.row, ACTIVATIONS.key, ACTIVATIONS.columns, row_group=size)


# Where the model runs


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> PreTrainedModel:
    """Return the tiny model."""
    return load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu")


@pytest.fixture(scope="module")
def tokens(model: PreTrainedModel) -> pa.Table:
    """Return rows of unequal length, each beginning with a special token."""
    rng = np.random.default_rng(0)
    lengths = (9, 3, 14, 1, 6, 20, 2)
    ids = [[0, *rng.integers(2, model.config.vocab_size, length).tolist()] for length in lengths]
    fixed = {"subject": "tiny", "document": 0, "held_out": False, "bytes": 0, "text": ""}
    # Row numbers with gaps, as in a chunk of a larger corpus.
    return TOKENS.rows(
        [{**fixed, "row": 10 + 3 * n, "ids": row, "special": [True] + [False] * (len(row) - 1)} for n, row in enumerate(ids)]
    )


def random_coder(model: PreTrainedModel, kind: str) -> SparseCoder:
    """Return an SAE of random directions for the tiny model."""
    generator = torch.Generator().manual_seed(1)
    d, width = model.config.hidden_size, 40
    w_enc, w_dec = (torch.randn(width, d, generator=generator) for _ in range(2))
    b_enc, b_dec = (torch.randn(n, generator=generator) / 10 for n in (width, d))
    activation = TopK(3) if kind == "topk" else JumpReLU(torch.full((width,), 0.05))
    return SparseCoder(w_enc, b_enc, w_dec, b_dec, activation, b_pre=b_dec)


def encoder(model: PreTrainedModel, coder: SparseCoder, batch: int = 4) -> Encoder:
    """Return *coder* mounted at HOOKPOINT."""
    return Encoder(model, Mounted(coder, HOOKPOINT, HOOKPOINT), batch, "cpu")


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_encoded_rows_are_the_dense_code_without_special_tokens(model: PreTrainedModel, tokens: pa.Table, kind: str) -> None:
    """Each row's firings are the non-zero entries of its own dense code, its special tokens left out."""
    coder = random_coder(model, kind)
    found = encoder(model, coder, 3).firings(tokens)
    expected = {}
    for record in tokens.to_pylist():
        flow = capture(model, [HOOKPOINT], torch.tensor([record["ids"]]))[HOOKPOINT][0]
        pre = (flow - coder.b_dec) @ coder.w_enc.T + coder.b_enc
        for position, values in enumerate(pre.tolist()):
            lowest = sorted(values)[-3] if kind == "topk" else 0.05
            for latent, value in enumerate(values):
                if position and (value >= lowest if kind == "topk" else value > lowest) and value > 0:
                    expected[latent, record["row"], position] = value
    keys = [firing[:3] for firing in triples(found)]
    assert keys == sorted(expected)
    assert found.value.tolist() == pytest.approx([expected[key] for key in keys], rel=1e-4)


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_chunks_encoded_and_merged_equal_one_pass(model: PreTrainedModel, tokens: pa.Table, kind: str, tmp_path: Path) -> None:
    """Encoding rows in chunks, spilling and merging gives the same firings as encoding them at once."""
    coder = random_coder(model, kind)
    whole = encoder(model, coder, tokens.num_rows).firings(tokens)
    paths = []
    for number, chunk in enumerate(row_batches(tokens, 3)):
        paths.append(tmp_path / f"{number}.safetensors")
        spill(encoder(model, coder, 2).firings(chunk), coder.width, paths[-1])
    spills = Spills(paths)
    parts = [spills.read(low, high) for low, high in ranges(spills.counts, 20)]
    assert len(parts) > 2
    merged = [firing for part in parts for firing in triples(part)]
    assert [firing[:3] for firing in merged] == [firing[:3] for firing in triples(whole)]
    assert [firing[3] for firing in merged] == pytest.approx(whole.value.tolist(), rel=1e-4)


def test_the_harvest_names_the_place_of_every_vector(model: PreTrainedModel, tokens: pa.Table) -> None:
    """Every text token's vector comes once, with its place in the batch, its row's number and its position."""
    found = harvest(model, [HOOKPOINT], tokens, "cpu")
    expected = [(n, 10 + 3 * n, p) for n, ids in enumerate(tokens["ids"].to_pylist()) for p in range(1, len(ids))]
    assert list(zip(found.place.tolist(), found.row.tolist(), found.position.tolist(), strict=True)) == expected
    assert found.vectors[HOOKPOINT].shape == (len(expected), model.config.hidden_size)


def test_padding_is_no_text(tokens: pa.Table) -> None:
    """Neither special tokens nor the padding of short rows count as text."""
    ids, text = read_rows(tokens, "cpu")
    lengths = [len(row) for row in tokens["ids"].to_pylist()]
    assert ids.shape == (7, 21)
    assert text.sum(1).tolist() == [length - 1 for length in lengths]
    assert not text[:, 0].any()


# What was stored is true


def stored(model: PreTrainedModel, tokens: pa.Table, path: Path, error: float = 0.0) -> tuple[SparseCoder, Path]:
    """Write the activations of the tiny model to *path*, with the largest value changed by the share *error*."""
    coder = random_coder(model, "jumprelu")
    found = encoder(model, coder, 4).firings(tokens)
    found.value[found.value.argmax()] *= 1 + error
    write_parquet(path, ACTIVATIONS, row_groups("toy", found))
    return coder, path


def test_stored_values_stand_the_self_test(model: PreTrainedModel, tokens: pa.Table, tmp_path: Path) -> None:
    """Values encoded in batches equal, to a thousandth, those of the equation for each row read alone."""
    coder, path = stored(model, tokens, tmp_path / "a.parquet")
    count, worst = self_test(encoder(model, coder), tokens, [path], 10_000, 0)
    assert count == pq.read_metadata(path).num_rows
    assert worst < 1e-5


def test_the_self_test_finds_a_wrong_value(model: PreTrainedModel, tokens: pa.Table, tmp_path: Path) -> None:
    """A stored value that is off by a hundredth is an error."""
    coder, path = stored(model, tokens, tmp_path / "a.parquet", error=0.01)
    with pytest.raises(TableError, match=r"a stored value is off"):
        self_test(encoder(model, coder), tokens, [path], 10_000, 0)


def test_the_self_test_measures_the_difference(model: PreTrainedModel, tokens: pa.Table, tmp_path: Path) -> None:
    """The difference that it returns is the largest, relative to the largest stored value."""
    coder, path = stored(model, tokens, tmp_path / "a.parquet", error=0.0005)
    _, worst = self_test(encoder(model, coder), tokens, [path], 10_000, 0)
    assert worst == pytest.approx(0.0005 / 1.0005, rel=0.02)


def test_the_self_test_passes_over_files_without_firings(model: PreTrainedModel, tokens: pa.Table, tmp_path: Path) -> None:
    """A file without firings passes the test, whichever file the draw falls on."""
    empty = tmp_path / "empty.parquet"
    write_parquet(empty, ACTIVATIONS, row_groups("toy", firings_of({})))
    coder, path = stored(model, tokens, tmp_path / "a.parquet")
    for seed in range(4):
        assert self_test(encoder(model, coder), tokens, [path, empty], 5, seed)[1] < 1e-5


def test_effects_are_the_tokens_that_the_decoder_raises_and_lowers_most(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promoted and suppressed tokens are those of highest and lowest logit of each decoder row, in chunks of any size."""
    coder = random_coder(model, "topk")
    monkeypatch.setattr("builders.saes.encoder.EFFECT_CHUNK", 7)
    found = encoder(model, coder).effects()
    assert found is not None
    raised, lowered = found
    logits = coder.w_dec @ model.get_output_embeddings().weight.T
    for latent, line in enumerate(logits.tolist()):
        order = [token for _, token in sorted(zip(line, range(len(line)), strict=True))]
        assert raised[latent].tolist() == order[::-1][:TOP]
        assert lowered[latent].tolist() == order[:TOP]


def test_memory_of_a_range_does_not_grow_with_the_other_latents(tmp_path: Path) -> None:
    """Reading a range of latents gives the firings of that range alone."""
    case = random_case(0, 0.2, width=30, rows=6, length=20, window=4)
    spill(case.firings, 30, tmp_path / "a.safetensors")
    found = Spills([tmp_path / "a.safetensors"]).read(12, 13)
    assert set(found.latent.tolist()) == {12}
    assert len(found) == sum(key[0] == 12 for key in case.at)
