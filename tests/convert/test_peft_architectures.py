"""SNNK adapters in models of many kinds: the table `KINDS` says what is supported."""

import copy

import pytest
import torch
from torch import nn

peft = pytest.importorskip("peft")

from mercer.convert import SNNKConfig  # noqa: E402
from mercer.convert.peft import SNNKLayer  # noqa: E402
from tests.convert.models import SIZES, Packed, transformer  # noqa: E402
from tests.convert.peft_models import (  # noqa: E402
    KINDS,
    Encoder,
    answer,
    build,
    logits,
    stir,
    trained,
    vectors,
)

SMALL = {"num_features": 12, "bottleneck": 4}
every_kind = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture(autouse=True)
def one_kernel(request):
    """Keep torch from its fused kernels, whose last bits are others, but where they are tested."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled("fused" in request.node.name)
    yield
    torch.backends.mha.set_fastpath_enabled(fused)


def layers(model: nn.Module) -> list[SNNKLayer]:
    return [module for module in model.modules() if isinstance(module, SNNKLayer)]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max())


@every_kind
@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="Through PEFT, SNNK adapters work in BERT-, GPT-2-, ViT-, T5-, Llama- and timm-like "
    "models and torch's encoder: the identity when made, then trained by every adapter.",
)
def test_adapters_start_at_the_identity_and_train(kind, evidence):
    model = build(kind)
    before = logits(model, kind)
    model = peft.get_peft_model(model, SNNKConfig(target_modules=KINDS[kind].targets, **SMALL))
    changed = difference(logits(model, kind), before)
    evidence(required="== 0", measured=changed, what=f"change of logits, {kind}")
    assert changed == 0
    assert len(layers(model)) == KINDS[kind].adapted
    assert all("mercer_snnk_" in name for name in trained(model))
    answer(model, kind).square().mean().backward()
    ends = [p for n, p in trained(model).items() if "default.up." in n]
    assert len(ends) == 2 * KINDS[kind].adapted
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in ends)
    stir(model)
    moved = difference(logits(model, kind), before)
    evidence(required="> 1e-3", measured=moved, what=f"change after training, {kind}")
    assert moved > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits(model, kind), before)


def test_mpnet_has_names_of_its_own():
    model = transformer("MPNetModel", SIZES).eval()
    for placement, names in (("adapter", ["attn.o", "output.dense"]), ("replacement", "qv")):
        wrapped = peft.get_peft_model(copy.deepcopy(model), SNNKConfig(placement=placement))
        found = [name for name, module in wrapped.named_modules() if isinstance(module, SNNKLayer)]
        assert len(found) == 4
        assert all(name.endswith(tuple(f".{each}" for each in names)) for name in found)


@pytest.mark.parametrize("placement", ["adapter", "replacement"])
def test_quantised_layers(placement):
    """Neither shape nor dtype of such a weight says anything about the layer's vectors."""
    model, x = nn.Sequential(Packed(8, 5)), torch.randn(4, 8)
    expected = model(x)
    model = peft.get_peft_model(
        model, SNNKConfig(placement=placement, target_modules=["0"], **SMALL)
    )
    assert torch.equal(model(x), expected)
    model(x).square().sum().backward()
    (end,) = (p for n, p in trained(model).items() if n.endswith("up.weight"))
    assert end.shape == (5, 4)
    assert end.grad is not None and bool(end.grad.any())


@every_kind
@pytest.mark.parametrize("rank", [0, 3])
def test_branches_beside_linear_layers(kind, rank):
    model = build(kind)
    expected = logits(model, kind)
    config = SNNKConfig(
        placement="replacement", rank=rank, target_modules=KINDS[kind].beside, **SMALL
    )
    model = peft.get_peft_model(model, config)
    assert torch.equal(logits(model, kind), expected)
    assert len(layers(model)) >= 2
    stir(model)
    assert difference(logits(model, kind), expected) > 1e-3


