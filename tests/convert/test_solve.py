import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F

from mercer.cli.train_mlp import train_mlp, untrained_mlp
from mercer.convert import load, solve
from mercer.datasets import digits
from mercer.features import ArcCosineFeatures, NeuronFeatures, UniversalFeatures
from tests.convert.models import DRAW, chain, inputs, numbers, same, snapshot

PAPER = "core-scalable-neural-network-kernels"
KINDS = {
    "neuron": NeuronFeatures,
    "universal": UniversalFeatures,
    "arc_cosine": ArcCosineFeatures,
}


def targets_of(x: torch.Tensor) -> torch.Tensor:
    """Three smooth functions of the inputs, with noise."""
    return torch.sin(x @ inputs(5, 3, seed=8)) + 0.1 * inputs(len(x), 3, seed=9)


def features_of(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """What reaches the last layer."""
    return model[:-1](x).detach()


class TestLeastSquares:
    @pytest.mark.paper(
        PAPER,
        kind="exact",
        claim="The fully bundled network solved in closed form equals scikit-learn's Ridge on the "
        "same features to 1e-8",
    )
    @pytest.mark.parametrize("targets", ["classes", "numbers"])
    @pytest.mark.parametrize("hidden", [(12,), (12, 10)])
    def test_equals_ridge(self, hidden, targets, evidence):
        net, x = chain(5, *hidden, 3), inputs(500, 5)
        y = targets_of(x)
        y = y.argmax(1) if targets == "classes" else y
        solved = solve(net, x, y, generator=0)
        z = features_of(solved.model, x)
        full = F.one_hot(y, 3).double() if targets == "classes" else y
        expected = Ridge(solved.ridge, solver="cholesky").fit(z, full)
        gap = np.abs(solved.model(x).detach().numpy() - expected.predict(z)).max()
        evidence(required="<= 1e-8", measured=float(gap))
        assert gap <= 1e-8
        assert solved.r2_train > 0.2  # not the mean alone
        np.testing.assert_allclose(
            solved.model[-1].weight.detach(), expected.coef_, rtol=0, atol=1e-8
        )

    @pytest.mark.parametrize("projection", DRAW)
    @pytest.mark.parametrize("features", KINDS)
    @pytest.mark.parametrize("ridge", [0.3, "gcv"])
    def test_whatever_the_features(self, features, projection, ridge):
        net, x, y = chain(5, 6, 3), 0.2 * inputs(300, 5), targets_of(inputs(300, 5))
        solved = solve(net, x, y, ridge, features=features, projection=projection, generator=0)
        assert isinstance(solved.model[0], KINDS[features])
        assert solved.model[0].draw == projection
        assert solved.model[0].num_features == 24
        z = features_of(solved.model, x)
        expected = Ridge(solved.ridge, solver="cholesky").fit(z, y)
        np.testing.assert_allclose(solved.model(x).detach(), expected.predict(z), rtol=0, atol=1e-8)
        assert solved.r2_train == pytest.approx(expected.score(z, y), abs=1e-9)
        if ridge != "gcv":
            assert solved.ridge == ridge

    def test_gcv_and_degrees_of_freedom(self):
        x = inputs(80, 5)
        y = targets_of(x)
        solved = solve(chain(5, 6, 3), x, y, generator=0)
        z = features_of(solved.model, x)
        z = z - z.mean(0)

        def criterion(ridge: float) -> tuple[float, float]:
            hat = z @ torch.linalg.solve(
                z.mT @ z + ridge * torch.eye(24, dtype=torch.float64), z.mT
            )
            residual = (y - y.mean(0)) - hat @ y
            dof = 1 + float(hat.trace())
            return 80 * float(residual.square().sum()) / (80 - dof) ** 2, dof

        value, dof = criterion(solved.ridge)
        assert solved.gcv == pytest.approx(value, rel=1e-9)
        assert solved.effective_dof == pytest.approx(dof, rel=1e-9)
        assert all(criterion(solved.ridge * factor)[0] >= value for factor in (0.8, 1.25))

    def test_many_rows_are_streamed(self):
        net, x, y = chain(3, 4, 2), inputs(5000, 3), inputs(5000, 2, seed=9)
        solved = solve(net, x, y, 0.1, generator=0)
        z = features_of(solved.model, x)
        expected = Ridge(0.1, solver="cholesky").fit(z, y)
        np.testing.assert_allclose(solved.model[-1].weight.detach(), expected.coef_, atol=1e-8)

    def test_a_model_finds_itself(self):
        """Targets from a network whose neurons are kept: nothing is left to explain."""
        net, x = chain(5, 8, 6, 3), inputs(300, 5)
        solved = solve(net, x, net(x).detach(), 0.0, projection="own")
        torch.testing.assert_close(solved.model(x), net(x), rtol=0, atol=1e-9)
        assert solved.r2_train == pytest.approx(1, abs=1e-12)

    def test_own_neurons_are_a_refit_of_the_last_layer(self):
        net, x, y = chain(5, 8, 6, 3), inputs(300, 5), inputs(300, 3, seed=9)
        solved = solve(net, x, y, 0.2, projection="own")
        z = net[:-1](x).detach()
        torch.testing.assert_close(features_of(solved.model, x), z)
        expected = Ridge(0.2, solver="cholesky").fit(z, y)
        np.testing.assert_allclose(solved.model[-1].weight.detach(), expected.coef_, atol=1e-8)
        np.testing.assert_allclose(solved.model[-1].bias.detach(), expected.intercept_, atol=1e-8)


class TestTargets:
    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
    def test_classes_are_one_hot(self, dtype):
        net, x, y = chain(5, 8, 4), inputs(100, 5), torch.arange(100) % 3  # class 3 is missing
        by_class = solve(net, x, y.to(dtype), generator=0)
        by_number = solve(net, x, F.one_hot(y, 4).double(), generator=0)
        assert same(by_class.model.state_dict(), by_number.model.state_dict())
        assert float(by_class.model(x)[:, 3].detach().abs().max()) < 1e-9

    def test_one_number_a_row(self):
        net, x, y = chain(5, 8, 1), inputs(100, 5), inputs(100, seed=9)
        flat, column = (solve(net, x, each, generator=0) for each in (y, y.unsqueeze(1)))
        assert same(flat.model.state_dict(), column.model.state_dict())
        assert flat.model(x).shape == (100, 1)

    def test_they_may_have_another_dtype(self):
        net, x, y = chain(5, 8, 1), inputs(100, 5), inputs(100, seed=9)
        assert solve(net, x, y.float(), generator=0).model(x).dtype == torch.float64


class TestManners:
    def test_the_model_stays(self, global_state_unchanged):
        with torch.random.fork_rng():
            net = chain(5, 8, 6, 3).train()
        before, modules = snapshot(net), list(net.modules())
        solve(net, inputs(60, 5), torch.arange(60) % 3, generator=0)
        assert same(before, net.state_dict())
        assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
        assert all(module.training for module in net.modules())

    def test_generator(self):
        def run(generator) -> dict[str, torch.Tensor]:
            net, x = chain(5, 8, 3), inputs(60, 5)
            return solve(net, x, torch.arange(60) % 3, generator=generator).model[0].state_dict()

        torch.manual_seed(1)
        default = run(None)
        torch.manual_seed(1)
        assert same(run(None), default)
        assert same(run(3), run(torch.Generator().manual_seed(3)))
        assert not same(run(3), run(4))

    @pytest.mark.parametrize("features", KINDS)
    def test_counts(self, features):
        x, y = 0.2 * inputs(60, 5), torch.arange(60) % 3
        solved = solve(chain(5, 8, 3), x, y, features=features, num_features=20, generator=0)
        assert solved.num_solved == 20 * 3 + 3
        assert solved.num_stored == numbers(solved.model)
        assert solved.model[0].num_features == 20

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_dtype_and_mode(self, dtype):
        net = chain(5, 8, 6, 3, dtype=dtype)
        solved = solve(net, inputs(60, 5).to(dtype), torch.arange(60) % 3, generator=0)
        assert {p.dtype for p in solved.model.parameters()} == {dtype}
        assert solved.model(inputs(4, 5).to(dtype)).dtype == dtype
        assert not any(module.training for module in solved.model.modules())

    @pytest.mark.parametrize("features", KINDS)
    def test_reloads(self, features, tmp_path):
        x, y = 0.2 * inputs(60, 5), torch.arange(60) % 3
        solved = solve(chain(5, 8, 6, 3), x, y, features=features, generator=0)
        solved.save_pretrained(tmp_path / "saved")
        assert torch.equal(load(tmp_path / "saved")(x), solved.model(x))

    def test_compiles(self):
        torch.compiler.reset()
        solved = solve(chain(5, 8, 3), inputs(60, 5), torch.arange(60) % 3, generator=0)
        compiled = torch.compile(solved.model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(inputs(7, 5)), solved.model(inputs(7, 5)))
        torch.compiler.reset()

    def test_images_and_dropout(self):
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)
        )
        x = inputs(60, 3, 4).float()
        solved = solve(net, x, torch.arange(60) % 2, generator=0)
        assert solved.model(x).shape == (60, 2)

    def test_a_model_of_ones_own(self):
        class MLP(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Linear(5, 8).double(), nn.Linear(8, 2).double()
                self.act = nn.GELU()

            def forward(self, x):
                return self.two(self.act(self.one(x)))

        x, y = inputs(60, 5), inputs(60, 2, seed=9)
        solved = solve(MLP(), x, y, 0.1, generator=0)
        z = solved.model.one(x)
        expected = Ridge(0.1, solver="cholesky").fit(z, y)
        np.testing.assert_allclose(solved.model.two.weight.detach(), expected.coef_, atol=1e-8)


def shared_activation():
    act = nn.ReLU()
    return nn.Sequential(nn.Linear(5, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.act = nn.Linear(5, 8), nn.Linear(8, 5), nn.ReLU()

    def forward(self, x):
        return x + self.two(self.act(self.one(x)))


class TestRefuses:
    @pytest.mark.parametrize(
        "net",
        [
            nn.Linear(5, 3),
            nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)),
            nn.Sequential(nn.Linear(5, 8), nn.ReLU()),
            nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), nn.Sigmoid()),
            nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1)),
            nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)),
            nn.Sequential(
                nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)
            ),
            shared_activation(),
            Residual(),
            nn.Sequential(nn.Tanh()),
        ],
    )
    def test_what_is_no_chain(self, net):
        with pytest.raises(ValueError, match="model: expected a chain"):
            solve(net, inputs(20, 5).float(), torch.arange(20) % 3)

    @pytest.mark.parametrize(
        ("changes", "error", "match"),
        [
            ({"y": torch.arange(20) % 4}, ValueError, "y: expected classes from 0 to 2"),
            ({"y": torch.arange(20) % 3 - 1}, ValueError, "y: expected classes from 0 to 2"),
            ({"y": torch.arange(19) % 3}, ValueError, r"y: expected shape \(20,\)"),
            ({"y": torch.ones(20, 3, 1)}, ValueError, r"y: expected shape \(20,\)"),
            ({"y": torch.ones(20, 2)}, ValueError, "y: the model has 3 outputs"),
            ({"y": torch.ones(20)}, ValueError, "y: the model has 3 outputs"),
            ({"y": torch.ones(20, 3).long()}, ValueError, "y: expected classes of shape"),
            ({"y": torch.ones(20) > 0}, ValueError, "y: expected classes of shape"),
            ({"y": torch.full((20, 3), torch.nan)}, ValueError, "y: 60 of 60"),
            ({"y": [0] * 20}, TypeError, "y: expected a torch.Tensor"),
            ({"X": torch.full((20, 5), torch.inf)}, ValueError, "X: 100 of 100"),
            ({"X": torch.ones(0, 5)}, ValueError, "X: expected shape"),
            ({"X": torch.ones(20)}, ValueError, "X: expected shape"),
            ({"X": torch.ones(20, 5).long()}, TypeError, "X: expected a floating-point"),
            ({"X": np.ones((20, 5))}, TypeError, "X: expected a torch.Tensor"),
            ({"model": "net"}, TypeError, "model: expected a torch.nn.Module"),
            ({"ridge": -1.0}, ValueError, "ridge"),
            ({"ridge": "loo"}, ValueError, "ridge: expected a number >= 0 or 'gcv'"),
            ({"features": "fourier"}, ValueError, "features: expected one of"),
            ({"projection": "leverage"}, ValueError, "projection: expected one of"),
            ({"projection": "own", "num_features": 4}, ValueError, "projection: 'own'"),
            ({"projection": "own", "features": "universal"}, ValueError, "projection: 'own'"),
            ({"num_features": 0}, ValueError, "num_features"),
            ({"num_features": 2.0}, TypeError, "num_features"),
            ({"num_features": 7, "features": "universal"}, ValueError, "num_features: .*even"),
            ({"generator": "seed"}, TypeError, "generator"),
        ],
    )
    def test_bad_input(self, changes, error, match):
        given = {
            "model": chain(5, 8, 3).float(),
            "X": torch.randn(20, 5),
            "y": torch.arange(20) % 3,
        }
        with pytest.raises(error, match=match):
            solve(**{**given, **changes})

    def test_compiled_models(self):
        net = torch.compile(chain(5, 8, 3), backend="eager")
        with pytest.raises(ValueError, match="model: it is compiled"):
            solve(net, inputs(20, 5), torch.arange(20) % 3)


@pytest.mark.paper(
    PAPER,
    kind="behaviour",
    claim="Digits: the fully bundled network, solved without a gradient step, is within 1.5 points "
    "of the same network trained by Adam",
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_without_a_gradient_step(seed, evidence):
    split = digits(random_state=seed)
    net = untrained_mlp(64, 10, seed)
    solved = solve(net, split.train.x, split.train.y, generator=seed)
    trained = train_mlp(net, split.train.x, split.train.y, seed)

    def accuracy(model: nn.Module) -> float:
        with torch.no_grad():
            return 100 * float((model(split.test.x).argmax(1) == split.test.y).double().mean())

    closed, adam = accuracy(solved.model), accuracy(trained)
    evidence(required="Adam's - 1.5", measured=f"{closed:.2f}", what=f"accuracy; Adam {adam:.2f}")
    assert closed >= adam - 1.5
    assert adam > 95  # the comparison is with a network that learned
