"""Gram: products, parts, gradients, solutions, memory."""

import re
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer._core.config import resident_memory
from mercer.kernels import (
    RBF,
    Cosine,
    CosineSimilarity,
    Kernel,
    Laplacian,
    Matern,
    Periodic,
    Polynomial,
    Precomputed,
    SpectralMixture,
    White,
)

ISSUE = "core-scalable-neural-network-kernels"
KERNELS = [
    RBF(0.9),
    Matern(1.3, nu=0.5),
    Laplacian(2.0),
    2.0 * RBF([1.0, 2.0, 0.5]) + White(0.3) + Periodic(period=3.0) * Polynomial(2),
    SpectralMixture([1.0, 0.5], means=[[0.1, 0.2, 0.0], [0.3, 0.0, 0.1]], scales=[[0.1] * 3] * 2),
    Cosine(4.0) + CosineSimilarity(),
]


def points(n, d=3, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_tiles(monkeypatch, side=64):
    """Let a few hundred points make many tiles."""
    for module in ("dense", "gram_product"):
        monkeypatch.setattr(f"mercer.kernels.{module}.tile_side", lambda *_: side)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("symmetric", [True, False])
def test_product_and_gradients_are_those_of_the_matrix(kernel, symmetric, monkeypatch):
    small_tiles(monkeypatch)
    x = points(300).requires_grad_()
    y = None if symmetric else points(170, seed=1).requires_grad_()
    v = points(300 if symmetric else 170, 4, seed=2).requires_grad_()
    weight = points(300, 4, seed=3)
    inputs = [x, v, *kernel.parameters(), *([] if y is None else [y])]
    found, plain = kernel.gram(x, y) @ v, kernel._naive(x, y) @ v
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-11)
    grads = torch.autograd.grad((found * weight).sum(), inputs, allow_unused=True)
    expected = torch.autograd.grad((plain * weight).sum(), inputs, allow_unused=True)
    for a, b in zip(grads, expected, strict=True):
        # White has no part in a matrix between two sets: its gradient may come as zero.
        b = torch.zeros_like(a) if b is None else b
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * float(b.abs().max()) + 1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 1200),
    st.integers(1, 1200),
    st.integers(0, 3),
    st.sampled_from([torch.float64, torch.float32]),
    st.booleans(),
)
def test_any_size(n, m, r, dtype, symmetric):
    kernel: Kernel = RBF(1.1).requires_grad_(False)
    x, y = points(n, dtype=dtype), None if symmetric else points(m, seed=1, dtype=dtype)
    v = points(n if symmetric else m, max(r, 1), seed=2, dtype=dtype)[:, :r]
    gram = kernel.gram(x, y)
    product = gram @ v
    assert product.shape == (n, r) and product.dtype == dtype
    tolerance = 1e-11 if dtype == torch.float64 else 2e-3
    exact = kernel(x.double(), x.double() if y is None else y.double()) @ v.double()
    torch.testing.assert_close(product.double(), exact, rtol=0, atol=tolerance)


def test_parts(monkeypatch):
    small_tiles(monkeypatch)
    kernel = (RBF(0.9) + White(0.5)).requires_grad_(False)
    x, y = points(200), points(120, seed=1)
    for gram in (kernel.gram(x), kernel.gram(x, y), kernel.gram(x, y).mT):
        whole = gram.to_dense()
        n, m = gram.shape
        close = {"rtol": 0, "atol": 1e-13}
        torch.testing.assert_close(gram.diagonal(), whole.diagonal(), **close)
        for index in (slice(3, 90, 7), slice(None), slice(0, 0), torch.tensor([5, 0, -1, 5])):
            rows = torch.arange(n)[index] if isinstance(index, slice) else index
            columns = torch.arange(m)[index] if isinstance(index, slice) else index
            torch.testing.assert_close(gram.rows(index), whole[rows], **close)
            torch.testing.assert_close(gram.columns(index), whole[:, columns], **close)
        v = points(m, 2, seed=5)
        torch.testing.assert_close(gram @ v[:, 0], whole @ v[:, 0])
        u = points(n, 2, seed=6)
        torch.testing.assert_close(u[:, 0] @ gram, u[:, 0] @ whole)
        torch.testing.assert_close(u.mT @ gram, u.mT @ whole)
        assert gram.mT.shape == (m, n)
    assert "shape=(200, 200)" in repr(kernel.gram(x))


