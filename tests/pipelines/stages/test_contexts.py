"""Stages `neighbours` and `contexts`, run in this process on a random checkpoint, with windows that are hard to tell."""

from __future__ import annotations

import pydoc_data.topics
import shutil
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from project import TOPICS, small_params, write_params

from builders.contexts.contexts import CONTEXTS
from builders.contexts.pool import POOL
from builders.errors import UserError
from builders.lake.failures import FAILURES
from builders.saes.latents import LATENTS
from builders.saes.neighbours import NEIGHBOURS
from builders.seeds import drawn, seed_of
from builders.text.tokens import TOKENS
from pipelines.graph.stage import shelf
from pipelines.opened import dictionaries
from pipelines.params import Params, load
from pipelines.parts.windows import drawn_latents
from pipelines.stages import activations, contexts, corpora, neighbours, saes, subjects, tokens

if TYPE_CHECKING:
    from shared import Once

RANDOM = {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": 48, "k": 4}
NEURONS = {"source": "neurons", "subject": "lab", "hookpoint": "layers.1.mlp.down_proj.input", "k": 8}
PLANTED = {"source": "planted", "subject": "lab"}
KINDS = ("cofiring", "decoder", "encoder", "similar", "row", "decoy")
HARD = {**dict.fromkeys(KINDS, 6), "per_neighbour": 2, "index": 40, "embedder": "letters"}


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, once: Once) -> Path:
    """Return a project with three dictionaries, up to their neighbours, its activations in several files."""
    return once("hard", lambda folder: fill(folder, tiny_checkpoint))


def fill(folder: Path, checkpoint: Path) -> None:
    """Build the project in *folder*."""
    (folder / "text").mkdir()
    for topic in TOPICS:
        (folder / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:3000], encoding="utf-8")
    shutil.copytree(checkpoint, folder / "model")
    with chdir(folder):
        asked(HARD)
        corpora.main("topics")
        subjects.main("lab")
        tokens.main("lab")
        for name in ("random", "neurons", "planted"):
            saes.main(name)
            activations.main(name)
            neighbours.main(name)


def asked(negatives: dict[str, Any], file_rows: int = 8000, **more: Any) -> None:
    """Write the params of a project that asks for *negatives*, and for *more* of `contexts`."""
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    params["saes"] = {"random": RANDOM, "neurons": NEURONS, "planted": PLANTED}
    params["activations"]["file_rows"] = file_rows
    params["neighbours"] = {"most": 4, "rows": 30}
    params["contexts"] |= {"negatives": negatives, **more}
    params |= {"explainers": {}, "judges": {}, "scorers": {}, "direct_scorers": {}, "embedders": {"letters": {"kind": "lexical"}}}
    write_params(Path(), params)


def rows_of(name: str) -> pa.Table:
    """Return the contexts of a dictionary, made now."""
    contexts.main(name)
    return shelf("contexts", name).read(CONTEXTS).replace_schema_metadata()


def plain(rows: pa.Table) -> pa.Table:
    """Return the rows of windows that are not hard."""
    return rows.filter(pc.is_in(rows["kind"], value_set=pa.array(["activating", "random"])))


def params_of() -> Params:
    """Return the params in force."""
    return load(Path("params.yaml"))


def test_every_measure_has_rows_where_it_has_a_meaning(here: Path) -> None:
    """An SAE has neighbours by all measures, neurons and rules by co-firing only; latents that never fire have none."""
    found = {name: shelf("neighbours", name).read(NEIGHBOURS) for name in ("random", "neurons", "planted")}

    assert {name: set(rows["measure"].to_pylist()) for name, rows in found.items()} == {
        "random": {"cofiring", "decoder", "encoder"},
        "neurons": {"cofiring"},
        "planted": {"cofiring"},
    }
    assert max(found["random"]["rank"].to_pylist()) == 3
    decoder, encoder = (found["random"].filter(pc.equal(found["random"]["measure"], kind)) for kind in ("decoder", "encoder"))
    assert decoder["neighbour"].to_pylist() == encoder["neighbour"].to_pylist()  # an untrained dictionary's are the same


