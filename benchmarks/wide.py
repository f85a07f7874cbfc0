"""Measures the peak memory, beyond the weights, of a dictionary with the shape of Gemma Scope (width 131,072, d 2,304) in a random model.

    python -m benchmarks.wide

Writes a params.npz of 2.4 GB to a temporary folder, reads it, and encodes rows of 256 tokens. The bar is 4 GB.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from builders.saes import formats
from builders.saes.coder import Mounted
from builders.saes.encoder import Encoder

WIDTH, D, ROWS, LENGTH, BATCH = 131_072, 2_304, 16, 256, 8
GB = 2**30


def write(folder: Path) -> None:
    """Write random unit rows whose thresholds let about 60 latents fire on a token."""
    rng = np.random.default_rng(0)
    w_dec = rng.standard_normal((WIDTH, D), dtype=np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    threshold = np.full(WIDTH, 3.3, dtype=np.float32)  # products of unit rows and normalised vectors are standard normal
    zeros = {"b_enc": np.zeros(WIDTH, dtype=np.float32), "b_dec": np.zeros(D, dtype=np.float32)}
    np.savez(folder / "params.npz", w_enc=w_dec.T, w_dec=w_dec, threshold=threshold, **zeros)


def write_apart(folder: Path) -> None:
    """Write the file in a process of its own, so that its memory does not count."""
    process = multiprocessing.get_context("spawn").Process(target=write, args=(folder,))
    process.start()
    process.join()


def peak() -> float:
    """Return the largest memory this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def main() -> None:
    """Measure and print time and memory."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=D, intermediate_size=D, num_hidden_layers=1, num_attention_heads=8, max_position_embeddings=LENGTH
    )
    model = LlamaForCausalLM(config).eval()
    ids = np.random.default_rng(1).integers(0, 256, (ROWS, LENGTH)).astype(np.int32)
    special = np.zeros_like(ids, dtype=bool)
    rows = pa.table({"row": pa.array(np.arange(ROWS, dtype=np.int32)), "ids": ids.tolist(), "special": special.tolist()})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_apart(folder)
        before = peak()
        started = time.perf_counter()
        coder = formats.read(folder)
        weights = sum(tensor.nbytes for tensor in (coder.w_enc, coder.w_dec)) / GB
        read = time.perf_counter() - started
        started = time.perf_counter()
        # The final norm gives every vector a norm of about √d, whatever the random model does.
        found = Encoder(model, Mounted(coder, "norm", "norm"), BATCH, "cpu").firings(rows)
        seconds = time.perf_counter() - started
    print(f"read {weights:.2f} GB of weights in {read:.1f} s; {len(found) / (ROWS * LENGTH):.1f} latents fire on a token")
    beyond = peak() - weights - before
    print(f"encoded {ROWS * LENGTH:,} tokens in {seconds:.1f} s; peak {peak():.2f} GB, {beyond:.2f} GB beyond model and weights")


if __name__ == "__main__":
    main()
