import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mercer.features import CounterGenerator, NeuronFeatures
from mercer.nn import SNNK, SNNKAdapter
from tests.contracts.layer import LayerContract
from tests.contracts.module import reload_in_new_process

PAPER = "core-scalable-neural-network-kernels"
WAYS: dict[str, dict[str, Any]] = {
    "up": {},
    "bottleneck": {"bottleneck": 3},
    "gate": {"up": False},
    "norm_after": {"norm_after": True, "bias": False},
    "universal": {"features": "universal", "norm_before": False, "scale": 0.3},
    "hadamard": {"features": "arc_cosine", "projection": "hadamard", "bottleneck": 2},
}
every_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())


@torch.no_grad()
def away(adapter: SNNKAdapter) -> SNNKAdapter:
    """Take an adapter away from the identity, without drawing: there some gradients are zero."""
    last = adapter.snnk if adapter.up is None else adapter.up
    ends = [adapter.gate] if adapter.gate is not None else [last.weight, last.bias]
    for parameter in ends:
        if parameter is not None:
            wave = torch.arange(parameter.numel(), dtype=torch.float64, device=parameter.device)
            parameter.copy_((0.3 + 0.5 * wave.cos()).reshape(parameter.shape))
    return adapter


class AdapterContract(LayerContract):
    options: dict[str, Any]

    def make(self, **factory) -> Any:
        return away(SNNKAdapter(6, 12, "gelu", **self.options, **factory))

    # A reset brings an adapter back to the identity, so what is compared is taken away from it.
    def test_meta_device(self):
        module, x = self.make(device="meta"), self.input(3)
        assert all(t.is_meta for t in module.state_dict().values())
        with pytest.raises(RuntimeError, match=r"meta device.*reset_parameters"):
            module(x)
        module.to_empty(device="cpu")
        module.reset_parameters(0)
        assert torch.equal(away(module)(x), self.build()(x))

    def test_reset_parameters_redraws(self, global_state_unchanged):
        module, x = self.make(generator=0), self.input(3)
        before = module(x)
        module.reset_parameters(3)
        start = module.branch(x)
        assert not start.any()
        assert not torch.equal(away(module)(x), before)
        assert torch.equal(module(x), self.make(generator=3)(x))
        module.reset_parameters(torch.Generator().manual_seed(0))
        assert torch.equal(away(module)(x), before)


class TestUp(AdapterContract):
    options = WAYS["up"]


class TestBottleneck(AdapterContract):
    options = WAYS["bottleneck"]


class TestGate(AdapterContract):
    options = WAYS["gate"]


class TestNormAfter(AdapterContract):
    options = WAYS["norm_after"]


class TestUniversal(AdapterContract):
    options = WAYS["universal"]


class TestHadamard(AdapterContract):
    options = WAYS["hadamard"]


def inputs(*lead: int, width: int = 8, scale: float = 1.0, seed: int = 2) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*lead, width, generator=source, dtype=torch.float64)


