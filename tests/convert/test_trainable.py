import pytest
import torch
from torch import nn

from mercer.convert import adapt, trainable
from tests.convert.models import GPT2, SIZES, chain, transformer


def test_counts_by_hand():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2, bias=False))
    model[0].weight.requires_grad_(False)
    found = trainable(model)
    assert [(each.name, each.shape, each.numel) for each in found.parameters] == [
        ("0.bias", (8,), 8),
        ("1.weight", (8,), 8),
        ("1.bias", (8,), 8),
        ("2.weight", (2, 8), 16),
    ]
    assert (found.trained, found.total, found.buffers) == (40, 72, 17)
    assert found.share == 40 / 72
    assert found.by_module() == {"0": 8, "1": 16, "2": 16}
    assert str(found).splitlines() == [
        "40 of 72 numbers train (55.56%); 17 in buffers",
        "  0.bias        8   8",
        "  1.weight      8   8",
        "  1.bias        8   8",
        "  2.weight  2 x 8  16",
    ]


def test_a_tied_parameter_counts_once():
    model = transformer("GPT2LMHeadModel", GPT2)
    assert model.lm_head.weight is model.transformer.wte.weight
    found = trainable(model)
    assert found.total == found.trained == model.num_parameters()
    assert sum("wte" in each.name or "lm_head" in each.name for each in found.parameters) == 1


def test_agrees_with_peft():
    peft = pytest.importorskip("peft")
    model = transformer("BertForSequenceClassification", SIZES)
    config = peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])
    wrapped = peft.get_peft_model(model, config)
    found = trainable(wrapped)
    assert (found.trained, found.total) == wrapped.get_nb_trainable_parameters()
    assert found.trained == 2 * 2 * (16 + 16) + 2 * 16 + 2


def test_a_module_without_parameters_and_one_that_is_frozen():
    for model, total in ((nn.ReLU(), 0), (chain(3, 4, 2).requires_grad_(False), 26)):
        found = trainable(model)
        assert (found.trained, found.total, found.share, found.parameters) == (0, total, 0.0, ())
        assert len(found.plot().patches) == 0


def test_refuses_what_is_no_module():
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got dict"):
        trainable({})  # pyright: ignore[reportArgumentType]


class TestPlot:
    def test_bars_are_the_counts(self):
        pytest.importorskip("matplotlib")
        found = trainable(adapt(chain(3, 4, 3), ["0"], 8, train=["2"]).model)
        ax = found.plot()
        widths = [bar.get_width() for bar in ax.patches]
        labels = [tick.get_text() for tick in ax.get_yticklabels()]
        assert dict(zip(labels, widths, strict=True)) == {"0.snnk_adapter.snnk": 36, "2": 15}
        assert ax.get_title() == f"51 of {found.total} train ({found.share:.2%})"

    def test_the_smaller_ones_of_many_are_one_bar(self):
        pytest.importorskip("matplotlib")
        model = nn.Sequential(*(nn.Linear(1, i + 1) for i in range(40)))
        ax = trainable(model).plot()
        widths = [bar.get_width() for bar in ax.patches]
        assert len(widths) == 16
        assert sum(widths) == sum(2 * (i + 1) for i in range(40))
        assert widths[:-1] == [2 * (i + 1) for i in range(25, 40)]
        assert ax.get_yticklabels()[-1].get_text() == "25 others"

    def test_a_parameter_of_the_model_itself(self):
        pytest.importorskip("matplotlib")

        class Scale(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

        assert str(trainable(Scale())).splitlines()[1] == "  scale  1  1"
        assert trainable(Scale()).plot().get_yticklabels()[0].get_text() == "the model itself"
