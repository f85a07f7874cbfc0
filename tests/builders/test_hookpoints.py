from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, MambaConfig

from builders.errors import UserError
from builders.hookpoints import base_of, capture, edited, module_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3}
ATTENTION: dict[str, Any] = {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SMALL, **ATTENTION),
    "gpt-neox": GPTNeoXConfig(**SMALL, **ATTENTION),
    "mamba": MambaConfig(**SMALL, state_size=4),
}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
BLOCKS = ["layers.0", "layers.1", "layers.2"]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Return a random model of three blocks of one of the architectures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random: Any = AutoModelForCausalLM.from_config(CONFIGS[request.param])
    made: PreTrainedModel = random.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    """Return a random Llama of three blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        random: Any = AutoModelForCausalLM.from_config(CONFIGS["llama"])
    made: PreTrainedModel = random.eval().requires_grad_(False)
    return made


@pytest.fixture
def ran(model: PreTrainedModel) -> Iterator[list[str]]:
    """Return a list that grows by the name of each module of the model that runs."""
    names: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            names.append(name)

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in base_of(model).named_modules()]
    yield names
    for handle in handles:
        handle.remove()


def logits(model: PreTrainedModel, ids: Tensor = IDS) -> Tensor:
    """Return the model's own answer."""
    out: Tensor = model(input_ids=ids, use_cache=False).logits
    return out


def hooks(model: nn.Module) -> list[Any]:
    """Return the forward hooks there are in *model*; the library may have some of its own."""
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


class TestModuleAt:
    """Names of modules."""

    def test_names_begin_inside_the_base_model(self, model: PreTrainedModel) -> None:
        """The same name finds the block whether the model comes with its head or without."""
        base: Any = base_of(model)
        assert module_at(model, "layers.1") is base.layers[1]
        assert module_at(base, "layers.1") is base.layers[1]

    def test_an_unknown_name_lists_what_exists(self, model: PreTrainedModel) -> None:
        """A block that does not exist is one line with the names near it and all blocks."""
        with pytest.raises(UserError) as caught:
            module_at(model, "layers.9")
        text = str(caught.value)
        assert text.startswith("hookpoint 'layers.9' does not exist in this model; near it: ")
        assert "layers.1" in text.split("near it: ")[1].split(";")[0]
        assert text.endswith("its blocks: layers.0, layers.1, layers.2")
        assert "\n" not in text

    def test_a_misspelt_name_is_mended(self, llama: PreTrainedModel) -> None:
        """The right spelling is among those near a wrong one."""
        with pytest.raises(UserError, match=r"near it: [^;]*\blayers\.1\.mlp\b"):
            module_at(llama, "layer.1.mlp")

    @pytest.mark.parametrize("name", ["", "qqqq", "lm_head"])
    def test_names_outside_the_base_model_are_refused(self, name: str, llama: PreTrainedModel) -> None:
        """No name, nonsense and the head are no hookpoints, and what is listed instead are names."""
        with pytest.raises(UserError) as caught:
            module_at(llama, name)
        near = str(caught.value).split("near it: ")[1].split("; its blocks: ")[0]
        assert all(near.split(" … ")[0].split(", "))

    def test_many_blocks_are_cut_short(self) -> None:
        """A model of many blocks names a dozen and counts the rest."""
        base = torch.nn.ModuleDict({"layers": torch.nn.ModuleList(torch.nn.Identity() for _ in range(15))})
        with pytest.raises(UserError, match=r"its blocks: (layers\.\d+, ){11}layers\.\d+ … \(3 more\)$"):
            module_at(base, "layers.99")


