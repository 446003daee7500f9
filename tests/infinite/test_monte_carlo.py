"""The Monte Carlo probe against closed forms, brute force, and what standard errors promise."""

import math
import re

import pytest
import torch
from torch import nn

import mercer
from mercer._core.config import resident_memory
from mercer.infinite import monte_carlo, monte_carlo_estimate
from mercer.kernels import dual
from tests.contracts.probe import ProbeContract
from tests.infinite.dense_reference import dense_kernels


def points(n, *event, seed=0, dtype=torch.float64):
    return torch.randn(n, *event, generator=torch.Generator().manual_seed(seed), dtype=dtype)


X, Y = points(3, 5), points(2, 5, seed=1)


def mlp(depth=1, out=1, activation=nn.ReLU, d=5):
    def make(width):
        layers = [nn.Linear(d, width), activation()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), activation()]
        return nn.Sequential(*layers, nn.Linear(width, out))

    return make


def image_net(width):
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, groups=2),
        nn.LayerNorm((2, 2)),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * width, 3),
    )


class TestMonteCarlo(ProbeContract):
    def model(self):
        return image_net(8)

    def probe(self, model, generator):
        x = points(2, 2, 4, 4, dtype=torch.float32)
        return monte_carlo(lambda width: model, 8, 5, x, generator=generator)


class TestMonteCarloOfNetworksAsMade(ProbeContract):
    def model(self):
        return image_net(8)

    def probe(self, model, generator):
        x = points(2, 2, 4, 4, dtype=torch.float32)
        return monte_carlo(
            lambda width: model, 8, 5, x, parametrization="torch", generator=generator
        )


def worst(found, nngp, ntk):
    """Largest distance from the kernels, in standard errors."""
    gaps = (found.nngp - nngp) / found.nngp_error, (found.ntk - ntk) / found.ntk_error
    return max(float(gap.abs().max()) for gap in gaps)


@pytest.mark.parametrize("out", [1, 4])
def test_one_hidden_layer_is_unbiased(out):
    found = monte_carlo(mlp(1, out), 16, 3000, X, Y, w_std=1.3, b_std=0.4, generator=0)
    assert found.nngp.shape == found.ntk.shape == (3, 2)
    assert worst(found, *dense_kernels("relu", 1, X, Y, w_std=1.3, b_std=0.4)) < 4


def test_two_hidden_layers_after_the_bias_of_the_width():
    scales = {"w_std": 1.3, "b_std": 0.4}
    exact = dense_kernels("relu", 2, X, X, **scales)
    narrow, wide = (
        monte_carlo(mlp(2, out=4), width, 2000, X, generator=width, **scales) for width in (32, 64)
    )
    for name, value in zip(("nngp", "ntk"), exact, strict=True):
        a, b = getattr(narrow, name), getattr(wide, name)
        e, f = getattr(narrow, f"{name}_error"), getattr(wide, f"{name}_error")
        error = (e.square() + 4 * f.square()).sqrt()
        assert ((2 * b - a - value).abs() < 4 * error).all(), name
        assert (error < 0.05 * value.diagonal().max()).all()  # it can tell a wrong kernel


@pytest.mark.paper(
    "infinite-neural-tangent-kernel",
    kind="exact",
    claim="Standard-parametrization T with first-layer n_in equals empirical J J^T of nets "
    "averaged over seeds.",
)
def test_standard_parametrization(evidence):
    width = 64
    found = monte_carlo(
        mlp(1), width, 3000, X, parametrization="standard", w_std=1.2, b_std=0.3, generator=0
    )
    exact = dense_kernels("relu", 1, X, X, w_std=1.2, b_std=0.3, fan_ins=[5, width])
    gap = worst(found, *exact)
    evidence(required="< 4", measured=gap, what="standard errors")
    assert gap < 4
    wrong = dense_kernels("relu", 1, X, X, w_std=1.2, b_std=0.3, fan_ins=[1, width])
    assert worst(found, *wrong) > 4  # the first layer's fan-in is seen


def test_networks_as_torch_makes_them():
    found = monte_carlo(mlp(1), 64, 3000, X, parametrization="torch", generator=0)
    # nn.Linear draws weights and biases uniformly up to 1 / sqrt(fan_in): variance 1 / (3 fan_in).
    # Five inputs with uniform weights are not normal: the hidden means by draws of one neuron.
    source = torch.Generator().manual_seed(1)
    draws = torch.rand(2_000_000, 6, generator=source, dtype=torch.float64)
    z = (2 * draws - 1) @ torch.cat((X, torch.ones(3, 1)), 1).mT.double() / math.sqrt(5)  # (s, n)
    k = z.relu().mT @ z.relu() / len(z)
    slope = (z > 0).double().mT @ (z > 0).double() / len(z)
    width = 64
    nngp = k / 3 + 1 / (3 * width)
    ntk = width * k + 1 + slope * (X @ X.mT + 1) / 3
    assert worst(found, nngp, ntk) < 4


