from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, MambaConfig

from builders.errors import UserError
from builders.subjects.hookpoints import base_of, capture, edited, into_residual, module_at, spliced, width_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

pytestmark = pytest.mark.numeric

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
    """Yield a list to which the name of each module of the model is added when it runs."""
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
    """Return all hooks of *model*, before and after its modules; the library may have added some itself."""
    return [hook for module in model.modules() for of in (module._forward_pre_hooks, module._forward_hooks) for hook in of.values()]


def entered(model: PreTrainedModel, path: str, ids: Tensor = IDS) -> Tensor:
    """Return the first argument of the module at *path*, given by position or by name, in one full pass of the model."""
    given: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, named: Any) -> None:
        given.append([*inputs, *named.values()][0])

    handle = module_at(model, path).register_forward_pre_hook(note, with_kwargs=True)
    model(input_ids=ids, use_cache=False)
    handle.remove()
    (only,) = given
    return only


class TestModuleAt:
    """Names of modules."""

    def test_names_begin_inside_the_base_model(self, model: PreTrainedModel) -> None:
        """The same name finds the block in a model with its head and in one without."""
        base: Any = base_of(model)
        assert module_at(model, "layers.1") is base.layers[1]
        assert module_at(base, "layers.1") is base.layers[1]

    def test_an_unknown_name_lists_what_exists(self, model: PreTrainedModel) -> None:
        """The error for a block that does not exist is one line with similar names and all blocks."""
        with pytest.raises(UserError) as caught:
            module_at(model, "layers.9")
        text = str(caught.value)
        assert text.startswith("hookpoint 'layers.9' does not exist in this model; near it: ")
        assert "layers.1" in text.split("near it: ")[1].split(";")[0]
        assert text.endswith("its blocks: layers.0, layers.1, layers.2")
        assert "\n" not in text

    def test_a_misspelt_name_is_mended(self, llama: PreTrainedModel) -> None:
        """The right name is among those suggested for a misspelt one."""
        with pytest.raises(UserError, match=r"near it: [^;]*\blayers\.1\.mlp\b"):
            module_at(llama, "layer.1.mlp")

    @pytest.mark.parametrize("name", ["", "qqqq", "lm_head"])
    def test_names_outside_the_base_model_are_refused(self, name: str, llama: PreTrainedModel) -> None:
        """An empty name, nonsense and the head are no hookpoints, and the error lists names that exist."""
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
        """In every architecture, a block's output equals the library's own hidden state after that block."""
        seen = capture(model, BLOCKS, IDS)
        states = model(input_ids=IDS, use_cache=False, output_hidden_states=True).hidden_states
        assert list(seen) == BLOCKS
        for name in BLOCKS[:-1]:  # the library reports the last one only after the final norm
            assert seen[name].shape == (2, 8, 16)
            assert any(torch.equal(seen[name], state) for state in states)

    def test_the_last_block_is_what_the_head_reads(self, model: PreTrainedModel) -> None:
        """The last block's output, after the final norm, equals what the base model returns."""
        base: Any = base_of(model)
        norm = next(getattr(base, name) for name in ("norm", "final_layer_norm", "norm_f") if hasattr(base, name))
        expected = base(input_ids=IDS, use_cache=False).last_hidden_state
        assert torch.equal(norm(capture(model, ["layers.2"], IDS)["layers.2"]), expected)

    def test_the_pass_stops_after_the_last_module_needed(self, model: PreTrainedModel, ran: list[str]) -> None:
        """Nothing after the last hookpoint runs: no later block and no final norm. Everything before it runs."""
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
        """A hookpoint gives the same vectors alone and together with others, in any order."""
        together = capture(model, list(reversed(BLOCKS)), IDS)
        assert list(together) == list(reversed(BLOCKS))
        for name in BLOCKS:
            assert torch.equal(capture(model, [name], IDS)[name], together[name])

    def test_parts_of_a_block_add_up(self, llama: PreTrainedModel) -> None:
        """In a Llama block, the outputs of attention (a tuple) and MLP add up to the change of the residual stream."""
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
        """If the second of two names is wrong, the hook of the first one is removed."""
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
        """The vectors of a row are the same, up to rounding, alone and padded on the right."""
        alone = capture(model, BLOCKS, IDS[:, :length])
        filled = IDS.clone()
        filled[:, length:] = 0
        padded = capture(model, BLOCKS, filled)
        for name in BLOCKS:
            torch.testing.assert_close(padded[name][:, :length], alone[name], rtol=0, atol=1e-5)


