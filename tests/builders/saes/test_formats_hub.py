"""Fetching from the Hub: the real client talks to a server on this machine."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from click.testing import CliRunner
from coders import noise, random_coder
from hub import COMMIT, ask, serving
from huggingface_hub import close_session, constants
from project import sae, small_params

from builders.errors import UserError
from builders.lake.shards import file_sha256
from builders.saes import formats
from builders.saes.coder import JumpReLU, TopK
from builders.subjects import checkpoints, places
from pipelines.cli import main
from pipelines.opened.dictionaries import place_of
from pipelines.params import PretrainedSaeParams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hub import Hub

DICTIONARIES, MODEL = "lab/dictionaries", "lab/tiny-llama"
PUBLISHED = {"source": "pretrained", "subject": "lab", "hookpoint": "layers.2"}


@pytest.fixture
def hub(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a repository of three dictionaries and one of a checkpoint with files that nobody needs."""
    root = tmp_path / "served"
    for number, inside in enumerate(("layers.1", "layers.2", "layers.2.mlp")):
        formats.write(random_coder(number, 24, 32, TopK(4)), root / DICTIONARIES / inside)
    formats.write(random_coder(3, 24, 32, JumpReLU(noise(9, 24).abs())), root / DICTIONARIES / "blocks.1/width_24/average_l0_4")
    (root / DICTIONARIES / "README.md").write_text("Three dictionaries.")
    shutil.copytree(tiny_checkpoint, root / MODEL)
    (root / MODEL / "pytorch_model.bin").write_bytes(b"could run code")
    (root / MODEL / "modeling.py").write_text("raise SystemExit")
    with serving(root) as hub:
        ask(hub.endpoint, tmp_path / "home", monkeypatch)
        yield hub
    close_session()


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ask a port at which nothing listens, without the pauses between tries."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    ask(endpoint, tmp_path / "home", monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    yield
    close_session()


