"""The dependencies of a stage: its code, its part of params, and the files outside the project that it reads."""

from __future__ import annotations

import ast
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from project import small_params

from builders.errors import UserError
from builders.lake.hashes import Hashes, below
from pipelines import why
from pipelines.graph import closure, outside, sources
from pipelines.graph.closure import ROOT, canonical, code_of, reached
from pipelines.graph.declared import declared, restricted, stages
from pipelines.graph.prompts import ASKING
from pipelines.graph.stage import SECTIONS
from pipelines.params import Params, Section, load
from pipelines.stages import inputs

PARAMS = load(ROOT / "params.yaml")
WITH_CODE = [name for name in stages() if name not in ("lab", "sources", "inputs")]
SNIPPET = '''
"""A module."""
import os


def size(path: str, *, deep: bool = False) -> int:
    """Return a size."""
    # a comment
    return {"a": 1.5, b"b": 1_000}.get(path, -1) if deep else len(f"{path!r:>{10}} é") + os.cpu_count()
'''


class TestCanonical:
    """Code without comments, docstrings and layout."""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("# a comment", "# another"),
            ('"""A module."""\n', ""),
            ('    """Return a size."""\n', '    """Say it otherwise."""\n'),
            ("import os\n\n\n", "import os\n"),
            ("(path: str, *, deep: bool = False)", "(\n    path: str,\n    *,\n    deep: bool = False,\n)"),
            ("1_000", "1000"),
            ('"a"', "'a'"),
        ],
    )
    def test_comments_docstrings_and_layout_do_not_count(self, old: str, new: str) -> None:
        """A comment, a docstring, blank lines, line breaks and how a constant is written leave the code the same."""
        assert old in SNIPPET
        assert canonical(ast.parse(SNIPPET.replace(old, new))) == canonical(ast.parse(SNIPPET))

    @pytest.mark.parametrize(
        ("old", "new"),
        [("1.5", "1.25"), ("= False", "= True"), ("len(", "hash("), ("é", "e"), ("!r", "!s"), ("import os", "import re as os")],
    )
    def test_code_that_runs_counts(self, old: str, new: str) -> None:
        """Another constant, default, name, character, conversion or module is other code."""
        assert canonical(ast.parse(SNIPPET.replace(old, new))) != canonical(ast.parse(SNIPPET))

    def test_the_hash_of_a_module_is_the_same_everywhere(self) -> None:
        """The hash of a module is this one on every version of Python."""
        assert closure.digest(canonical(ast.parse(SNIPPET)).encode()) == "70a4faa13719401d"

    @given(st.text(), st.binary(), st.floats(allow_nan=False), st.integers())
    def test_constants_are_told_apart_in_plain_letters(self, text: str, raw: bytes, real: float, whole: int) -> None:
        """The text of any constant is ASCII, and different constants have different texts."""
        said = [canonical(ast.parse(f"x = {value!r}")) for value in (text, raw, real, whole)]

        assert all(one.isascii() for one in said)
        assert len(set(said)) == 4


class TestCode:
    """The modules and files that a stage reaches."""

    def test_lazy_imports_and_templates_count(self) -> None:
        """Modules imported in a function, templates, and templates that these include count; other files do not."""
        release, contexts = code_of("release"), code_of("contexts")

        assert {"cards/templates/release.md.j2", "cards/templates/table.md.j2", "cards/steering.py"} <= set(release)
        assert "cards/templates/lab.md.j2" not in release
        assert {"builders/embedders/sentence.py", "pipelines/__init__.py", "pipelines/kernels.py"} <= set(contexts)
        assert not any(name.startswith("pipelines/params") for name in contexts)

    def test_every_data_file_belongs_to_a_stage_or_a_page(self) -> None:
        """Every prompt and every template is one that some stage, page or changelog depends on."""
        pages = (ROOT / "pipelines/docs.py", ROOT / "builders/releases/changelog.py", ROOT / "cards/difference.py")
        known = {name for stage in [*WITH_CODE, "lab"] for name in code_of(stage)} | {name for page in pages for name in reached(page)}
        data = [path for package in closure.PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in closure.DATA]

        assert {closure.named(path) for path in data} - known == {"checkpoints/recipe.yaml"}

    def test_no_module_is_imported_by_a_computed_name(self) -> None:
        """All imports of the project's modules are statements, which can be found without running the code."""
        for path in (path for package in closure.PACKAGES for path in (ROOT / package).rglob("*.py")):
            calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
            made_up = [call for call in calls if ast.unparse(call.func) in ("import_module", "importlib.import_module", "__import__")]
            assert all(ast.unparse(call.args[0]).strip("'").split(".")[0] in ("transformers", "xllamacpp") for call in made_up)