def test_the_same_bits_for_any_number_of_threads():
    x, v = points(1500, 5), points(1500, 3, seed=1)
    kernel = Matern().requires_grad_(False)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((kernel.gram(x) @ v, kernel(x)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for product, whole in found[1:]:
        assert torch.equal(product, found[0][0]) and torch.equal(whole, found[0][1])


def test_only_vectors_are_differentiated(monkeypatch):
    small_tiles(monkeypatch)
    kernel = RBF().requires_grad_(False)
    x, y, v = points(150), points(130, seed=1), points(130, 2, seed=2).requires_grad_()
    (found,) = torch.autograd.grad((kernel.gram(x, y) @ v).square().sum(), v)
    k = kernel(x, y)
    torch.testing.assert_close(found, 2 * k.mT @ (k @ v.detach()))


def test_half_precision_is_computed_in_single():
    kernel = RBF().requires_grad_(False)
    x, v = points(600).bfloat16(), points(600, 2, seed=1).bfloat16()
    exact = kernel(x.double()) @ v.double()
    found = kernel.gram(x) @ v
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=0.05)


@pytest.mark.parametrize("method", ["cholesky", "cg", None])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_solve(method, lead):
    kernel = RBF(1.5).requires_grad_(False)
    x, b = points(400), points(400, 3, seed=1)
    b = b if lead else b[:, 0]
    found = kernel.gram(x).solve(b, ridge=1e-2, method=method, tolerance=1e-10)
    exact = torch.linalg.solve(kernel(x) + 1e-2 * torch.eye(400, dtype=torch.float64), b)
    assert found.converged and found.solution.shape == b.shape
    torch.testing.assert_close(found.solution, exact, rtol=1e-5, atol=1e-5)
    assert found.residual.shape == lead and float(found.residual.max()) <= 1e-10


def test_solve_resumes_where_it_stopped():
    kernel = Matern(nu=0.5).requires_grad_(False)
    x, b = points(400), points(400, 1, seed=1)
    options: dict[str, Any] = {"ridge": 1e-3, "method": "cg", "preconditioner_rank": 20}
    cut = kernel.gram(x).solve(b, max_iterations=5, **options)
    assert not cut.converged and cut.iterations == 5
    rest = kernel.gram(x).solve(b, start=cut.solution, **options)
    whole = kernel.gram(x).solve(b, **options)
    assert rest.converged and rest.iterations < whole.iterations + 5
    torch.testing.assert_close(rest.solution, whole.solution, rtol=1e-5, atol=1e-6)


def test_precomputed_and_numbers_of_items():
    a = points(30, 4)
    kernel = Precomputed(a @ a.mT)
    index = torch.arange(30, dtype=torch.float64)
    v = points(30, 2, seed=1)
    torch.testing.assert_close(kernel.gram(index) @ v, a @ (a.mT @ v))
    torch.testing.assert_close(kernel.gram(index[:5], index).to_dense(), (a @ a.mT)[:5])


def test_interrupted_work_leaves_the_threads_usable(monkeypatch):
    small_tiles(monkeypatch)
    from mercer.kernels import tiles

    kernel, x = RBF().requires_grad_(False), points(400)
    calls = 0
    fill = tiles.SquaredDistances.fill

    def broken(self: Any, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        fill(self, *args)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with monkeypatch.context() as patch:
            patch.setattr(tiles.SquaredDistances, "fill", broken)
            with pytest.raises(KeyboardInterrupt):
                kernel.gram(x) @ x
        torch.testing.assert_close(kernel.gram(x) @ x, kernel._naive(x, None) @ x)
    finally:
        torch.set_num_threads(before)


def test_a_dense_matrix_asks_the_budget():
    x = points(20_000, 2)
    kernel = RBF().requires_grad_(False)
    with (
        mercer.config.override(memory_budget="1 GiB"),
        pytest.raises(MemoryError, match=r"\(20000, 20000\).*2\.98 GiB.*kernel\.gram"),
    ):
        kernel(x)
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match=r"\(20000, 20000\).*fewer vectors"),
    ):
        kernel.gram(x) @ x


