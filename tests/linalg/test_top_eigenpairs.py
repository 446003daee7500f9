import pytest
import torch

from mercer.kernels import RBF, Matern
from mercer.linalg import top_eigenpairs


def _matrix(kernel, n=500):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).double()
    k = kernel.requires_grad_(False)(x)
    k = k - k.mean(0)
    return k - k.mean(1, keepdim=True)


@pytest.mark.parametrize("kernel", [RBF(0.3), RBF(1.0), RBF(4.0), Matern(2.0, nu=0.5)])
@pytest.mark.parametrize("k", [1, 6, 25])
def test_are_those_of_the_whole_decomposition(kernel, k):
    a = _matrix(kernel)
    values, vectors = torch.linalg.eigh(a)
    found = top_eigenpairs(lambda v: a @ v, len(a), k, generator=0)
    assert found.converged
    scale = values[-1]
    assert (found.eigenvalues - values.flip(0)[:k]).abs().max() <= 1e-12 * scale
    residual = a @ found.eigenvectors - found.eigenvectors * found.eigenvalues
    torch.testing.assert_close(residual.norm(dim=0), found.residuals, rtol=0, atol=1e-12 * scale)
    assert residual.norm(dim=0).max() <= 1.01e-10 * scale
    gram = found.eigenvectors.mT @ found.eigenvectors
    assert (gram - torch.eye(k).double()).abs().max() <= 1e-12
    # Simple eigenvalues have one vector each, up to the sign that is fixed.
    overlap = (found.eigenvectors[:, :1].mT @ vectors.flip(1)[:, :1]).abs()
    assert float(1 - overlap) <= 1e-12
    largest = found.eigenvectors.abs().argmax(0, keepdim=True)
    assert (found.eigenvectors.gather(0, largest) > 0).all()


def test_needs_fewer_products_than_powers_do():
    a = _matrix(RBF(0.5))
    found = top_eigenpairs(lambda v: a @ v, len(a), 5, generator=0)
    v = torch.linalg.qr(torch.randn(len(a), 13, generator=torch.Generator().manual_seed(1))).Q
    v, products = v.double(), 0
    while True:
        v = torch.linalg.qr(a @ v).Q
        products += 13
        values, turn = torch.linalg.eigh(v.mT @ a @ v)
        top = (v @ turn).flip(1)[:, :5]
        if (a @ top - top * values.flip(0)[:5]).norm(dim=0).max() <= 1e-10 * values[-1]:
            break
    assert found.converged and found.products <= products / 2


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        (torch.eye(50).double(), torch.ones(5).double()),
        (torch.zeros(50, 50).double(), torch.zeros(5).double()),
        (
            torch.diag(torch.tensor([9.0, 9, 9, 4, 4, 4, 1])).double(),
            torch.tensor([9.0, 9, 9, 4, 4]),
        ),
        (-torch.diag(torch.arange(1.0, 61)).double(), -torch.arange(1.0, 6)),
    ],
    ids=["identity", "zero", "multiple", "negative"],
)
def test_special_matrices(a, expected):
    found = top_eigenpairs(lambda v: a @ v, len(a), 5, generator=0)
    assert found.converged
    torch.testing.assert_close(found.eigenvalues, expected.double(), rtol=1e-12, atol=1e-12)


def test_all_of_a_small_matrix():
    a = _matrix(RBF(1.0), 12)
    found = top_eigenpairs(lambda v: a @ v, 12, 12, generator=0)
    expected = torch.linalg.eigvalsh(a).flip(0)
    torch.testing.assert_close(found.eigenvalues, expected, rtol=0, atol=1e-13)
    one = top_eigenpairs(lambda v: 3 * v, 1, 1)
    assert one.eigenvalues.item() == 3 and one.eigenvectors.item() == 1


def test_a_limit_of_products_and_a_start(global_state_unchanged):
    a = _matrix(RBF(0.3))
    seen = []

    def matvec(v):
        seen.append(v.shape[1])
        return a @ v

    cut = top_eigenpairs(matvec, len(a), 5, max_products=40, generator=0)
    assert not cut.converged and cut.products == sum(seen) == 40
    whole = top_eigenpairs(matvec, len(a), 5, generator=0)
    again = top_eigenpairs(matvec, len(a), 5, generator=0, start=whole.eigenvectors)
    assert again.converged and again.products <= whole.products / 10
    twin = top_eigenpairs(matvec, len(a), 5, generator=0)
    assert torch.equal(whole.eigenvectors, twin.eigenvectors)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, "matvec: expected a callable", {"matvec": 3}),
        (ValueError, "k: expected at most the size 4", {"k": 5}),
        (ValueError, "k: expected an integer", {"k": 0}),
        (ValueError, "tolerance", {"tolerance": 0.0}),
        (ValueError, "max_products", {"max_products": 0}),
        (ValueError, r"start: expected shape \(4, c\)", {"start": torch.ones(3, 1)}),
        (ValueError, r"matvec: expected a tensor of shape", {"matvec": lambda v: v[:2]}),
        (ValueError, r"matvec: .*got NoneType", {"matvec": lambda v: None}),
        (ValueError, r"matvec\(v\): .* NaN", {"matvec": lambda v: v * torch.nan}),
    ],
)
def test_refuses(error, match, changes):
    arguments = {"matvec": lambda v: v, "n": 4, "k": 2} | changes
    with pytest.raises(error, match=match):
        top_eigenpairs(**arguments)