def brute_force(net, x, y):
    """Mean over outputs of products of gradients, one backward pass for each."""

    def gradients(points):
        rows = []
        for point in points:
            for out in net(point.unsqueeze(0))[0]:
                grads = torch.autograd.grad(out, list(net.parameters()), retain_graph=True)
                rows.append(torch.cat([g.flatten() for g in grads]))
        return torch.stack(rows).unflatten(0, (len(points), -1))  # (n, o, p)

    left, right = gradients(x), gradients(y)
    return torch.einsum("nop,mop->nm", left, right) / left.shape[1]


def without_a_rule(width):
    """What has no kernel in closed form: softmax attention, max pooling, batch norm."""
    return nn.Sequential(
        nn.Conv1d(2, 4 * width, 2),
        nn.BatchNorm1d(4 * width),
        nn.MaxPool1d(2, 1),
        nn.Unflatten(1, (4, width)),
        nn.Flatten(2),
        nn.TransformerEncoderLayer(3 * width, 2, 8, batch_first=True),
        nn.Flatten(),
        nn.Linear(12 * width, 2),
    ).eval()


@pytest.mark.paper(
    "infinite-neural-tangent-kernel",
    kind="exact",
    claim="The torch.func Jacobian NTK equals brute-force autograd to 1e-12.",
)
@pytest.mark.parametrize("make", [lambda w: image_net(w).eval(), without_a_rule])
def test_one_network_equals_brute_force(make, evidence):
    net = make(6).double()
    shape = (2, 4, 4) if isinstance(net[0], nn.Conv2d) else (2, 5)
    x, y = points(3, *shape), points(2, *shape, seed=1)
    found = monte_carlo(lambda width: net, 6, 2, x, y, parametrization="torch")
    expected = brute_force(net, x, y)
    error = float((found.ntk - expected).abs().max() / expected.abs().max())
    evidence(required="<= 1e-12", measured=error)
    assert error <= 1e-12
    f, g = net(x).detach(), net(y).detach()
    torch.testing.assert_close(found.nngp, f @ g.mT / f.shape[1])
    assert found.ntk_error.abs().max() == found.nngp_error.abs().max() == 0  # always one network


@pytest.mark.paper(
    "infinite-neural-tangent-kernel",
    kind="behaviour",
    claim="3-layer ReLU (sigma_w^2 = 2, sigma_b = .1, d = 5): mean relative error of one net's NTK "
    "0.23 / 0.16 / 0.07 at width 64 / 256 / 1024 (about 1/sqrt(n)); average of 8 nets 0.12 / 0.05 "
    "/ 0.02.",
)
def test_error_of_one_network_shrinks_with_the_width(evidence):
    x = points(6, 5)
    exact = dense_kernels("relu", 2, x, x, w_std=2**0.5, b_std=0.1)[1]
    one, eight = {}, {}
    for width in (64, 256, 1024):
        found = [monte_carlo(mlp(2), width, 8, x, generator=seed) for seed in range(3)]
        eight[width] = float(torch.stack([((f.ntk - exact) / exact).abs() for f in found]).mean())
        spread = torch.stack([f.samples * f.ntk_error.square() for f in found]).mean(0).sqrt()
        # The mean distance of one normal number from its mean is this share of its spread.
        one[width] = math.sqrt(2 / math.pi) * float((spread / exact.abs()).mean())
        for what, value in (("one net", one[width]), ("mean of 8 nets", eight[width])):
            required = "0.23 / 0.16 / 0.07" if what == "one net" else "0.12 / 0.05 / 0.02"
            evidence(required=f"about {required}", measured=value, what=f"{what}, width {width}")
    assert 0.15 < one[64] < 0.35 and 0.05 < eight[64] < 0.18
    for errors in (one, eight):  # 1/2 each time
        assert 0.3 < errors[256] / errors[64] < 0.75
        assert 0.3 < errors[1024] / errors[256] < 0.75


