import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import chebyshev_iteration, conjugate_gradient, largest_eigenvalue
from mercer.linalg.chebyshev import steps_for


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _with_spectrum(values, seed=0):
    q = torch.linalg.qr(_randn(len(values), len(values), seed=seed)).Q
    return (q * values) @ q.mT


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 30), r=st.integers(1, 3), seed=st.integers(0, 1000))
def test_equals_the_direct_solution(n, r, seed):
    a, b = _with_spectrum(torch.linspace(0.2, 3, n).double(), seed), _randn(n, r, seed=seed + 1)
    found = chebyshev_iteration(lambda v: a @ v, b, smallest=0.2, largest=3.0, tolerance=1e-12)
    assert found.converged
    assert torch.allclose(found.solution, torch.linalg.solve(a, b), atol=1e-10)
    left = (b - a @ found.solution).norm(dim=0) / b.norm(dim=0)
    assert torch.allclose(found.residual, left, atol=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_residual_is_the_chebyshev_polynomial(steps):
    values = torch.linspace(0.5, 4.0, 50).double()
    b = _randn(50)
    found = chebyshev_iteration(
        lambda v: values.unsqueeze(-1) * v,
        b,
        smallest=0.5,
        largest=4.0,
        tolerance=1e-12,
        max_iterations=steps,
    )

    def polynomial(x):
        return torch.special.chebyshev_polynomial_t(x, torch.tensor(steps))

    shape = polynomial((2.25 - values) / 1.75) / polynomial(torch.tensor(2.25 / 1.75).double())
    assert found.iterations == steps and not found.converged
    assert torch.allclose(b - values * found.solution, shape * b, atol=1e-12)
    assert float(found.residual) <= 1 / float(polynomial(torch.tensor(2.25 / 1.75).double()))


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(1e-14, 0.9), low=st.floats(1e-6, 0.9))
def test_steps_are_the_fewest_that_do(gain, low):
    def bound(k):
        return 1 / math.cosh(k * math.acosh((1 + low) / (1 - low)))

    k = steps_for(gain, low, 1.0)
    assert bound(k) <= gain * (1 + 1e-6)
    assert k == 1 or bound(k - 1) >= gain * (1 - 1e-6)


def test_takes_more_steps_than_conjugate_gradients_and_no_inner_products():
    k = torch.exp(-8 * torch.cdist(_randn(200, 3), _randn(200, 3)).square())
    a = k @ k.mT + 0.05 * torch.eye(200)
    top, b = largest_eigenvalue(lambda v: a @ v, 200, generator=0), _randn(200, 2)
    products = []

    def matvec(v):
        products.append(v.shape)
        return a @ v

    found = chebyshev_iteration(matvec, b, smallest=0.05, largest=top)
    other = conjugate_gradient(lambda v: a @ v, b)
    assert found.converged and found.iterations >= other.iterations
    assert torch.allclose(found.solution, other.solution, atol=1e-6)
    # As many as the bound says, in one go: a step is a product.
    assert found.iterations == steps_for(0.8 * 2**-26, 0.05, top) == len(products)


def test_start_zero_right_hand_sides_and_equal_bounds():
    values = torch.linspace(1, 5, 40).double()
    b = _randn(40, 2)
    b[:, 1] = 0.0
    options = {"smallest": 1.0, "largest": 5.0}
    whole = chebyshev_iteration(lambda v: values.unsqueeze(-1) * v, b, **options)
    assert torch.equal(whole.solution[:, 1], torch.zeros(40).double()) and whole.converged
    again = chebyshev_iteration(
        lambda v: values.unsqueeze(-1) * v, b, start=whole.solution, **options
    )
    assert again.iterations == 0 and torch.equal(again.solution, whole.solution)
    same = chebyshev_iteration(lambda v: 3 * v, b, smallest=3.0, largest=3.0)
    assert same.iterations == 1 and torch.allclose(same.solution, b / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_in_is_dtype_out(dtype):
    values = torch.linspace(1, 5, 40, dtype=dtype)
    b = _randn(40).to(dtype)
    found = chebyshev_iteration(lambda v: values.unsqueeze(-1) * v, b, smallest=1.0, largest=5.0)
    assert found.solution.dtype == dtype and found.converged and found.residual.shape == ()
    assert torch.allclose(
        found.solution, b / values, rtol=0, atol=5 * torch.finfo(dtype).eps ** 0.5
    )


def test_wrong_bounds_are_named_or_slow():
    values, b = torch.linspace(1, 5, 40).double(), _randn(40)
    with pytest.raises(ValueError, match=r"smallest, largest: .*above the interval"):
        chebyshev_iteration(lambda v: values.unsqueeze(-1) * v, b, smallest=1.0, largest=3.0)
    slow = chebyshev_iteration(
        lambda v: values.unsqueeze(-1) * v, b, smallest=2.0, largest=5.0, max_iterations=2000
    )
    right = chebyshev_iteration(lambda v: values.unsqueeze(-1) * v, b, smallest=1.0, largest=5.0)
    assert slow.iterations > right.iterations
    assert float(slow.residual) < 1


B = torch.ones(3)
BOUNDS = {"smallest": 1.0, "largest": 2.0}


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (TypeError, "matvec", (torch.eye(3), B), {}),
        (TypeError, "rhs", (torch.clone, [1.0]), {}),
        (ValueError, "rhs: 1 of 3", (torch.clone, torch.tensor([1.0, math.nan, 0.0])), {}),
        (ValueError, r"matvec: .*\(3, 1\).*\(2, 1\)", (lambda v: v[1:], B), {}),
        (ValueError, "matvec: 1 of 1", (lambda v: v * math.nan, B), {"start": B}),
        (ValueError, r"start: .*\(3,\).*\(4,\)", (torch.clone, B), {"start": torch.ones(4)}),
        (ValueError, "smallest", (torch.clone, B), {"smallest": 0.0}),
        (ValueError, "largest", (torch.clone, B), {"largest": 0.5}),
        (ValueError, "tolerance", (torch.clone, B), {"tolerance": 0.0}),
        (ValueError, "max_iterations", (torch.clone, B), {"max_iterations": 0}),
    ],
)
def test_errors(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        chebyshev_iteration(*args, **{**BOUNDS, **kwargs})


def test_memory_budget():
    with mercer.config.override(memory_budget="1 MiB"), pytest.raises(MemoryError, match="fewer"):
        chebyshev_iteration(torch.clone, torch.ones(1000, 50), **BOUNDS)
