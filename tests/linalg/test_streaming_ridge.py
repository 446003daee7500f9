import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import mercer
from mercer.linalg import StreamingRidge

PAPER = "core-scalable-neural-network-kernels"
MOMENTS = ("feature_mean", "target_mean", "feature_scatter", "cross_scatter", "target_scatter")


def _data(n, p, q, *, offset=0.0, noise=0.3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(p, p, generator=g, dtype=torch.float64)
    z = torch.randn(n, p, generator=g, dtype=torch.float64) @ mix / p**0.5 + offset
    w = torch.randn(q, p, generator=g, dtype=torch.float64)
    y = (z - offset) @ w.mT + noise * torch.randn(n, q, generator=g, dtype=torch.float64) + 2.0
    return z.to(dtype), y.to(dtype)


def _stream(z, y, w=None, *, sizes=(7, 1, 40), **kwargs):
    ridge = StreamingRidge(z.shape[1], y.shape[1], **kwargs)
    start, turn = 0, 0
    while start < len(z):
        stop = start + sizes[turn % len(sizes)]
        ridge.update(z[start:stop], y[start:stop], None if w is None else w[start:stop])
        start, turn = stop, turn + 1
    return ridge


def _relative(got, expected):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return float((got - expected).norm() / expected.norm().clamp_min(1e-300))


def _gap(a, b):
    """Largest relative difference of two accumulators' moments."""
    return max(_relative(getattr(a, name), getattr(b, name)) for name in MOMENTS)


@pytest.mark.paper(
    PAPER, kind="exact", claim="the closed form over batches equals scikit-learn's Ridge to 1e-8"
)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("n", [400, 30])
def test_equals_sklearn_ridge(n, alpha, intercept, evidence):
    z, y = _data(n, 40, 5, offset=3.0)
    solution = _stream(z, y, intercept=intercept).solve(alpha)
    peer = Ridge(alpha=alpha, fit_intercept=intercept, solver="svd").fit(z.numpy(), y.numpy())
    weight = _relative(solution.weight, peer.coef_)
    bias = float(np.abs(solution.bias.numpy() - peer.intercept_).max())
    evidence(required="<= 1e-8", measured=weight, what="relative difference of the weights")
    assert weight <= 1e-8
    assert bias <= 1e-8
    scores = r2_score(y, peer.predict(z.numpy()), multioutput="raw_values")
    assert np.abs(solution.r2_train.numpy() - scores).max() <= 1e-9


def test_features_of_very_different_scales():
    z, y = _data(300, 12, 2)
    z = z * torch.logspace(-5, 5, 12, dtype=torch.float64)
    solution = _stream(z, y).solve(1.0)
    # Against 50 digits, Cholesky solvers are right to 1e-14 here and an SVD only to 1e-7.
    peer = Ridge(alpha=1.0, solver="cholesky").fit(z.numpy(), y.numpy())
    assert np.abs(solution.weight.numpy() / peer.coef_ - 1).max() <= 1e-12


def _brute_gcv(z, y, ridge, intercept):
    n = len(z)
    design = torch.cat([z, torch.ones(n, 1, dtype=z.dtype)], 1) if intercept else z
    penalty = ridge * torch.eye(design.shape[1], dtype=z.dtype)
    if intercept:
        penalty[-1, -1] = 0.0
    hat = design @ torch.linalg.solve(design.mT @ design + penalty, design.mT)  # (n, n)
    dof = float(hat.trace())
    return n * float((y - hat @ y).square().sum()) / (n - dof) ** 2, dof


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("n", [60, 15])
def test_gcv_equals_the_explicit_hat_matrix(n, intercept):
    z, y = _data(n, 20, 3, noise=1.0)
    stream = _stream(z, y, intercept=intercept)
    for ridge in (1e-2, 1.0, 30.0):
        solution = stream.solve(ridge)
        gcv, dof = _brute_gcv(z, y, ridge, intercept)
        assert solution.gcv == pytest.approx(gcv, rel=1e-9)
        assert solution.effective_dof == pytest.approx(dof, rel=1e-9)
        assert solution.gcv_path.tolist() == [solution.gcv]
        assert solution.ridges.tolist() == [ridge]


def test_gcv_choice_is_the_minimum_of_the_brute_force_curve():
    z, y = _data(60, 20, 3, noise=3.0)
    solution = _stream(z, y).solve()
    fine = np.logspace(np.log10(solution.ridge) - 1, np.log10(solution.ridge) + 1, 81)
    values = [_brute_gcv(z, y, ridge, True)[0] for ridge in fine]
    assert solution.gcv <= min(values) * (1 + 1e-9)
    assert solution.gcv == pytest.approx(min(values), rel=1e-4)
    assert len(solution.ridges) == len(solution.gcv_path) == 57
    assert solution.gcv <= float(solution.gcv_path.min())
    again = _stream(z, y).solve(solution.ridge)
    assert torch.equal(again.weight, solution.weight)


def test_order_and_size_of_batches_do_not_matter():
    z, y = _data(500, 10, 3, offset=5.0)
    order = torch.randperm(500)
    whole = StreamingRidge(10, 3).update(z, y)
    assert _gap(_stream(z[order], y[order], sizes=(1, 60, 9)), whole) <= 1e-12
    assert _gap(StreamingRidge(10, 3).update(z.view(5, 100, 10), y.view(5, 100, 3)), whole) == 0.0


def test_more_rows_and_columns_than_one_block():
    z, y = _data(9000, 400, 2, seed=3)
    stream = StreamingRidge(400, 2).update(z, y)
    dz, dy = z - z.mean(0), y - y.mean(0)
    assert _relative(stream.feature_scatter, dz.mT @ dz) <= 1e-13
    assert _relative(stream.cross_scatter, dz.mT @ dy) <= 1e-13
    assert torch.equal(stream.feature_scatter, stream.feature_scatter.mT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_offset_does_not_cancel(dtype):
    z, y = _data(600, 8, 2, offset=1e4, dtype=dtype)
    stream = _stream(z, y)
    centred = z.double() - z.double()[0]
    centred = centred - centred.mean(0)
    assert _relative(stream.feature_scatter, centred.mT @ centred) <= 1e-11
    assert _relative(stream.feature_mean, z.double().mean(0)) <= 1e-14
    solution = stream.solve(0.1)
    peer = Ridge(alpha=0.1, solver="svd").fit(centred.numpy(), y.double().numpy())
    assert _relative(solution.weight, peer.coef_) <= 1e-9


def test_bfloat16_is_read_exactly():
    z, y = _data(100, 4, 1)
    z, y = z.bfloat16(), y.bfloat16()
    assert _gap(_stream(z, y), _stream(z.double(), y.double())) == 0.0


def test_weights_are_repeats():
    z, y = _data(80, 6, 2, offset=2.0)
    w = torch.randint(0, 4, (80,))
    weighted = _stream(z, y, w)
    repeated = _stream(z.repeat_interleave(w, 0), y.repeat_interleave(w, 0))
    assert weighted.count == repeated.count == float(w.sum())
    assert _gap(weighted, repeated) <= 1e-12
    a, b = weighted.solve(), repeated.solve()
    assert a.gcv == pytest.approx(b.gcv, rel=1e-10)
    assert _relative(a.weight, b.weight) <= 1e-4  # the ridges agree to the search's tolerance
    peer = Ridge(alpha=2.0, solver="svd").fit(z.numpy(), y.numpy(), sample_weight=w.numpy())
    assert _relative(weighted.solve(2.0).weight, peer.coef_) <= 1e-9


def test_mask_leaves_rows_out_whatever_they_hold():
    z, y = _data(40, 3, 2)
    mask = torch.rand(40) < 0.5
    dirty = torch.where(mask[:, None], z, torch.nan)
    masked = StreamingRidge(3, 2).update(dirty.view(4, 10, 3), y.view(4, 10, 2), mask.view(4, 10))
    assert _gap(masked, StreamingRidge(3, 2).update(z[mask], y[mask])) <= 1e-13
    nothing = StreamingRidge(3, 2).update(z, y, torch.zeros(40))
    assert nothing.count == 0


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 10.0, -1e4]),
    seed=st.integers(0, 1000),
)
def test_merge_law(sizes, offset, seed):
    n = sum(sizes)
    z, y = _data(n, 4, 2, offset=offset, seed=seed)
    parts = [
        StreamingRidge(4, 2).update(a, b)
        for a, b in zip(z.split(sizes), y.split(sizes), strict=True)
    ]
    merged = StreamingRidge(4, 2)
    for part in parts:
        before = copy.deepcopy(part)
        assert merged.merge(part) is merged
        assert part.count == before.count
        assert torch.equal(part.feature_scatter, before.feature_scatter)
    direct = StreamingRidge(4, 2).update(z, y)
    assert merged.count == n
    scale = float(direct.feature_scatter.abs().max().clamp_min(1e-6))
    assert float((merged.feature_scatter - direct.feature_scatter).abs().max()) <= 1e-9 * scale
    assert torch.allclose(merged.cross_scatter, direct.cross_scatter, rtol=1e-9, atol=1e-9 * scale)
    assert torch.allclose(merged.feature_mean, direct.feature_mean, rtol=1e-12, atol=1e-12)
    backwards = copy.deepcopy(parts[-1])
    for part in reversed(parts[:-1]):
        backwards.merge(part)
    assert torch.allclose(
        backwards.feature_scatter, merged.feature_scatter, rtol=1e-9, atol=1e-9 * scale
    )