class TestIdentity:
    @every_way
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_it_starts_as_the_identity_bit_by_bit(self, options, dtype):
        adapter, x = SNNKAdapter(8, 16, **options, dtype=dtype), inputs(4, 5).to(dtype)
        norm = adapter.norm_after or nn.Identity()
        assert torch.equal(adapter(x), norm(x))
        lower = torch.float16 if dtype == torch.float16 else torch.bfloat16
        with torch.autocast("cpu", dtype=lower):
            assert torch.equal(adapter(x), norm(x))

    @pytest.mark.paper(
        PAPER, kind="exact", claim="An adapter is the identity until it is trained, and trains."
    )
    @every_way
    def test_one_step_leaves_the_identity(self, options, evidence):
        adapter, x = SNNKAdapter(8, 16, **options, generator=0).double(), inputs(40)
        norm = adapter.norm_after or nn.Identity()
        evidence(
            required=0, measured=(adapter(x) - norm(x)).abs().max(), what="largest change at start"
        )
        target = x + torch.outer(torch.tanh(x[:, 0]), torch.linspace(-1, 1, 8).double())  # rank one
        optimizer = torch.optim.Adam(adapter.parameters(), lr=0.03)
        losses = []
        for _ in range(80):
            optimizer.zero_grad()
            loss = (adapter(x) - norm(target)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        evidence(required="<= 0.5", measured=losses[-1] / losses[0], what="loss ratio, 80 steps")
        assert losses[-1] <= 0.5 * losses[0]


class TestFormula:
    def test_with_one_matrix(self):
        adapter, x = away(SNNKAdapter(8, 16, "relu", generator=0).double()), inputs(5)
        phi = adapter.snnk.features
        assert isinstance(phi, NeuronFeatures)
        assert phi.bias is not None and adapter.snnk.bias is not None
        centred = x - x.mean(-1, keepdim=True)
        z = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        hidden = F.relu(z @ phi.weight.mT + phi.bias)
        expected = x + hidden @ adapter.snnk.weight.mT + adapter.snnk.bias
        torch.testing.assert_close(adapter(x), expected, rtol=1e-12, atol=1e-12)

    def test_a_bottleneck_is_a_matrix_of_low_rank(self):
        low = away(SNNKAdapter(8, 16, bottleneck=3, generator=0).double())
        assert low.up is not None and low.snnk.bias is None
        full = SNNKAdapter(8, 16, features=low.snnk.features, dtype=torch.float64)
        with torch.no_grad():
            full.snnk.weight.copy_(low.up.weight @ low.snnk.weight)
            assert full.snnk.bias is not None
            full.snnk.bias.copy_(low.up.bias)
        assert torch.linalg.matrix_rank(full.snnk.weight) == 3
        torch.testing.assert_close(low(inputs(5)), full(inputs(5)), rtol=1e-12, atol=1e-12)

    def test_a_gate_scales_each_output(self):
        gated = away(SNNKAdapter(8, 16, up=False, generator=0).double())
        assert gated.gate is not None
        x = inputs(5)
        z = F.layer_norm(x, (8,))
        torch.testing.assert_close(gated(x), x + gated.gate * gated.snnk(z), rtol=0, atol=0)

    def test_the_norm_comes_after_the_sum(self):
        adapter = away(SNNKAdapter(8, 16, norm_after=True, generator=0).double())
        x = inputs(5)
        expected = F.layer_norm(x + adapter.branch(x), (8,))
        torch.testing.assert_close(adapter(x), expected, rtol=0, atol=0)

    @pytest.mark.parametrize("options", [{}, {"features": "universal"}])
    def test_inputs_of_any_size_are_seen_at_one_scale(self, options):
        adapter = away(SNNKAdapter(8, 16, **options, generator=0).double())
        x = inputs(5)
        torch.testing.assert_close(adapter.branch(1e3 * x), adapter.branch(x), rtol=0, atol=1e-4)

    def test_scale(self):
        expected = {"neuron": 1.0, "arc_cosine": 1.0, "universal": 8**-0.5}
        for features, scale in expected.items():
            assert SNNKAdapter(8, 16, features=features).scale == scale
            assert SNNKAdapter(8, 16, features=features, norm_before=False).scale == 1.0
            assert SNNKAdapter(8, 16, features=features, scale=0.5).scale == 0.5
        one = away(SNNKAdapter(8, 16, norm_before=False, generator=0).double())
        half = away(SNNKAdapter(8, 16, norm_before=False, scale=0.5, generator=0).double())
        torch.testing.assert_close(half.branch(2 * inputs(5)), one.branch(inputs(5)))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 8 * 16 + 8),
        ({"bias": False}, 8 * 16),
        ({"bottleneck": 3}, 3 * 16 + 8 * 3 + 8),
        ({"bottleneck": 3, "bias": False}, 3 * 16 + 8 * 3),
        ({"up": False}, 8 * 16 + 2 * 8),
        ({"up": False, "bias": False}, 8 * 16 + 8),
        ({"norm_after": True}, 8 * 16 + 8 + 2 * 8),
    ],
)
def test_counts(options, count):
    adapter = SNNKAdapter(8, 16, **options)
    assert adapter.num_trainable == count
    assert adapter.num_stored == count + 16 * (8 + 1)  # directions and offsets
    assert adapter.in_features == adapter.out_features == adapter.width == 8


class TestDraws:
    @every_way
    @pytest.mark.parametrize("source", [lambda: 5, lambda: CounterGenerator(5, 2)])
    def test_a_reset_draws_what_construction_draws(self, options, source, global_state_unchanged):
        made = SNNKAdapter(8, 16, **options, generator=source())
        other = away(SNNKAdapter(8, 16, **options, generator=1))
        other.reset_parameters(source())
        ours, theirs = made.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_a_given_map_is_used_as_it_is(self):
        phi = NeuronFeatures.random(8, 16, "relu", generator=0)
        adapter = SNNKAdapter(8, 16, "relu", features=phi)
        assert adapter.snnk.features is phi

    def test_features_stay_frozen(self):
        adapter = SNNKAdapter(8, 16, bottleneck=3)
        assert {name for name, _ in adapter.named_parameters()} == {
            "snnk.weight",
            "up.weight",
            "up.bias",
        }


