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
from cards.partners import partners


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
    (facts,) = _read(release, "latents", own).to_pylist()
    contexts, failures = (_read(release, name, own).to_pylist() for name in ("contexts", "failures"))
    console = console or Console()
    console.print(_heading(facts))
    if facts["inclusion"] < 1:
        console.print(_sampled(facts["inclusion"], drawn=bool(contexts or failures)))
    for row in _read(release, "explanations", own).to_pylist():
        console.print(Text.assemble((f"\n{row['explainer']}: ", "bold"), row["text"] or row["status"]))
    if failures:
        console.print(Text("\nfailures", style="bold"))
        for row in failures:
            console.print(Text(f"  {row['stage']}, {row['item']}: {row['reason']}"))
    if scores := _read(release, "scores", own).to_pylist():
        console.print()
        console.print(_scores(scores))
        for note in dict.fromkeys(note for row in scores for _, _, note in _below(row)):
            console.print(Text(note, style="dim"))
    if matches := _read(release, "matches", own).to_pylist():
        console.print(Text("\npartners in other dictionaries (= the nearest of both)", style="bold"))
        console.print(partners(matches, _explained(release, matches)))
    if contexts:
        _print_windows(console, contexts, _pieces(release, dictionaries[sae]["subject"]), most)


def _print_windows(console: Console, contexts: list[dict[str, Any]], pieces: list[bytes], most: int) -> None:
    """Print at most *most* of a latent's activating test windows, and a quarter as many random ones."""
    largest = max(max(row["activations"]) for row in contexts)
    for kind, count in (("activating", most), ("random", max(1, most // 4))):
        console.print(Text(f"\n{kind} windows, split test", style="bold"))
        chosen = [row for row in contexts if row["split"] == "test" and row["kind"] == kind]
        for row in chosen[:: max(1, len(chosen) // count)][:count]:
            console.print(coloured(row["tokens"], row["activations"], pieces, largest))


def _read(release: Path, name: str, filters: Any = None) -> pa.Table:
    parts = [pq.read_table(path, filters=filters) for path in sorted((release / name).glob("*.parquet"))]
    return pa.concat_tables(parts) if parts else pa.table({})  # a config without rows is not in the release


def _explained(release: Path, matches: list[dict[str, Any]]) -> dict[tuple[str, int], str]:
    """Return the first explanation of each partner, by dictionary and latent."""
    wanted = [("sae", "in", {row["other"] for row in matches}), ("latent", "in", {row["partner"] for row in matches})]
    rows = [row for row in _read(release, "explanations", wanted).to_pylist() if row["text"]]
    return {(row["sae"], row["latent"]): row["text"] for row in reversed(rows)}


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


def _sampled(inclusion: float, *, drawn: bool) -> str:
    """Return what a reader is told of a latent of a dictionary of which a sample was drawn."""
    held = f"drawn into the sample of latents, which holds it with probability {inclusion:.3g}"
    return held if drawn else f"not {held}: it has no windows, no explanations and no scores"


def _scores(rows: list[dict[str, Any]]) -> Grid:
    """Return a table of scores, with what is to be said of a score below it; all columns together are narrower than 80 characters."""
    grid = Grid("explainer", "scorer", "judge", "score ± SE", "chance", "AUROC", "n", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        score = row["status"] if row["score"] is None else _with_error(row["score"], row["score_se"])
        auroc = "–" if row["auroc"] is None else f"{row['auroc']:.2f}"
        grid.add_row(row["explainer"], row["scorer"], row["judge"], score, f"{row['chance']:.2f}", auroc, str(row["n"]))
        for label, figure, _ in _below(row):
            grid.add_row("", f"  {label}", "", figure)
    return grid


def _below(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the lines below a score: what they are called, their figure, and a note for a reader who sees the first such line."""
    found = []
    if row["n_failed"]:
        bounds = "" if row["score_low"] is None else f"{row['score_low']:.2f}–{row['score_high']:.2f}"
        found.append((f"{row['n_failed']} failed", bounds, "failed: the score if all of them had been answered wrongly, and if rightly"))
    if row["auroc"] is not None and row["auroc_n"] != row["n"]:
        found.append((f"AUROC of {row['auroc_n']}", "", "AUROC of: the examples whose answer has a probability"))
    if row["over_null"] is not None:
        above = _with_error(row["over_null"], row["over_null_se"])
        found.append(("over null", above, "over null: the score less that of a random direction pushed to the same KL; its chance is 0"))
    return found


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