class TestSources:
    """The files of hashes of every stage's code."""

    def test_a_prompt_belongs_to_those_that_use_it(self) -> None:
        """An explainer's file names its own prompts, a scorer's with a model as judge those of its kind, and a lexical one's none."""
        spec = yaml.safe_load((ROOT / "params.yaml").read_text())
        spec["engines"]["server"] = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
        spec["judges"]["asks"] = {"kind": "model", "engine": "server"}
        spec["judges"]["asks-freely"] = {"kind": "model", "engine": "server", "form": "free"}
        spec["explainers"] |= {"words": {"kind": "default", "engine": "server"}, "effects": {"kind": "intervention", "engine": "server"}}
        spec["scorers"] |= {f"asked-{kind}": {"kind": kind, "judge": "asks"} for kind in ("detection", "simulation", "surprisal")}
        spec["scorers"]["freely"] = {"kind": "fuzzing", "judge": "asks-freely"}
        spec["direct_scorers"]["asked-intruder"] = {"kind": "intruder", "judge": "asks"}
        texts = dict(sources.sources(Params.model_validate(spec)))

        def prompts(name: str) -> list[str]:
            return [line.rpartition("/")[2] for line in texts[name].splitlines() if "/prompts/" in line]

        assert prompts("explanations/words") == ["answer.j2", "examples.j2", "guidelines.j2", "shots.yaml"]
        assert prompts("explanations/effects") == ["effects.j2", "effects.yaml", "intervention.j2"]
        assert prompts("explanations/lexical") == prompts("scores/detection") == []
        assert prompts("scores/asked-detection") == ["judge.yaml", "judge_list.j2", "windows.j2"]
        assert prompts("scores/freely") == ["judge.j2", "judge.yaml", "windows.j2"]
        assert prompts("direct/asked-intruder") == ["intruder.yaml", "intruder_number.j2", "windows.j2"]
        assert prompts("scores/asked-simulation") == ["all_at_once.j2", "simulation.yaml"]
        assert prompts("scores/asked-surprisal") == ["surprisal.j2", "surprisal.yaml"]
        assert set(texts) >= {"saes", "release", "direct/intruder"}

    def test_a_default_counts_and_words_do_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The hash of a section follows its defaults and bounds, and not its docstring."""
        before = sources.schema.__wrapped__("neighbours")
        field = Params.model_fields["neighbours"]
        kind: Any = field.annotation
        worded = type("Neighbours", (kind,), {"__doc__": "Other words.", "__module__": kind.__module__})
        changed = type("Neighbours", (kind,), {"__annotations__": {"most": int}, "most": 11, "__module__": kind.__module__})

        def schema_of(other: Any) -> str:
            monkeypatch.setattr(field, "annotation", other)
            monkeypatch.setattr(field, "default", other())
            return str(sources.schema.__wrapped__("neighbours"))

        assert schema_of(worded) == before
        assert schema_of(changed) != before

    def test_the_name_of_a_class_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The hash of a section that holds other sections is the same whatever their classes are called."""

        def schema_of(name: str) -> str:
            kind = type(name, (Section,), {"__annotations__": {"shown": int}, "__module__": __name__})
            monkeypatch.setattr(Params.model_fields["judges"], "annotation", dict.__class_getitem__((str, kind)))
            return str(sources.schema.__wrapped__("judges"))

        assert schema_of("One") == schema_of("Other")


