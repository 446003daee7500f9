import numpy as np
import pytest
import torch

import mercer
from mercer.linalg import StreamingMoments


def test_equals_numpy_cov_with_weights():
    z, y = torch.randn(90, 4).double() + 1e3, torch.randn(90, 2).double() - 50
    w = torch.rand(90).double()
    moments = StreamingMoments(4, 2)
    for rows in torch.arange(90).split(32):
        moments.update(z[rows], y[rows], w[rows])
    both = torch.cat([z, y], 1).numpy()
    cov = torch.from_numpy(np.cov(both.T, aweights=w.numpy(), ddof=0)) * w.sum()
    mean = torch.from_numpy(np.average(both, axis=0, weights=w.numpy()))
    assert moments.count == pytest.approx(float(w.sum()), rel=1e-14)
    assert torch.allclose(torch.cat([moments.feature_mean, moments.target_mean]), mean, rtol=1e-13)
    assert torch.allclose(moments.feature_scatter, cov[:4, :4], rtol=1e-10, atol=1e-10)
    assert torch.allclose(moments.cross_scatter, cov[:4, 4:], rtol=1e-10, atol=1e-10)
    assert torch.allclose(moments.target_scatter, cov.diagonal()[4:], rtol=1e-10)


def test_constant_columns_are_exactly_zero():
    z = torch.full((50, 1), 0.1, dtype=torch.float64)
    moments = StreamingMoments(1, 1)
    for size in (7, 20, 23):
        moments.update(z[:size], z[:size], torch.rand(size).double())
    assert moments.feature_scatter.item() == moments.target_scatter.item() == 0.0
    assert moments.feature_mean.item() == 0.1


def test_one_row_without_leading_axes():
    moments = StreamingMoments(3, 1).update(torch.arange(3.0), torch.ones(1), torch.tensor(2))
    assert moments.count == 2.0
    assert moments.feature_mean.tolist() == [0.0, 1.0, 2.0]
    assert float(moments.feature_scatter.abs().max()) == 0.0


def test_no_rows_change_nothing():
    moments = StreamingMoments(3, 1).update(torch.zeros(0, 3), torch.zeros(0, 1))
    assert moments.count == 0.0
    assert moments.merge(StreamingMoments(3, 1)).count == 0.0


def test_gradients_do_not_pass():
    z = torch.randn(5, 3, requires_grad=True)
    moments = StreamingMoments(3, 3).update(z, z)
    assert not moments.feature_scatter.requires_grad


def test_errors():
    with pytest.raises(TypeError, match="other"):
        StreamingMoments(3, 1).merge(None)
    with pytest.raises(ValueError, match="num_features"):
        StreamingMoments(-1, 1)
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="second moments of 3000 features"),
    ):
        StreamingMoments(3000, 1)


def test_moments_of_combinations_are_those_of_combined_rows():
    source = torch.Generator().manual_seed(0)
    z = torch.randn(700, 9, generator=source, dtype=torch.float64) + 5.0
    y = torch.randn(700, 2, generator=source, dtype=torch.float64)
    w = torch.rand(700, generator=source, dtype=torch.float64)
    matrix = torch.randn(9, 4, generator=source, dtype=torch.float64)
    found = StreamingMoments(9, 2).update(z, y, w).transformed(matrix)
    exact = StreamingMoments(4, 2).update(z @ matrix, y, w)
    assert found.num_features == 4 and found.count == exact.count
    for name in ("feature_mean", "target_mean", "feature_scatter", "cross_scatter"):
        torch.testing.assert_close(getattr(found, name), getattr(exact, name))
    torch.testing.assert_close(found.target_scatter, exact.target_scatter)
    found.update(z[:5] @ matrix, y[:5])  # and more rows may follow
    with pytest.raises(ValueError, match=r"^matrix: expected shape \(9, r\), got \(4, 9\)"):
        StreamingMoments(9, 2).transformed(matrix.mT)


@pytest.mark.parametrize("size", [7, 400, 600])  # one panel, and several
@pytest.mark.parametrize("threads", [1, 2])
def test_panels_are_the_whole(size, threads):
    source = torch.Generator().manual_seed(0)
    z = torch.randn(1000, size, generator=source, dtype=torch.float64)
    y = torch.randn(1000, 3, generator=source, dtype=torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        moments = StreamingMoments(size, 3).update(z[:300], y[:300]).update(z[300:], y[300:])
    finally:
        torch.set_num_threads(before)
    a, b = z - z.mean(0), y - y.mean(0)
    torch.testing.assert_close(moments.feature_scatter, a.mT @ a, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(moments.cross_scatter, a.mT @ b, rtol=1e-11, atol=1e-10)
