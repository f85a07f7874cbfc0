"""Checkpoints and tokenizers small enough to be made anew for every test run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import shared
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    from shared import Once
    from transformers import PreTrainedTokenizerBase

# The same examples every time, and no stopwatch: a busy machine is no failure.
settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")

# Matrices this small are slower on several threads, and workers would fight for the cores. Set before anything loads OpenMP;
# the commands that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONGEST = ("test_end_to_end.py", "test_reruns.py", "test_calibration.py")

# Enough text for a tokenizer of 384 ids: repeated words become whole tokens, the rest stays bytes.
PROSE = [
    "A shard is whole or absent, and a rerun skips the shards that are done.",
    "Return the number of rows in the table, or raise an error if the table is empty.",
    "def rows(table): return [row for row in table if row is not None]",
    "The river carried the boats past the mill, and the miller counted the boats.",
    "Naïve café, Ελλάδα, 日本, and a 🙂 at the end.",
]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests where workers share them: none is left alone with those at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return a function that returns a folder by name, which the first worker that asks fills and none changes."""
    base = tmp_path_factory.getbasetemp()
    return shared.once((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Llama of three blocks, width 32, with a byte-level BPE tokenizer of 384 ids or fewer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-llama"
    tokenizer = _byte_level()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def echoing_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Return the folder of a Llama that expects whatever it has read: it attends to all tokens alike and says each again."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("checkpoints") / "echoing-llama"
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.save_pretrained(folder)
    size = 4 * -(-len(tokenizer) // 4)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    with torch.no_grad():
        model = LlamaForCausalLM(config)
        layer = model.model.layers[0]
        for module in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.down_proj):
            module.weight.zero_()
        for module in (model.model.embed_tokens, layer.self_attn.v_proj, layer.self_attn.o_proj, model.lm_head):
            module.weight.copy_(torch.eye(size))
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `tiny_checkpoint`: byte-level, with `<s>` (0) and `</s>` (1)."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="session")
def sentence_piece_tokenizer() -> PreTrainedTokenizerBase:
    """Return a SentencePiece-like tokenizer: `▁` for a space, and `<0xNN>` for the bytes of unknown characters."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["▁", "a", "b", "t", "h", "e", "c", "th", "the", "▁the", "at", "cat", "▁cat", "é"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "t"), ("c", "at"), ("▁", "cat")]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")  # noqa: S106


def _byte_level() -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(PROSE, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")  # noqa: S106
