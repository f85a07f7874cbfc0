"""Stage `lenses`, run in this process on random checkpoints: every kind of lens, what a break costs, and what is refused."""

from __future__ import annotations

import pydoc_data.topics
import shutil
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from project import TOPICS, digests, small_params, write_params
from recurrent import tiny

from builders.errors import UserError
from builders.lenses import formats, jacobian_files
from builders.lenses.formats import Origin
from builders.lenses.jacobian_files import REACHES
from builders.lenses.published import LENS_REFERENCE, reference_rows
from builders.lenses.training import Training
from builders.lenses.trajectories import PROMPTS
from builders.subjects.anatomy import anatomy_of
from pipelines.opened.subjects import open_subject
from pipelines.params import load
from pipelines.parts import lenses as parts
from pipelines.registry import CONFIGS
from pipelines.stages import corpora, lenses, release, subjects, tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from shared import Once
    from transformers import PreTrainedTokenizerBase

LAYERS = 3  # of both models
KINDS = ["logit", "tuned", *REACHES]
SMALL: dict[str, Any] = {
    "kinds": KINDS,
    "rows": 4,
    "transfer_rows": 2,
    "batch_rows": 4,
    "tuned": {"steps": 6, "rows_per_step": 2, "batch_rows": 2, "check_every": 2, "check_rows": 4},
    "jacobian": {"rows": 4, "positions": 2, "together": 2, "every": 4},
    "prompts": {"mine": "Return the number of rows."},
}


def params_of(**more: Any) -> dict[str, Any]:
    """Return params of a Llama, a Mamba-2 and a Llama with random weights, with SMALL lenses after changes."""
    params = small_params()
    lab = params["subjects"].pop("lab")
    places = {"llama": {"path": "llama"}, "mamba": {"path": "mamba", "batch_rows": 8}, "random": {"path": "llama", "reinitialised": True}}
    params["subjects"] = {name: {**lab, **place} for name, place in places.items()}
    params["saes"] = {"random": {"source": "random", "subject": "llama", "hookpoint": "layers.1", "width": 64, "k": 4}}
    return params | {"lenses": {**SMALL, **more}}


