"""Input checks: each error names the argument and what came."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mercer._core.checks import (
    check_choice,
    check_finite,
    check_generator,
    check_int,
    check_last_dim,
    check_materialized,
    check_real,
    check_tensor,
)


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(2)])
def test_integers_pass(value):
    checked = check_int("rank", value)
    assert checked == value and type(checked) is int


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (True, TypeError, "rank: expected an integer, got bool True"),
        (2.0, TypeError, "rank: expected an integer, got float 2.0"),
        ("2", TypeError, "rank: expected an integer, got str '2'"),
        (None, TypeError, "rank: expected an integer, got NoneType None"),
        (0, ValueError, "rank: expected an integer >= 1, got 0"),
        (-4, ValueError, "rank: expected an integer >= 1, got -4"),
    ],
)
def test_other_integers_do_not(value, error, message):
    with pytest.raises(error) as caught:
        check_int("rank", value)
    assert str(caught.value) == message


def test_least_integer():
    assert check_int("seed", 0, least=0) == 0
    with pytest.raises(ValueError, match="seed: expected an integer >= 3, got 2"):
        check_int("seed", 2, least=3)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), Fraction(1, 2)])
def test_numbers_pass(value):
    checked = check_real("ridge", value, above=0, most=1)
    assert checked == float(value) and type(checked) is float


@pytest.mark.parametrize(
    ("value", "bounds", "error", "message"),
    [
        ("x", {}, TypeError, "ridge: expected a number, got str 'x'"),
        (True, {}, TypeError, "ridge: expected a number, got bool True"),
        (1j, {}, TypeError, "ridge: expected a number, got complex 1j"),
        (float("nan"), {}, ValueError, "ridge: expected a number that is finite, got nan"),
        (float("inf"), {"least": 0}, ValueError, "finite and >= 0, got inf"),
        (0.0, {"above": 0}, ValueError, "finite and > 0, got 0.0"),
        (-1, {"least": 0}, ValueError, "finite and >= 0, got -1"),
        (1.5, {"above": 0, "most": 1}, ValueError, "finite and > 0 and <= 1, got 1.5"),
    ],
)
def test_other_numbers_do_not(value, bounds, error, message):
    with pytest.raises(error) as caught:
        check_real("ridge", value, **bounds)
    assert str(caught.value).startswith("ridge: ") and message in str(caught.value)


def test_bounds_are_inclusive_where_they_say_so():
    assert check_real("keep", 0, least=0) == 0.0
    assert check_real("keep", 1, most=1) == 1.0


def test_choices():
    assert check_choice("draw", "sobol", {"sobol", "gaussian"}) == "sobol"
    with pytest.raises(ValueError) as caught:
        check_choice("draw", "halton", {"sobol", "gaussian"})
    assert str(caught.value) == "draw: expected one of ['gaussian', 'sobol'], got 'halton'"
    with pytest.raises(TypeError, match=r"draw: expected one of \['sobol'\], got int"):
        check_choice("draw", 3, {"sobol"})


def test_tensors():
    x = torch.zeros(2, 3)
    assert check_tensor("x", x, ndim=2) is x
    with pytest.raises(TypeError, match=r"x: expected a torch\.Tensor, got ndarray"):
        check_tensor("x", np.zeros(3))
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch\.int64"):
        check_tensor("x", torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"got torch\.complex64"):
        check_tensor("x", torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"x: expected 1 axes, got shape \(2, 3\)"):
        check_tensor("x", x, ndim=1)


def test_last_dim():
    check_last_dim("x", torch.zeros(4, 2, 3), 3)
    with pytest.raises(ValueError, match=r"x: expected shape \(\.\.\., 5\), got \(2, 3\)"):
        check_last_dim("x", torch.zeros(2, 3), 5)
    with pytest.raises(ValueError, match=r"x: expected shape \(\.\.\., 1\), got \(\)"):
        check_last_dim("x", torch.tensor(1.0), 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite(dtype):
    x = torch.zeros(2, 3, dtype=dtype)
    check_finite("x", x)
    x[0, 1], x[1, 2] = float("nan"), float("-inf")
    with pytest.raises(ValueError) as caught:
        check_finite("x", x)
    assert str(caught.value) == "x: 2 of 6 entries are NaN or infinite, shape (2, 3)"


def test_finite_leaves_meta_and_empty_tensors_alone():
    check_finite("x", torch.zeros(3, device="meta"))
    check_finite("x", torch.zeros(0, 3))


def test_generator(global_state_unchanged):
    assert check_generator(None) is None
    generator = torch.Generator()
    assert check_generator(generator) is generator
    ours, plain = check_generator(5), torch.Generator().manual_seed(5)
    assert torch.equal(torch.rand(4, generator=ours), torch.rand(4, generator=plain))
    assert check_generator(np.int32(5)).initial_seed() == 5
    for value in (True, 1.0, "5"):
        with pytest.raises(TypeError, match=r"generator: expected a torch\.Generator, an integer"):
            check_generator(value)


def test_materialized():
    real, meta = torch.zeros(2), torch.zeros(2, device="meta")
    check_materialized("SNNK", real, real)
    check_materialized("SNNK", meta, meta)
    with pytest.raises(RuntimeError, match=r"SNNK: built on the meta device .* to_empty"):
        check_materialized("SNNK", meta, real)