def test_standard_errors_are_honest():
    """Over many estimates, distances from the truth are as large as the errors say."""
    exact = dense_kernels("relu", 1, X, X, w_std=1.3, b_std=0.4)
    squares = []
    for seed in range(60):
        found = monte_carlo(mlp(1), 16, 50, X, w_std=1.3, b_std=0.4, generator=seed)
        squares.append(((found.ntk - exact[1]) / found.ntk_error).square().mean())
        squares.append(((found.nngp - exact[0]) / found.nngp_error).square().mean())
    assert 0.8 < float(torch.stack(squares).mean()) < 1.3


def test_mean_over_outputs_is_that_of_single_outputs():
    one, many = (monte_carlo(mlp(1, out), 16, 4000, X, generator=3) for out in (1, 5))
    gap = (one.ntk - many.ntk).abs() / (one.ntk_error**2 + many.ntk_error**2).sqrt()
    assert gap.max() < 4
    assert (many.nngp_error < one.nngp_error).all()


def test_blocks_and_stacks_change_nothing(monkeypatch):
    def estimate(y=None):
        return monte_carlo(mlp(2, 2), 24, 7, X, y, generator=5)

    whole, cross = estimate(), estimate(Y)
    torch.testing.assert_close(whole.ntk, whole.ntk.mT)
    monkeypatch.setattr(monte_carlo_estimate, "_STACK_BYTES", 1)
    torch.testing.assert_close(estimate().ntk, whole.ntk)
    asked = []
    monkeypatch.setattr(
        monte_carlo_estimate, "block_rows", lambda size, **_: asked.append(size) or 2
    )
    for y, expected in ((None, whole), (Y, cross)):
        found = estimate(y)
        for name in ("nngp", "ntk", "nngp_error", "ntk_error"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert asked[0] >= 8 * 2 * sum(p.numel() for p in mlp(2, 2)(24).parameters())


def test_rows_of_both_sides_are_those_of_the_union():
    """Points of rows and columns meet in the same networks."""
    union = monte_carlo(mlp(2), 16, 9, torch.cat((X, Y)), generator=1)
    cross = monte_carlo(mlp(2), 16, 9, X, Y, generator=1)
    torch.testing.assert_close(cross.ntk, union.ntk[:3, 3:])
    torch.testing.assert_close(cross.nngp, union.nngp[:3, 3:])


def test_memory_that_is_not_there():
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**20),
        pytest.raises(MemoryError, match=r"Jacobian.*smaller width"),
    ):
        monte_carlo(mlp(2), 512, 2, X)


def test_layers_have_scales_of_their_own():
    scales = {"0": 1.9, "2": 0.7}
    found = monte_carlo(mlp(1), 16, 3000, X, w_std=scales, b_std={"0": 0.0}, generator=0)
    s = 1.9**2 * X @ X.mT / 5
    k, slope = dual("relu")(s.diagonal().unsqueeze(-1), s.diagonal(), s)
    nngp = 0.7**2 * k + 0.1**2  # the other bias keeps the default
    assert worst(found, nngp, nngp + 0.7**2 * slope * s) < 4


def test_scales_of_a_module_are_those_of_the_layers_inside():
    def net(width):
        return nn.Sequential(mlp(2)(width), nn.ReLU(), nn.Linear(1, 1))

    def estimate(scales):
        return monte_carlo(net, 8, 3, X, w_std=scales, generator=0).ntk

    flat = {"0.0": 0.9, "0.2": 1.3, "0.4": 0.9, "2": 1.1}
    assert torch.equal(estimate({"0": 0.9, "0.2": 1.3, "2": 1.1}), estimate(flat))
    assert torch.equal(estimate({"": 1.1, "0": 0.9, "0.2": 1.3}), estimate(flat))
    assert torch.equal(estimate({"0": 2**0.5}), estimate(None))


def test_fan_in_of_groups_and_kernels():
    def net(width):
        return nn.Sequential(
            nn.Conv1d(8, width, 3, groups=4), nn.Flatten(), nn.Linear(2 * width, 1)
        )

    x = points(2, 8, 4)
    found = monte_carlo(net, 8, 4000, x, w_std=1.1, b_std=0.2, generator=0)
    windows = x.unfold(-1, 3, 1)  # (2, 8, 2, 3)
    s = torch.einsum("ncpk,mcpk->pnm", windows, windows) / (8 * 3)  # mean over groups
    s = 1.1**2 * s.mean(0) + 0.2**2
    nngp = 1.1**2 * s + 0.2**2
    assert worst(found, nngp, nngp + 1.1**2 * s) < 4


