"""Inner loops that are compiled where there is a compiler, and eager where there is none."""

import logging
import shutil

import pytest
import torch

import mercer
from mercer.kernels import Laplacian, compiled, laplacian


@pytest.fixture
def always(monkeypatch):
    """Compile whatever the size, and forget what other tests have found."""
    monkeypatch.setattr(compiled, "_LEAST_WORK", 0.0)
    monkeypatch.setattr(compiled, "_failed", False)
    caches = compiled.compiler, compiled._compiled
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()
    torch.compiler.reset()


def points(n, d):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_is_eager(always, caplog, threads):
    kernel, x, v = Laplacian(30.0).requires_grad_(False), points(1100, 40), points(1100, 3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with caplog.at_level(logging.INFO, logger="mercer.kernels"):
            found = kernel.gram(x) @ v, kernel(x)
            kernel.gram(x[:1000]) @ v[:1000]
    finally:
        torch.set_num_threads(before)
    assert len(caplog.records) == 1 and "are compiled with" in caplog.text  # said once
    with mercer.config.override(compile=False):
        expected = kernel.gram(x) @ v, kernel(x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13 * float(b.abs().max()))


def test_no_compiler_is_said_once(always, caplog, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    kernel, x = Laplacian().requires_grad_(False), points(200, 3)
    with caplog.at_level(logging.INFO, logger="mercer.kernels"):
        for _ in range(3):
            torch.testing.assert_close(kernel(x), kernel._naive(x, None))
    assert [r.message for r in caplog.records] == [
        "no C++ compiler found: Laplacian matrices are computed by eager torch"
    ]


def test_a_broken_compiler_is_said_once_and_not_used(always, caplog, monkeypatch):
    def broken(function):
        raise RuntimeError("the compiler has no headers")

    monkeypatch.setattr(compiled, "_compiled", broken)
    monkeypatch.setattr(compiled, "compiler", lambda: "g++")
    kernel, x = Laplacian().requires_grad_(False), points(700, 3)
    with caplog.at_level(logging.WARNING, logger="mercer.kernels"):
        torch.testing.assert_close(kernel(x), kernel._naive(x, None))
    assert len(caplog.records) == 1 and "the compiler has no headers" in caplog.text


def test_it_can_be_turned_off(always):
    with mercer.config.override(compile=False):
        loop = compiled.inner_loop(laplacian.laplacian_tile, 1e20, torch.device("cpu"))
    assert loop is laplacian.laplacian_tile
    with pytest.raises(TypeError, match=r"^compile: expected True or False"):
        mercer.config.compile = 1  # type: ignore[assignment]