@pytest.mark.parametrize("kind", ["list", "tensor", "mask"])
def test_subset_equals_direct(kind):
    z, y = _data(200, 30, 4, offset=1.0)
    keep = torch.tensor([3, 1, 17, 29])
    if kind == "mask":
        keep = keep.sort().values
    given_ = {"list": keep.tolist(), "tensor": keep, "mask": torch.isin(torch.arange(30), keep)}
    part = _stream(z, y).subset(given_[kind])
    direct = _stream(z[:, keep], y)
    assert _gap(part, direct) <= 1e-13
    assert _relative(part.solve(0.5).weight, direct.solve(0.5).weight) <= 1e-12
    part.update(z[:, keep], y)  # it is an accumulator like any other
    assert part.count == 400


def test_from_moments():
    z, y = _data(100, 7, 3, offset=4.0)
    dz, dy = z - z.mean(0), y - y.mean(0)
    moments = {
        "count": 100,
        "feature_mean": z.mean(0),
        "target_mean": y.mean(0),
        "feature_scatter": dz.mT @ dz,
        "cross_scatter": dz.mT @ dy,
        "target_scatter": dy.square().sum(0),
    }
    made = StreamingRidge.from_moments(**moments)
    assert _relative(made.solve(1.0).weight, _stream(z, y).solve(1.0).weight) <= 1e-12
    before = moments["feature_scatter"].clone()
    made.update(z, y)
    assert torch.equal(moments["feature_scatter"], before)  # copied, not shared
    with pytest.raises(ValueError, match="symmetric"):
        StreamingRidge.from_moments(**{**moments, "feature_scatter": torch.rand(7, 7)})
    with pytest.raises(ValueError, match="cross_scatter"):
        StreamingRidge.from_moments(**{**moments, "cross_scatter": torch.rand(3, 7)})
    with pytest.raises(ValueError, match="target_scatter"):
        StreamingRidge.from_moments(**{**moments, "target_scatter": -torch.ones(3)})
    with pytest.raises(ValueError, match="count"):
        StreamingRidge.from_moments(**{**moments, "count": -1})


