"""Measures the time of collecting activations relative to its forward pass, and whether memory grows with the number of tokens.

`python -m benchmarks.activations` after `make repro`: each figure is a ratio within this one run.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from builders.lake.shards import write_parquet
from builders.saes import activations
from builders.saes.encoder import Encoder
from builders.subjects.harvest import harvest, row_batches
from builders.text.tokens import TOKENS
from pipelines.graph.stage import shelf
from pipelines.opened.dictionaries import reopened
from pipelines.opened.subjects import Subjects
from pipelines.params import load


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of *work*."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def peak_mib() -> float:
    """Return the largest memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command()
@click.option("--sae", default=None, help="An SAE of params.yaml; the first if not given.")
@click.option("--rows", default=512, help="Token rows to read.", show_default=True)
def main(sae: str | None, rows: int) -> None:
    """Print the time of each step as a multiple of the bare forward pass, and peak memory at one and four times the rows."""
    params = load()
    sae_id = sae or next(iter(params.saes))
    spec, size = params.saes[sae_id], params.activations.batch_rows
    shelf_tokens, shelf_sae = shelf("tokens", spec.subject), shelf("saes", sae_id)
    encoder = reopened(Subjects(params), sae_id, shelf_sae, shelf_tokens)
    if not isinstance(encoder, Encoder):
        raise click.UsageError(f"{sae_id} reads no model")
    tokens = shelf_tokens.read(TOKENS, columns=["row", "ids", "special"])
    some = tokens.slice(0, rows)

    def forward() -> None:
        for batch in row_batches(some, size):
            harvest(encoder.model, [encoder.mounted.reads], batch, encoder.device)

    def collect(number: int, folder: Path) -> list[Path]:
        paths = []
        for start in range(0, number, rows):
            paths.append(folder / f"{start}.safetensors")
            chunk = tokens.slice(start, rows)
            activations.spill(encoder.firings(chunk), encoder.width, paths[-1])
        return paths

    def merge(paths: list[Path], folder: Path) -> None:
        spills = activations.Spills(paths)
        for low, high in activations.ranges(spills.counts, params.activations.file_rows):
            write_parquet(folder / f"{low}.parquet", activations.ACTIVATIONS, activations.row_groups(sae_id, spills.read(low, high)))

    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        bare = seconds(forward)
        collected = seconds(lambda: collect(rows, here))
        merged = seconds(lambda: merge(collect(rows, here)[:1], here)) - collected
        once = peak_mib()
        merge(collect(4 * rows, here), here)
    click.echo(f"{sae_id}: {rows} rows, bare forward pass 1.00 ({bare:.2f} s)")
    click.echo(f"forward, encode, spill: {collected / bare:.2f}; sort and write: {merged / bare:.2f}")
    click.echo(f"peak memory at 4 times the rows: {peak_mib() / once:.2f} of that at once ({once:.0f} MiB)")


if __name__ == "__main__":
    main()