def test_frozen_parameters_do_not_count():
    def net(width):
        made = mlp(1)(width)
        made[0].requires_grad_(False)
        made[2].bias.requires_grad_(False)
        return made

    found = monte_carlo(net, 16, 3000, X, w_std=1.3, b_std=0.4, generator=0)
    nngp, _ = dense_kernels("relu", 1, X, X, w_std=1.3, b_std=0.4)
    assert worst(found, nngp, nngp - 0.4**2) < 4


def test_norms_keep_what_they_learnt_and_count_in_full():
    def net(width):
        made = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 1))
        nn.init.constant_(made[0].weight, 2.0)
        return made

    found = monte_carlo(net, 1, 4000, X, w_std=1.3, b_std=0.4, generator=0)
    h = nn.functional.layer_norm(X, (5,))
    nngp = 1.3**2 * 4 * h @ h.mT / 5 + 0.4**2
    # d/dg_c = W_c h_c and d/do_c = W_c, with W_c of variance 1.3^2 / 5
    ntk = nngp + 1.3**2 * (h @ h.mT / 5 + 1)
    assert worst(found, nngp, ntk) < 4


def test_dropout_has_masks_of_its_own_for_each_point():
    def net(width):
        return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Dropout(0.4), nn.Linear(width, 1))

    found = monte_carlo(net, 16, 4000, X, w_std=1.3, b_std=0.0, generator=0)
    nngp, ntk = dense_kernels("relu", 1, X, X, w_std=1.3, b_std=0.0)
    more = torch.ones(3, 3) + (1 / 0.6 - 1) * torch.eye(3)
    assert worst(found, nngp * more, ntk * more) < 4
    found = monte_carlo(lambda w: net(w).eval(), 16, 3000, X, w_std=1.3, b_std=0.0, generator=0)
    assert worst(found, nngp, ntk) < 4


def test_tied_weights_are_one_parameter():
    def net(width):
        made = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
        made[1].weight = made[0].weight
        return made

    found = monte_carlo(net, 1, 4000, X, w_std=1.0, generator=0)
    # f = W W x / 5: of the outputs' covariance, terms with W_ij twice do not vanish.
    source = torch.Generator().manual_seed(9)
    w = torch.randn(20_000, 5, 5, generator=source, dtype=torch.float64)
    f = (w @ w @ X.mT / 5).mT  # (s, n, o)
    values = f @ f.mT / 5
    error = (values.var(0) / len(w) + found.nngp_error**2).sqrt()
    assert ((values.mean(0) - found.nngp).abs() < 4 * error).all()


def test_dtype_in_is_dtype_out():
    single = monte_carlo(mlp(2), 16, 5, X.float(), generator=0)
    double = monte_carlo(mlp(2), 16, 5, X, generator=0)
    assert single.ntk.dtype == single.nngp_error.dtype == torch.float32
    torch.testing.assert_close(single.ntk, double.ntk.float(), rtol=1e-4, atol=1e-5)


def test_sources_of_the_draws():
    torch.manual_seed(3)
    first = monte_carlo(mlp(1), 8, 3, X).ntk
    second = monte_carlo(mlp(1), 8, 3, X).ntk
    torch.manual_seed(3)
    assert torch.equal(monte_carlo(mlp(1), 8, 3, X).ntk, first)
    assert not torch.equal(first, second)
    torch.manual_seed(4)
    same = [
        monte_carlo(mlp(1), 8, 3, X, generator=g).ntk for g in (5, torch.Generator().manual_seed(5))
    ]
    assert torch.equal(*same)


def test_data_from_the_same_seed_is_not_drawn_again():
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = monte_carlo(mlp(1), 4, 2000, x, generator=torch.Generator().manual_seed(0))
    assert worst(found, *dense_kernels("relu", 1, x, x, w_std=2**0.5, b_std=0.1)) < 4.5


def test_progress_bar_only_when_asked(capsys):
    pytest.importorskip("tqdm")
    monte_carlo(mlp(1), 4, 2, X)
    assert capsys.readouterr().err == ""
    monte_carlo(mlp(1), 4, 2, X, show_progress=True)
    assert "networks" in capsys.readouterr().err


