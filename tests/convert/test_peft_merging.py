"""The linear part of a replacement in the weight, and models without PEFT again."""

import copy

import pytest
import torch
from torch import nn

peft = pytest.importorskip("peft")

from mercer.convert import SNNKConfig  # noqa: E402
from mercer.convert.peft_layer import SNNKLayer  # noqa: E402
from mercer.convert.peft_plain import WithBranches  # noqa: E402
from tests.convert.models import same, snapshot  # noqa: E402
from tests.convert.peft_models import build, logits, stir  # noqa: E402

SMALL = {"num_features": 12, "bottleneck": 4, "placement": "replacement", "rank": 3}
KINDS = ["bert", "gpt2"]  # torch's linear layer, and one that stores the transpose


def adapted(kind: str, *, dtype: torch.dtype = torch.float64, **options) -> peft.PeftModel:
    model = build(kind, dtype=dtype)
    model = peft.get_peft_model(model, SNNKConfig(**{**SMALL, **options}))
    stir(model)
    return model


def base_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items() if "base_layer" in name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="The linear part of an SNNK beside a frozen linear layer merges into its weight, and "
    "comes out of it again bit by bit.",
)
def test_merging_the_linear_part(kind, evidence):
    model = adapted(kind)
    expected, weights = logits(model, kind), base_weights(model)
    model.merge_adapter()
    error = float((logits(model, kind) - expected).abs().max())
    evidence(required="<= 1e-12", measured=error, what=f"logits with the part merged, {kind}")
    assert error <= 1e-12
    assert not same(base_weights(model), weights)
    model.unmerge_adapter()
    assert same(base_weights(model), weights)
    assert torch.equal(logits(model, kind), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_is_exact_in_short_formats(dtype):
    model = adapted("bert", dtype=dtype)
    weights = base_weights(model)
    model.merge_adapter(safe_merge=True)
    assert not same(base_weights(model), weights)
    model.unmerge_adapter()
    assert same(base_weights(model), weights)


def test_how_the_linear_part_starts():
    """A is uniform within 1 / sqrt(in), as torch draws a layer of so many inputs; B is zero."""
    model = peft.get_peft_model(nn.Sequential(nn.Linear(400, 7)), SNNKConfig(
        num_features=4, bottleneck=1, placement="replacement", rank=50, target_modules=["0"]
    ))  # fmt: skip
    (layer,) = (m for m in model.modules() if isinstance(m, SNNKLayer))
    down = layer.mercer_snnk_down["default"].detach() * 400**0.5  # (50, 400)
    assert 0.999 < float(down.abs().max()) <= 1
    # 20,000 numbers: four standard errors of the mean of a uniform number and of its square.
    assert abs(float(down.mean())) < 4 / (3 * 20_000) ** 0.5
    assert abs(float(down.square().mean()) - 1 / 3) < 4 * (4 / 45 / 20_000) ** 0.5
    assert not layer.mercer_snnk_up["default"].any()


def test_what_is_merged_is_the_product():
    model = adapted("gpt2")
    layer = next(m for m in model.modules() if isinstance(m, SNNKLayer))
    before = layer.base_layer.weight.clone()  # (in, out), as GPT-2 has it
    layer.merge()
    product = layer.mercer_snnk_up["default"] @ layer.mercer_snnk_down["default"]  # (out, in)
    assert (layer.base_layer.weight - before - product.mT).abs().max() <= 1e-14


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 0},
        {"placement": "adapter", "rank": 0},
        {"save_projection": False, "bottleneck": None, "up": False},
    ],
    ids=["both", "branch", "after", "gate"],
)
def test_a_plain_model_computes_the_same(kind, merged, options):
    model = adapted(kind, **options)
    expected = logits(model, kind)
    if merged and model.peft_config["default"].rank:
        model.merge_adapter()
    plain = model.merge_and_unload()
    assert not any(isinstance(module, SNNKLayer) for module in plain.modules())
    assert sum(isinstance(module, WithBranches) for module in plain.modules()) >= 2
    assert not hasattr(plain, "peft_config")
    assert (logits(plain, kind) - expected).abs().max() <= 1e-12
    assert torch.equal(logits(copy.deepcopy(plain), kind), logits(plain, kind))
    # All that it computes with is in its state dict, whatever the files of the adapter held.
    state = snapshot(plain)
    tensors = [*plain.named_parameters(), *plain.named_buffers()]
    for tensor in [tensor for name, tensor in tensors if ".branches." in name]:
        tensor.data.zero_()
    assert (logits(plain, kind) - expected).abs().max() > 1e-3
    plain.load_state_dict(state)
    assert (logits(plain, kind) - expected).abs().max() <= 1e-12


def test_a_plain_model_can_be_adapted_again():
    plain = adapted("bert").merge_and_unload()
    expected = logits(plain)
    model = peft.get_peft_model(plain, SNNKConfig(num_features=8, target_modules=["value"]))
    assert torch.equal(logits(model), expected)
    stir(model)
    assert not torch.equal(logits(model), expected)
    assert torch.equal(logits(model.unload()), expected)


@pytest.mark.parametrize("merged", [False, True])
def test_unloading_gives_the_base_model_back(merged):
    base = build("bert", dtype=torch.float64)
    expected, weights = logits(base), snapshot(base)
    model = peft.get_peft_model(base, SNNKConfig(**SMALL))
    stir(model)
    if merged:
        model.merge_adapter()
    bare = model.unload()
    assert same(snapshot(bare), weights)
    assert torch.equal(logits(bare), expected)


def test_some_of_several_adapters_are_merged():
    model = adapted("bert")
    model.add_adapter("other", SNNKConfig(**SMALL, seed=1))
    stir(model, "other", seed=8)
    model.base_model.set_adapter(["default", "other"])
    both = logits(model)
    model.merge_adapter(["other"])
    assert (logits(model) - both).abs().max() <= 1e-12
    with model.disable_adapter():
        assert (logits(model) - logits(build("bert", dtype=torch.float64))).abs().max() == 0
    plain = model.merge_and_unload(adapter_names=["default", "other"])
    assert (logits(plain) - both).abs().max() <= 1e-12


def test_a_broken_adapter_is_not_merged():
    model = adapted("bert")
    layer = next(m for m in model.modules() if isinstance(m, SNNKLayer))
    layer.mercer_snnk_up["default"].data[0, 0] = float("nan")
    weights = base_weights(model)
    with pytest.raises(ValueError, match=r"NaNs detected in the weight with \['default'\]"):
        model.merge_adapter(safe_merge=True)
    assert same(base_weights(model), weights)
    model = adapted("bert", rank=0)
    stir(model, scale=float("inf"))
    with pytest.raises(ValueError, match="NaNs detected in the branch of 'default'"):
        model.merge_and_unload(safe_merge=True)


@pytest.mark.parametrize("options", [{"rank": 0}, {"placement": "adapter", "rank": 0}])
def test_what_has_no_linear_part_says_so(options):
    model = adapted("bert", **options)
    with pytest.raises(ValueError, match="'default' has no linear part to merge"):
        model.merge_adapter()


def test_unmerging_what_is_not_merged_warns():
    model = adapted("bert")
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()