def test_score_on_held_out_moments():
    z, y = _data(300, 6, 3, offset=1e4)
    solution = _stream(z[:200], y[:200]).solve()
    held_out = _stream(z[200:], y[200:])
    prediction = z[200:] @ solution.weight.mT + solution.bias
    expected = r2_score(y[200:], prediction, multioutput="raw_values")
    assert np.abs(held_out.score(solution).numpy() - expected).max() <= 1e-9
    bad = (torch.randn(3, 6), None)  # another dtype, no bias
    expected = r2_score(y[200:], z[200:] @ bad[0].double().mT, multioutput="raw_values")
    assert np.abs(held_out.score(bad).numpy() / expected - 1).max() <= 1e-9


def test_score_near_one_does_not_cancel():
    z, y = _data(300, 6, 1, noise=1e-6)
    stream = _stream(z, y)
    solution = stream.solve(0.0)
    residual = (y - z @ solution.weight.mT - solution.bias).square().sum()
    total = (y - y.mean(0)).square().sum()
    assert 1 - stream.score(solution).item() == pytest.approx(float(residual / total), rel=1e-2)
    assert solution.gcv == pytest.approx(300 * float(residual) / (300 - 7) ** 2, rel=1e-2)


def test_singular_without_ridge_is_the_minimum_norm_solution():
    z, y = _data(50, 6, 2)
    z = torch.cat([z, z[:, :3], torch.ones(50, 1)], 1)  # duplicates and a constant
    solution = _stream(z, y).solve(0.0)
    dz, dy = z - z.mean(0), y - y.mean(0)
    expected = np.linalg.lstsq(dz.numpy(), dy.numpy(), rcond=1e-10)[0].T
    assert _relative(solution.weight, expected) <= 1e-10
    assert solution.effective_dof == pytest.approx(7.0)
    assert float(solution.weight[:, -1].abs().max()) == 0.0