def test_neighbours_are_found_without_the_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coder is read from its own files: the checkpoint may be gone, and rows are the same."""
    before = shelf("neighbours", "random").read(NEIGHBOURS)
    monkeypatch.setattr(dictionaries.Subjects, "open", lambda *_: pytest.fail("the model was loaded"))
    shutil.rmtree("model")
    shutil.rmtree("build/neighbours")
    neighbours.main("random")

    assert shelf("neighbours", "random").read(NEIGHBOURS).equals(before)


@pytest.mark.parametrize("name", ["random", "planted"])
def test_hard_windows_change_nothing_else(here: Path, name: str) -> None:
    """Hard windows change no other row; each kind has as many windows as asked, or a failure says how many there are."""
    hard = rows_of(name)
    counts = hard.group_by(["latent", "kind"]).aggregate([([], "count_all")]).to_pylist()
    have = {(row["latent"], row["kind"]): row["count_all"] for row in counts}
    short = {(row["latent"], row["item"]) for row in shelf("contexts", name).read(FAILURES).to_pylist() if row["item"] != "latent"}
    asked({})
    bare = rows_of(name)

    assert plain(hard).equals(bare)
    assert bare.num_rows < hard.num_rows
    for latent in {latent for latent, _ in have}:
        for kind in KINDS:
            assert ((latent, kind) in short) == (have.get((latent, kind), 0) < HARD[kind])


def test_a_dictionary_that_is_not_scored_has_no_hard_windows(here: Path) -> None:
    """Without scores a dictionary has the windows for explainers and random ones, which are the same as with scores."""
    hard = rows_of("random")
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["saes"]["random"]["scored"] = False
    write_params(Path(), params)

    assert rows_of("random").equals(plain(hard))


def test_contexts_do_not_depend_on_how_latents_lie_in_files(here: Path) -> None:
    """With all activations in one file, or in several, contexts and failures are the same."""
    several = rows_of("random"), shelf("contexts", "random").read(FAILURES)
    files = len(shelf("activations", "random").paths(contexts.ACTIVATIONS))
    asked(HARD, file_rows=10**9)
    activations.main("random")
    neighbours.main("random")

    assert files > 1 == len(shelf("activations", "random").paths(contexts.ACTIVATIONS))
    assert rows_of("random").equals(several[0])
    assert shelf("contexts", "random").read(FAILURES).equals(several[1])
    assert set(KINDS) < set(several[0]["kind"].to_pylist())


def test_all_dictionaries_of_a_subject_share_a_pool(here: Path) -> None:
    """The pool has the same windows for each dictionary, with the latents that fire there as activations tell, and changes no other row."""
    asked({"pool": 30})
    rows = {name: (rows_of(name), shelf("contexts", name).read(POOL)) for name in ("random", "planted")}
    shown = ["window", "row", "start", "text", "tokens"]
    asked({})

    assert rows["random"][1].num_rows == 30
    assert rows["random"][1].select(shown).equals(rows["planted"][1].select(shown))
    assert rows_of("random").equals(rows["random"][0])
    assert shelf("contexts", "random").rows(POOL) == 0
    for name, (own, pool) in rows.items():
        fired = shelf("activations", name).read(contexts.ACTIVATIONS, columns=["latent", "row", "position"]).to_pylist()
        there: dict[tuple[int, int], set[int]] = {}
        for record in fired:
            there.setdefault((record["row"], record["position"] // 16 * 16), set()).add(record["latent"])
        silent = {(row["latent"], row["row"], row["start"]) for row in own.to_pylist() if row["kind"] == "random"}
        for record in pool.to_pylist():
            place = record["row"], record["start"]
            assert set(record["firing"]) == there.get(place, set())
            assert set(record["drawn"]) & latents_of(own) == {latent for latent, *where in silent if tuple(where) == place}


def test_only_the_latents_that_are_drawn_get_hard_windows(here: Path) -> None:
    """With `latents`, only latents that explainers and scorers draw have hard windows, and these are the same as without `latents`."""
    all_ = rows_of("random")
    asked({**HARD, "latents": 7})
    some = rows_of("random")
    wanted = drawn_latents(shelf("contexts", "random"), params_of().seed, "random", 7)

    assert {row["latent"] for row in some.to_pylist() if row["kind"] in KINDS} == wanted
    assert wanted == set(drawn(np.unique(some["latent"].to_numpy()), 7, seed_of(0, "explained latents", "random")).tolist())
    assert len(wanted) == 7
    assert plain(some).equals(plain(all_))
    assert [row for row in all_.to_pylist() if row["latent"] in wanted] == [row for row in some.to_pylist() if row["latent"] in wanted]


def latents_of(rows: pa.Table) -> set[int]:
    """Return the latents that rows are about."""
    return set(rows["latent"].to_pylist())


@pytest.mark.parametrize("by", ["density", "none"])
def test_a_sample_is_drawn_before_windows_are_cut(here: Path, by: str) -> None:
    """Only drawn latents have windows, the same as without a sample; those with too few are failures as before; the others are neither."""
    asked({})
    whole, failed = rows_of("random"), shelf("contexts", "random").read(FAILURES)
    latents = shelf("contexts", "random").read(LATENTS)
    asked({}, latents={"sample": 10, "by": by})
    some, told = rows_of("random"), shelf("contexts", "random").read(LATENTS).to_pylist()
    drawn_here = latents_of(some)
    able = {row["latent"] for row in told if row["windows"] >= 20}

    assert set(latents["inclusion"].to_pylist()) == {1.0}
    assert len(drawn_here) == 10 < len(latents_of(whole))
    assert some.equals(whole.filter(pc.is_in(whole["latent"], value_set=pa.array(sorted(drawn_here), pa.int32()))))
    assert shelf("contexts", "random").read(FAILURES).equals(failed)
    assert sum(1 / row["inclusion"] for row in told if row["latent"] in drawn_here) == pytest.approx(len(able))
    assert {row["latent"] for row in told if row["inclusion"] == 1.0} >= {row["latent"] for row in told} - able
    assert latents.drop_columns("inclusion").equals(shelf("contexts", "random").read(LATENTS).drop_columns("inclusion"))


def test_latents_that_are_not_drawn_still_are_neighbours(here: Path) -> None:
    """Hard windows of a drawn latent may come from neighbours that are not drawn, and are those that it has without a sample."""
    whole = rows_of("random")
    asked(HARD, latents={"sample": 10})
    some = rows_of("random")

    assert set(some["neighbour"].to_pylist()) - {None} - latents_of(some)
    assert some.equals(whole.filter(pc.is_in(whole["latent"], value_set=pa.array(sorted(latents_of(some)), pa.int32()))))


def test_neighbours_are_read_only_where_one_is_asked_for(here: Path) -> None:
    """Similar windows need no neighbours; windows of neighbours name the missing folder; the manifest records both."""
    shutil.rmtree("build/neighbours")
    asked({"similar": 6, "embedder": "letters", "index": 40})
    kinds = set(rows_of("random")["kind"].to_pylist())
    manifest = shelf("contexts", "random").manifest
    asked({"decoder": 6})

    assert kinds == {"activating", "random", "similar"}
    assert set(manifest["inputs"]) == {"tokens", "activations"}
    assert manifest["params"]["embedded by"]["name"] == "lexical"
    with pytest.raises(UserError, match="build/neighbours/random: not built yet"):
        contexts.main("random")


def test_firings_are_counted_on_the_rows_drawn_for_the_subject(here: Path) -> None:
    """All dictionaries of a subject are counted on the same rows, as many as params say, and on no others."""
    rows = neighbours.drawn_rows(params_of(), "random", shelf("tokens", "lab"))
    shelves = shelf("activations", "random")
    latent, token = neighbours.firings_on(rows, "random", shelves)
    stored = shelves.read(contexts.ACTIVATIONS, columns=["latent", "row", "position"])
    inside = stored.filter(pc.is_in(stored["row"], value_set=pa.array(rows, pa.int32())))

    assert rows.tolist() == drawn(np.arange(shelf("tokens", "lab").rows(TOKENS)), 30, seed_of(0, "cofiring rows", "lab")).tolist()
    assert list(zip(latent.tolist(), (token >> 32).tolist(), (token % 2**32).tolist(), strict=True)) == [
        tuple(record.values()) for record in inside.to_pylist()
    ]
    assert 0 < inside.num_rows < stored.num_rows


# Params


@pytest.mark.parametrize(
    ("negatives", "told"),
    [
        ({"similar": 5}, "contexts.negatives: `similar` windows need an `embedder`, an id of `embedders`"),
        ({"similar": 5, "embedder": "other"}, "contexts.negatives.embedder: 'other' is not defined; defined are letters"),
        ({"decoder": -1}, "contexts.negatives.decoder: "),
        ({"nearest": 5}, "contexts.negatives.nearest: unknown key"),
        ({"row": 5, "row_start": 113}, "contexts.negatives.row_start: no row has 129 tokens (`tokens.length` is 128); lower it"),
    ],
)
def test_a_mistake_in_negatives_is_one_line(here: Path, negatives: dict[str, Any], told: str) -> None:
    """A mistake in `negatives` is reported with its key in params.yaml."""
    asked(negatives)

    with pytest.raises(UserError) as error:
        params_of()
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("latents", "told"),
    [
        ({"sample": 9}, "contexts.latents.sample: must be at least 10 (given: 9)"),
        ({"sample": 20, "by": "layer"}, "contexts.latents.by: must be"),
    ],
)
def test_a_mistake_in_a_sample_is_one_line(here: Path, latents: dict[str, Any], told: str) -> None:
    """A sample that gives a stratum nothing, and strata that nobody knows, are refused."""
    asked({}, latents=latents)
    with pytest.raises(UserError) as error:
        params_of()
    assert told in str(error.value)


def test_neighbours_by_a_measure_that_is_not_taken_are_a_mistake(here: Path) -> None:
    """Windows of neighbours by decoder need `decoder` among the measures."""
    asked({"decoder": 5})
    text = Path("params.yaml").read_text().replace("neighbours:\n", "neighbours:\n  measures: [cofiring]\n", 1)
    Path("params.yaml").write_text(text)

    with pytest.raises(UserError, match=r"contexts\.negatives\.decoder: 'decoder' is not among `neighbours\.measures`"):
        params_of()


def test_params_without_negatives_and_neighbours_stay_valid(here: Path) -> None:
    """Params without these sections ask for no hard windows, and for all measures."""
    asked({})
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("neighbours:\n  most: 4\n  rows: 30\n", "").replace("  negatives: {}\n", ""))

    assert "neighbours" not in Path("params.yaml").read_text()
    assert params_of().contexts.negatives.counts == {}
    assert params_of().neighbours.model_dump() == {"measures": ["cofiring", "decoder", "encoder"], "most": 10, "rows": 2048}
