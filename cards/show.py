"""Showing a latent in the terminal: its statistics, explanations, scores, and windows in which it fires."""

from __future__ import annotations

from codecs import getincrementaldecoder
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from builders.errors import UserError, one_of


def show_latent(release: Path, sae: str, latent: int, most: int, console: Console | None = None) -> None:
    """Print a latent of a release, with at most *most* activating windows; raise UserError where release, SAE or latent is missing."""
    if not (release / "README.md").exists():
        raise UserError(f"{release}: no release here; build it with `dvc repro` or name another with --release")
    dictionaries = {row["sae"]: row for row in _read(release, "saes").to_pylist()}
    if sae not in dictionaries:
        raise UserError(f"no SAE {sae!r} in this release; it has {one_of(dictionaries)}")
    if not 0 <= latent < dictionaries[sae]["width"]:
        raise UserError(f"{sae} has latents 0 to {dictionaries[sae]['width'] - 1}, not {latent}")
    own = [("sae", "==", sae), ("latent", "==", latent)]
    console = console or Console()
    console.print(_heading(_read(release, "latents", own).to_pylist()[0]))
    for row in _read(release, "explanations", own).to_pylist():
        console.print(Text.assemble((f"\n{row['explainer']}: ", "bold"), row["text"] or row["status"]))
    if failures := _read(release, "failures", own).to_pylist():
        console.print(Text("\nfailures", style="bold"))
        for row in failures:
            console.print(Text(f"  {row['stage']}, {row['item']}: {row['reason']}"))
    if scores := _read(release, "scores", own).to_pylist():
        console.print()
        console.print(_scores(scores))
    contexts = _read(release, "contexts", own).to_pylist()
    if not contexts:
        return
    pieces = _pieces(release, dictionaries[sae]["subject"])
    for kind, count in (("activating", most), ("random", max(1, most // 4))):
        console.print(Text(f"\n{kind} windows, split test", style="bold"))
        chosen = [row for row in contexts if row["split"] == "test" and row["kind"] == kind]
        for row in chosen[:: max(1, len(chosen) // count)][:count]:
            console.print(coloured(row["tokens"], row["activations"], pieces, max(max(r["activations"]) for r in contexts)))


def _read(release: Path, name: str, filters: Any = None) -> pa.Table:
    parts = [pq.read_table(path, filters=filters) for path in sorted((release / name).glob("*.parquet"))]
    return pa.concat_tables(parts) if parts else pa.table({})  # a config without rows is not in the release


def _heading(row: dict[str, Any]) -> Text:
    parts: list[str | tuple[str, str]] = [
        (f"{row['sae']} / {row['latent']}", "bold"),
        f"  {row['status']}, fires on {row['count']:,} tokens ({row['density']:.2%})",
    ]
    if row["count"]:
        parts.append(f", largest activation {row['max']:.2f}")
    if row["promotes"]:
        parts += ["\nmakes likelier ", ", ".join(map(repr, row["promotes"]))]
    return Text.assemble(*parts, no_wrap=False)


def _scores(rows: list[dict[str, Any]]) -> Grid:
    """Return a table of scores; all columns together are narrower than 80 characters."""
    grid = Grid("explainer", "scorer", "judge", "score ± SE", "chance", "AUROC", "n", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        score = row["status"] if row["score"] is None else _with_error(row["score"], row["score_se"])
        auroc = "–" if row["auroc"] is None else f"{row['auroc']:.2f}"
        count = f"{row['n']}, {row['n_failed']} failed" if row["n_failed"] else str(row["n"])
        grid.add_row(row["explainer"], row["scorer"], row["judge"], score, f"{row['chance']:.2f}", auroc, count)
    return grid


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def _pieces(release: Path, subject: str) -> list[bytes]:
    rows = _read(release, "vocabulary", [("subject", "==", subject)])
    pieces: list[bytes] = rows["bytes"].to_pylist()
    return pieces


def coloured(tokens: list[int], activations: list[float], pieces: list[bytes], most: float) -> Text:
    """Return a window's text. Each token has a background as strong as its activation / *most*; line breaks are shown as ⏎.

    A character that several tokens make up has the background of the last of them.
    """
    text, decoder = Text("  "), getincrementaldecoder("utf-8")("replace")
    for token, value in zip(tokens, activations, strict=True):
        piece = decoder.decode(pieces[token]).replace("\n", "⏎").replace("\t", "⇥")
        strength = value / most if most else 0.0
        shade = round(255 - 190 * strength)
        text.append(piece, style=f"black on rgb({shade},255,{shade})" if value > 0 else "dim")
    return text