def test_more_features_than_rows_interpolates():
    z, y = _data(20, 50, 2)
    stream = _stream(z, y)
    solution = stream.solve(0.0)
    assert torch.allclose(z @ solution.weight.mT + solution.bias, y, atol=1e-9)
    assert solution.gcv == float("inf")
    assert torch.allclose(solution.r2_train, torch.ones(2).double(), atol=1e-12)
    chosen = stream.solve()
    assert np.isfinite(chosen.gcv)
    assert chosen.gcv == pytest.approx(_brute_gcv(z, y, chosen.ridge, True)[0], rel=1e-5)


@pytest.mark.parametrize("ridge", ["gcv", 0.0, 1.0])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_constant_features(ridge, value):
    _, y = _data(20, 3, 2)
    solution = _stream(torch.full((20, 3), value).double(), y).solve(ridge)
    assert torch.equal(solution.weight, torch.zeros(2, 3).double())
    assert torch.allclose(solution.bias, y.mean(0), rtol=1e-12)
    assert solution.effective_dof == 1.0
    assert solution.r2_train.abs().max() <= 1e-14


def test_constant_targets_score_as_in_sklearn():
    z, _ = _data(20, 3, 1)
    y = torch.full((20, 1), 0.1).double()
    stream = _stream(z, y)
    assert stream.solve().r2_train.item() == 1.0
    assert stream.score((torch.zeros(1, 3), torch.ones(1))).item() == 0.0


@pytest.mark.parametrize("ridge", ["gcv", 0.0, 1.0])
def test_one_row(ridge):
    z, y = torch.randn(3), torch.randn(2)
    solution = StreamingRidge(3, 2).update(z, y).solve(ridge)
    assert torch.equal(solution.weight, torch.zeros(2, 3).double())
    assert torch.equal(solution.bias, y.double())
    assert solution.gcv == float("inf")