class TestEdited:
    """Writing."""

    def test_what_is_written_flows_on(self, model: PreTrainedModel) -> None:
        """If the same residual stream is put in place for all inputs, the answer no longer depends on the input."""
        held = capture(model, ["layers.1"], IDS)["layers.1"]
        expected = logits(model)
        other = IDS.flip(0, 1)
        assert not torch.allclose(logits(model, other), expected)
        with edited(model, "layers.1", lambda _: held):
            torch.testing.assert_close(logits(model, other), expected, rtol=0, atol=1e-6)

    def test_the_edit_is_handed_what_flows(self, model: PreTrainedModel) -> None:
        """The edit is called once, with the hookpoint's vectors, and a later capture finds what it returned."""
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
        """If a module returns more than vectors, as attention does, only the vectors are replaced."""
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
        """Editing a hookpoint that does not exist gives the same error as reading it."""
        with pytest.raises(UserError, match=r"hookpoint 'h\.0' does not exist"), edited(llama, "h.0", torch.zeros_like):
            pytest.fail("the block ran")


INPUTS = ["layers.1.input", "layers.0.input", "layers.1.self_attn.input", "layers.2.mlp.input", "layers.0.mlp.down_proj.input"]


class TestInputs:
    """Hookpoints at a module's input."""

    @pytest.mark.parametrize("hookpoint", INPUTS)
    def test_an_input_is_what_the_module_is_given(self, hookpoint: str, llama: PreTrainedModel) -> None:
        """The captured vectors are the module's first argument in an ordinary pass, given by position or by name."""
        seen = capture(llama, [hookpoint], IDS)[hookpoint]
        assert torch.equal(seen, entered(llama, hookpoint.removesuffix(".input")))

    def test_a_block_reads_what_the_one_before_wrote(self, model: PreTrainedModel) -> None:
        """In every architecture a block's input is the output of the block before, and comes with it in one pass."""
        seen = capture(model, ["layers.1.input", "layers.0", "layers.2.input", "layers.1"], IDS)
        assert list(seen) == ["layers.1.input", "layers.0", "layers.2.input", "layers.1"]
        assert torch.equal(seen["layers.1.input"], seen["layers.0"])
        assert torch.equal(seen["layers.2.input"], seen["layers.1"])

    def test_the_neurons_of_an_mlp_by_hand(self, llama: PreTrainedModel) -> None:
        """The down projection reads act(gate(x)) · up(x), where x is the MLP's input: the stream after the norm."""
        mlp: Any = module_at(llama, "layers.1.mlp")
        names = ["layers.1.mlp.input", "layers.1.mlp.down_proj.input", "layers.1.mlp", "layers.1.post_attention_layernorm"]
        x, neurons, written, normed = capture(llama, names, IDS).values()
        assert torch.equal(x, normed)
        torch.testing.assert_close(neurons, mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x))
        torch.testing.assert_close(mlp.down_proj(neurons), written)

    def test_the_pass_stops_before_a_module_that_is_only_read(self, model: PreTrainedModel, ran: list[str]) -> None:
        """If the last hookpoint is an input, neither its module nor anything after it runs."""
        capture(model, ["layers.0", "layers.1.input"], IDS)
        assert not any(name.startswith(("layers.1.", "layers.2")) for name in ran)

    @pytest.mark.parametrize("hookpoint", INPUTS)
    def test_an_edited_input_flows_on(self, hookpoint: str, llama: PreTrainedModel) -> None:
        """If the same input is put in place, a module writes the same whatever it would have read, and a capture finds that input."""
        path = hookpoint.removesuffix(".input")
        held = capture(llama, [hookpoint, path], IDS)
        other = IDS.flip(0, 1)
        assert not torch.allclose(capture(llama, [path], other)[path], held[path])
        with edited(llama, hookpoint, lambda _: held[hookpoint]):
            seen = capture(llama, [hookpoint, path], other)
        assert torch.equal(seen[hookpoint], held[hookpoint])
        torch.testing.assert_close(seen[path], held[path], rtol=0, atol=1e-6)

    def test_an_edited_input_is_an_edited_output_before(self, model: PreTrainedModel) -> None:
        """Doubling a block's input changes the answer just as doubling the output of the block before it."""
        with edited(model, "layers.0", lambda flow: 2 * flow):
            expected = logits(model)
        assert not torch.allclose(expected, logits(model))
        with edited(model, "layers.1.input", lambda flow: 2 * flow):
            assert torch.equal(logits(model), expected)

    def test_an_input_given_by_name_is_replaced_alone(self, llama: PreTrainedModel) -> None:
        """Attention takes named arguments: zeros for the first one act as zeros from the norm before it, and the others stay."""
        with edited(llama, "layers.1.input_layernorm", torch.zeros_like):
            expected = logits(llama)
        with edited(llama, "layers.1.self_attn.input", torch.zeros_like):
            assert torch.equal(logits(llama), expected)

    def test_the_model_is_restored(self, model: PreTrainedModel) -> None:
        """After reading and editing inputs, also where an edit fails, no hook is left and the model answers as before."""
        expected, hooked = logits(model), hooks(model)
        capture(model, ["layers.1.input"], IDS)
        with edited(model, "layers.1.input", torch.zeros_like):
            logits(model)
        with pytest.raises(RuntimeError), edited(model, "layers.1.input", lambda flow: flow.view(7)):
            logits(model)
        assert hooks(model) == hooked
        assert torch.equal(logits(model), expected)

    @pytest.mark.parametrize("name", ["layers.9.input", ".input", "input", "layers.1.input.input", "layers.1.output"])
    def test_an_input_of_nothing_is_one_line(self, name: str, llama: PreTrainedModel) -> None:
        """The input of a module that does not exist, or of no module, is refused like its output, with names that exist."""
        with pytest.raises(UserError, match=r"does not exist in this model; near it: .*its blocks: layers\.0") as caught:
            capture(llama, [name], IDS)
        assert repr(name) in str(caught.value)
        assert "\n" not in str(caught.value)


