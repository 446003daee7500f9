"""SNNK adapters under PEFT's own commands: the checks that PEFT makes of its own methods."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

peft = pytest.importorskip("peft")

from mercer.convert import SNNKConfig  # noqa: E402
from mercer.convert.peft import SNNKModel  # noqa: E402
from mercer.convert.peft_layer import SNNKLayer  # noqa: E402
from mercer.nn import SNNKAdapter  # noqa: E402
from tests.convert.models import same, snapshot  # noqa: E402
from tests.convert.peft_models import answer, build, logits, stir, trained, words  # noqa: E402

SMALL = {"num_features": 12, "bottleneck": 4}
BESIDE = {**SMALL, "placement": "replacement", "rank": 3}
both_places = pytest.mark.parametrize("options", [SMALL, BESIDE], ids=["after", "beside"])


def adapted(options=SMALL, **more) -> peft.PeftModel:
    model = peft.get_peft_model(build("bert"), SNNKConfig(**{**options, **more}))
    stir(model)
    return model


def layers(model: nn.Module) -> list[SNNKLayer]:
    return [module for module in model.modules() if isinstance(module, SNNKLayer)]


def numbers(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def test_what_a_branch_beside_a_layer_computes():
    """y = W x + b + B A x + U (W' phi(N(x))) + b', written out."""
    torch.manual_seed(0)
    base = nn.Linear(5, 7, dtype=torch.float64)
    config = SNNKConfig(**BESIDE, target_modules=["0"])
    model = peft.get_peft_model(nn.Sequential(base), config)
    stir(model)
    layer = layers(model)[0]
    branch, x = layer.mercer_snnk_branch["default"], torch.randn(3, 4, 5, dtype=torch.float64)
    normal = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    phi = nn.functional.gelu(normal @ branch.snnk.features.weight.mT + branch.snnk.features.bias)
    a, b = layer.mercer_snnk_down["default"], layer.mercer_snnk_up["default"]
    expected = x @ (base.weight + b @ a).mT + base.bias
    expected = expected + phi @ branch.snnk.weight.mT @ branch.up.weight.mT + branch.up.bias
    assert a.shape == (3, 5)
    assert (model(x) - expected).abs().max() <= 1e-12
    assert (layer(input=x) - expected).abs().max() <= 1e-12


def test_what_an_adapter_after_a_layer_computes():
    torch.manual_seed(0)
    base = nn.Linear(5, 7)
    model = peft.get_peft_model(nn.Sequential(base), SNNKConfig(**SMALL, target_modules=["0"]))
    stir(model)
    adapter, x = layers(model)[0].mercer_snnk_branch["default"], torch.randn(3, 5)
    assert isinstance(adapter, SNNKAdapter)
    assert torch.equal(model(x), adapter(base(x)))


@pytest.mark.parametrize(
    ("options", "each"),
    [
        ({}, 12 * 4 + 16 * 4 + 16),
        ({"branch_bias": False}, 12 * 4 + 16 * 4),
        ({"bottleneck": None}, 16 * 12 + 16),
        ({"bottleneck": None, "up": False}, 16 * 12 + 2 * 16),
        ({"rank": 3, "placement": "replacement"}, 12 * 4 + 16 * 4 + 16 + 3 * (16 + 16)),
        ({"bottleneck": None, "up": False, "placement": "replacement"}, 16 * 12 + 2 * 16),
    ],
)
def test_what_trains(options, each, capsys):
    base = build("bert")
    size = sum(parameter.numel() for parameter in base.parameters())
    model = peft.get_peft_model(base, SNNKConfig(**{**SMALL, **options}))
    assert numbers(trained(model)) == 4 * each
    assert model.get_nb_trainable_parameters() == (4 * each, size + 4 * each)
    model.print_trainable_parameters()
    assert f"trainable params: {4 * each:,} || all params: {size + 4 * each:,}" in (
        capsys.readouterr().out
    )


@both_places
def test_several_adapters(options):
    base = logits(build("bert"))
    model = adapted(options)
    first = logits(model)
    model.add_adapter("second", SNNKConfig(**{**options, "num_features": 20, "seed": 1}))
    assert torch.equal(logits(model), first), "a new adapter is not active"
    assert all(".default" in name for name in trained(model))
    model.set_adapter("second")
    assert torch.equal(logits(model), base), "nor trained"
    assert all(".second" in name for name in trained(model))
    stir(model, "second", seed=8)
    second = logits(model)
    assert (second - first).abs().max() > 1e-3
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    model.base_model.set_adapter(["second", "default"])
    assert (logits(model) - both).abs().max() <= 1e-6, "they add up, in any order"
    assert min((both - first).abs().max(), (both - second).abs().max()) > 1e-3
    assert len({name.split(".default")[0] for name in trained(model)}) > 4
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), logits(model))
    model.set_adapter("default")
    assert torch.equal(logits(model), first)


@both_places
def test_switching_adapters_off_and_on(options):
    model = adapted(options)
    expected = logits(model)
    model.base_model.disable_adapter_layers()
    assert torch.equal(logits(model), logits(build("bert")))
    assert not trained(model)
    model.base_model.enable_adapter_layers()
    assert torch.equal(logits(model), expected)
    assert trained(model)


@both_places
def test_deleting_adapters(options):
    model = adapted(options)
    first = logits(model)
    model.add_adapter("second", SNNKConfig(**options, seed=1))
    model.add_adapter("third", SNNKConfig(**options, seed=2))
    stir(model, "second", seed=8)
    model.delete_adapter("third")
    assert torch.equal(logits(model), first)
    with pytest.warns(UserWarning, match="Setting active adapter to second"):
        model.delete_adapter("default")
    assert model.active_adapters == ["second"]
    assert list(model.peft_config) == ["second"]
    assert not any("default" in name or "third" in name for name in model.state_dict())
    assert torch.equal(logits(model), logits(model.eval()))
    with pytest.raises(ValueError, match="third does not exist"):
        model.delete_adapter("third")
    model.delete_adapter("second")
    assert torch.equal(logits(model.base_model), logits(build("bert")))


def test_adapters_on_other_modules():
    """An adapter that comes later and sits elsewhere is still not active."""
    model = adapted()
    first = logits(model)
    model.add_adapter("second", SNNKConfig(**SMALL, target_modules=["value", "output.dense"]))
    stir(model, "second")
    assert len(layers(model)) == 6
    assert torch.equal(logits(model), first)
    assert all(".default" in name for name in trained(model))
    model.set_adapter("second")
    assert (logits(model) - first).abs().max() > 1e-3
    model.set_adapter("default")
    model.delete_adapter("second")
    assert torch.equal(logits(model), first)


def test_one_model_with_adapters_after_and_beside_the_same_layers():
    model = adapted(target_modules=["value"])
    after = logits(model)
    model.add_adapter("beside", SNNKConfig(**BESIDE, target_modules=["value"]))
    stir(model, "beside")
    model.base_model.set_adapter(["default", "beside"])
    assert (logits(model) - after).abs().max() > 1e-3
    layer, x = layers(model)[0], torch.randn(2, 16)
    inside = (
        layer.base_layer(x)
        + x @ (layer.mercer_snnk_up["beside"] @ layer.mercer_snnk_down["beside"]).mT
    )
    inside = inside + layer.mercer_snnk_branch["beside"](x)
    expected = layer.mercer_snnk_branch["default"](inside)
    assert (layer(x) - expected).abs().max() <= 1e-6


@both_places
def test_copies_are_their_own(options):
    model = adapted(options)
    expected = logits(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(other), expected)
        stir(other, seed=9)
        assert not torch.equal(logits(other), expected)
        assert torch.equal(logits(model), expected)


@both_places
def test_the_frozen_part_has_no_gradient(options):
    model = adapted(options)
    answer(model).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("mercer_snnk_" in name), name
    assert all(parameter.grad.abs().max() > 0 for parameter in trained(model).values())


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(3, 4, dtype=torch.float64))
    config = SNNKConfig(num_features=6, bottleneck=2, placement="replacement", rank=1)
    config.target_modules = {"0"}
    model = peft.get_peft_model(base, config)
    stir(model)
    x = torch.randn(2, 3, dtype=torch.float64)
    names = list(trained(model))

    def loss(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    values = [parameter.detach().requires_grad_() for parameter in trained(model).values()]
    assert torch.autograd.gradcheck(loss, values)


def test_inference_mode_and_trainability():
    config = SNNKConfig(**SMALL, inference_mode=True)
    model = peft.get_peft_model(build("bert"), config)
    assert not trained(model)
    model.set_requires_grad("default", requires_grad=True)
    assert len(trained(model)) == 12
    model.set_requires_grad("default", requires_grad=False)
    assert not trained(model)


def test_the_base_model_in_its_own_names():
    base = build("bert")
    weights = snapshot(base)
    model = peft.get_peft_model(base, SNNKConfig(**SMALL))
    stir(model)
    assert same(peft.get_base_model_state_dict(model), weights)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    peft.set_base_model_state_dict(model, zeros)
    assert same(peft.get_base_model_state_dict(model), zeros)


def test_status_of_layers():
    model = adapted()
    model.add_adapter("second", SNNKConfig(**SMALL))
    status = model.get_model_status()
    assert isinstance(model.base_model, SNNKModel)
    assert status.base_model_type == "BertForSequenceClassification"
    assert status.adapter_model_type == "SNNKModel"
    assert status.num_adapter_layers == 4
    assert (status.active_adapters, status.enabled) == (["default"], True)
    assert status.requires_grad == {"default": True, "second": False}
    assert status.merged_adapters == []
    assert sorted(status.available_adapters) == ["default", "second"]


def test_a_batch_of_rows_with_their_own_adapters_is_refused():
    model = adapted()
    with pytest.raises(ValueError, match="SNNK adapters work on whole batches"):
        model(**words(), adapter_names=["default"] * 4)


def test_generation():
    model = peft.get_peft_model(build("gpt2"), SNNKConfig(**SMALL, task_type="CAUSAL_LM"))
    stir(model)
    ids = words()["input_ids"][1::2]
    ids_and_more = model.generate(input_ids=ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert ids_and_more.shape == (2, ids.shape[1] + 4)
    # With the cache of keys and values as without.
    step = ids
    for _ in range(4):
        with torch.no_grad():
            step = torch.cat([step, model(step).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(ids_and_more, step)


def test_targets_one_inside_the_other_are_refused():
    inner, outer = "bert.encoder.layer.0.output.dense", "bert.encoder.layer.0"
    config = SNNKConfig(num_features=4, bottleneck=1, target_modules=[inner, outer], width=16)
    with pytest.raises(ValueError, match=rf"^target_modules: '{inner}' is inside '{outer}'"):
        peft.get_peft_model(build("bert"), config)


def test_names_that_hold_one_another(tmp_path):
    model = adapted()
    size = len(peft.get_peft_model_state_dict(model))
    for name in ("default2", "other_default", "foodefault_bar", "efaul"):
        model.add_adapter(name, SNNKConfig(**SMALL))
        assert len(peft.get_peft_model_state_dict(model, adapter_name=name)) == size
    assert len(peft.get_peft_model_state_dict(model)) == size


def test_modules_without_numbers_around_them_are_reached():
    """Attributes of the wrapped module stay in reach, as models read them."""
    model = adapted()
    layer = layers(model)[0]
    assert layer.weight is layer.base_layer.weight
    assert (layer.in_features, layer.out_features) == (16, 16)
    with pytest.raises(AttributeError, match="no_such"):
        _ = layer.no_such
