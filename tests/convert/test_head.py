"""Bundled heads: pooler, activation and classifier as frozen features and one matrix."""

import copy
import math
from typing import Any

import pytest
import sklearn.datasets
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.convert import bundle_head, load
from mercer.features import CounterGenerator, FeatureMap, NeuronFeatures, UniversalFeatures
from tests.convert.models import (
    DISTILBERT,
    IMAGES,
    SIZES,
    inputs,
    same,
    snapshot,
    tokens,
    transformer,
)

PAPER = "core-scalable-neural-network-kernels"
BART = {
    **{"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32},
    **{"vocab_size": 40, "max_position_embeddings": 16, "init_std": 0.3},
    **{"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
}
LONGER = {**SIZES, "max_position_embeddings": 20}
# Class, config, and the names of first layer, activation module (or None) and second layer.
HEADS: list[tuple[str, dict[str, Any], str, str | None, str]] = [
    *(
        (f"{kind}ForSequenceClassification", *rest)
        for kind, *rest in [
            ("Bert", SIZES, "bert.pooler.dense", "bert.pooler.activation", "classifier"),
            (
                "Albert",
                {**SIZES, "embedding_size": 16},
                *("albert.pooler", "albert.pooler_activation", "classifier"),
            ),
            (
                "Electra",
                {**SIZES, "embedding_size": 16},
                *("classifier.dense", "classifier.activation", "classifier.out_proj"),
            ),
            ("Roberta", LONGER, "classifier.dense", None, "classifier.out_proj"),
            ("XLMRoberta", LONGER, "classifier.dense", None, "classifier.out_proj"),
            ("MPNet", LONGER, "classifier.dense", None, "classifier.out_proj"),
            ("DistilBert", DISTILBERT, "pre_classifier", None, "classifier"),
            (
                "DebertaV2",
                {**SIZES, "pooler_hidden_size": 16},
                *("pooler.dense", None, "classifier"),
            ),
            ("Bart", BART, "classification_head.dense", None, "classification_head.out_proj"),
        ]
    ),
]
IDS = [kind.removesuffix("ForSequenceClassification") for kind, *_ in HEADS]
every_head = pytest.mark.parametrize(
    ("kind", "config", "first", "activation", "second"), HEADS, ids=IDS
)


def classifier(kind: str, config: dict[str, Any], **options: Any) -> Any:
    torch.manual_seed(3)
    model = transformer(kind, config, num_labels=3, **options).double().eval()
    for name, parameter in model.named_parameters():  # a head that saturates, as trained ones do
        if "pool" in name or "classifi" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def batch_for(kind: str, samples: int = 40, seed: int = 2) -> dict[str, Tensor]:
    if kind.startswith("Bart"):
        source = torch.Generator().manual_seed(seed)
        ids = torch.randint(3, 40, (samples, 6), generator=source)
        ids[:, -1] = BART["eos_token_id"]
        return {"input_ids": ids}
    return tokens(samples)


def logits(model: Any, batch: Any) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits if isinstance(batch, dict) else model(batch)


def mlp(*, hidden: int = 32, activation: Any = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(4)
    body = [nn.Linear(5, 12), nn.LayerNorm(12)]
    return nn.Sequential(*body, nn.Linear(12, hidden), activation(), nn.Linear(hidden, 3)).double()


def train(
    model: nn.Module, parameters: list[Any], x: Tensor, y: Tensor, *, steps: int
) -> list[float]:
    optimizer, losses = torch.optim.LBFGS(parameters, max_iter=steps), []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return losses


class TestFinding:
    @every_head
    def test_heads_of_transformers(self, kind, config, first, activation, second):
        model, batch = classifier(kind, config), batch_for(kind)
        bundled = bundle_head(model, [batch], num_features=4)
        (block,) = bundled.report.blocks
        assert block.name == first and block.num_features == 4
        phi, last = bundled.model.get_submodule(first), bundled.model.get_submodule(second)
        assert isinstance(phi, NeuronFeatures) and phi.num_features == 4
        assert isinstance(last, nn.Linear) and last.weight.shape == (3, 4)
        if activation is not None:  # what the model computes stays where it was
            kept = type(model.get_submodule(activation))
            assert type(bundled.model.get_submodule(activation)) is kept

    @pytest.mark.parametrize("kind", ["ViT", "DeiT", "Beit"])
    def test_a_single_linear_layer_is_no_head_to_bundle(self, kind):
        model = transformer(f"{kind}ForImageClassification", {**SIZES, **IMAGES}).double()
        match = r"^model: its outputs come from 'classifier' .* nothing to bundle"
        with pytest.raises(ValueError, match=match):
            bundle_head(model, [{"pixel_values": inputs(6, 3, 8, 8)}])

    def test_a_vision_pooler_and_a_linear_layer(self):
        class Classifier(nn.Module):
            def __init__(self):
                super().__init__()
                self.vit = transformer("ViTModel", {**SIZES, **IMAGES})
                self.classifier = nn.Linear(16, 3)

            def forward(self, pixels):
                return self.classifier(self.vit(pixels).pooler_output)

        torch.manual_seed(0)
        model, x = Classifier().double().eval(), inputs(64, 3, 8, 8)
        bundled = bundle_head(model, x, num_features=16, ridge=0.0)
        assert bundled.report.blocks[0].name == "vit.pooler.dense"
        assert (logits(bundled.model, x) - logits(model, x)).abs().max() <= 1e-10

    def test_labels_are_not_looked_at(self):
        model, batch = classifier("BertForSequenceClassification", SIZES), tokens(24)
        with_labels = {**batch, "labels": torch.arange(24) % 3}
        found = [bundle_head(model, [each], 4).model for each in (batch, with_labels)]
        assert same(found[0].state_dict(), found[1].state_dict())

    def test_a_network_of_torch(self):
        bundled = bundle_head(mlp(), inputs(100, 5))
        assert [block.name for block in bundled.report.blocks] == ["2"]
        assert bundled.report.blocks[0].num_features == 32 // 4

    def test_models_without_one_head(self):
        residual = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double()
        with pytest.raises(ValueError, match=r"^model: none of its outputs is that of a linear"):
            bundle_head(residual, inputs(4, 3, 8))

        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = mlp(), mlp()

            def forward(self, x):
                return self.a(x), self.b(x)

        with pytest.raises(ValueError, match=r"^model: expected one head, found blocks 'a.2', 'b"):
            bundle_head(Two(), inputs(4, 5))


class TestClosedForm:
    @every_head
    @pytest.mark.paper(
        PAPER, kind="exact", claim="A bundled head with all of its neurons is the head itself."
    )
    def test_all_neurons_give_the_same_logits(
        self, kind, config, first, activation, second, evidence
    ):
        model, batch = classifier(kind, config), batch_for(kind, 120)
        hidden = model.get_submodule(first).out_features
        bundled = bundle_head(model, [batch], num_features=hidden, ridge=0.0)
        expected = logits(model, batch)
        error = float((logits(bundled.model, batch) - expected).abs().max())
        evidence(required="<= 1e-10", measured=error)
        assert error <= 1e-10 and float(expected.std()) > 0.1

    @pytest.mark.paper(
        PAPER, kind="exact", claim="The closed form of a bundled head is ridge regression."
    )
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"projection": "dpp"},
            {"projection": "orthogonal"},
            {"features": "universal"},
            {"features": "arc_cosine", "projection": "hadamard"},
        ],
        ids=lambda options: "-".join(options.values()),
    )
    def test_it_is_ridge_regression(self, options, evidence):
        model, batch = classifier("BertForSequenceClassification", SIZES), tokens(60)
        bundled = bundle_head(model, [batch], 8, ridge=0.3, generator=0, **options).model
        assert isinstance(bundled.classifier, nn.Linear)
        seen: list[Tensor] = []
        hook = bundled.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        logits(bundled, batch)
        hook.remove()
        assert seen[0].shape == (60, 8)
        reference = Ridge(alpha=0.3).fit(seen[0].numpy(), logits(model, batch).numpy())
        found = bundled.classifier
        error = max(
            float((found.weight.detach() - torch.from_numpy(reference.coef_)).abs().max()),
            float((found.bias.detach() - torch.from_numpy(reference.intercept_)).abs().max()),
        )
        evidence(required="<= 1e-8", measured=error)
        assert error <= 1e-8

    @pytest.mark.paper(
        PAPER,
        kind="behaviour",
        claim="At half of its neurons a bundled head keeps a classifier's accuracy within a point.",
    )
    def test_labels_agree_on_data_not_seen(self, evidence):
        images, classes = sklearn.datasets.load_digits(return_X_y=True)
        x, y = torch.from_numpy(images) / 16, torch.from_numpy(classes)
        torch.manual_seed(0)
        body = [nn.Linear(64, 24), nn.LayerNorm(24)]
        model = nn.Sequential(*body, nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, 10)).double()
        train(model, list(model.parameters()), x[:1200], y[:1200], steps=40)
        bundled = bundle_head(model, x[:1200], num_features=32)
        labels, before = (logits(m, x[1200:]).argmax(-1) for m in (bundled.model, model))
        share = float((labels == before).double().mean())
        lost = float((before == y[1200:]).double().mean() - (labels == y[1200:]).double().mean())
        evidence(required="<= 0.01", measured=lost, what="accuracy lost, 597 new digits")
        evidence(required=">= 0.95", measured=share, what="equal labels")
        assert lost <= 0.01 and share >= 0.95

    def test_dropout_stays_between_features_and_matrix(self):
        model, batch = classifier("BertForSequenceClassification", SIZES), tokens()
        model.dropout.p = 0.5
        bundled: Any = bundle_head(model.train(), [batch], 8).model
        assert bundled.training and bundled.dropout.training
        assert not torch.equal(logits(bundled, batch), logits(bundled, batch))
        assert torch.equal(logits(bundled.eval(), batch), logits(bundled, batch))


