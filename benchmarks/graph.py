"""Measures the time of DVC itself: the default graph with stages that only write a line, run from an empty build and then again.

    python -m benchmarks.graph

Prints seconds a stage of the first run, seconds of the second, and the size of dvc.lock.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
REAL = ("sources", "inputs")  # they run for real: DVC needs them to see code and files


def without_work(stage: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return *stage* with a command that only writes a line into each output."""
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in body["outs"]]
    line = [f"mkdir -p {out} && echo {body['cmd']} > {out}/rows" if not out.endswith(".txt") else f"echo {stage} > {out}" for out in outs]
    return body if stage in REAL else {**body, "cmd": " && ".join(line)}


def idle(pipeline: dict[str, Any]) -> dict[str, Any]:
    """Return the default graph with stages that do no work; the frozen lab stage does not run."""
    stages = {}
    for name, entry in pipeline["stages"].items():
        stages[name] = {**entry, "do": without_work(name, entry["do"])} if "do" in entry else without_work(name, entry)
    return {"stages": stages}


def repro(folder: Path) -> tuple[float, int]:
    """Run `dvc repro` and return its seconds and how many stages ran."""
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, ended.stdout.count("Running stage")


def main() -> None:
    """Time the default graph without its work."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "project"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv*", "build", ".interplake", "dvc.lock", "cache", "tmp"))
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # noqa: S607
        (folder / "dvc.yaml").write_text(yaml.safe_dump(idle(yaml.safe_load((ROOT / "dvc.yaml").read_text())), sort_keys=False))
        seconds, stages = repro(folder)
        print(f"first run: {seconds:.1f} s for {stages} stages, {seconds / stages:.2f} s a stage")
        seconds, stages = repro(folder)
        print(f"second run: {seconds:.1f} s, {stages} stages")
        print(f"dvc.lock: {(folder / 'dvc.lock').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