_MEMORY = """
import sys, torch, mercer
from mercer.kernels import RBF
n, backward = int(sys.argv[1]), sys.argv[2] == "backward"
torch.set_num_threads(2)
g = torch.Generator().manual_seed(0)
x = torch.randn(n, 8, generator=g, dtype=torch.float64)
v = torch.randn(n, 4, generator=g, dtype=torch.float64)
mercer.config.memory_budget = sys.argv[3]
kernel = RBF(2.0)
if backward:
    x.requires_grad_(); v.requires_grad_()
out = kernel.gram(x) @ v
if backward:
    out.square().sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in (x, v, kernel.raw_lengthscale))
# Not ru_maxrss, which a new process inherits from the one that started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.parametrize(
    ("n", "mode"),
    [
        (4_000, "forward"),
        (12_000, "forward"),
        (6_000, "backward"),
        pytest.param(40_000, "forward", marks=pytest.mark.slow),
        pytest.param(12_000, "backward", marks=pytest.mark.slow),
        pytest.param(24_000, "backward", marks=pytest.mark.slow),
    ],
)
@pytest.mark.paper(ISSUE, "exact", "resident memory stays under the budget, gradients included")
def test_resident_memory_stays_under_the_budget(n, mode, evidence):
    if sys.platform != "linux":
        pytest.skip("the peak is read from /proc")
    budget = 640 * 2**20  # torch itself takes half of it; the matrix of 12,000 would need 1.1 GB
    command = [sys.executable, "-W", "error", "-c", _MEMORY, str(n), mode, str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout)
    evidence(required=f"<= {budget}", measured=peak, what=f"{mode}, {n} points, bytes")
    assert peak <= budget


def test_errors_name_the_shapes():
    kernel, x = RBF(), points(10)
    gram = kernel.gram(x)
    with pytest.raises(ValueError, match=re.escape("v: expected shape (10,) or (10, r)")):
        gram @ points(9)
    with pytest.raises(ValueError, match=r"^v: expected torch.float64"):
        gram @ points(10, dtype=torch.float32)
    with pytest.raises(TypeError, match=r"^v: expected a torch.Tensor"):
        gram @ [1.0] * 10


def test_second_derivatives_are_refused_where_they_would_be_forgotten():
    x = points(30).requires_grad_()
    kernel, v = RBF(), torch.ones(30, dtype=torch.float64)
    # With another way from x to the gradient, autograd would leave ours out and say nothing.
    total = (kernel.gram(x) @ v).square().sum() + (x**3).sum()
    (g,) = torch.autograd.grad(total, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(g.sum(), x)


@pytest.mark.parametrize("symmetric", [True, False])
def test_second_derivatives_with_respect_to_vectors(symmetric):
    x, y = points(30), None if symmetric else points(20, seed=1)
    kernel = RBF().requires_grad_(False)
    matrix = kernel(x, y)
    v = torch.ones(matrix.shape[1], dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad((kernel.gram(x, y) @ v).square().sum(), v, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), v)
    assert (h - 2 * matrix.mT @ matrix.sum(1)).abs().max() < 1e-10


def test_gradients_of_half_precision_hyperparameters_are_added_in_single(monkeypatch):
    monkeypatch.setattr("mercer.kernels.gram_product.tile_side", lambda *_: 16)
    x = points(1000, dtype=torch.float32)
    kernel = Polynomial(1, offset=2.0).to(torch.bfloat16)
    total = (kernel.gram(x, x[:400]) @ torch.ones(400)).sum()
    (g,) = torch.autograd.grad(total, kernel.raw_offset)  # type: ignore[attr-defined]
    # d / d log c of the sum of x.y + c; sums of 1,575 tiles in bfloat16 lose a percent.
    assert abs(g.item() / (2.0 * 1000 * 400) - 1) < 2**-8


def test_threads_share_a_kernel():
    kernel, twin, x = RBF(0.7), RBF(0.7), points(600)
    total = twin(x).sum() + (twin.gram(x) @ x).sum()
    (goal,) = torch.autograd.grad(total, twin.raw_lengthscale)
    found, failures = [], []

    def run():
        try:
            for _ in range(5):
                total = kernel(x).sum() + (kernel.gram(x) @ x).sum()
                found.append(torch.autograd.grad(total, kernel.raw_lengthscale)[0])
        except RuntimeError as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert isinstance(kernel.raw_lengthscale, torch.nn.Parameter)
    assert len(found) == 20
    assert all((g - goal).abs() < 1e-9 * goal.abs() for g in found)


def test_batches_and_gradients_ask_the_budget():
    x = points(3000)
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**26),
        pytest.raises(MemoryError, match=r"kernel matrices of shape \(2, 3000, 3000\)"),
    ):
        RBF()(x.expand(2, 3000, 3))
    matrix = RBF()(x)
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**27),
        pytest.raises(MemoryError, match="gradient of a kernel matrix"),
    ):
        matrix.sum().backward()


def test_gradients_of_a_matrix_are_exact_under_autocast():
    x = points(300, dtype=torch.float32).requires_grad_()
    (expected,) = torch.autograd.grad(RBF()(x).square().sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = torch.autograd.grad(RBF()(x).square().sum(), x)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