class TestSpliced:
    """Replacing what flows at one hookpoint with something computed from another."""

    @pytest.mark.parametrize("part", ["layers.1.mlp", "layers.0.self_attn.o_proj", "layers.2.mlp.down_proj"])
    def test_a_modules_own_function_changes_nothing(self, part: str, llama: PreTrainedModel) -> None:
        """A transcoder that computes exactly what the module computes from its input leaves the loss as it was."""
        own = copy.deepcopy(module_at(llama, part))
        expected = logits(llama)
        with spliced(llama, f"{part}.input", part, lambda x, _: own(x)):
            assert torch.equal(logits(llama), expected)
        with spliced(llama, f"{part}.input", part, lambda x, _: 2 * own(x)):
            assert not torch.allclose(logits(llama), expected)

    def test_the_edit_is_handed_both(self, model: PreTrainedModel) -> None:
        """The edit is called once per pass, with what flowed at both hookpoints in that pass."""
        plain = capture(model, ["layers.0", "layers.2"], IDS)
        other = capture(model, ["layers.0", "layers.2"], IDS.flip(0, 1))
        handed: list[tuple[Tensor, Tensor]] = []

        def keep(read: Tensor, written: Tensor) -> Tensor:
            handed.append((read, written))
            return written

        with spliced(model, "layers.0", "layers.2", keep):
            logits(model)
            logits(model, IDS.flip(0, 1))
        assert len(handed) == 2
        for seen, (read, written) in zip((plain, other), handed, strict=True):
            assert torch.equal(read, seen["layers.0"])
            assert torch.equal(written, seen["layers.2"])

    def test_a_splice_of_one_place_is_an_edit(self, model: PreTrainedModel) -> None:
        """If the same hookpoint is read and written, the edit gets the same vectors twice."""
        with edited(model, "layers.1", lambda flow: flow.tanh()):
            expected = logits(model)
        with spliced(model, "layers.1", "layers.1", lambda read, written: (read + written).div(2).tanh()):
            assert torch.equal(logits(model), expected)

    def test_the_model_is_restored(self, llama: PreTrainedModel) -> None:
        """Afterwards, also where the second name is wrong, no hook is left."""
        hooked = hooks(llama)
        with spliced(llama, "layers.1.mlp.input", "layers.1.mlp", lambda _, written: written):
            assert len(hooks(llama)) == len(hooked) + 2
        with pytest.raises(UserError, match=r"layers\.9"), spliced(llama, "layers.1.input", "layers.9", lambda _, written: written):
            pytest.fail("the block ran")
        assert hooks(llama) == hooked