class TestTraining:
    @pytest.mark.parametrize("fit", [True, False])
    @every_head
    def test_only_the_matrix_trains(self, kind, config, first, activation, second, fit):
        model, batch = classifier(kind, config), batch_for(kind)
        bundled = bundle_head(model, [batch], 4, fit=fit, generator=0).model.train()
        bundled(**batch, labels=torch.arange(40) % 3).loss.backward()
        trained = {name for name, p in bundled.named_parameters() if p.grad is not None}
        assert {f"{second}.weight", f"{second}.bias"} <= trained
        assert not list(bundled.get_submodule(first).parameters())
        last: Any = bundled.get_submodule(second)
        assert float(last.weight.grad.abs().max()) > 0

    @pytest.mark.parametrize("index", [0, 3], ids=["Bert", "Roberta"])
    @pytest.mark.parametrize("projection", [None, "hadamard"])
    def test_features_drawn_to_be_trained(self, index, projection, global_state_unchanged):
        kind, config, first, _, second = HEADS[index]
        with torch.random.fork_rng():
            model = classifier(kind, config)
        batch = batch_for(kind)
        made = [
            bundle_head(
                model, [batch], 24, projection=projection, fit=False, generator=CounterGenerator(s)
            ).model
            for s in (1, 1, 2)
        ]
        assert same(made[0].state_dict(), made[1].state_dict())
        assert not same(made[0].state_dict(), made[2].state_dict())
        assert not logits(made[0], batch).any()  # W and b start at zero
        # More features than the 16 neurons that were there: tanh(G x + c), as f was.
        seen: list[Tensor] = []
        hook = (
            made[0]
            .get_submodule(second)
            .register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        )
        inner: list[Tensor] = []
        also = (
            made[0]
            .get_submodule(first)
            .register_forward_pre_hook(lambda _, args: inner.append(args[0]))
        )
        logits(made[0], batch)
        hook.remove()
        also.remove()
        phi = made[0].get_submodule(first)
        assert isinstance(phi, NeuronFeatures)
        expected = torch.tanh(F.linear(inner[0], phi.weight, phi.bias))
        torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-12)

    def test_drawn_features_expect_weights_of_the_heads_size(self):
        model = mlp()
        weight = model.get_parameter("2.weight")  # (32, 12)
        with torch.no_grad():
            weight.mul_(3.0)
        options = {"fit": False, "generator": 0}
        phi = bundle_head(model, inputs(20, 5), 8, "universal", **options).model.get_submodule("2")
        norms = (1.0, float(weight.detach().norm(dim=-1).median()))
        other = UniversalFeatures("tanh", 12, 8, norms=norms, generator=0, dtype=torch.float64)
        assert same(phi.state_dict(), other.state_dict())

    def test_training_the_matrix_lowers_the_loss(self):
        model, x = mlp(), inputs(300, 5)
        target = (x[:, 0] * x[:, 1] > 0).long()
        head = bundle_head(model, x, 64, fit=False, generator=0).model
        parameters = [p for name, p in head.named_parameters() if name.startswith("4.")]
        losses = train(head, parameters, x, target, steps=40)
        assert losses[0] == pytest.approx(math.log(3), rel=1e-12)  # all logits are zero
        assert losses[-1] < 0.5 * losses[0]