class TestCapture:
    """Reading."""

    def test_blocks_are_what_the_library_reports(self, model: PreTrainedModel) -> None:
        """What flows out of a block, of every architecture, is the library's own hidden state between the blocks."""
        seen = capture(model, BLOCKS, IDS)
        states = model(input_ids=IDS, use_cache=False, output_hidden_states=True).hidden_states
        assert list(seen) == BLOCKS
        for name in BLOCKS[:-1]:  # the library reports the last one only after the final norm
            assert seen[name].shape == (2, 8, 16)
            assert any(torch.equal(seen[name], state) for state in states)

    def test_the_last_block_is_what_the_head_reads(self, model: PreTrainedModel) -> None:
        """The last block's output, normed, is what the base model returns."""
        base: Any = base_of(model)
        norm = next(getattr(base, name) for name in ("norm", "final_layer_norm", "norm_f") if hasattr(base, name))
        expected = base(input_ids=IDS, use_cache=False).last_hidden_state
        assert torch.equal(norm(capture(model, ["layers.2"], IDS)["layers.2"]), expected)

    def test_the_pass_stops_after_the_last_module_needed(self, model: PreTrainedModel, ran: list[str]) -> None:
        """Nothing behind the last hookpoint runs: no later block and no final norm; what is before it does."""
        capture(model, ["layers.1", "layers.0"], IDS)
        assert ran[-1].startswith("layers.1")
        assert {name for name in ran if name.count(".") == 1} == {"layers.0", "layers.1"}
        assert not any(name.startswith(("layers.2", "norm", "final_layer_norm")) for name in ran)

    def test_a_name_asked_for_twice_stops_the_pass_too(self, model: PreTrainedModel, ran: list[str]) -> None:
        """Two SAEs at one hookpoint cost no more of the model than one."""
        seen = capture(model, ["layers.0", "layers.0"], IDS)
        assert list(seen) == ["layers.0"]
        assert not any(name.startswith(("layers.1", "layers.2")) for name in ran)

    def test_order_and_company_do_not_matter(self, model: PreTrainedModel) -> None:
        """A hookpoint gives the same vectors alone as among others, asked for in any order."""
        together = capture(model, list(reversed(BLOCKS)), IDS)
        assert list(together) == list(reversed(BLOCKS))
        for name in BLOCKS:
            assert torch.equal(capture(model, [name], IDS)[name], together[name])

    def test_parts_of_a_block_add_up(self, llama: PreTrainedModel) -> None:
        """In a Llama block what attention (a tuple) and MLP write is what the stream gains."""
        seen = capture(llama, ["layers.0", "layers.1.self_attn", "layers.1.mlp", "layers.1"], IDS)
        gained = seen["layers.0"] + seen["layers.1.self_attn"] + seen["layers.1.mlp"]
        torch.testing.assert_close(gained, seen["layers.1"], rtol=0, atol=1e-6)

    def test_the_model_is_left_as_it_was(self, model: PreTrainedModel) -> None:
        """After a pass that was cut short there is no hook left, and the model answers as before, to the bit."""
        before, hooked = logits(model), hooks(model)
        capture(model, ["layers.0"], IDS)
        assert hooks(model) == hooked
        assert torch.equal(logits(model), before)
        assert not capture(model, ["layers.0"], IDS)["layers.0"].requires_grad

    def test_an_error_inside_the_model_leaves_no_hook(self, model: PreTrainedModel) -> None:
        """Ids that the model does not know raise the model's own error, and the hooks go all the same."""
        hooked = hooks(model)
        with pytest.raises(IndexError):
            capture(model, ["layers.0"], torch.tensor([[50]]))
        assert hooks(model) == hooked

    def test_an_unknown_name_leaves_no_hook(self, llama: PreTrainedModel) -> None:
        """Where the second of two names is wrong, the first one's hook is not left behind."""
        hooked = hooks(llama)
        with pytest.raises(UserError, match=r"layers\.9"):
            capture(llama, ["layers.0", "layers.9"], IDS)
        assert hooks(llama) == hooked

    def test_a_module_that_never_runs_is_one_line(self, llama: PreTrainedModel) -> None:
        """A name that exists but through which nothing flows, such as the list of blocks, is the user's mistake."""
        with pytest.raises(UserError, match="'layers'"):
            capture(llama, ["layers"], IDS)

    @pytest.mark.parametrize("length", [1, 3, 7])
    def test_padding_on_the_right_changes_nothing(self, length: int, model: PreTrainedModel) -> None:
        """The vectors of a row are the same whether it stands alone or is filled up on the right, up to rounding."""
        alone = capture(model, BLOCKS, IDS[:, :length])
        filled = IDS.clone()
        filled[:, length:] = 0
        padded = capture(model, BLOCKS, filled)
        for name in BLOCKS:
            torch.testing.assert_close(padded[name][:, :length], alone[name], rtol=0, atol=1e-5)


