"""Training of wide networks by squared error: golden values, brute force, laws."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mercer.infinite import NNGP, NTK, dynamics, posterior
from mercer.kernels import RBF, Linear, Precomputed, dual

SHEET = "infinite-neural-tangent-kernel"
INF = float("inf")


def relu_kernels(x: Tensor, w: float, b: float, layers: int) -> tuple[Tensor, Tensor]:
    """NNGP and NTK of hidden ReLU layers, from the recursion of Jacot et al."""
    relu = dual("relu")
    nngp = w * x @ x.mT / x.shape[1] + b
    ntk = nngp
    for _ in range(layers):
        q = nngp.diagonal()
        pairs = torch.broadcast_tensors(q[:, None], q[None], nngp)
        value, slope = (
            torch.diagonal_scatter(off, on)
            for off, on in zip(relu(*pairs), relu.diagonal(q), strict=True)
        )
        nngp = w * value + b
        ntk = nngp + w * slope * ntk
    return nngp, ntk


def numbered(count: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + count).double()


def random_problem(seed: int, n: int = 8, m: int = 3, outputs: int = 2):
    """Make two kernels on n + m points, and targets."""
    source = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=source, dtype=torch.float64)
    first, second = draw(n + m, n + m + 2), draw(n + m, n + m + 2)
    tangent, covariance = first @ first.mT, second @ second.mT
    return tangent, covariance, draw(n, outputs)


def made(tangent, covariance, y, **options):
    return dynamics(
        Precomputed(tangent), numbered(len(y)), y, prior=Precomputed(covariance), **options
    )


@pytest.fixture(scope="module")
def golden(shared_data: Path):
    path = shared_data.parent / "golden" / "ntk.npz"
    if not path.exists():
        pytest.skip(f"no golden values {path}")
    with np.load(path) as values:
        return dict(values)


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Mean and covariance of the ensemble trained by gradient flow equal neural-tangents'.",
)
@pytest.mark.parametrize("kind", ["nngp", "ntk"])
@pytest.mark.parametrize("ridge", [0.0, 0.01])
@pytest.mark.parametrize("t", [0.1, 1.0, 10.0, INF])
def test_golden_ensemble(golden, kind, ridge, t, evidence):
    x = torch.from_numpy(np.concatenate([golden["X1"], golden["X2"]]))
    nngp, ntk = map(Precomputed, relu_kernels(x, 1.5**2, 0.1**2, 2))
    flow = dynamics(
        ntk if kind == "ntk" else nngp,
        numbered(7),
        torch.from_numpy(golden["Y1"]),
        prior=nngp,
        ridge=ridge,
        ridge_unit="diagonal",
        # The reference's NNGP ensemble with a ridge has noise on its targets, its NTK's has none.
        target_noise="ridge" if kind == "nngp" else 0.0,
    )
    test = numbered(4, 7)
    found = {"mean": flow.mean(t, test), "cov": flow.covariance(t, test)}
    for name, value in found.items():
        expected = torch.from_numpy(golden[f"mse_ensemble/reg{ridge}/t{t}/{kind}/{name}"])
        error = float((value - expected).abs().max() / expected.abs().max())
        evidence(required="<= 1e-10", measured=error, what=f"relative difference, {name}")
        assert error <= 1e-10


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_flow_equals_small_steps_and_the_matrix_exponential(ridge):
    tangent, covariance, y = random_problem(0)
    n, rate, time = len(y), 0.7, 3.0
    flow = made(tangent, covariance, y, learning_rate=rate, ridge=ridge)
    T = tangent[:n, :n] + ridge * torch.eye(n).double()
    decay = torch.matrix_exp(-rate * time / y.numel() * T)
    weights = tangent[n:, :n] @ torch.linalg.solve(T, torch.eye(n).double() - decay)
    torch.testing.assert_close(flow.mean(time, numbered(3, n)), weights @ y, rtol=1e-10, atol=1e-10)
    whole = torch.cat([-weights, torch.eye(3)], 1)  # outputs at test points from f_0
    torch.testing.assert_close(
        flow.covariance(time, numbered(3, n)), whole @ covariance @ whole.mT, rtol=1e-9, atol=1e-9
    )
    # Euler with 20,000 steps, in function space; the coefficients a carry the ridge.
    steps = 20_000
    a = torch.zeros_like(y)
    for _ in range(steps):
        a += rate * time / steps / y.numel() * (y - tangent[:n, :n] @ a - ridge * a)
    torch.testing.assert_close(flow.mean(time), tangent[:n, :n] @ a, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_descent_is_that_of_torch_on_a_model_linear_in_its_parameters(momentum, ridge):
    source = torch.Generator().manual_seed(1)
    x = torch.randn(6, 4, generator=source).double()
    test = torch.randn(3, 4, generator=source).double()
    y = torch.randn(6, 2, generator=source).double()
    steps = dynamics(
        Linear(), x, y, discrete=True, learning_rate=0.4, momentum=momentum, ridge=ridge
    )
    weight = torch.randn(4, 2, generator=source).double()
    start = weight.clone()
    weight.requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.4, momentum=momentum)
    for step in range(41):
        if step in (0, 1, 2, 7, 40):
            for points in (x, test):
                found = steps.outputs(step, x @ start, points, points @ start)
                torch.testing.assert_close(
                    found, (points @ weight).detach(), rtol=1e-11, atol=1e-11
                )
            torch.testing.assert_close(
                steps.outputs(step, x @ start), (x @ weight).detach(), rtol=1e-11, atol=1e-11
            )
        optimizer.zero_grad()
        gap = (x @ weight - y).square().sum() + ridge * (weight - start).square().sum()
        (gap / (2 * y.numel())).backward()
        optimizer.step()


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
def test_edge_of_stability(momentum):
    tangent, covariance, y = random_problem(2)
    edge = made(tangent, covariance, y, discrete=True, momentum=momentum).largest_learning_rate
    largest = float(torch.linalg.eigvalsh(tangent[:8, :8])[-1])
    assert edge == pytest.approx(2 * (1 + momentum) * y.numel() / largest, rel=1e-12)

    def late(rate):
        model = made(tangent, covariance, y, discrete=True, momentum=momentum, learning_rate=rate)
        first = torch.linalg.eigh(tangent[:8, :8]).eigenvectors[:, -1]
        return float((first @ (model.mean(3000) - y)).abs().max())

    assert late(0.98 * edge) < 1e-3
    assert late(1.02 * edge) > 1e3
    past = made(tangent, covariance, y, discrete=True, momentum=momentum, learning_rate=1.02 * edge)
    with pytest.raises(ValueError, match=r"learning_rate.*edge of stability"):
        past.mean(INF)
    assert math.isinf(made(tangent, covariance, y).largest_learning_rate)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_small_steps_approach_the_flow(momentum):
    tangent, covariance, y = random_problem(3)
    flow, rate = made(tangent, covariance, y), 1e-3 * (1 - momentum)
    steps = made(tangent, covariance, y, discrete=True, learning_rate=rate, momentum=momentum)
    x, many = numbered(3, 8), 500
    near = flow.mean(many * 1e-3, x)
    torch.testing.assert_close(
        steps.mean(many, x), near, rtol=0, atol=0.01 * float(near.abs().max())
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    discrete=st.booleans(),
    momentum=st.sampled_from([0.0, 0.8]),
    ridge=st.sampled_from([0.0, 0.2]),
)
def test_laws(seed, discrete, momentum, ridge):
    tangent, covariance, y = random_problem(seed)
    options = {"discrete": True, "momentum": momentum} if discrete else {}
    edge = made(tangent, covariance, y, ridge=ridge, **options).largest_learning_rate
    if discrete:
        options["learning_rate"] = 0.4 * edge
    model = made(tangent, covariance, y, ridge=ridge, **options)
    test = numbered(3, 8)
    # Before training: the prior.
    assert float(model.mean(0, test).abs().max()) == 0.0
    torch.testing.assert_close(model.covariance(0, test), covariance[8:, 8:])
    torch.testing.assert_close(model.covariance(0), covariance[:8, :8])
    # At the end: kernel regression, and zero spread where there is no ridge.
    solved = torch.linalg.solve(tangent[:8, :8] + ridge * torch.eye(8).double(), y)
    torch.testing.assert_close(
        model.mean(INF, test), tangent[8:, :8] @ solved, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(model.mean(INF), tangent[:8, :8] @ solved, rtol=1e-6, atol=1e-6)
    for t in (0, 3, 50, INF):
        for x in (None, test):
            spread = model.covariance(t, x)
            assert float(torch.linalg.eigvalsh(spread)[0]) >= -1e-8 * float(
                covariance.diagonal().max()
            )
    # Training points asked for as test points give the same.
    for t in (2, INF):
        torch.testing.assert_close(model.mean(t, numbered(8)), model.mean(t), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            model.covariance(t, numbered(8)), model.covariance(t), rtol=1e-5, atol=1e-5
        )
    # The closed form of the error is that of mean and covariance.
    wanted = torch.ones(3, 2).double()
    times = [0, 1, 4, INF]
    curve = model.squared_error(times, test, wanted)
    mean, spread = model.mean(times, test), model.covariance(times, test)
    torch.testing.assert_close(curve.ensemble, (mean - wanted).square().mean((1, 2)))
    diagonal = spread.diagonal(dim1=1, dim2=2).mean(1)
    torch.testing.assert_close(curve.variance, diagonal, rtol=1e-6, atol=1e-6)
    curve = model.squared_error(times)
    torch.testing.assert_close(curve.ensemble, (model.mean(times) - y).square().mean((1, 2)))
    diagonal = model.covariance(times).diagonal(dim1=1, dim2=2).mean(1)
    torch.testing.assert_close(curve.variance, diagonal, rtol=1e-6, atol=1e-6)


def test_ensemble_of_draws_has_the_mean_and_covariance():
    tangent, covariance, y = random_problem(4, outputs=1)
    ridge, noise = 0.4, 0.3
    model = made(tangent, covariance, y[:, 0], ridge=ridge, target_noise=noise)
    source = torch.Generator().manual_seed(5)
    draws = torch.randn(11, 20_000, generator=source).double()
    initial = torch.linalg.cholesky(covariance) @ draws  # (11, draws)
    noisy = y + noise**0.5 * torch.randn(8, 20_000, generator=source).double()
    each = made(tangent, covariance, noisy, ridge=ridge, reduction="sum", learning_rate=1 / 8)
    ends = each.outputs(2.0, initial[:8], numbered(3, 8), initial[8:])
    spread = model.covariance(2.0, numbered(3, 8))
    scale = float(spread.diagonal().max())
    assert float((torch.cov(ends) - spread).abs().max()) < 4 * scale * (2 / 20_000) ** 0.5
    mean = model.mean(2.0, numbered(3, 8))
    assert float((ends.mean(1) - mean).abs().max()) < 4 * (scale / 20_000) ** 0.5


def test_points_that_occur_twice_end_at_the_solution_of_least_norm():
    x = torch.tensor([[0.0], [0.0], [1.0], [2.0]]).double()
    y = torch.tensor([1.0, 3.0, -1.0, 0.5]).double()
    flow = dynamics(RBF(), x, y)
    merged = dynamics(RBF(), x[1:], torch.tensor([2.0, -1.0, 0.5]).double())
    test = torch.linspace(-1, 3, 5).double().unsqueeze(-1)
    torch.testing.assert_close(flow.mean(INF, test), merged.mean(INF, test))
    torch.testing.assert_close(flow.mean(1e12, test), merged.mean(INF, test))
    torch.testing.assert_close(flow.covariance(INF, test), merged.covariance(INF, test))
    torch.testing.assert_close(flow.mean(INF), torch.tensor([2.0, 2.0, -1.0, 0.5]).double())
    assert len(flow.learning_times().times) == 3


def test_single_precision_is_solved_in_double():
    x = torch.linspace(0, 1, 12).unsqueeze(-1)  # condition number 1e15 at this lengthscale
    y = torch.sin(6 * x[:, 0])
    test = torch.linspace(0.02, 0.98, 7).unsqueeze(-1)
    low, high = dynamics(RBF(0.4), x, y), dynamics(RBF(0.4), x.double(), y.double())
    found = low.mean(INF, test)
    assert found.dtype == torch.float32 and low.covariance(2.0, test).dtype == torch.float32
    torch.testing.assert_close(found.double(), high.mean(INF, test.double()), rtol=1e-4, atol=1e-4)


def test_reduction_and_outputs():
    tangent, covariance, y = random_problem(6)
    test = numbered(3, 8)
    mean = made(tangent, covariance, y).mean([0.5, 2.0], test)
    assert mean.shape == (2, 3, 2)
    total = made(tangent, covariance, y, reduction="sum", learning_rate=1 / 16)
    torch.testing.assert_close(total.mean([0.5, 2.0], test), mean)
    one = made(tangent, covariance, y[:, 0], learning_rate=0.5).mean(torch.tensor([0.5, 2.0]), test)
    torch.testing.assert_close(one, mean[..., 0])
    assert made(tangent, covariance, y[:, 0]).mean(1.0, test).shape == (3,)


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="The residual along an eigenvector of the kernel decays at the rate of its eigenvalue, "
    "so that the top principal components are learnt first.",
)
@pytest.mark.parametrize(
    ("options", "momentum"),
    [({}, 0.0), ({"discrete": True}, 0.0), ({"discrete": True}, 0.5), ({"discrete": True}, 0.95)],
)
def test_learning_times_are_those_of_the_modes(options, momentum, evidence):
    tangent, covariance, y = random_problem(7)
    if options:
        edge = made(tangent, covariance, y, **options).largest_learning_rate
        options = {**options, "learning_rate": 0.2 * edge, "momentum": momentum}
    model = made(tangent, covariance, y, **options)
    found = model.learning_times()
    values, vectors = torch.linalg.eigh(tangent[:8, :8])
    torch.testing.assert_close(found.eigenvalues, values.flip(0))
    assert float(found.target_share.sum()) == pytest.approx(1.0)
    # The residual along the first and the last component, from a late time over a long span: the
    # heavy ball may turn within it, so that only its envelope falls by that rate.
    modes = vectors.flip(1).mT
    for mode in (0, -1):
        scale = float(found.times[mode])
        times = torch.tensor([4.0, 12.0]).double() * scale
        if options:
            times = (times.unsqueeze(-1) + torch.arange(math.ceil(3 * scale))).round()
        left = (modes[mode] @ (model.mean(times.flatten()) - y)).norm(dim=-1).reshape(2, -1)
        peak = left.max(1)
        span = (
            8 * scale
            if not options
            else float(times[1, peak.indices[1]] - times[0, peak.indices[0]])
        )
        rate = -math.log(float(peak.values[1] / peak.values[0])) / span
        error, most = abs(1 / (rate * scale) - 1), 0.05 if momentum else 1e-3
        evidence(required=f"<= {most:g}", measured=error, what=f"decay time of mode {mode}")
        assert error <= most


def noisy_problem(seed: int, n: int = 60, noise: float = 0.3):
    source = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(n, 1, generator=source).double() - 1
    clean = torch.sin(4 * x[:, 0])
    return x, clean, clean + noise**0.5 * torch.randn(n, generator=source).double()


@pytest.mark.parametrize("of", ["network", "ensemble"])
@pytest.mark.parametrize("discrete", [False, True])
def test_early_stopping_is_the_smallest_error(of, discrete):
    x, _, y = noisy_problem(0)
    test, clean, _ = noisy_problem(1)
    model = dynamics(RBF(0.3), x, y, discrete=discrete, learning_rate=0.5)
    found = model.early_stopping(test, clean, of=of)
    times = torch.logspace(0, 7, 4000).double()
    times = times.round().unique() if discrete else times
    curve = model.squared_error(times, test, clean)
    brute = curve.network if of == "network" else curve.ensemble
    assert found.error <= float(brute.min()) * (1 + 1e-9)
    assert found.error == pytest.approx(float(brute.min()), rel=1e-3)
    assert found.error < 0.8 * found.error_at_end
    at = model.squared_error(found.time, test, clean)
    assert found.error == pytest.approx(float(getattr(at, of)), rel=1e-9)


def test_early_stopping_by_the_noise_is_right_on_average():
    """Over draws of the noise its estimate is the error at the training points, unbiased."""
    x, clean, _ = noisy_problem(0)
    source = torch.Generator().manual_seed(3)
    y = clean.unsqueeze(-1) + 0.3**0.5 * torch.randn(60, 40_000, generator=source).double()
    model = dynamics(RBF(0.3), x, y, reduction="sum", learning_rate=1 / 60)
    stop = model.early_stopping(noise=0.3, of="ensemble")
    mid = len(stop.times) // 2
    truth = (model.mean(stop.times[mid].item()) - clean.unsqueeze(-1)).square().mean()
    assert float(stop.errors[mid]) == pytest.approx(float(truth), abs=4 * 2.8e-4)
    assert 0 < stop.time < INF and stop.error < stop.error_at_end


def test_no_noise_is_trained_to_the_end():
    x, clean, _ = noisy_problem(0, n=8)
    assert dynamics(RBF(0.3), x, clean).early_stopping(noise=0.0).error <= 1e-12


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), noise=st.sampled_from([0.05, 1.0]))
def test_posterior_is_that_of_scikit_learn(seed, noise):
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    x, _, y = noisy_problem(seed, n=12)
    test = torch.linspace(-1.5, 1.5, 5).double().unsqueeze(-1)
    peer = GaussianProcessRegressor(kernels.RBF(0.5, "fixed"), alpha=noise).fit(
        x.numpy(), y.numpy()
    )
    mean, covariance = peer.predict(test.numpy(), return_cov=True)
    found = posterior(RBF(0.5), x, y, test, noise=noise)
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.covariance.numpy(), covariance, rtol=1e-8, atol=1e-8)


def test_of_a_torch_module(golden):
    module = nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    ).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    kernel = NTK(module, w_std=1.5, b_std=0.1)
    x, y, test = (torch.from_numpy(golden[name]) for name in ("X1", "Y1", "X2"))
    flow = dynamics(kernel, x, y)
    for t in (1.0, INF):
        for name, value in (("mean", flow.mean(t, test)), ("cov", flow.covariance(t, test))):
            expected = torch.from_numpy(golden[f"mse_ensemble/reg0.0/t{t}/ntk/{name}"])
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    assert not flow.mean(1.0, test).requires_grad
    # Both kernels in one call, and one at a time.
    apart = dynamics(kernel, x, y, prior=NNGP(module, w_std=1.5, b_std=0.1))
    torch.testing.assert_close(apart.covariance(1.0, test), flow.covariance(1.0, test))
    assert torch.equal(state, torch.get_rng_state())
    assert module.training and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_plots():
    import matplotlib as mpl

    mpl.use("agg")
    x, _, y = noisy_problem(0)
    test, clean, _ = noisy_problem(1)
    flow = dynamics(RBF(0.3), x, y)
    ax = flow.plot(x=test, y=clean)
    assert len(ax.lines) == 4 and ax.get_xlabel() == "time"
    assert len({line.get_color() for line in ax.lines}) == 2
    stop = flow.early_stopping(test, clean)
    assert stop.plot().lines[-1].get_xdata()[0] == stop.time
    ax = flow.learning_times().plot()
    assert ax.get_ylabel() == "time to fall by a factor e"
    ax = flow.predict(1.0, test).plot(position=test[:, 0])
    assert len(ax.lines[0].get_xdata()) == 60
    assert dynamics(RBF(), x, y, discrete=True).squared_error([1, 2]).plot().get_xlabel() == "steps"
    mpl.pyplot.close("all")


X, Y = torch.rand(5, 2), torch.rand(5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kernel": torch.eye(5)}, TypeError, "kernel.*Tensor"),
        ({"prior": 3}, TypeError, "prior"),
        ({"x": X[:, 0]}, ValueError, r"x.*\(5,\)"),
        ({"x": X[:0]}, ValueError, r"x.*\(0, 2\)"),
        ({"x": X / 0}, ValueError, "x.*infinite"),
        ({"y": Y[:4]}, ValueError, r"y.*\(5, outputs\).*\(4,\)"),
        ({"y": Y.long()}, TypeError, "y.*int64"),
        ({"y": Y.reshape(5, 1, 1)}, ValueError, "y"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate"),
        ({"momentum": 0.9}, ValueError, "momentum.*discrete"),
        ({"momentum": 1.0, "discrete": True}, ValueError, "momentum.*below 1"),
        ({"discrete": 1}, TypeError, "discrete"),
        ({"reduction": "none"}, ValueError, "reduction"),
        ({"ridge": -1.0}, ValueError, "ridge"),
        ({"ridge_unit": "trace"}, ValueError, "ridge_unit"),
        ({"target_noise": "noise"}, ValueError, "target_noise"),
        ({"target_noise": -1.0}, ValueError, "target_noise"),
        ({"kernel": Precomputed(-torch.eye(5)), "x": numbered(5)}, ValueError, "kernel.*semi"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        dynamics(**{"kernel": RBF(), "x": X, "y": Y, **changes})


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda m: m.mean(-1.0), ValueError, "t: .*-1"),
        (lambda m: m.mean(0.5), ValueError, "t: .*whole.*0.5"),
        (lambda m: m.mean(math.nan), ValueError, "t: "),
        (lambda m: m.mean("now"), TypeError, "t: .*str"),
        (lambda m: m.mean([]), ValueError, r"t: .*\(0,\)"),
        (lambda m: m.mean(1, X[:, :1].repeat(1, 3)[0]), ValueError, r"x: .*\(3,\)"),
        (lambda m: m.predict([1, 2]), ValueError, "t: .*2"),
        (lambda m: m.outputs(1, Y[:3]), ValueError, r"initial: .*\(5,\).*\(3,\)"),
        (lambda m: m.outputs(1, Y, X), ValueError, "initial_x"),
        (lambda m: m.squared_error(1, X), ValueError, "x, y"),
        (lambda m: m.squared_error(1, X, torch.rand(5, 2)), ValueError, r"y: .*\(5, 2\)"),
        (lambda m: m.early_stopping(), ValueError, "noise"),
        (lambda m: m.early_stopping(X, Y, noise=1.0), ValueError, "noise"),
        (lambda m: m.early_stopping(noise=-1.0), ValueError, "noise"),
        (lambda m: m.early_stopping(X, Y, of="all"), ValueError, "of"),
    ],
)
def test_bad_questions(ask, error, message):
    with pytest.raises(error, match=message):
        ask(dynamics(RBF(), X, Y, discrete=True, learning_rate=0.1))
