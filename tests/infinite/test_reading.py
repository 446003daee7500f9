"""What `explain` says of a module, and what image kernels are good for elsewhere."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import NTK, NoRuleError, explain, supported
from tests.infinite.rule_networks import Net


def images() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 1),
    )


def test_every_step_is_a_row():
    net = images()
    net[0].bias.requires_grad_(False)  # pyright: ignore
    found = explain(net, torch.zeros(1, 2, 3, 4))
    assert found.supported and found.problems == ()
    assert [(r.name, r.kind) for r in found.rows] == [
        ("0", "Conv2d"),
        ("1", "ReLU"),
        ("2", "AdaptiveAvgPool2d"),
        ("3", "Flatten"),
        ("4", "Linear"),
    ]
    assert [(r.trained, r.frozen) for r in found.rows] == [(64, 8), (0, 0), (0, 0), (0, 0), (9, 0)]
    # 3 x 4 positions of each of two images, then 2 x 3, then 3, then none.
    assert [r.numbers for r in found.rows] == [144, 36, 9, 1, 1]
    assert "closed form" in found.rows[1].cost and "2 channels" in found.rows[0].cost
    flat = nn.Sequential(net[0], net[1], nn.Flatten(), nn.Linear(48, 1))
    assert [r.numbers for r in explain(flat, torch.zeros(1, 2, 3, 4)).rows] == [12, 6, 1, 1]


def test_all_problems_are_seen_at_once():
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 2),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(8, 4),
        nn.Softmax(1),
    )
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    found = explain(net, torch.zeros(1, 2, 4, 4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [r.name for r in found.problems] == ["1", "3", "5", "8"]
    assert not found.supported
    text = str(found)
    assert text.count("NO RULE") == 4 and "4 steps without a rule" in text
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(NoRuleError, match=r"^1 \(BatchNorm2d\)"):
        NTK(net, example=torch.zeros(1, 2, 4, 4))


def test_problems_that_are_no_steps():
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    (row,) = explain(nn.Sequential(nn.Linear(3, 3), Branches())).problems
    assert "the forward of '1' cannot be traced" in row.problem
    left = explain(nn.Sequential(nn.Conv2d(2, 8, 2), nn.ReLU()), torch.zeros(1, 2, 3, 3))
    assert "has positions left" in left.problems[-1].problem
    recurrent = Net(
        lambda m, x: m.head(F.relu(m.dense(m.cell(x)[0])).mean(1)),
        cell=nn.LSTM(3, 8, batch_first=True),
        dense=nn.Linear(8, 8),
        head=nn.Linear(8, 1),
    )
    assert [r.name for r in explain(recurrent, torch.zeros(1, 4, 3)).problems] == ["cell"]


def test_what_is_listed_has_a_rule():
    names = supported()
    assert names == sorted(names) and len(names) == len(set(names))
    for name in ("Linear", "Conv2d", "LayerNorm", "GELU", "relu", "flatten", "SelfAttention"):
        assert name in names
    assert "BatchNorm1d" not in names and "MaxPool2d" not in names


def test_matrices_of_images():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(12, 2, 3, 3, generator=source, dtype=torch.float64)
    v = torch.randn(12, 2, generator=source, dtype=torch.float64)
    k = NTK(images(), example=x).requires_grad_(False)
    gram, whole = k.gram(x), k(x)
    torch.testing.assert_close(gram @ v, whole @ v, rtol=1e-12, atol=1e-12)
    exact = torch.linalg.solve(whole + 0.1 * torch.eye(12, dtype=torch.float64), v)
    solved = gram.solve(v, ridge=0.1).solution
    torch.testing.assert_close(solved, exact, rtol=1e-8, atol=1e-8)


def test_features_of_flat_images():
    """Maps take vectors: the network unfolds them itself."""
    x = torch.randn(12, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = nn.Sequential(nn.Unflatten(1, (2, 3, 3)), images())
    k = NTK(net, example=x).requires_grad_(False)
    z = k.features(12, like=x)(x)
    torch.testing.assert_close(z @ z.mT, k(x), rtol=1e-6, atol=1e-6)