@pytest.mark.parametrize(
    ("kind", "block"), [(kind, block) for kind, row in KINDS.items() for block in row.blocks]
)
def test_adapters_after_whole_blocks(kind, block):
    """The targeted block answers what an adapter makes of its old answer."""
    model = build(kind)
    expected = logits(model, kind)
    model = peft.get_peft_model(
        model, SNNKConfig(target_modules=rf"(.*\.)?{block.replace('.', '[.]')}", **SMALL)
    )
    assert torch.equal(logits(model, kind), expected)
    stir(model)
    layer = layers(model)[-1]
    seen = {}

    def keep(name):
        def hook(_, args, output):
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    layer.base_layer.register_forward_hook(keep("before"))
    layer.register_forward_hook(keep("after"))
    assert difference(answer(model, kind), expected) > 1e-4
    adapter = layer.mercer_snnk_branch["default"]
    assert difference(seen["after"], adapter(seen["before"])) < 1e-6


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # of the base model
@pytest.mark.parametrize("target", ["linear2", "self_attn", "norm2"])
@pytest.mark.parametrize("padded", [False, True])
def test_torchs_fused_path_does_not_pass_adapters_by(target, padded):
    torch.manual_seed(0)
    model, x = Encoder().eval(), vectors()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    if padded:
        mask[::2, -2:] = True
    with torch.no_grad():
        base = model(x, mask)
    wrapped = peft.get_peft_model(model, SNNKConfig(target_modules=[target], **SMALL))
    with torch.no_grad():
        assert difference(wrapped(x, mask), base) < 1e-5
    stir(wrapped)
    slow = wrapped(x, mask)  # with gradients
    with torch.inference_mode():
        fast = wrapped(x, mask)
    assert difference(slow, base) > 1e-2
    keep = ~mask[:, 0]
    assert difference(slow[keep], fast[keep]) < 1e-5
    bare = wrapped.unload()
    with torch.no_grad():
        assert torch.equal(bare(x, mask), base), "back on the fused path"


def test_what_multi_head_attention_does_not_call_is_refused():
    with pytest.raises(ValueError, match=r"'encoder.layers.0.self_attn.out_proj' is a part of"):
        peft.get_peft_model(Encoder(), SNNKConfig(target_modules=["out_proj"], **SMALL))


def test_targets_inside_one_another_are_refused():
    message = r"'blocks.0.mlp.fc2' is inside 'blocks.0.mlp', which is a target too"
    with pytest.raises(ValueError, match=message):
        peft.get_peft_model(build("timm"), SNNKConfig(target_modules=["mlp", "fc2"], **SMALL))


def test_models_without_usual_targets_are_refused():
    with pytest.raises(ValueError, match="no model of transformers"):
        peft.get_peft_model(build("timm"), SNNKConfig(**SMALL))


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("mlp", {"placement": "replacement"}, "'blocks.0.mlp' is a Mlp"),
        ("act", {}, "a GELU, does not tell the length"),
    ],
)
def test_modules_that_cannot_be_adapted_are_refused(target, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        peft.get_peft_model(build("timm"), SNNKConfig(target_modules=[target], **options, **SMALL))


def test_a_width_that_the_module_does_not_tell():
    model = build("timm")
    model = peft.get_peft_model(model, SNNKConfig(target_modules=["act"], width=48, **SMALL))
    assert [layer.mercer_snnk_branch["default"].width for layer in layers(model)] == [48, 48]
    wrong = SNNKConfig(target_modules=["act"], width=32, **SMALL)
    with pytest.raises(ValueError, match=r"width \(the targeted module's output\): expected .*32"):
        logits(peft.get_peft_model(build("timm"), wrong), "timm")


def test_modules_that_return_no_tensor_are_refused():
    model = peft.get_peft_model(build("bert"), SNNKConfig(target_modules=["bert"], **SMALL))
    with pytest.raises(TypeError, match="BertModel returned BaseModelOutput"):
        logits(model)


@every_kind
def test_all_linear_layers(kind):
    exclude = ["out_proj"] if kind == "torch" else None
    config = SNNKConfig(target_modules="all-linear", exclude_modules=exclude, **SMALL)
    model = build(kind)
    expected = logits(model, kind)
    model = peft.get_peft_model(model, config)
    assert torch.equal(logits(model, kind), expected)
    assert len(layers(model)) > 4


def test_blocks_chosen_by_their_index():
    config = SNNKConfig(layers_to_transform=[1], layers_pattern="layer", **SMALL)
    model = peft.get_peft_model(build("bert"), config)
    assert {name.split(".")[5] for name in trained(model)} == {"1"}


def test_injection_without_a_peft_model():
    model = build("torch")
    expected = answer(model, "torch")
    config = SNNKConfig(target_modules=["linear2"], **SMALL)
    model = peft.inject_adapter_in_model(config, model)
    assert isinstance(model, Encoder)
    assert torch.equal(answer(model, "torch"), expected)
    stir(model)
    state = peft.get_peft_model_state_dict(model)
    assert all("mercer_snnk_branch." in name and "default" not in name for name in state)
    other = peft.inject_adapter_in_model(config, build("torch"), adapter_name="b")
    result = peft.set_peft_model_state_dict(other, state, adapter_name="b")
    assert not result.unexpected_keys
    assert torch.equal(answer(other, "torch"), answer(model, "torch"))