def fill(folder: Path, llama: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Build a project up to its tokens."""
    (folder / "text").mkdir()
    for topic in TOPICS:
        (folder / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:3000], encoding="utf-8")
    shutil.copytree(llama, folder / "llama")
    tiny("mamba2", len(tokenizer)).save_pretrained(folder / "mamba")
    tokenizer.save_pretrained(folder / "mamba")
    write_params(folder, params_of())
    with chdir(folder):
        for stage in (corpora, subjects, tokens):
            stage.main()


@pytest.fixture(scope="module")
def tokenized(tiny_checkpoint: Path, tiny_tokenizer: PreTrainedTokenizerBase, once: Once) -> Path:
    """Return a project that is built up to its tokens."""
    return once("for lenses", partial(fill, llama=tiny_checkpoint, tokenizer=tiny_tokenizer))


def finish(folder: Path, tokenized: Path) -> None:
    """Run the stage once."""
    shutil.copytree(tokenized, folder, dirs_exist_ok=True)
    with chdir(folder):
        lenses.main()


@pytest.fixture(scope="module")
def built(tokenized: Path, once: Once) -> Path:
    """Return the project after the stage."""
    return once("with lenses", partial(finish, tokenized=tokenized))


@pytest.fixture
def start(tmp_path: Path, tokenized: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes a project up to its tokens, with other lenses or subjects, and goes there."""

    def made(subject: dict[str, Any] | None = None, **more: Any) -> None:
        here = Path(shutil.copytree(tokenized, tmp_path / "started"))
        params = params_of(**more)
        params["subjects"]["llama"] |= subject or {}
        write_params(here, params)
        monkeypatch.chdir(here)

    return made


def table(subject: str, name: str) -> pa.Table:
    """Return the rows of a table that the stage has written."""
    return pq.read_table(sorted(Path("build/lenses", subject).glob(f"{name}-*.parquet")))


def rows(subject: str, name: str) -> list[dict[str, Any]]:
    """Return the same as a list."""
    found: list[dict[str, Any]] = table(subject, name).to_pylist()
    return found


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("subject", ["llama", "mamba"])
def test_every_kind_says_something_of_every_layer(subject: str) -> None:
    """Each lens has a row for each layer, and transfers, decisions and trajectories where it can have them."""
    found = {(row["lens"], row["layer"], row["ahead"]) for row in rows(subject, "lenses")}
    followed = {(row["lens"], row["prompt"]) for row in rows(subject, "trajectories")}

    assert found == {(kind, layer, int(kind == "jacobian-state")) for kind in KINDS for layer in range(LAYERS + 1)}
    assert {row["lens"] for row in rows(subject, "lens_transfer")} == set(KINDS) - {"logit"}
    assert len(rows(subject, "lens_transfer")) == LAYERS**2 * (len(KINDS) - 1)
    assert {row["lens"] for row in rows(subject, "lens_decisions") if row["frequency"] == "all"} == set(KINDS)
    assert followed == {(kind, prompt) for kind in KINDS if kind != "jacobian-state" for prompt in (*PROMPTS, "mine")}
    assert {row["step"] for row in rows(subject, "lens_training")} == {0, 2, 4, 6}
    assert {row["lens"] for row in rows(subject, "lens_convergence")} == set(REACHES)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("subject", ["llama", "mamba"])
def test_at_the_last_layer_a_lens_is_the_model(subject: str) -> None:
    """Lenses of the position itself diverge by nothing there, and their cross-entropy is the model's own."""
    last = [row for row in rows(subject, "lenses") if row["layer"] == LAYERS and not row["ahead"]]

    assert [row["kl"] for row in last] == pytest.approx([0.0] * len(last), abs=1e-6)
    assert [row["ce"] for row in last] == pytest.approx([row["baseline_ce"] for row in last], rel=1e-6)
    assert {row["top1"] for row in last} == {1.0}


@pytest.mark.usefixtures("here")
def test_training_brings_the_tuned_lens_nearer_to_the_model() -> None:
    """On the rows of the checks, the translators that are published diverge by less than the logit lens, at every layer."""
    told = rows("llama", "lens_training")
    first = {row["layer"]: row["held_out_kl"] for row in told if row["step"] == 0}
    kept = {row["layer"]: row["held_out_kl"] for row in told if row["kept"]}

    assert sorted(kept) == list(range(LAYERS))
    assert all(kept[layer] < first[layer] for layer in kept)


def origin_of(subject: str) -> Origin:
    """Return what files say of the model of a subject."""
    params = load()
    anatomy = anatomy_of(open_subject(params, subject).model)
    return Origin(subject, None, anatomy.last, anatomy.unembedding.weight)  # type: ignore[arg-type]


@pytest.mark.usefixtures("here")
def test_weights_can_be_read_again_for_their_own_model_only() -> None:
    """What lies in `weights` are the lenses of that subject; those of another subject are refused."""
    own, other = origin_of("llama"), origin_of("mamba")
    weights = Path("build/lenses/llama/weights")
    tuned = formats.read(weights / "tuned", own)
    averaged = {name: jacobian_files.read(weights / f"{name}.safetensors", own) for name in REACHES}

    assert list(tuned.weight.shape) == [LAYERS, 32, 32]
    assert {lens.name: list(lens.jacobians.shape) for lens in averaged.values()} == {name: [LAYERS, 32, 32] for name in REACHES}
    with pytest.raises(UserError, match="its lens is of another unembedding"):
        formats.read(weights / "tuned", other)
    with pytest.raises(UserError, match="its lens is of another unembed_sha256"):
        jacobian_files.read(weights / "jacobian.safetensors", other)


def test_a_second_run_does_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished subject is neither opened nor written again."""
    before = digests(here / "build/lenses")
    monkeypatch.setattr(lenses, "write", None)
    lenses.main()

    assert digests(here / "build/lenses") == before
    assert not list(here.rglob(parts.STATE_FILE))


def test_a_run_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(
    start: Callable[..., None], built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A break in the training loses the steps since the last check; Jacobians that are averaged are not averaged again."""
    start(kinds=["jacobian", "tuned", "logit"])
    whole, steps = Training.save, Training.step

    def cut(training: Training, path: Path) -> None:
        whole(training, path)
        if training.done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        lenses.main("llama")
    monkeypatch.setattr(Training, "save", whole)
    taken: list[int] = []

    def counted(training: Training) -> None:
        taken.append(training.done)
        steps(training)

    monkeypatch.setattr(Training, "step", counted)
    monkeypatch.setattr(parts, "fit", None)
    lenses.main("llama")

    own, others = digests(Path("build/lenses/llama/weights")), digests(built / "build/lenses/llama/weights")
    assert taken == [4, 5]
    assert own == {name: digest for name, digest in others.items() if name.startswith("tuned/") or name == "jacobian.safetensors"}
    assert table("llama", "lens_training").equals(pq.read_table(built / "build/lenses/llama/lens_training-00000.parquet"))


@pytest.mark.parametrize("subject", ["llama", "random"])
def test_no_lenses_are_empty_tables(start: Callable[..., None], subject: str) -> None:
    """Where none is asked, and for a subject with random weights, all tables are there and hold no row."""
    start(**({} if subject == "random" else {"kinds": []}))
    lenses.main(subject)

    assert {name.name: table(subject, name.name).num_rows for name in lenses.TABLES} == {name.name: 0 for name in lenses.TABLES}
    assert not Path("build/lenses", subject, "weights").exists()


@pytest.mark.parametrize(("kinds", "transfers"), [(["logit"], 2), (["jacobian"], 0)])
def test_transfers_need_a_lens_that_differs_by_layer_and_rows(start: Callable[..., None], kinds: list[str], transfers: int) -> None:
    """The logit lens is the same at every layer, and no rows are no transfers."""
    start(kinds=kinds, transfer_rows=transfers)
    lenses.main("llama")

    assert rows("llama", "lens_transfer") == []
    assert {row["lens"] for row in rows("llama", "lenses")} == set(kinds)


def test_a_final_norm_may_be_named(start: Callable[..., None], built: Path) -> None:
    """The norm that is found may be named as well, with the same rows; another name is one line."""
    start({"norm": "norm"}, kinds=["logit"])
    lenses.main("llama")
    logit = [row for row in pq.read_table(built / "build/lenses/llama/lenses-00000.parquet").to_pylist() if row["lens"] == "logit"]

    assert rows("llama", "lenses") == logit


@pytest.mark.parametrize(
    ("subject", "more", "said"),
    [
        ({"norm": "nowhere"}, {}, "found no final norm; looked for a final norm called 'nowhere'; name it in params"),
        ({"norm": "none"}, {"kinds": ["logit"]}, "name another final norm in params"),
        ({}, {"tuned": {"rows_per_step": 1000}}, "llama: .* are too few to train a lens: .*; lower these two, or give more text"),
        ({}, {"kinds": ["jacobian"], "jacobian": {"skip": 128}}, "take longer rows or skip fewer tokens"),
        ({}, {"kinds": ["logit"], "prompts": {"long": "word " * 500}}, r"lenses\.prompts\.long: it has \d+ tokens of llama"),
    ],
)
def test_a_mistake_is_one_line(start: Callable[..., None], subject: dict[str, Any], more: dict[str, Any], said: str) -> None:
    """A norm that is not the model's, a corpus that is too small and a prompt that is too long say what to do next."""
    start(subject, **more)

    with pytest.raises(UserError, match=said) as error:
        lenses.main("llama")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("here")
def test_a_release_has_weights_and_published_curves_beside_lenses(tmp_path: Path) -> None:
    """Weights lie by subject; the published curves are there, in the order of their key, since there are lenses to compare with."""
    params = load()
    curves = next(config for config in CONFIGS if config.table is LENS_REFERENCE)
    release.copy_weights(params, tmp_path)
    (part,) = release.collect(curves, params, tmp_path)
    written = pq.read_table(tmp_path / "lens_reference")

    assert sorted(path.name for path in (tmp_path / "weights/lenses").iterdir()) == ["llama", "mamba"]
    assert digests(tmp_path / "weights/lenses/llama") == digests(Path("build/lenses/llama/weights"))
    assert written.num_rows == part.rows == reference_rows().num_rows
    assert written.equals(LENS_REFERENCE.sort(reference_rows()))


def test_a_release_without_lenses_has_no_published_curves(start: Callable[..., None], tmp_path: Path) -> None:
    """Where no subject has lenses, neither curves nor weights are in the release."""
    start(kinds=[])
    lenses.main()
    params = load()
    release.copy_weights(params, tmp_path / "release")

    assert [release.collect(config, params, tmp_path / "release") for config in CONFIGS if config.stages == ("lenses",)] == [[]] * 7
    assert not (tmp_path / "release").exists()