class TestPrecision:
    @every_way
    @pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
    def test_half_precision_of_large_inputs(self, options, size):
        """Norms of 1e4 occur in the residual stream of real models."""
        options = {**options, "norm_before": True}
        adapter = away(SNNKAdapter(8, 16, **options, generator=0)).half()
        x = inputs(50)
        x = (size * x / x.norm(dim=-1, keepdim=True)).half()
        y, expected = adapter(x), copy.deepcopy(adapter).double()(x.double())
        assert y.dtype == torch.float16 and bool(y.isfinite().all())
        assert (y.double() - expected).abs().max() <= 4e-3 * expected.abs().max()

    @every_way
    def test_a_module_in_bfloat16_trains(self, options):
        adapter = away(SNNKAdapter(8, 16, **options, generator=0)).bfloat16()
        x = inputs(20).bfloat16()
        y = adapter(x)
        y.square().sum().backward()
        assert y.dtype == torch.bfloat16
        for name, parameter in adapter.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name

    @every_way
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_autocast_keeps_the_dtype_of_the_stream(self, options, dtype):
        adapter, x = away(SNNKAdapter(8, 16, **options, generator=0)), inputs(20).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert adapter.branch(x).dtype == dtype
            found = (x + adapter.branch(x)).double()
        expected = x.double() + copy.deepcopy(adapter).double().branch(x.double())
        assert (found - expected).abs().max() <= 2e-2 * expected.abs().max()


@every_way
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(options, use_reentrant):
    adapter = away(SNNKAdapter(8, 16, **options, generator=0).double())
    x, z = inputs(20).requires_grad_(), inputs(20).requires_grad_()
    leaves = list(adapter.parameters())
    adapter(x).square().sum().backward()
    expected = [x.grad, *(p.grad for p in leaves)]
    adapter.zero_grad()
    y = checkpoint(adapter, z, use_reentrant=use_reentrant)
    y.square().sum().backward()
    for found, wanted in zip([z.grad, *(p.grad for p in leaves)], expected, strict=True):
        assert found is not None and wanted is not None and torch.equal(found, wanted)


class TestSaving:
    @every_way
    def test_comes_back(self, options, tmp_path, global_state_unchanged):
        adapter = away(SNNKAdapter(8, 16, nn.SiLU(), **options, generator=0))
        adapter.save_pretrained(tmp_path / "saved")
        loaded = SNNKAdapter.from_pretrained(tmp_path / "saved")
        assert repr(loaded) == repr(adapter)
        x = inputs(5).float()
        assert torch.equal(loaded(x), adapter(x))
        assert {n for n, p in loaded.named_parameters()} == {
            n for n, p in adapter.named_parameters()
        }

    @pytest.mark.slow
    def test_in_a_new_process(self, tmp_path):
        adapter = away(SNNKAdapter(8, 16, features="universal", generator=0))
        x = inputs(5).float()
        assert torch.equal(reload_in_new_process(adapter, x, tmp_path), adapter(x))

    def test_another_class_is_refused(self, tmp_path):
        SNNK(8, 8, num_features=4, generator=0).save_pretrained(tmp_path / "saved")
        with pytest.raises(ValueError, match=r"^config: 'nn\.SNNK' is not a SNNKAdapter of Mercer"):
            SNNKAdapter.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"width": 0}, ValueError, r"^width: "),
        ({"width": 8.0}, TypeError, r"^width: "),
        ({"num_features": 0}, ValueError, r"^num_features: "),
        ({"num_features": 7, "features": "universal"}, ValueError, r"^num_features: .* even"),
        ({"activation": "step up"}, ValueError, r"^activation: "),
        ({"bottleneck": 0}, ValueError, r"^bottleneck: "),
        ({"bottleneck": 3, "up": False}, ValueError, r"^bottleneck: .* bottleneck=3 with up=False"),
        ({"features": "fourier"}, ValueError, r"^features: "),
        ({"features": 3}, TypeError, r"^features: "),
        ({"projection": "leverage"}, ValueError, r"^projection: "),
        ({"scale": 0.0}, ValueError, r"^scale: "),
        ({"scale": math.nan}, ValueError, r"^scale: "),
        ({"scale": "small"}, TypeError, r"^scale: "),
        ({"generator": "0"}, TypeError, r"^generator: "),
        (
            {"features": NeuronFeatures.random(8, 4, "relu", generator=0)},
            ValueError,
            r"^features: expected a map from 8 inputs to 16 features, got one from 8 to 4",
        ),
    ],
)
def test_bad_options(options, error, match):
    with pytest.raises(error, match=match):
        SNNKAdapter(**{"width": 8, "num_features": 16, **options})


@pytest.mark.parametrize("num_features", [10**11, 10**19])
def test_what_cannot_fit_says_so(num_features):
    with pytest.raises(MemoryError, match=r"num_features: drawing 10{11,} features of 8 inputs"):
        SNNKAdapter(8, num_features)
