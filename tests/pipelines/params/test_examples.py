from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from transformers import Gemma2Config, GPT2Config, GPTNeoXConfig, LlamaConfig, MambaConfig, RwkvConfig

from builders.lenses.published import reference_rows
from builders.subjects.anatomy import anatomy_of
from builders.subjects.checkpoints import skeleton
from builders.subjects.places import Source
from pipelines.cli import main
from pipelines.graph.closure import ROOT
from pipelines.params import HubTextParams, InModelParams, PretrainedSaeParams, load
from pipelines.stages.check import check_dictionary

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Of these nothing lies on the Hub; tests/pipelines/stages/test_paper.py is about paper.yaml.
LOCAL = ("demo.yaml", "judges.yaml", "local.yaml", "paper.yaml", "steering.yaml")
EXAMPLES = {path.name: path for path in sorted((ROOT / "examples").glob("*.yaml")) if path.name not in LOCAL}
UNKNOWN = "0" * 40
# What each example's model says of itself, so that its hookpoints can be looked up without it.
CONFIGS: dict[str, PretrainedConfig] = {
    "gemma-2-2b.yaml": Gemma2Config(),
    "gpt2-small.yaml": GPT2Config(),
    "llama-3.1-8b.yaml": LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8
    ),
    "mamba-130m.yaml": MambaConfig(hidden_size=768, num_hidden_layers=24),
    "pythia-160m.yaml": GPTNeoXConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "pythia-70m.yaml": GPTNeoXConfig(hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8),
    "rwkv-169m.yaml": RwkvConfig(vocab_size=50_277, hidden_size=768, num_hidden_layers=12),
    "smollm2-135m.yaml": LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3
    ),
}


def first_comment(text: str) -> list[str]:
    """Return the lines of the comment that a file begins with."""
    lines = text.splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_passes_the_check(name: str) -> None:
    """The real command finds no mistake in an example, and says of each thing on the Hub that it did not look there."""
    params = load(EXAMPLES[name])
    result = CliRunner().invoke(main, ["check", "--params", str(EXAMPLES[name]), "--offline"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        *(f"corpus {corpus}: on the Hub, not looked at" for corpus in params.corpora),
        *(f"subject {subject}: on the Hub, not looked at" for subject in params.subjects),
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_hookpoints_of_an_example_exist(name: str) -> None:
    """Every dictionary of an example reads at a place that a model of that architecture has."""
    params, config = load(EXAMPLES[name]), CONFIGS[name]
    bones = skeleton(Source(), config)
    told = [check_dictionary(sae, spec, bones, int(config.hidden_size), offline=True) for sae, spec in params.saes.items()]
    specs = [spec for spec in params.saes.values() if isinstance(spec, InModelParams)]
    assert told == [f"sae {sae}: reads {spec.reads} of {spec.subject}" for sae, spec in zip(params.saes, specs, strict=True)]


@pytest.mark.parametrize(("name", "published"), [("mamba-130m", "mamba/130m"), ("pythia-160m", "pythia/160m"), ("rwkv-169m", "rwkv/169m")])
def test_lenses_of_published_curves_can_be_made_again(name: str, published: str) -> None:
    """Examples ask for both lenses of models whose curves are published; their final norm is found, and layers are as many as there."""
    rows = [row for row in reference_rows().to_pylist() if row["model"] == published]
    anatomy = anatomy_of(skeleton(Source(), CONFIGS[f"{name}.yaml"]))

    assert load(EXAMPLES[f"{name}.yaml"]).lenses.kinds == ["logit", "tuned"]
    assert {row["lens"] for row in rows} == {"logit", "tuned"}
    assert {row["layers"] for row in rows} == {anatomy.last}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_it_costs(name: str) -> None:
    """The comment at the top names GPU, disk, hours and judge, each with a figure or a name, and calls estimates estimates."""
    comment = first_comment(EXAMPLES[name].read_text())
    said = {line.removeprefix("# ").partition(":")[0]: line.partition(":")[2].strip() for line in comment}
    for cost in ("GPU", "disk", "hours"):
        assert said[cost][0].isdigit(), said[cost]
        assert "×" in said[cost], f"no arithmetic: {said[cost]}"
    assert said["judge"].startswith("lexical")
    assert any("estimates" in line for line in comment)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_follows_the_paper(name: str) -> None:
    """The settings that every example shares are those of the paper that it names."""
    params = load(EXAMPLES[name])
    tokens, contexts = params.tokens, params.contexts
    assert (tokens.length, tokens.window, tokens.bos) == (256, 32, "row")
    assert (contexts.train, contexts.test, contexts.test_random, contexts.quantiles, contexts.sampler) == (40, 100, 100, 10, "quantiles")
    assert params.activations.rare_windows == 200
    assert {corpus.repo for corpus in params.corpora.values() if isinstance(corpus, HubTextParams)} == {"EleutherAI/rpj-v2-sample"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_commit_that_is_not_known_is_marked(name: str) -> None:
    """Forty zeros stand where nobody pinned a commit yet, and the line above them says how to find it."""
    lines = EXAMPLES[name].read_text().splitlines()
    zeros = [number for number, line in enumerate(lines) if UNKNOWN in line]
    assert zeros, "the corpus, at least, is to be pinned"
    for number in zeros:
        repo = next(line for line in reversed(lines[:number]) if "repo:" in line).partition("repo: ")[2]
        assert lines[number - 1].strip().startswith("# To be replaced by the commit you pin: git ls-remote https://huggingface.co/")
        assert lines[number - 1].endswith(f"{repo} HEAD")


def test_the_examples_hold_every_place_of_gemma_scope_and_a_saelens_release() -> None:
    """Between them the examples show dictionaries of the residual stream, an MLP, attention, and of another format's folders."""
    published = [spec for path in EXAMPLES.values() for spec in load(path).saes.values() if isinstance(spec, PretrainedSaeParams)]
    assert {"layers.12", "layers.12.post_feedforward_layernorm", "layers.12.self_attn.o_proj.input", "h.8.input", "layers.23.mlp"} <= {
        spec.reads for spec in published
    }
    assert "blocks.8.hook_resid_pre" in {spec.folder for spec in published}
