"""A release in Neuronpedia's bulk layout: `v1/<model>/<layer>-<dictionary>/`, and `v1/config/` with the names that all share.

Their exports hold no scores. Ours lie in `scores/`, as rows of the table `ExplanationScore`, which their importer of single files takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from builders.explainers.explanations import PERMUTED
from builders.exports import neuronpedia_records as records
from builders.exports.dictionaries import Dictionary, Row
from builders.exports.files import BATCH, Record, dumped, write_batches, write_lines
from builders.exports.neuronpedia_records import CREATOR, OURS, Source
from builders.exports.rows import activating, by_latent, key_rows, latent_rows, pieces_of
from builders.progress import track
from builders.releases.release import Release

AUTHOR = {"creatorName": "interplake", "creatorId": CREATOR}
PUBLIC = {"visibility": "PUBLIC", "hasDashboards": True}
WINDOWS = ["split", "example", "kind", "quantile", "row", "start", "tokens", "activations"]
# The lists of names in `config`: how our names begin there, what a name is, and who is said to have made it.
LISTS: dict[str, tuple[str, str, Record]] = {
    "explanation_type": (OURS, "explainer", AUTHOR),
    "explanation_model_type": ("", "model that explains", {"creatorName": "interplake"}),
    "explanation_score_type": (OURS, "scorer", AUTHOR),
    "explanation_score_model": ("", "model or judge that scores", {"creatorName": "interplake"}),
}
Names = defaultdict[str, set[str]]  # the names that the records use, by list


def export(release: Release, chosen: Iterable[Dictionary], out: Path) -> None:
    """Write the dictionaries *chosen* of *release* in the bulk layout into the folder *out*."""
    names: Names = defaultdict(set)
    for dictionary in track(list(chosen), "exporting"):
        source = Source.of(dictionary)
        folder = out / "v1" / source.model / source.id
        for name, record in heads(release, dictionary).items():
            write_lines(folder / f"{name}.jsonl", [record])
        features = (records.feature(source, row, firing) for row, firing in latent_rows(release, dictionary.sae))
        write_batches(folder / "features", features)
        write_activations(release, dictionary, folder / "activations")
        explained, scored = (key_rows(release, config, dictionary.sae) for config in ("explanations", "scores"))
        write_batches(folder / "explanations", (records.explanation(source, row) for row in told(explained, names)))
        write_batches(folder / "scores", (records.score(source, row) for row in judged(scored, names)))
    for name, (prefix, what, author) in LISTS.items():
        lines = ({"name": prefix + each, "displayName": each, "description": f"{what} {each}", **author} for each in sorted(names[name]))
        write_lines(out / f"v1/config/{name}.jsonl", lines)


def heads(release: Release, dictionary: Dictionary) -> dict[str, Record]:
    """Return the records that describe a source, by the name of the file of which each is the only line."""
    (subject,) = release.read("subjects", filters=[("subject", "==", dictionary.subject)]).to_pylist()
    source, row, version = Source.of(dictionary), dictionary.row, f"{release.name} {release.version}"
    what = f"{row['kind']} dictionary of {row['width']} latents at {dictionary.hookpoint}"
    name = {"id": source.model, "displayName": source.model, "displayNameShort": source.model, "owner": "", "instruct": False}
    size = {"layers": subject["layers"], "dimension": subject["width"], "neuronsPerLayer": 0}
    place = {"hfRepoId": row["source"] if row["revision"] else None, "notes": dumped(row)}
    own = {"modelId": source.model, "creatorId": CREATOR}
    return {
        "release": {"name": release.name, "description": version, "descriptionShort": version, **AUTHOR, "visibility": "PUBLIC"},
        "model": {**name, **size, "creatorId": CREATOR, "inferenceEnabled": False, "visibility": "PUBLIC"},
        "sourceset": {**own, "name": source.sae, "description": what, "creatorName": "interplake", "releaseName": release.name, **PUBLIC},
        "source": {**own, "id": source.id, "setName": source.sae, **place, **PUBLIC},
    }


def told(rows: Iterable[Row], names: Names) -> Iterator[Row]:
    """Yield the explanations that have a text, and note who gave them; the permuted baseline would be a false text to their readers."""
    for row in rows:
        if row["text"] and not row["explainer"].endswith(PERMUTED):
            names["explanation_type"].add(row["explainer"])
            names["explanation_model_type"] |= {row["model"]} - {None}
            yield row


def judged(rows: Iterable[Row], names: Names) -> Iterator[Row]:
    """Yield the scores of the explanations that were told, and note who gave them."""
    for row in rows:
        if row["score"] is not None and row["explainer"] in names["explanation_type"]:
            names["explanation_score_type"].add(row["scorer"])
            names["explanation_score_model"].add(records.judge_of(row))
            yield row


def write_activations(release: Release, dictionary: Dictionary, folder: Path) -> None:
    """Write the windows in which latents fire: batch n has those of the latents from 1,024·n, as in their exports."""
    source, pieces = Source.of(dictionary), pieces_of(release, dictionary.subject)
    groups = by_latent(release, "contexts", dictionary.sae, WINDOWS)
    for number, several in groupby(groups, key=lambda group: group[0] // BATCH):
        firing = (row for _, rows in several for row in activating(rows))
        write_lines(folder / f"batch-{number}.jsonl.gz", (records.activation(source, row, pieces) for row in firing))