def test_state_resumes_with_the_same_bits():
    z, y = _data(100, 5, 2)
    straight = StreamingRidge(5, 2).update(z[:60], y[:60])
    resumed = StreamingRidge(5, 2)
    resumed.load_state_dict(straight.state_dict())
    for ridge in (straight, resumed):
        ridge.update(z[60:], y[60:])
    assert all(torch.equal(getattr(straight, k), getattr(resumed, k)) for k in MOMENTS)
    assert torch.equal(straight.solve().weight, resumed.solve().weight)
    thawed = pickle.loads(pickle.dumps(straight))
    assert torch.equal(thawed.solve().weight, straight.solve().weight)
    state = straight.state_dict()
    with pytest.raises(ValueError, match="state"):
        resumed.load_state_dict({k: v for k, v in state.items() if k != "count"})
    with pytest.raises(ValueError, match="feature_mean"):
        StreamingRidge(6, 2).load_state_dict(state)


def test_a_refused_batch_leaves_nothing_behind():
    z, y = _data(5000, 3, 1)
    stream = StreamingRidge(3, 1)
    z[4999, 0] = torch.inf
    with pytest.raises(ValueError, match="features: 1 of 15000"):
        stream.update(z, y)
    assert stream.count == 0


def test_large_float32_sums_are_not_taken_for_infinity():
    z, y = torch.full((10, 2), 3e38), torch.zeros(10, 1)
    z[0] = 0
    scatter = StreamingRidge(2, 1).update(z, y).feature_scatter
    assert torch.allclose(
        scatter, torch.full((2, 2), 0.9 * float(z[1, 0]) ** 2, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "num_features", lambda s, z, y: StreamingRidge(0, 1)),
        (TypeError, "num_outputs", lambda s, z, y: StreamingRidge(1, 1.5)),
        (ValueError, "features", lambda s, z, y: s.update(z[:, :2], y)),
        (ValueError, "features", lambda s, z, y: s.update(torch.full_like(z, torch.nan), y)),
        (TypeError, "features", lambda s, z, y: s.update(z.long(), y)),
        (TypeError, "features", lambda s, z, y: s.update(z.numpy(), y)),
        (ValueError, "targets", lambda s, z, y: s.update(z, y[:, :1])),
        (ValueError, "targets", lambda s, z, y: s.update(z, y[:5])),
        (ValueError, "targets", lambda s, z, y: s.update(z, torch.full_like(y, torch.inf))),
        (ValueError, "weights", lambda s, z, y: s.update(z, y, -torch.ones(10))),
        (ValueError, "weights", lambda s, z, y: s.update(z, y, torch.ones(9))),
        (ValueError, "weights", lambda s, z, y: s.update(z, y, torch.full((10,), torch.nan))),
        (TypeError, "weights", lambda s, z, y: s.update(z, y, [1.0] * 10)),
        (ValueError, "update", lambda s, z, y: s.solve()),
        (ValueError, "update", lambda s, z, y: s.score((torch.zeros(2, 3), None))),
        (ValueError, "ridge", lambda s, z, y: s.update(z, y).solve(-1.0)),
        (ValueError, "ridge", lambda s, z, y: s.update(z, y).solve("loo")),
        (TypeError, "ridge", lambda s, z, y: s.update(z, y).solve(None)),
        (ValueError, "weight", lambda s, z, y: s.update(z, y).score((torch.zeros(3, 2), None))),
        (ValueError, "bias", lambda s, z, y: s.update(z, y).score((y[:2, :1] @ z[:1], y))),
        (ValueError, "indices", lambda s, z, y: s.subset([])),
        (ValueError, "indices", lambda s, z, y: s.subset([3])),
        (ValueError, "indices", lambda s, z, y: s.subset([-1])),
        (TypeError, "indices", lambda s, z, y: s.subset([0.5])),
        (ValueError, "indices", lambda s, z, y: s.subset(torch.ones(2, dtype=torch.bool))),
        (ValueError, "other", lambda s, z, y: s.merge(StreamingRidge(4, 2))),
        (TypeError, "other", lambda s, z, y: s.merge(z)),
    ],
)
def test_errors(error, match, call):
    z, y = _data(10, 3, 2)
    with pytest.raises(error, match=match):
        call(StreamingRidge(3, 2), z, y)


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="of 3000 features"),
    ):
        StreamingRidge(3000, 1)
