"""Other libraries' answers; `make peers` installs them and runs these tests."""

import pytest
import torch

from mercer.linalg import pivoted_cholesky

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("rank", [1, 5, 20])
@pytest.mark.parametrize("lengthscale", [0.3, 1.5])
def test_pivoted_cholesky_of_linear_operator(rank, lengthscale):
    import linear_operator

    x = torch.randn(60, 3, dtype=torch.float64)
    squares = (x[:, None] - x).square().sum(-1)
    matrix = torch.exp(-squares / (2 * lengthscale**2)) * (1 + 0.1 * torch.arange(60)).sqrt()
    matrix = matrix * (1 + 0.1 * torch.arange(60)).sqrt()[:, None]  # no two variances the same
    theirs, order = linear_operator.pivoted_cholesky(
        linear_operator.to_linear_operator(matrix), rank=rank, error_tol=0.0, return_pivots=True
    )
    ours = pivoted_cholesky(matrix, rank=rank)
    assert ours.pivots.tolist() == order[:rank].tolist()
    torch.testing.assert_close(ours.factor, theirs, rtol=1e-10, atol=1e-10)
