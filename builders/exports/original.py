"""The files of the original release and of the code that made it (github.com/EleutherAI/delphi), by dictionary and explainer.

`<hookpoint>_feature.json` is one object of latent → explanation, and `<scorer>.json` one of `.<hookpoint>_feature<latent>` → score.
`scores/<scorer>/<hookpoint>_latent<latent>.txt` holds the windows of detection and fuzzing, each with the judge's answer.
`builders/explainers/imported.py` reads the explanations back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.contexts.pool import KIND as POOL
from builders.exports.dictionaries import Dictionary, Row
from builders.exports.files import Record, dumped
from builders.exports.rows import beside, by_latent, key_rows, pieces_of
from builders.progress import track
from builders.releases.release import Release

JUDGED = "balanced accuracy"  # the unit of scorers that ask about windows one by one: detection and fuzzing
MARKED = "active"  # their negatives whose marks are wrong, which the release does not hold
NO_NEIGHBOUR = -1.0  # the distance of a window that is no neighbour's
ANSWERS = ["explainer", "scorer", "negatives", "judge", "example", "truth", "answer", "probability"]
WINDOWS = ["split", "example", "quantile", "tokens", "activations"]


def export(release: Release, chosen: Iterable[Dictionary], out: Path) -> None:
    """Write the dictionaries *chosen* of *release*, each in a folder of its own, into the folder *out*."""
    for dictionary in track(list(chosen), "exporting"):
        folder = out / dictionary.sae
        write_explanations(release, dictionary, folder)
        windowed = write_scores(release, dictionary, folder)
        for place, windows in judged(release, dictionary, windowed):
            _write(folder / place, windows)


def write_explanations(release: Release, dictionary: Dictionary, folder: Path) -> None:
    """Write latent → explanation for each explainer, the permuted baseline included."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in key_rows(release, "explanations", dictionary.sae):
        if row["text"]:
            found[row["explainer"]][str(row["latent"])] = row["text"]
    for explainer, texts in found.items():
        _write(folder / explainer / f"{dictionary.hookpoint}_feature.json", texts)


def write_scores(release: Release, dictionary: Dictionary, folder: Path) -> set[str]:
    """Write latent → score for each explainer and scorer; return the scorers whose windows can be told."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    windowed = set()
    for row in key_rows(release, "scores", dictionary.sae):
        if row["score"] is not None:
            found[row["explainer"], row["scorer"]][f".{dictionary.hookpoint}_feature{row['latent']}"] = row["score"]
        if row["unit"] == JUDGED and row["negatives"] != MARKED:
            windowed.add(row["scorer"])
    for (explainer, scorer), scores in found.items():
        _write(folder / explainer / f"{scorer}.json", scores)
    return windowed


def judged(release: Release, dictionary: Dictionary, scorers: set[str]) -> Iterator[tuple[Path, list[Record]]]:
    """Yield the judged windows of each latent, explainer and scorer, with the path of their file."""
    pieces, sae = pieces_of(release, dictionary.subject), dictionary.sae
    pool = {row["window"]: row for row in release.read(POOL, filters=[("sae", "==", sae)]).to_pylist()} if POOL in release.tables else {}
    latents = (latent for latent, _ in by_latent(release, "judgements", sae, []))
    windows = beside(latents, by_latent(release, "contexts", sae, WINDOWS))
    for (latent, answers), rows in zip(by_latent(release, "judgements", sae, ANSWERS), windows, strict=True):
        wanted = [row for row in answers.to_pylist() if row["scorer"] in scorers]
        if rows is None or not wanted:
            continue
        shown = {row["example"]: row for row in rows.to_pylist() if row["split"] == "test"}
        of: dict[Path, list[Record]] = defaultdict(list)
        for row in wanted:
            place = Path(row["explainer"], "scores", row["scorer"], f"{dictionary.hookpoint}_latent{latent}.txt")
            of[place].append(window(row, shown.get(row["example"]) or pool[row["example"] - len(shown)], pieces))
        yield from of.items()


def window(answer: Row, shown: Row, pieces: npt.NDArray[np.object_]) -> Record:
    """Return a judged window: the row *answer* of `judgements`, and what was *shown*, a row of `contexts` or of `pool`."""
    said = answer["answer"]
    return {
        "str_tokens": pieces[shown["tokens"]].tolist(),
        "activations": shown.get("activations") or [0.0] * len(shown["tokens"]),
        "distance": shown["quantile"] if answer["truth"] else NO_NEIGHBOUR,
        "activating": answer["truth"],
        "prediction": said,
        "probability": answer["probability"],
        "correct": None if said is None else said == answer["truth"],
    }


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumped(content), encoding="utf-8")
