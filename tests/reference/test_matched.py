"""Dictionaries saved by two packages, each by itself, are matched latent by latent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from coders import dense, noise
from scipy import sparse
from torch.nn import functional as F

from builders.saes import formats
from builders.saes.geometry import directions_of
from builders.similarity.cofiring import Pearson
from builders.similarity.measures import Cosines
from builders.similarity.partners import Partners, partners_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from builders.saes.coder import Coder

WHERE = "it lives in an environment of its own: `make test-reference`"
sparsify: Any = pytest.importorskip("sparsify", reason=WHERE)
registry: Any = pytest.importorskip("sae_lens.registry", reason=WHERE)

D, WIDTH, K = 32, 64, 4
ORDER = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(0))
ROWS = F.normalize(noise(1, WIDTH, D), dim=1), F.normalize(noise(2, WIDTH, D), dim=1)  # of encoder and decoder
NOISE = F.normalize(noise(3, WIDTH, D), dim=1), F.normalize(noise(4, WIDTH, D), dim=1)
KEPT = WIDTH // 2  # latents of the second dictionary that are latents of the first; the others are noise


def saved_by_sparsify(folder: Path) -> None:
    """Save an SAE with sparsify."""
    theirs = sparsify.SparseCoder(D, sparsify.SparseCoderConfig(k=K, num_latents=WIDTH))
    with torch.no_grad():
        theirs.encoder.weight.copy_(ROWS[0])
        theirs.encoder.bias.zero_()
        theirs.W_dec.copy_(ROWS[1])
        theirs.b_dec.zero_()
    theirs.save_to_disk(folder)


def saved_by_sae_lens(folder: Path, kept: int) -> None:
    """Save with SAELens the same SAE with its latents in another order, of which only the first *kept* are no noise."""
    encoder, decoder = (torch.cat([rows[ORDER[:kept]], other[kept:]]) for rows, other in zip(ROWS, NOISE, strict=True))
    made, config = registry.get_sae_class("topk")
    theirs = made(config(d_in=D, d_sae=WIDTH, k=K))
    with torch.no_grad():
        for name, value in {"W_enc": encoder.T, "b_enc": torch.zeros(WIDTH), "W_dec": decoder, "b_dec": torch.zeros(D)}.items():
            getattr(theirs, name).copy_(value)
    theirs.save_model(folder)


def partners(a: Coder, b: Coder, measure: str, x: Tensor) -> Partners:
    """Return the partners of the latents of *a* in *b*, by directions or by what both do on vectors *x*."""
    everyone = np.arange(WIDTH)
    if measure == "pearson":
        found: Any = Pearson(*(sparse.csr_array(dense(coder.encode(x), WIDTH).numpy().T) for coder in (a, b)))
    else:
        found = Cosines(*(directions_of(coder, measure) for coder in (a, b)))  # type: ignore[arg-type]  # both have rows
    return partners_of(found, everyone, everyone, 8)


@pytest.mark.parametrize("measure", ["decoder", "encoder", "pearson"])
def test_an_sae_of_sparsify_finds_itself_in_a_file_of_sae_lens(measure: str, tmp_path: Path) -> None:
    """The order in which SAELens saved the latents is recovered by every measure, and each partner's value is 1."""
    saved_by_sparsify(tmp_path / "a")
    saved_by_sae_lens(tmp_path / "b", WIDTH)
    found = partners(formats.read(tmp_path / "a"), formats.read(tmp_path / "b"), measure, noise(5, 2_000, D))

    assert np.array_equal(ORDER.numpy()[found.place], np.arange(WIDTH))
    assert found.value == pytest.approx(np.ones(WIDTH), abs=1e-5)


@pytest.mark.parametrize("measure", ["decoder", "encoder"])
def test_half_of_it_is_half_of_the_shared_share(measure: str, tmp_path: Path) -> None:
    """Where SAELens saved noise in place of half of the latents, exactly half have a partner with a cosine of at least 0.7."""
    saved_by_sparsify(tmp_path / "a")
    saved_by_sae_lens(tmp_path / "b", KEPT)
    found = partners(formats.read(tmp_path / "a"), formats.read(tmp_path / "b"), measure, noise(5, 2_000, D))

    assert (found.value >= 0.7).sum() == KEPT
    assert set(np.flatnonzero(found.value >= 0.7).tolist()) == set(ORDER[:KEPT].tolist())
