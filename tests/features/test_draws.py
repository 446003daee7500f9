import math

import pytest
import scipy.stats
import torch
from torch.quasirandom import SobolEngine

from mercer.features import DenseProjection, make_projection

KINDS = ["gaussian", "orthogonal", "sobol", "hadamard", "fastfood"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_features", [8, 11])
def test_rows_have_mean_zero_and_unit_covariance(kind, in_features):
    # Many projections, each with two blocks and a remainder; the mean over projections is what
    # is tested, so that dependence between the rows of one of them does not matter.
    count, num_rows = 400, 2 * in_features + 3
    rows = torch.stack(
        [make_projection(kind, num_rows, in_features, generator=s).rows() for s in range(count)]
    )  # (s, m, d)
    per_draw_mean = rows.mean(1)  # (s, d)
    standard_error = per_draw_mean.std(0) / math.sqrt(count)
    # 4.5 standard errors: about 7e-6 per coordinate. Sobol means are nearly deterministic.
    assert (per_draw_mean.mean(0).abs() <= 4.5 * standard_error + 1e-3).all()
    second = rows.mT @ rows / num_rows  # (s, d, d)
    error = (second.mean(0) - torch.eye(in_features)).abs()
    tolerance = 4.5 * second.std(0) / math.sqrt(count)
    slack = 0.05 if kind == "sobol" else 1e-9  # 19 points of a net are a biased quadrature of z^2
    assert (error <= tolerance + slack).all()


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal", "sobol"])
def test_each_row_is_gaussian(kind):
    # First coordinates and lengths, one row per projection, against their exact laws.
    rows = torch.stack([make_projection(kind, 5, 6, generator=s).rows()[3] for s in range(800)])
    assert scipy.stats.kstest(rows[:, 0], "norm").pvalue > 1e-3
    assert scipy.stats.kstest(rows.square().sum(-1), "chi2", args=(6,)).pvalue > 1e-3


def test_haar_signs():
    # Without the sign fix the first entry of LAPACK's Q would be one-sided.
    first = torch.stack(
        [make_projection("orthogonal", 3, 3, generator=s).rows()[0, 0] for s in range(500)]
    )
    assert abs(int((first > 0).sum()) - 250) < 4.5 * math.sqrt(500) / 2


@pytest.mark.parametrize("num_rows", [5, 16, 40])
def test_orthogonal_within_blocks(num_rows):
    rows = make_projection("orthogonal", num_rows, 16, generator=1, dtype=torch.float64).rows()
    for block in rows.split(16):
        unit = block / block.norm(dim=-1, keepdim=True)
        assert (unit @ unit.mT - torch.eye(len(unit))).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal", "sobol"])
def test_dense_lengths_are_left_alone(kind, global_state_unchanged):
    projection = make_projection(kind, 7, 3, generator=0)
    assert torch.equal(projection.draw_lengths(), torch.ones(7).double())
    assert torch.equal(projection.squared_lengths(), projection.rows().square().sum(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_leaves_the_global_state(kind, global_state_unchanged):
    first = make_projection(kind, 20, 5, generator=3)
    again = make_projection(kind, 20, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first.rows(), again.rows())
    first.draw_lengths(1)
    first.reset_parameters(4)
    assert not torch.equal(first.rows(), again.rows())
    first.reset_parameters(3)
    assert torch.equal(first.rows(), again.rows())
    first(torch.ones(5))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_generator_the_global_seed_decides(kind):
    rows = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        rows.append(make_projection(kind, 20, 5).rows())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_not_the_data_of_the_same_seed(kind):
    data = torch.randn(20, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows = make_projection(kind, 20, 50, generator=3).rows()
    cosine = torch.nn.functional.cosine_similarity(data[:, None], rows[None], dim=-1)
    assert cosine.abs().max() < 0.6  # 4 standard deviations are 0.57


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_means_the_same_numbers_for_every_dtype(kind):
    double = make_projection(kind, 20, 5, generator=3, dtype=torch.float64)
    single = make_projection(kind, 20, 5, generator=3, dtype=torch.float32)
    half = make_projection(kind, 20, 5, generator=3, dtype=torch.bfloat16)
    assert torch.equal(double.rows(torch.float32), single.rows(torch.float32))
    assert torch.equal(double.rows(torch.bfloat16), half.rows(torch.bfloat16))


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_sobol_points_do_not_depend_on_the_default_dtype(default):
    expected = make_projection("sobol", 4, 2, generator=0, dtype=torch.float64).rows()
    torch.set_default_dtype(default)
    try:
        rows = make_projection("sobol", 4, 2, generator=0, dtype=torch.float64).rows()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(rows, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_meta_then_reset_equals_direct(kind, global_state_unchanged):
    meta = make_projection(kind, 20, 5, device="meta")
    assert all(t.is_meta for t in meta.state_dict().values())
    assert meta(torch.empty(4, 5, device="meta")).shape == (4, 20)
    with pytest.raises(RuntimeError, match="meta device"):
        meta(torch.ones(4, 5))
    meta.to_empty(device="cpu").reset_parameters(7)
    assert torch.equal(meta.rows(), make_projection(kind, 20, 5, generator=7).rows())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
def test_any_leading_dimensions(kind, batch):
    projection = make_projection(kind, 9, 5, dtype=torch.float64)
    x = torch.randn(*batch, 5, dtype=torch.float64)
    assert projection(x).shape == (*batch, 9)
    assert torch.allclose(projection(x), x @ projection.rows().mT, atol=1e-12)
    assert projection(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_exports_and_differentiates(kind):
    projection = make_projection(kind, 20, 5, dtype=torch.float64)
    x = torch.randn(3, 5, dtype=torch.float64)
    compiled = torch.compile(projection, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), projection(x), atol=1e-12)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(projection, (x,), dynamic_shapes=({0: batch},))
    x = torch.randn(7, 5, dtype=torch.float64)
    assert torch.allclose(exported.module()(x), projection(x), atol=1e-12)
    jacobian = torch.func.jacfwd(projection)(x[0])
    assert torch.allclose(jacobian, projection.rows(), atol=1e-12)


@pytest.mark.parametrize(
    ("error", "call", "match"),
    [
        (ValueError, lambda: make_projection("sorf", 3, 2), "kind.*'sorf'"),
        (ValueError, lambda: make_projection("gaussian", 0, 2), "num_rows.*0"),
        (ValueError, lambda: make_projection("hadamard", 3, 0), "in_features.*0"),
        (TypeError, lambda: make_projection("gaussian", 3.0, 2), "num_rows.*float"),
        (ValueError, lambda: make_projection("sobol", 2, SobolEngine.MAXDIM + 1), "in_features"),
        (TypeError, lambda: make_projection("gaussian", 3, 2, generator="1"), "generator.*str"),
        (ValueError, lambda: DenseProjection("hadamard", 3, 2), "kind.*'hadamard'"),
        (ValueError, lambda: make_projection("gaussian", 3, 2)(torch.ones(4, 3)), r"x.*\(4, 3\)"),
        (ValueError, lambda: make_projection("hadamard", 3, 2)(torch.ones(3)), r"x.*\(3,\)"),
    ],
)
def test_bad_input(error, call, match):
    with pytest.raises(error, match=match):
        call()