WIDTHS: dict[str, int | None] = {
    "layers.1": 16,
    "layers.1.input": 16,
    "layers.1.mlp.down_proj": 16,
    "layers.1.mlp.down_proj.input": 32,
    "layers.1.mlp.gate_proj": 32,
    "layers.1.self_attn.o_proj.input": 16,
    "layers.1.mlp": None,
    "layers.1.mlp.input": None,
}


class TestSizes:
    """The width at a hookpoint, found without running the model."""

    @pytest.mark.parametrize("hookpoint", WIDTHS)
    def test_a_width_is_what_flows_there(self, hookpoint: str, llama: PreTrainedModel) -> None:
        """A width that a module tells is the size of what flows there; otherwise the width is None."""
        width = width_at(llama, hookpoint, 16)
        assert width == WIDTHS[hookpoint]
        assert width in (None, capture(llama, [hookpoint], IDS)[hookpoint].shape[-1])

    def test_a_width_of_nowhere_is_one_line(self, llama: PreTrainedModel) -> None:
        """A hookpoint that does not exist is refused before anything runs."""
        with pytest.raises(UserError, match=r"layers\.9\.input"):
            width_at(llama, "layers.9.input", 16)


class TestIntoResidual:
    """Directions as they enter the residual stream."""

    @pytest.mark.parametrize("hookpoint", ["layers.1", "layers.1.input", "layers.1.mlp", "layers.1.mlp.down_proj", "layers.1.self_attn"])
    def test_what_is_written_to_the_stream_enters_as_it_is(self, hookpoint: str, llama: PreTrainedModel) -> None:
        """Outputs of blocks, attention, MLPs and projections, and a block's input, are directions of the stream already."""
        directions = torch.eye(16)[:5]
        found = into_residual(llama, hookpoint, directions, 16)
        assert found is not None
        assert torch.equal(found, directions)

    @pytest.mark.parametrize(("part", "width"), [("layers.1.mlp.down_proj", 32), ("layers.1.self_attn.o_proj", 16)])
    def test_neurons_and_heads_are_sent_through_their_projection(self, part: str, width: int, llama: PreTrainedModel) -> None:
        """A neuron's direction (or a head's) is the change of the projection's output when its input grows by one."""
        module = module_at(llama, part)
        directions = torch.eye(width)[3:9]
        x = torch.zeros(1, width)
        found = into_residual(llama, f"{part}.input", directions, 16)
        assert found is not None
        torch.testing.assert_close(found, module(x + directions) - module(x))

    def test_projections_with_transposed_weights_and_a_bias(self) -> None:
        """GPT-2 stores its weights transposed and adds a bias; the bias belongs to no direction."""
        with torch.random.fork_rng():
            torch.manual_seed(2)
            gpt2: Any = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32))
        module = module_at(gpt2, "h.1.mlp.c_proj")
        module.bias.data.fill_(3.0)  # type: ignore[union-attr,operator]  # a Conv1D
        found = into_residual(gpt2, "h.1.mlp.c_proj.input", torch.eye(64), 16)
        assert found is not None
        torch.testing.assert_close(found, (module(torch.eye(64)) - 3.0).detach())

    @pytest.mark.parametrize("hookpoint", ["layers.1.mlp.input", "layers.1.self_attn.input", "layers.1.mlp.gate_proj.input"])
    def test_what_is_read_from_the_stream_does_not_enter_it(self, hookpoint: str, llama: PreTrainedModel) -> None:
        """The inputs of an MLP, of attention and of other projections do not enter the stream directly."""
        assert into_residual(llama, hookpoint, torch.eye(16), 16) is None

    def test_vectors_of_another_size_do_not_enter(self, llama: PreTrainedModel) -> None:
        """An output that is not as wide as the stream, such as the gate's, does not enter it directly."""
        assert into_residual(llama, "layers.1.mlp.gate_proj", torch.eye(32), 16) is None
