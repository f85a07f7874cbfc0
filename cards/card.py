"""The card of a release: its text, filled with numbers from the tables, below the YAML header that `datasets` reads."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from builders.lake.table import Table
from builders.lenses.lenses import LENSES
from builders.lenses.trajectories import TRAJECTORIES
from builders.lenses.transfer import LENS_TRANSFER
from builders.similarity.partners import MATCHES
from builders.steering.ways import RESIDUAL
from cards import anatomy, charts, croissant, lens_charts, lenses, similarity, similarity_charts, steering, summary, tables
from cards.about import about
from cards.header import Part, header
from cards.paper import COSTS, SIMILARITY
from cards.printed import printed_latents
from cards.render import render
from cards.snippets import example

READ = (
    *("scores", "latents", "explanations", "saes", "subjects", "failures"),
    *("agreement", "anatomy", "best_of", "calibration", "judges", "steering", "steering_ranges"),
    *("similarity", "stability", "stability_scores"),
    *("lenses", "lens_decisions", "lens_training"),
)

SHORT = 8  # rows of a table that needs no fold


BLOCKS = {
    "results": "results.md.j2",
    "differences": "differences.md.j2",
    "anatomy": "anatomy.md.j2",
    "best": "best.md.j2",
    "fidelity": "fidelity.md.j2",
    "calibration": "calibration.md.j2",
    "scores": "scores.md.j2",
    "similarity": "similarity.md.j2",
    "printed": "printed.md.j2",
}


def write(
    release: Path, parts: Sequence[Part], absent: Sequence[Table], facts: Mapping[str, Any], costs: Sequence[Mapping[str, Any]]
) -> None:
    """Write README.md, figures/, metrics.json and croissant.json of *release* from its tables and from *costs*, what its models cost.

    *parts* are the configs that the release holds, *absent* the tables without rows.
    """
    tables = [*(part.table for part in parts), *absent]
    read = {table.name: _read(release, table) for table in tables if table.name in READ}
    found = {**results(read, facts["seed"]), "printed": printed_latents(release, read, facts["seed"]), "costs": list(costs)}
    draw(release / "figures", found, read)
    kinds = {row["sae"]: row["kind"] for row in found["dictionaries"]}
    similarity_charts.draw_similarity(read, _read(release, MATCHES, similarity_charts.READ), kinds, release / "figures")
    lens_charts.draw_lenses({table.name: _read(release, table) for table in (LENSES, LENS_TRANSFER, TRAJECTORIES)}, release / "figures")
    (release / "metrics.json").write_text(json.dumps({**found, "version": facts["version"]}, indent=1, sort_keys=True) + "\n")
    known = filling(release, parts, absent, {**facts, **told(read, found), "headline": headline(found, facts["scorer"])})
    top = yaml.safe_dump(header(parts, facts), sort_keys=False, allow_unicode=True)
    (release / "README.md").write_text(f"---\n{top}---\n\n{render('release.md.j2', known)}", encoding="utf-8")
    croissant.write(release, parts, known["croissant"])


def filling(release: Path, parts: Sequence[Part], absent: Sequence[Table], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the card's template is filled with: *facts*, the configs of the folder *release*, and what it says of itself."""
    known = {
        **facts,
        "configs": parts,
        "absent": absent,
        "names": [part.table.name for part in parts],
        "example": example(release, [part.table for part in parts]),
        "figures": {path.name for path in (release / "figures").iterdir()},
        "python": platform.python_version(),
    }
    return {**known, **about(known)}


def headline(found: Mapping[str, Any], scorer: str | None) -> str:
    """Return the medians of the main *scorer* alone, the first by name if it is None; nothing where all medians make a short table."""
    rows = summary.by_scorer(found["scores"])
    main = scorer or min((row["scorer"] for row in rows), default=None)
    own = [row for row in rows if row["scorer"] == main]
    return render("medians.md.j2", {**found, "by_scorer": own}) if own and len(rows) > SHORT else ""