class TestDvcYaml:
    """The entries of dvc.yaml."""

    @pytest.mark.parametrize("stage", WITH_CODE)
    def test_a_stage_depends_on_code_by_its_own_file_of_sources_only(self, stage: str) -> None:
        """A stage's deps name its own file of sources, and no module or package."""
        deps = stages()[stage].deps
        own = [dep for dep in deps if dep.startswith("build/sources/")]

        assert len(own) == 1
        assert own[0].removeprefix("build/sources/").split("/")[0].removesuffix(".txt") == stage
        assert all(dep.startswith("build/") for dep in deps)
        assert (len(own[0].split("/")) == 4) == (stage in ASKING)

    @pytest.mark.parametrize("stage", WITH_CODE)
    def test_every_declared_section_is_read(self, stage: str) -> None:
        """The modules of a stage read every section that it declares; to read another one fails when the stage runs."""
        trees = [ast.parse((ROOT / path).read_bytes()) for path in code_of(stage) if path.startswith("pipelines/")]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        in_tables = {node.value for node in nodes if isinstance(node, ast.Constant)}  # such as stage.OVER, whose ids name folders
        answering = {"embedders", "judges"} if stage in ASKING else set()  # DrawnParams.answered_by names one of the two
        whole = stages()[stage].params == tuple(Params.model_fields)

        assert whole or set(stages()[stage].sections) <= read | in_tables | answering

    def test_it_is_short(self) -> None:
        """The graph stays something that a person reads."""
        assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 300


class TestDeclared:
    """Params of which a stage is left what it declares."""

    def test_declared_params_can_be_read(self) -> None:
        """A section, an id of one and a field of one can be read, and are what they are in params.yaml."""
        view = restricted(PARAMS, ["seed", "saes.lab-planted", "tokens.window", "training"])

        assert (view.seed, view.tokens.window) == (PARAMS.seed, PARAMS.tokens.window)
        assert view.saes["lab-planted"] == PARAMS.saes["lab-planted"]
        assert view.training == PARAMS.training

    @pytest.mark.parametrize("read", ["engines", "saes.lab-l1-topk-512", "tokens.length", "neighbours.most"])
    def test_other_params_are_refused(self, read: str) -> None:
        """Another section, id or field cannot be read, even if it has a default."""
        view: Any = restricted(PARAMS, ["seed", "saes.lab-planted", "tokens.window"])
        section, _, part = read.partition(".")

        with pytest.raises((AttributeError, KeyError)):
            view.saes[part] if section == "saes" else getattr(getattr(view, section), part)

    def test_a_section_that_is_a_file_among_the_dependencies_can_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stages depend on the section `saes` by its file, and have it as if it were among their `params`."""
        monkeypatch.chdir(ROOT)

        assert "build/inputs/sections/saes.txt" in stages()["activations"].deps
        assert "saes" in stages()["activations"].sections
        assert declared("activations").saes == PARAMS.saes

    def test_a_stage_has_the_params_that_dvc_yaml_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`${key}` in dvc.yaml stands for the id of an explainer or scorer."""
        monkeypatch.chdir(ROOT)
        scores = declared("scores", "fuzzing")

        assert set(scores.scorers) == {"fuzzing"}
        with pytest.raises(AttributeError, match=r"params\.subjects is read but not declared"):
            _ = scores.subjects


def small(**changes: Any) -> Params:
    """Return small params with some sections changed."""
    return Params.model_validate({**small_params(), **changes})


def texts(params: Params, folder: Path) -> dict[str, str]:
    """Return the texts of the files that stage `inputs` writes for *params*."""
    return dict(outside.inputs(params, Hashes(folder / "hashes.json")))