def test_plot_over_exact_values():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    found = monte_carlo(mlp(1), 16, 50, X, generator=0)
    nngp, _ = dense_kernels("relu", 1, X, X, w_std=2**0.5, b_std=0.1)
    ax = found.plot(kernel="nngp", exact=nngp)
    drawn = ax.containers[0][0].get_xydata()
    torch.testing.assert_close(torch.from_numpy(drawn[:, 1].copy()), found.nngp.flatten())
    assert "NNGP" in ax.get_xlabel() and "50 networks of width 16" in ax.get_title()
    with pytest.raises(ValueError, match=r"exact: expected shape \(3, 3\)"):
        found.plot(exact=nngp[:2])
    with pytest.raises(ValueError, match="kernel: expected one of"):
        found.plot(kernel="cov")
    plt.close("all")


@pytest.mark.parametrize(
    ("factory", "changes", "error", "message"),
    [
        (mlp(), {"samples": 1}, ValueError, "samples"),
        (mlp(), {"width": 0}, ValueError, "width"),
        (mlp(), {"parametrization": "mup"}, ValueError, "parametrization"),
        (mlp(), {"w_std": -1.0}, ValueError, "w_std"),
        (mlp(), {"w_std": {"0": math.nan}}, ValueError, r"w_std\['0'\]"),
        (mlp(), {"w_std": {"1": 1.0}}, ValueError, r"w_std: expected names of layers .*\['1'\]"),
        (mlp(), {"w_std": 1.0, "parametrization": "torch"}, ValueError, "w_std, b_std: networks"),
        (mlp(), {"b_std": "0.1"}, TypeError, "b_std: expected a number, or a mapping"),
        (mlp(), {"x": X[:0]}, ValueError, r"x: expected at least one point.*\(0, 5\)"),
        (mlp(), {"x": X[0]}, ValueError, r"x: expected at least one point.*\(5,\)"),
        (mlp(), {"x": X * math.nan}, ValueError, "x: 15 of 15 entries"),
        (mlp(), {"y": X[:, :4]}, ValueError, r"y: expected points like .*\(3, 4\)"),
        (mlp(), {"y": X.float()}, ValueError, "y: expected points like .*float32"),
        (lambda w: torch.zeros(3), {}, TypeError, "module_factory: expected .* got Tensor"),
        (
            lambda w: nn.Sequential(nn.Conv1d(1, w, 2), nn.Conv1d(w, 2, 2)),
            {"x": X.unsqueeze(1)},
            ValueError,
            r"module_factory: .*\(n, o\) or \(n,\), got \(1, 2, 3\)",
        ),
        (
            lambda w: nn.Sequential(nn.Linear(5, w), nn.PReLU(), nn.Linear(w, 1)),
            {},
            ValueError,
            r"module_factory: .*got 'weight' of 1 \(PReLU\)",
        ),
        (
            lambda w: nn.Sequential(nn.Linear(5, w), nn.BatchNorm1d(w), nn.Linear(w, 1)),
            {},
            ValueError,
            "module_factory: 1 is a BatchNorm1d in training mode",
        ),
        (lambda w: mlp()(w).requires_grad_(False), {}, ValueError, "module_factory: .* gradients"),
    ],
)
def test_refused(factory, changes, error, message, global_state_unchanged):
    arguments = {"width": 4, "samples": 3, "x": X, "generator": 0, **changes}
    with pytest.raises(error, match=message) as caught:
        monte_carlo(factory, **arguments)
    assert re.match(r"\w+", str(caught.value))


def test_factory_that_changes_its_mind():
    widths = iter((4, 6, 8))
    with pytest.raises(ValueError, match="module_factory: expected networks of one architecture"):
        monte_carlo(lambda w: mlp()(next(widths)), 4, 3, X, parametrization="torch")


def test_layers_that_work_in_place():
    """A pre-activation block with ReLU in place adds the branch to relu(x), as it does by torch."""

    class Block(nn.Module):
        def __init__(self, width, inplace):
            super().__init__()
            self.stem, self.branch = nn.Linear(5, width), nn.Linear(width, width)
            self.act, self.out = nn.ReLU(inplace), nn.Linear(width, 1)
            self.inplace = inplace

        def forward(self, x):
            h = self.stem(x)
            skip = h if self.inplace else torch.relu(h)
            return self.out(self.branch(self.act(h)) + skip)

    one, two = (
        monte_carlo(lambda width, p=place: Block(width, p), 12, 5, X, generator=0)
        for place in (True, False)
    )
    torch.testing.assert_close(one.ntk, two.ntk)
    torch.testing.assert_close(one.nngp, two.nngp)


def test_a_module_is_no_factory():
    with pytest.raises(TypeError, match="module_factory: expected a callable from a width"):
        monte_carlo(nn.Linear(2, 1), 8, 2, torch.zeros(1, 2))  # pyright: ignore