def said(error: pytest.ExceptionInfo[UserError]) -> str:
    """Return the error's text, which must be one line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def same(one: Path, other: Path) -> bool:
    """Return whether two folders hold the same files."""
    names = sorted(path.name for path in one.iterdir())
    return names == sorted(path.name for path in other.iterdir()) and all(
        file_sha256(one / name) == file_sha256(other / name) for name in names
    )


class TestDictionary:
    """One folder of a repository that holds many."""

    @pytest.mark.parametrize("inside", ["layers.1", "layers.2", "blocks.1/width_24/average_l0_4"])
    def test_one_folder_comes_and_nothing_else(self, inside: str, hub: Hub) -> None:
        """The folder's files arrive whole, and no other file of the repository is so much as asked about."""
        place = formats.fetch(DICTIONARIES, COMMIT, inside)

        assert same(place, hub.root / DICTIONARIES / inside)
        files = [f"{DICTIONARIES}/{inside}/{path.name}" for path in sorted((hub.root / DICTIONARIES / inside).iterdir())]
        assert hub.downloads == files
        assert hub.touched == set(files)

    def test_what_was_fetched_is_not_fetched_again(self, hub: Hub) -> None:
        """A second call gives the same folder without a word to the Hub."""
        first = formats.fetch(DICTIONARIES, COMMIT, "layers.1")
        hub.forget()

        assert formats.fetch(DICTIONARIES, COMMIT, "layers.1") == first
        assert hub.requests == []

    def test_a_second_folder_costs_that_folder(self, hub: Hub) -> None:
        """Another dictionary of the same repository brings its own files and leaves the first where it is."""
        first = formats.fetch(DICTIONARIES, COMMIT, "layers.1")
        hub.forget()
        second = formats.fetch(DICTIONARIES, COMMIT, "layers.2")

        assert hub.touched == {f"{DICTIONARIES}/layers.2/{name}" for name in ("cfg.json", "sae.safetensors")}
        assert first.parent == second.parent
        assert same(first, hub.root / DICTIONARIES / "layers.1")

    @pytest.mark.parametrize("inside", ["layers.2", "blocks.1/width_24/average_l0_4"])
    def test_it_reads_as_the_local_one_does(self, inside: str, hub: Hub) -> None:
        """A dictionary from the Hub is of the same format, and gives the same code and reconstruction, as its local copy."""
        place, local = formats.fetch(DICTIONARIES, COMMIT, inside), hub.root / DICTIONARIES / inside
        fetched, expected, x = formats.read(place), formats.read(local), noise(7, 50, 32)
        code, other = fetched.encode(x), expected.encode(x)

        assert formats.format_of(place) == formats.format_of(local)
        assert len(code.value) > 50
        assert torch.equal(code.latent, other.latent)
        assert torch.equal(code.value, other.value)
        assert torch.equal(fetched.decode(code, x), expected.decode(other, x))

    def test_a_copy_is_of_files_and_not_of_links(self, hub: Hub, tmp_path: Path) -> None:
        """A stage's copy of a fetched dictionary stays complete when the client's cache is deleted."""
        formats.copy(formats.fetch(DICTIONARIES, COMMIT, "layers.1"), tmp_path / "kept")
        shutil.rmtree(tmp_path / "home")

        assert same(tmp_path / "kept", hub.root / DICTIONARIES / "layers.1")
        assert not any(path.is_symlink() for path in (tmp_path / "kept").iterdir())

    def test_a_missing_folder_names_its_neighbours(self, hub: Hub) -> None:
        """The error for a missing folder is one line with the nearest names, and no file is fetched."""
        with pytest.raises(UserError) as caught:
            formats.fetch(DICTIONARIES, COMMIT, "layers.3")

        assert said(caught).startswith(f"{DICTIONARIES}@{COMMIT}: has no folder 'layers.3'; near it: ")
        assert "layers.1, layers.2, layers.2.mlp" in said(caught)
        assert hub.downloads == []

    @pytest.mark.usefixtures("hub")
    def test_a_folder_like_none_names_them_all(self) -> None:
        """If no name is similar, the existing folders are listed."""
        with pytest.raises(UserError) as caught:
            formats.fetch(DICTIONARIES, COMMIT, "#")

        assert said(caught).endswith("near it: blocks.1/width_24/average_l0_4, layers.1, layers.2, layers.2.mlp")

    def test_part_of_a_name_is_another_folder(self, hub: Hub) -> None:
        """`layers.2` fetches nothing of `layers.2.mlp`, and the beginning of a folder's name is not that folder."""
        with pytest.raises(UserError, match=r"has no folder 'layers'"):
            formats.fetch(DICTIONARIES, COMMIT, "layers")
        formats.fetch(DICTIONARIES, COMMIT, "layers.2")

        assert not any("layers.2.mlp" in name for name in hub.touched)

    @pytest.mark.parametrize(
        ("repo", "revision", "reason"),
        [("lab/nothing", COMMIT, "no such repository on the Hub"), (DICTIONARIES, "0" * 40, "the repository has no such commit")],
        ids=["repository", "commit"],
    )
    def test_a_repository_or_commit_that_is_not_there(self, repo: str, revision: str, reason: str, hub: Hub) -> None:
        """The error for a repository or commit that the Hub lacks is one line that names both and says which is missing."""
        with pytest.raises(UserError) as caught:
            formats.fetch(repo, revision, "layers.1")

        assert said(caught).startswith(f"{repo}@{revision}: {reason}")
        assert hub.downloads == []

    @pytest.mark.usefixtures("nowhere")
    def test_a_hub_out_of_reach_is_one_line(self) -> None:
        """If the Hub does not answer, the error is one line that says how to do without it."""
        with pytest.raises(UserError) as caught:
            formats.fetch(DICTIONARIES, COMMIT, "layers.1")

        assert said(caught).startswith(f"cannot fetch {DICTIONARIES}@{COMMIT}: ")
        assert said(caught).endswith("offline, set `path` to a local copy")

    def test_what_was_fetched_serves_without_the_hub(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        """Offline, a folder that was fetched before is found where it is."""
        place = formats.fetch(DICTIONARIES, COMMIT, "layers.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        hub.forget()

        assert formats.fetch(DICTIONARIES, COMMIT, "layers.1") == place
        assert hub.requests == []

    def test_what_was_not_fetched_is_told_without_the_hub(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        """Offline, the error for a folder that was not fetched with the rest of its repository says how to do without the Hub."""
        formats.fetch(DICTIONARIES, COMMIT, "layers.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        hub.forget()
        with pytest.raises(UserError) as caught:
            formats.fetch(DICTIONARIES, COMMIT, "layers.2")

        assert said(caught).startswith(f"cannot fetch {DICTIONARIES}@{COMMIT}: ")
        assert said(caught).endswith("offline, set `path` to a local copy")
        assert hub.requests == []


class TestCheckpoint:
    """A language model under study."""

    def test_weights_config_and_tokenizer_come(self, hub: Hub) -> None:
        """A checkpoint is fetched without its pickles and its code; the fetched files equal the source's."""
        place = places.fetch(places.Source(repo=MODEL, revision=COMMIT))

        names = {path.name for path in (hub.root / MODEL).iterdir()} - {"pytorch_model.bin", "modeling.py"}
        assert hub.touched == {f"{MODEL}/{name}" for name in names}
        assert {path.name for path in place.iterdir()} == names
        assert all(file_sha256(place / name) == file_sha256(hub.root / MODEL / name) for name in names)

    def test_it_is_not_fetched_again(self, hub: Hub) -> None:
        """A second look at a pinned checkpoint asks the Hub for nothing."""
        place = places.snapshot(MODEL, COMMIT, list(places.KEPT))
        hub.forget()

        assert places.snapshot(MODEL, COMMIT, list(places.KEPT)) == place
        assert hub.requests == []

    @pytest.mark.usefixtures("hub")
    def test_code_comes_where_it_is_allowed(self) -> None:
        """With `trust_remote_code` the repository's Python files come too, and still no pickle."""
        place = places.fetch(places.Source(repo=MODEL, revision=COMMIT, trust_remote_code=True))

        assert (place / "modeling.py").exists()
        assert not (place / "pytorch_model.bin").exists()

    @pytest.mark.usefixtures("nowhere")
    def test_a_hub_out_of_reach_is_one_line(self) -> None:
        """If the Hub does not answer, the error is one line that says how to do without it."""
        with pytest.raises(UserError) as caught:
            places.snapshot(MODEL, COMMIT, ["*.json"])

        assert said(caught).startswith(f"cannot fetch {MODEL}@{COMMIT}: ")
        assert said(caught).endswith("offline, set `path` to a local copy")

    def test_the_row_names_repository_and_commit(self, hub: Hub) -> None:
        """The SUBJECTS row of a fetched checkpoint is that of the local one but for where it came from."""
        source = places.Source(repo=MODEL, revision=COMMIT)
        local = hub.root / MODEL
        row = checkpoints.subject_row("tiny", source, places.fetch(source), "float32", "cpu")

        assert (row["source"], row["revision"]) == (MODEL, COMMIT)
        assert row == {
            **checkpoints.subject_row("tiny", places.Source(path=str(local)), local, "float32", "cpu"),
            "source": MODEL,
            "revision": COMMIT,
        }


def test_the_check_fetches_a_checkpoint(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`interplake check` fetches a checkpoint and looks its hookpoints up; it leaves published dictionaries on the Hub."""
    monkeypatch.chdir(tmp_path)
    params = small_params()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("Some text.")
    params["subjects"] = {"lab": {"repo": MODEL, "revision": COMMIT, "corpus": "topics", "device": "cpu"}}
    params["saes"] = {"own": sae(64), "published": PUBLISHED | {"repo": DICTIONARIES, "revision": COMMIT}}
    params["behaviours"] = {}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    result = CliRunner().invoke(main, ["check"])

    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "corpus topics: begins with 'a.txt'",
        "subject lab: LlamaForCausalLM, float32 on cpu",
        "sae own: reads layers.1 of lab",
        "sae published: reads layers.2 of lab",
    ]
    assert {name.rpartition("/")[0] for name in hub.touched} == {MODEL}


@pytest.mark.parametrize(
    ("given", "inside"),
    [
        ({}, "layers.2"),
        ({"hookpoint": "layers.1.input"}, "layers.1"),
        ({"hookpoint": "layers.1", "writes": "layers.2.mlp"}, "layers.2.mlp"),
        ({"hookpoint": "layers.2", "folder": "layers.1"}, "layers.1"),
    ],
    ids=["hookpoint", "input", "transcoder", "folder"],
)
def test_params_say_which_folder(given: dict[str, str], inside: str, hub: Hub) -> None:
    """A published dictionary's folder is `folder`, or else named like the hookpoint that it rebuilds."""
    spec = PretrainedSaeParams.model_validate(PUBLISHED | {"repo": DICTIONARIES, "revision": COMMIT} | given)

    assert same(place_of(spec), hub.root / DICTIONARIES / inside)
    assert {name.removeprefix(f"{DICTIONARIES}/").rpartition("/")[0] for name in hub.touched} == {inside}