class TestManners:
    @pytest.mark.parametrize("fit", [True, False])
    def test_the_original_stays_unless_inplace(self, fit):
        model, x = mlp(), inputs(100, 5)
        before, modules = snapshot(model), list(model.modules())
        bundled = bundle_head(model, x, fit=fit, generator=0)
        assert same(before, model.state_dict())
        assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
        there = bundle_head(model, x, fit=fit, inplace=True, generator=0)
        assert there.model is model
        assert same(there.model.state_dict(), bundled.model.state_dict())

    def test_after_an_error_it_is_as_it_was(self):
        model = mlp()
        with torch.no_grad():
            model.get_parameter("4.weight").fill_(torch.inf)
        modules = list(model.modules())
        with pytest.raises(ValueError, match=r"^calibrate: an activation at block '2'"):
            bundle_head(model, inputs(100, 5), inplace=True)
        assert all(a is b for a, b in zip(model.modules(), modules, strict=True))

    def test_report(self):
        model, x = mlp(), inputs(100, 5)
        report = bundle_head(model, x, 6).report
        (block,) = report.blocks
        assert (block.in_features, block.hidden_features, block.out_features) == (12, 32, 3)
        assert report.stored_before == 32 * 13 + 3 * 33
        assert report.stored_after == block.stored_after == 6 * 13 + 3 * 7
        assert report.model_before - report.model_after == report.stored_before - block.stored_after
        assert report.model_after == sum(
            t.numel() for t in bundle_head(model, x, 6).model.state_dict().values()
        )
        assert report.keep == report.stored_after / report.stored_before
        assert "2: 12 -> 32 -> 3, 6 features" in str(report)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_dtype(self, dtype):
        model, x = mlp().to(dtype), inputs(200, 5).to(dtype)
        for fit in (True, False):
            bundled = bundle_head(model, x, 8, fit=fit).model
            assert {t.dtype for t in bundled.state_dict().values()} == {dtype}
            assert bundled(x).dtype == dtype