class TestInputs:
    """Files outside the project that params name."""

    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> Path:
        """Return a working folder with texts and a checkpoint."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "text").mkdir()
        (tmp_path / "text/one.txt").write_text("One.")
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/lab-transformer").symlink_to(tiny_checkpoint)
        return tmp_path

    def test_each_thing_has_a_file(self, here: Path) -> None:
        """Corpora, subjects, dictionaries and explainers have a file each; embedders and engines share one, and so do behaviours."""
        found = texts(small(), here)

        sections = {f"sections/{section}" for section in Params.model_fields}
        assert set(found) - sections == {"corpora/topics", "subjects/lab", "saes/topk", "explainers/lexical", "models", "behaviours"}
        assert sections <= set(found)
        assert found["corpora/topics"] == f"{Hashes(here / 'x').of(Path('text/one.txt'))} text/one.txt\n"
        assert [line.split("/")[-1] for line in found["subjects/lab"].splitlines()][:1] == ["config.json"]
        assert found["saes/topk"] == outside.NOTHING

    def test_a_glob_sees_added_and_removed_files(self, here: Path) -> None:
        """A file that is added, edited or removed changes the lines of its corpus."""
        said = [texts(small(), here)["corpora/topics"]]
        (here / "text/two.txt").write_text("Two.")
        said.append(texts(small(), here)["corpora/topics"])
        (here / "text/one.txt").write_text("1.")
        said.append(texts(small(), here)["corpora/topics"])
        (here / "text/two.txt").unlink()
        said.append(texts(small(), here)["corpora/topics"])

        assert [text.count("\n") for text in said] == [1, 2, 2, 1]
        assert len(set(said)) == 4

    def test_words_and_caches_beside_a_dictionary_do_not_count(self, here: Path) -> None:
        """Hidden files, Python's caches and Markdown in a folder are no input."""
        for name in ("own/sae.safetensors", "own/README.md", "own/.cache/x", "own/__pycache__/x.pyc"):
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(name)

        assert below(here / "own") == [here / "own/sae.safetensors"]

    def test_an_embedder_that_is_missing_is_a_line(self, here: Path) -> None:
        """If an embedder has a fallback and its files are missing, a line says so; so the stage runs again once they are there."""
        missing = {"letters": {"kind": "sentence", "path": "nowhere", "fallback": "lexical"}}

        assert texts(small(embedders=missing), here)["models"] == "nowhere is not there\n"

    def test_a_gguf_file_counts_by_what_it_holds(self, here: Path) -> None:
        """Another file under the same path is another line, for a subject and for an engine."""
        engine = {"local": {"kind": "transformers", "path": "tiny.gguf"}}
        params = small(
            subjects={"lab": {"path": "tiny.gguf", "corpus": "topics"}}, engines=engine, embedders={"letters": {"kind": "lexical"}}
        )
        said = []
        for content in (b"GGUF one", b"GGUF two"):
            (here / "tiny.gguf").write_bytes(content)
            found = texts(params, here)
            said.append(found["subjects/lab"])
            assert found["subjects/lab"] == found["models"] == f"{sha256(content).hexdigest()} tiny.gguf\n"
        assert said[0] != said[1]

    def test_a_package_counts_by_its_file_and_not_by_its_place(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The line of a package's GGUF file names no path of this machine; a package that is not there is a line of words."""
        (here / "modules/model_in_a_package").mkdir(parents=True)
        (here / "modules/model_in_a_package/tiny.gguf").write_bytes(b"GGUF")
        monkeypatch.syspath_prepend(here / "modules")
        there, gone = ({"lab": {"package": name, "corpus": "topics"}} for name in ("model_in_a_package", "nobodys_model"))

        line = f"{sha256(b'GGUF').hexdigest()} tiny.gguf of package model_in_a_package\n"
        assert texts(small(subjects=there), here)["subjects/lab"] == line
        assert texts(small(subjects=gone), here)["subjects/lab"] == "package nobodys_model is not installed\n"

    @pytest.mark.parametrize(
        ("section", "spec", "said"),
        [
            ("corpora", {"topics": {"source": "files", "paths": ["no/*.txt"]}}, "corpora.topics: corpus: no file matches 'no/*.txt'"),
            ("subjects", {"lab": {"path": "nowhere", "corpus": "topics"}}, "subjects.lab: nowhere is not there; correct the path"),
            ("explainers", {"theirs": {"kind": "import", "path": "x.json"}}, "explainers.theirs: x.json is not there; correct the path"),
            (
                "embedders",
                {"letters": {"kind": "sentence", "path": "nowhere"}},
                "embedders.letters: nowhere is not there; correct the path",
            ),
            (
                "behaviours",
                {"bold": {"source": "files", "generate": "a.json", "test": "b.json", "describes": "dares"}},
                "behaviours.bold: a.json is not there; correct the path",
            ),
        ],
    )
    def test_a_missing_path_is_one_line(self, here: Path, section: str, spec: dict[str, Any], said: str) -> None:
        """A path that does not exist, or a glob that matches nothing, is reported with its key in params."""
        with pytest.raises(UserError, match=f"^{said.replace('.', '[.]').replace('*', '[*]')}"):
            texts(small(**{section: spec}), here)

    def test_a_file_that_changes_while_it_is_read_is_refused(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is written while it is hashed ends in one line, since its hash would be wrong."""

        def growing(path: Path) -> str:
            path.write_text(path.read_text() + "more")
            return "0" * 64

        monkeypatch.setattr("builders.lake.hashes.file_sha256", growing)
        with pytest.raises(UserError, match="changed while it was read; run this again when nothing writes to it"):
            texts(small(), here)

    def test_a_stage_refuses_files_that_differ_from_those_that_dvc_saw(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stage that has read other bytes than DVC hashed ends in one line."""
        (here / "text/two.txt").write_text("Two.")
        monkeypatch.setattr(inputs, "load", small)
        inputs.main()
        monkeypatch.setenv("DVC_STAGE", "corpora")
        outside.require_same("corpora", "topics", small().corpora["topics"])
        (here / "text/one.txt").write_text("Other.")
        with pytest.raises(UserError, match=r"corpora\.topics: its files changed while they were read"):
            outside.require_same("corpora", "topics", small().corpora["topics"])

        (here / "text/one.txt").write_text("One.")
        outside.require_same("corpora", "topics", small().corpora["topics"])
        (here / "text/two.txt").unlink()
        with pytest.raises(UserError, match=r"corpora\.topics: its files changed while they were read"):
            outside.require_same("corpora", "topics", small().corpora["topics"])

    def test_folders_that_later_stages_depend_on_are_there(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without scorers or explainers no stage makes their folders, which `agreement` and `release` depend on."""
        monkeypatch.setattr(inputs, "load", small)
        inputs.main()

        assert [(here / "build" / stage).is_dir() for stage in ("explanations", "scores", "direct")] == [True, True, True]

    def test_an_unchanged_file_is_hashed_once(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file with equal size and time is not hashed again, unless it was written too recently for its time to be sure."""
        old, young = here / "text/one.txt", here / "text/two.txt"
        young.write_text("Two.")
        os.utime(old, ns=(10**18, 10**18))
        hashes = Hashes(here / "hashes.json")
        before = [hashes.of(old), hashes.of(young)]
        hashes.keep()
        read: list[Path] = []
        monkeypatch.setattr("builders.lake.hashes.file_sha256", lambda path: read.append(path) or "new")

        assert [Hashes(here / "hashes.json").of(path) for path in (old, young)] == [before[0], "new"]
        assert read == [young]


class TestWhy:
    """The reasons for a run, in words."""

    def test_changes_of_sources_are_sentences(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each line that changed, came or went between two files of sources is a sentence."""
        monkeypatch.chdir(tmp_path)
        kept = tmp_path / why.CACHE / "ab" / "cd"
        kept.parent.mkdir(parents=True)
        kept.write_text("1" * 16 + " a.py\n" + "2" * 16 + " b.py\n" + "3" * 16 + " params.tokens\n")
        now = tmp_path / "sae.txt"
        now.write_text("0" * 16 + " a.py\n" + "2" * 16 + " c.py\n" + "4" * 16 + " params.tokens\n")

        assert list(why.changes(now, "abcd", why.CODE)) == [
            "a.py has changed",
            "no longer imports b.py",
            "now imports c.py",
            "section tokens of params: a default, a type or a bound has changed",
        ]

    def test_changes_of_a_section_that_is_a_file_show_both_values_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A value of a section on which a stage depends as on a file is shown as it was and as it is now."""
        monkeypatch.chdir(tmp_path)
        now, kept = tmp_path / SECTIONS / "saes.txt", tmp_path / why.CACHE / "ab" / "cd"
        for path, k in ((kept, 8), (now, 9)):
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"a": {"k": k}}))

        assert list(why.changes(SECTIONS / "saes.txt", "abcd", why.FILE)) == ["params saes.a.k: 8 → 9"]

    def test_changes_of_params_show_both_values(self) -> None:
        """A changed value is shown as it was and as it is now, at any depth."""
        now = {"seed": 0, "tokens": {"window": 32}, "saes": {"a": {"k": 8}}}

        assert list(why.differences({"seed": 1, "tokens.window": 32, "saes.a": {"k": 9}}, now)) == [
            "params seed: 1 → 0",
            "params saes.a.k: 9 → 8",
        ]