class TestEdited:
    """Writing."""

    def test_what_is_written_flows_on(self, model: PreTrainedModel) -> None:
        """With one and the same stream put in place, the answer no longer depends on what was read."""
        held = capture(model, ["layers.1"], IDS)["layers.1"]
        expected = logits(model)
        other = IDS.flip(0, 1)
        assert not torch.allclose(logits(model, other), expected)
        with edited(model, "layers.1", lambda _: held):
            torch.testing.assert_close(logits(model, other), expected, rtol=0, atol=1e-6)

    def test_the_edit_is_handed_what_flows(self, model: PreTrainedModel) -> None:
        """The edit gets the hookpoint's vectors, once, and what it returns is what a reader of it captures."""
        handed: list[Tensor] = []

        def doubled(flow: Tensor) -> Tensor:
            handed.append(flow)
            return 2 * flow

        plain = capture(model, ["layers.1"], IDS)["layers.1"]
        with edited(model, "layers.1", doubled):
            seen = capture(model, ["layers.1"], IDS)["layers.1"]
        assert len(handed) == 1
        assert torch.equal(handed[0], plain)
        assert torch.equal(seen, 2 * plain)

    def test_an_edit_that_changes_nothing_changes_nothing(self, model: PreTrainedModel) -> None:
        """Putting the stream back as it was gives the model's own answer, to the bit."""
        expected = logits(model)
        with edited(model, "layers.1", lambda flow: flow.clone()):
            assert torch.equal(logits(model), expected)

    def test_the_model_is_restored(self, model: PreTrainedModel) -> None:
        """Afterwards, also after an error inside, no hook is left and the model answers as before."""
        expected, hooked = logits(model), hooks(model)
        with edited(model, "layers.1", torch.zeros_like):
            assert not torch.allclose(logits(model), expected)
        with pytest.raises(RuntimeError, match="inside"), edited(model, "layers.1", torch.zeros_like):  # noqa: PT012
            logits(model)
            raise RuntimeError("inside")
        assert hooks(model) == hooked
        assert torch.equal(logits(model), expected)

    def test_the_rest_of_a_tuple_is_kept(self, llama: PreTrainedModel) -> None:
        """Where a module returns more than its vectors, such as attention, only the vectors are replaced."""
        ids = torch.cat([IDS, IDS[:1]])  # three rows, which no one takes for a pair of outputs
        before = capture(llama, ["layers.0.mlp", "layers.0"], ids)
        with edited(llama, "layers.0.self_attn", torch.zeros_like):
            after = capture(llama, ["embed_tokens", "layers.0.mlp", "layers.0"], ids)
        torch.testing.assert_close(after["layers.0"], after["embed_tokens"] + after["layers.0.mlp"], rtol=0, atol=1e-6)
        assert not torch.equal(after["layers.0.mlp"], before["layers.0.mlp"])

    def test_edits_stack(self, llama: PreTrainedModel) -> None:
        """Two edits of one hookpoint are made one after the other."""
        plain = capture(llama, ["layers.1"], IDS)["layers.1"]
        with edited(llama, "layers.1", lambda flow: flow + 1), edited(llama, "layers.1", lambda flow: flow * 2):
            seen = capture(llama, ["layers.1"], IDS)["layers.1"]
        assert torch.equal(seen, (plain + 1) * 2)

    def test_an_unknown_name_is_refused(self, llama: PreTrainedModel) -> None:
        """Editing what does not exist is the same one line as reading it."""
        with pytest.raises(UserError, match=r"hookpoint 'h\.0' does not exist"), edited(llama, "h.0", torch.zeros_like):
            pytest.fail("the block ran")