class TestSaving:
    @pytest.mark.parametrize(
        ("index", "options"),
        [
            (0, {}),
            (3, {}),  # its activation is a function call
            (0, {"fit": False}),
            (3, {"fit": False}),
            (0, {"features": "universal"}),
            (0, {"features": "arc_cosine", "projection": "hadamard"}),
            (0, {"features": "universal", "fit": False}),
        ],
    )
    def test_comes_back(self, index, options, tmp_path):
        kind, config, first, _, second = HEADS[index]
        model, batch = classifier(kind, config).float(), batch_for(kind)
        bundled = bundle_head(model, [batch], 8, generator=0, **options)
        with torch.no_grad():  # as training would
            last: Any = bundled.model.get_submodule(second)
            last.bias.add_(0.5)
        bundled.save_pretrained(tmp_path / "saved")
        loaded = load(tmp_path / "saved")
        assert torch.equal(logits(loaded, batch), logits(bundled.model, batch))
        assert isinstance(loaded.get_submodule(first), FeatureMap)
        names = [{name for name, _ in each.named_parameters()} for each in (loaded, bundled.model)]
        assert names[0] == names[1]

    def test_a_network_of_torch_comes_back(self, tmp_path):
        bundled, x = bundle_head(mlp(), inputs(100, 5)), inputs(7, 5)
        bundled.save_pretrained(tmp_path / "saved")
        assert torch.equal(load(tmp_path / "saved")(x), bundled.model(x))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_features": 0}, ValueError, r"^num_features: "),
        ({"num_features": 2.0}, TypeError, r"^num_features: "),
        ({"num_features": 33}, ValueError, r"^num_features: 'leverage' chooses among the 32"),
        ({"features": "fourier"}, ValueError, r"^features: "),
        ({"projection": "best"}, ValueError, r"^projection: "),
        ({"features": "universal", "projection": "dpp"}, ValueError, r"^projection: "),
        ({"projection": "greedy", "fit": False}, ValueError, r"^projection: .*fit=True"),
        ({"features": "universal", "num_features": 7}, ValueError, r"^num_features: .*even"),
        ({"ridge": -1.0}, ValueError, r"^ridge: "),
        ({"generator": "0"}, TypeError, r"^generator: "),
        ({"calibrate": []}, ValueError, r"^calibrate: "),
        ({"calibrate": "texts"}, TypeError, r"^calibrate: "),
        ({"calibrate": torch.full((9, 5), torch.nan)}, ValueError, r"^calibrate: "),
        ({"model": 3}, TypeError, r"^model: "),
        ({"model": mlp().to("meta")}, ValueError, r"^model: .* meta device"),
    ],
)
def test_bad_input(options, error, match):
    good = {"model": mlp(), "calibrate": inputs(20, 5)}
    with pytest.raises(error, match=match):
        bundle_head(**{**good, **options})


@pytest.mark.parametrize("fit", [True, False])
def test_a_weight_that_is_not_finite_is_refused(fit):
    model = mlp()
    with torch.no_grad():
        next(model[2].parameters())[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        bundle_head(model, inputs(20, 5), fit=fit)


@pytest.mark.parametrize("fit", [True, False])
def test_features_that_cannot_stand_for_a_function(fit):
    kind, config, *_ = HEADS[3]
    model = classifier(kind, config)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^features: its activation is a function call.*'neuron'"):
        bundle_head(model, [batch_for(kind)], 8, "universal", fit=fit, inplace=True)
    assert same(before, model.state_dict())