def told(read: Mapping[str, pa.Table], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the card tells of the tables *read* and the figures *found* in them."""
    agreement, first = read["agreement"].to_pylist(), found["dictionaries"][0]["kind"]
    return {
        **blocks(found),
        **steering_part(found["steering"], read["subjects"]),
        "subjects": read["subjects"].to_pylist(),
        "dictionaries": found["dictionaries"],
        "kinds": sorted({row["kind"] for row in found["dictionaries"]}),
        "studied": len(set(read["saes"]["subject"].to_pylist())),
        "agreement": render("agreement.md.j2", {"agreement": agreement, "kind": first}) if agreement else "",
        "costs": render("costs.md.j2", {**found, "paper": COSTS}) if found["costs"] or found["calibration"] else "",
        "failures": summary.failure_summary(read["failures"]),
        "scored": read["scores"].num_rows > 0,
    }


def draw(figures: Path, found: Mapping[str, Any], read: Mapping[str, pa.Table]) -> None:
    """Draw the charts from the figures *found* and the tables *read*; a chart without data is left out."""
    figures.mkdir()
    if found["scores"]:
        charts.score_chart(found["scores"], figures / "scores.png")
    charts.density_chart(read["latents"], figures / "density.png")
    if any(record["status"] == "ok" for record in found["steering"]):
        charts.steering_chart(found["steering"], figures / "steering.png")
        charts.layers_chart(steering.layer_effects(read["steering"]), figures / "steering-layers.png")


def steering_part(records: Sequence[dict[str, Any]], subjects: pa.Table) -> dict[str, Any]:
    """Return what the card's section on steering is filled with; its *vector* is the one that the card shows how to add."""
    done = [record for record in records if record["status"] == "ok"]
    shown = next((record for record in done if record["site"] == RESIDUAL), None)
    places = {row["subject"]: {name: row[name] for name in ("source", "revision")} for row in subjects.to_pylist()}
    return {
        "steering": steering.steering_block(records),
        "effects": steering.effects_table(records) if done else "",
        "vector": {**shown, **places[shown["subject"]]} if shown else None,
        "steered": {name: sorted({record[name] for record in done}) for name in ("subject", "pairs", "last")},
    }


def blocks(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of a release's results, which the card and the page of results share; one without rows is empty."""
    filling = {"printed": [], "similarity": [], "stability": [], "published": SIMILARITY, **found}
    filling |= {"similarity_tables": similarity.similarity_tables(filling["similarity"])}
    filling |= {"by_scorer": summary.by_scorer(found["scores"]), **tables.of_dictionaries(found["scores"])}
    filling["corrected"] = any(row["corrected_score"]["n"] for row in found["anatomy"])
    parts = {name: render(template, filling) for name, template in BLOCKS.items()}
    return {**parts, "lenses": render("lenses.md.j2", {**lenses.NOTHING, **found.get("lenses", {})})}


def results_page(found: Mapping[str, Any], run: str | None = None) -> str:
    """Return the page with all tables of a release's results; *run* is the name of the example that made it, None for the default."""
    records = found["steering"]
    parts = {**blocks(found), "steering": steering.steering_block(records)}
    return render("results_page.md.j2", {**parts, "run": run, "steered": any(record["status"] == "ok" for record in records)})


def local_block(found: Mapping[str, Any]) -> str:
    """Return what the README tells of the run of a real language model, from its figures."""
    return render("local.md.j2", {**found, "by_scorer": summary.by_scorer(found["scores"])})


def numbers_block(found: Mapping[str, Any]) -> str:
    """Return the few numbers of a release that the README tells; nothing where the release does not have them."""
    margin = next((row for row in found["margins"] if row["scorer"] == "detection"), None)
    calibrated = {row["scorer"]: row for row in found["calibration"]}
    if margin is None or not {"fuzzing", "detection"} <= calibrated.keys():
        return ""
    own = ("detection", margin["explainer"])
    kinds = next(row["kinds"] for row in summary.by_scorer(found["scores"]) if (row["scorer"], row["explainer"]) == own)
    gains = [row["kinds"] for row in found["differences"] if row["differ"] == "permuted" and (row["scorer_a"], row["explainer_a"]) == own]
    gain = next((by_kind["trained"] for by_kind in gains if "trained" in by_kind), None)
    facts = {"detection": kinds, "gain": gain, "margin": margin, "phases": steering.phases_of_states(found["steering"])}
    facts["similar"] = similarity.by_distance(found.get("similarity", []))
    facts["decided"] = found.get("lenses", {}).get("decided", [])
    return render("numbers.md.j2", {**facts, "fuzzing": calibrated["fuzzing"], "calibrated": calibrated["detection"]})


def results(read: Mapping[str, pa.Table], seed: int) -> dict[str, Any]:
    """Return the figures of a release, for metrics.json: scores and their differences, dictionaries, calibration and steering."""
    status = {row["sae"]: row for row in summary.status_summary(read["latents"], read["explanations"])}
    shown = (
        "kind",
        "hookpoint",
        "activation",
        "width",
        "l0",
        "l0_se",
        "fvu",
        "loss_added",
        "loss_added_se",
        "loss_recovered",
        "dead_share",
    )
    saes = [{**status[row["sae"]], **{name: row[name] for name in shown}} for row in read["saes"].to_pylist()]
    saes.sort(key=lambda row: (summary.KINDS.index(row["kind"]), row["sae"]))
    kinds = {row["sae"]: row["kind"] for row in saes}
    return {
        "scores": summary.score_summary(read["scores"], read["latents"], kinds),
        "differences": summary.difference_summary(read["agreement"]),
        "margins": summary.margin_summary(read["scores"], read["latents"], kinds, seed),
        "dictionaries": saes,
        "anatomy": anatomy.beside_permuted(anatomy.anatomy_summary(read["anatomy"], read["latents"], kinds)),
        "best": anatomy.best_rows(read["best_of"]),
        "calibration": summary.calibration_summary(read["calibration"]),
        "judges": anatomy.judge_rows(read["judges"]),
        "steering": steering.steering_summary(read["steering"], read["steering_ranges"]),
        "similarity": similarity.similarity_summary(read["similarity"], kinds),
        "stability": similarity.stability_summary(read["stability"], read["stability_scores"]),
        "lenses": lenses.lens_facts(read),
    }


def _read(release: Path, table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    names = [column.name for column in table.columns] if columns is None else list(columns)
    paths = sorted((release / table.name).glob("*.parquet"))
    return pa.concat_tables([table.empty().select(names), *(pq.read_table(path, columns=names) for path in paths)])
