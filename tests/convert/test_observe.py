import functools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from mercer.convert.calibration import Batch
from mercer.convert.observe import Block, observe
from tests.convert.models import (
    DISTILBERT,
    GPT2,
    IMAGES,
    OPT,
    SIZES,
    Functional,
    chain,
    encoder,
    gelu_formula,
    inputs,
    tokens,
    transformer,
)


def look(model: nn.Module, *args, **kwargs) -> tuple[dict[str, Block], dict[str, str]]:
    """Observe a model; return its blocks and the reasons against others, by name."""
    blocks, skipped = observe(model.eval(), Batch(args, kwargs, 0))
    assert len({b.name for b in blocks} | {s.name for s in skipped}) == len(blocks) + len(skipped)
    return {block.name: block for block in blocks}, {item.name: item.reason for item in skipped}


class Net(nn.Module):
    """Three linear layers, and a forward pass that a test writes."""

    def __init__(self, run, **modules: nn.Module) -> None:
        super().__init__()
        self.up, self.down, self.side = nn.Linear(4, 12), nn.Linear(12, 4), nn.Linear(12, 4)
        for name, module in modules.items():
            self.add_module(name, module)
        self.run = run

    def forward(self, x: Tensor):
        return self.run(self, x)


class TestChains:
    def test_a_chain_with_dropout_and_an_activation_in_place(self):
        net = nn.Sequential(
            nn.Linear(4, 12),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(12, 7),
            nn.Tanh(),
            nn.Linear(7, 2),
        )
        blocks, skipped = look(net, torch.randn(3, 4))
        assert list(blocks.values()) == [
            Block("0", "0", "3", "1", 4, 12, 7, 1),
            Block("3", "3", "5", "4", 12, 7, 2, 1),
        ]
        assert skipped == {"5": "its output is an output of the model"}

    @pytest.mark.parametrize(
        "activation",
        [
            *(nn.GELU(), nn.Hardshrink(), nn.LogSigmoid(), nn.PReLU(), nn.Sigmoid(), nn.Softplus()),
            *(nn.Softshrink(), nn.Softsign(), nn.Tanh(), nn.Tanhshrink()),
            *(
                kind(inplace=inplace)
                for kind in (
                    *(nn.CELU, nn.ELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU),
                    *(nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU),
                    functools.partial(nn.Threshold, 0.1, 2.0),
                )
                for inplace in (False, True)
            ),
        ],
        ids=repr,
    )
    def test_activations_of_torch(self, activation):
        blocks, _ = look(nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 4)), inputs32())
        assert blocks["0"].activation == "1"

    @pytest.mark.parametrize(
        "activation", [nn.Softmax(-1), nn.LogSoftmax(-1), nn.LayerNorm(8), nn.PReLU(8), nn.GLU()]
    )
    def test_what_is_not_elementwise(self, activation):
        after = nn.Linear(4 if isinstance(activation, nn.GLU) else 8, 4)
        blocks, skipped = look(nn.Sequential(nn.Linear(4, 8), activation, after), inputs32())
        assert blocks == {}
        assert skipped["0"].startswith(("its output goes through", "'"))

    def test_reshaping_of_rows_does_not_matter(self):
        def run(net, x):
            h = net.up(x)  # (2, 3, 12)
            h = torch.tanh(h.view(6, 12)).to(torch.float64).float().reshape(2, 3, 12).contiguous()
            return net.down(h)

        blocks, _ = look(Net(run), torch.randn(2, 3, 4))
        assert blocks["up"].second == "down"

    def test_mixing_rows_with_neurons_does(self):
        blocks, skipped = look(
            Net(lambda net, x: net.down(torch.tanh(net.up(x)).mT)), torch.randn(12, 4)
        )
        assert blocks == {}
        assert "'transpose'" in skipped["up"]


def inputs32() -> Tensor:
    return inputs(3, 4, dtype=torch.float32)


class TestFunctions:
    @pytest.mark.parametrize(
        "function",
        [
            F.relu,
            F.gelu,
            torch.tanh,
            torch.relu_,
            gelu_formula,
            lambda x: x * torch.sigmoid(1.702 * x),
            lambda x: torch.where(x > 0, x, 0.1 * x),
            lambda x: x.clamp(-1, 1).square(),
            lambda x: F.dropout(F.relu(x), 0.5, training=False),
        ],
    )
    def test_found_without_a_module(self, function):
        blocks, _ = look(Functional(function), inputs(3, 5))
        assert blocks == {"up": Block("up", "up", "down", None, 5, 24, 5, 1)}

    def test_a_module_that_writes_out_its_formula_has_its_name(self):
        class NewGELU(nn.Module):
            def forward(self, x):
                return gelu_formula(x)

        net = nn.Sequential(nn.Linear(4, 8), NewGELU(), nn.Linear(8, 4))
        assert look(net, inputs32())[0]["0"].activation == "1"

    @pytest.mark.parametrize(
        "between",
        [
            [nn.Tanh(), nn.ReLU()],  # two modules
            [nn.Sequential(nn.Tanh(), nn.ReLU())],
        ],
    )
    def test_no_one_module_has_it_all(self, between):
        blocks, _ = look(nn.Sequential(nn.Linear(4, 8), *between, nn.Linear(8, 4)), inputs32())
        assert blocks["0"].activation is None

    def test_a_module_and_a_function(self):
        net = Net(lambda net, x: net.down(2 * net.act(net.up(x))), act=nn.ReLU())
        assert look(net, inputs32())[0]["up"].activation is None

    def test_an_activation_that_blocks_share(self):
        act = nn.ReLU()
        net = nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 4), act, nn.Linear(4, 2))
        blocks, _ = look(net, inputs32())
        assert [(b.first, b.second, b.activation) for b in blocks.values()] == [
            ("0", "2", None),
            ("2", "4", None),
        ]

    def test_an_activation_with_a_hook(self):
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        net[1].register_forward_hook(lambda module, args, output: 2 * output)
        assert look(net, inputs32())[0]["0"].activation is None


class TestEncoders:
    @pytest.mark.parametrize("activation", ["relu", "gelu", F.silu, nn.GELU()])
    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("norm_first", [False, True])
    def test_encoder_layer(self, norm_first, batch_first, activation):
        layer = nn.TransformerEncoderLayer(
            8, 2, 32, activation=activation, batch_first=batch_first, norm_first=norm_first
        )
        blocks, skipped = look(layer, torch.randn(3, 5, 8))
        assert list(blocks.values()) == [
            Block("linear1", "linear1", "linear2", "activation", 8, 32, 8, 1)
        ]
        assert skipped["self_attn.out_proj"] == "it did not run on the first calibration batch"
        assert "'add'" in skipped["linear2"]

    def test_a_stack_in_the_order_in_which_it_runs(self):
        blocks, _ = look(encoder(3), inputs(2, 5, 8))
        assert list(blocks) == [f"layers.{i}.linear1" for i in range(3)]
        assert [block.activation for block in blocks.values()] == [
            f"layers.{i}.activation" for i in range(3)
        ]

    def test_decoder_layer(self):
        layer = nn.TransformerDecoderLayer(8, 2, 32, batch_first=True)
        blocks, _ = look(layer, torch.randn(3, 5, 8), torch.randn(3, 4, 8))
        assert list(blocks.values()) == [
            Block("linear1", "linear1", "linear2", None, 8, 32, 8, 1),
        ]


BERT_LAYER = "encoder.layer.{}.intermediate.dense"


class TestTransformers:
    @pytest.mark.parametrize(
        ("kind", "config", "names", "activation"),
        [
            ("BertModel", SIZES, BERT_LAYER, "encoder.layer.{}.intermediate.intermediate_act_fn"),
            ("DistilBertModel", DISTILBERT, "transformer.layer.{}.ffn.lin1", None),
            ("GPT2LMHeadModel", GPT2, "transformer.h.{}.mlp.c_fc", "transformer.h.{}.mlp.act"),
            ("OPTModel", OPT, "decoder.layers.{}.fc1", "decoder.layers.{}.activation_fn"),
            ("GPTNeoXModel", SIZES, "layers.{}.mlp.dense_h_to_4h", "layers.{}.mlp.act"),
        ],
    )
    def test_text_models(self, kind, config, names, activation):
        blocks, _ = look(transformer(kind, config), **tokens())
        assert list(blocks) == [names.format(i) for i in range(2)]
        for i, block in enumerate(blocks.values()):
            assert (block.in_features, block.hidden_features, block.out_features) == (16, 48, 16)
            assert block.calls == 1
            if activation is not None:
                assert block.activation == activation.format(i)

    def test_vit(self):
        model = transformer("ViTModel", SIZES, **IMAGES)
        blocks, _ = look(model, torch.randn(2, 3, 8, 8))
        assert [block.hidden_features for block in blocks.values()] == [48, 48]
        assert all(name.endswith("fc1") for name in blocks)

    def test_albert_runs_one_block_for_all_its_layers(self):
        blocks, _ = look(transformer("AlbertModel", SIZES, embedding_size=8), **tokens())
        (block,) = blocks.values()
        assert block.name == "encoder.albert_layer_groups.0.albert_layers.0.ffn"
        assert block.calls == 2

    def test_a_pooler_and_a_classifier_are_a_block_too(self):
        model = transformer("BertForSequenceClassification", SIZES)
        blocks, _ = look(model, **tokens())
        assert list(blocks)[-1] == "bert.pooler.dense"
        assert blocks["bert.pooler.dense"].second == "classifier"

    def test_gated_blocks_say_so(self):
        blocks, skipped = look(transformer("LlamaModel", SIZES), **tokens())
        assert blocks == {}
        for i in range(2):
            gate, up = (f"layers.{i}.mlp.{name}_proj" for name in ("gate", "up"))
            assert skipped[gate] == f"gated: its output multiplies that of {up} in 'mul'"
            assert skipped[up] == f"gated: its output multiplies that of {gate} in 'mul'"

    def test_a_gate_and_its_values_in_one_layer(self):
        _, skipped = look(transformer("ModernBertModel", SIZES, pad_token_id=0), **tokens())
        assert "divides its output, as in gated blocks" in skipped["layers.0.mlp.Wi"]


@dataclass
class Output:
    hidden: Tensor
    y: Tensor


def residual(net, x):
    h = torch.relu(net.up(x))
    return net.down(h) + h[..., :4]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda net, x: net.down(net.up(x)), "no activation between it and down"),
        (lambda net, x: torch.relu(net.up(x)), "an activation of its output is an output"),
        (lambda net, x: net.down(x.repeat(1, 3)), "it did not run"),
        (lambda net, x: net.down(torch.relu(net.up(x) + x.repeat(1, 3))), "'add' combines its"),
        (lambda net, x: net.down(torch.relu(net.up(x)) * net.scale), "'mul' combines its"),
        (lambda net, x: net.down(torch.relu(net.norm(net.up(x)))), "'native_layer_norm'"),
        (lambda net, x: net.down(net.norm(torch.relu(net.up(x)))), "'native_layer_norm'"),
        (residual, "'slice'"),
        (lambda net, x: (lambda h: net.down(h) + net.side(h))(net.up(x).relu()), "down, side"),
        (lambda net, x: (lambda h: (h, net.down(h)))(net.up(x).relu()), "output of the model"),
        (lambda net, x: (lambda h: {"h": [h], "y": net.down(h)})(net.up(x).relu()), "of the model"),
        (
            lambda net, x: (lambda h: Output(h, net.down(h)))(net.up(x).relu()),
            "output of the model",
        ),
        (lambda net, x: (lambda h: net.down(h.relu()) * h.mean())(net.up(x)), "'mean'"),
        (lambda net, x: (lambda h: net.down(h.relu()) + h.sum())(net.up(x)), "'sum'"),
        (lambda net, x: net.down(torch.relu(net.up(input=x))), "keyword argument"),
        (lambda net, x: net.down(input=torch.relu(net.up(x))), "no linear layer follows"),
        (lambda net, x: F.linear(net.up(x).relu(), net.down.weight), "combines its output"),
        (lambda net, x: net.down(net.up(x).relu().flip(-1)), "'flip'"),
        (lambda net, x: net.down(net.up(x).cumsum(-1)), "'cumsum'"),
        (lambda net, x: net.down(F.softmax(net.up(x), -1)), "'_softmax'"),
        (lambda net, x: net.down(torch.cat([net.up(x).relu()[:, :6]] * 2, -1)), "'slice'"),
        (lambda net, x: net.down(net.up(x).relu()) + net.down(x.repeat(1, 3)), "always called"),
    ],
)
def test_what_keeps_a_layer_from_being_a_block(run, reason):
    net = Net(run, norm=nn.LayerNorm(12))
    net.scale = nn.Parameter(torch.ones(12))
    blocks, skipped = look(net, inputs32())
    assert blocks == {}
    assert reason in skipped["up"]


def test_a_block_that_runs_with_several_activations():
    net = Net(lambda net, x: net.down(net.up(x).relu()) + net.down(net.act(net.up(x))))
    net.act = nn.Tanh()
    assert list(look(net, inputs32())[0].values()) == [Block("up", "up", "down", None, 4, 12, 4, 2)]


def test_two_layers_before_one():
    net = Net(lambda net, x: net.down(net.up(x).relu()), more=nn.Linear(4, 12))
    net.run = lambda net, x: net.down(net.up(x).relu()) + net.down(net.more(x).relu())
    blocks, skipped = look(net, inputs32())
    assert blocks == {}
    assert "always called" in skipped["up"] and "always called" in skipped["more"]


def test_two_outputs_that_meet():
    net = Net(lambda net, x: net.down((net.up(x) + net.more(x)).relu()), more=nn.Linear(4, 12))
    _, skipped = look(net, inputs32())
    assert skipped["up"] == "its output meets that of more in 'add'"
    assert skipped["more"] == "its output meets that of up in 'add'"


def test_a_residual_around_a_block_does_not_matter():
    net = Net(lambda net, x: x + net.down(net.up(x).relu()))
    assert list(look(net, inputs32())[0]) == ["up"]


@pytest.mark.parametrize("which", ["up", "down"])
def test_tied_weights_name_the_other_parameter(which):
    net = Net(lambda net, x: net.down(net.up(x).relu()), embedding=nn.Embedding(12, 4))
    if which == "up":
        net.embedding.weight = net.up.weight
    else:
        net.embedding = nn.Embedding(4, 12)
        net.embedding.weight = net.down.weight
    _, skipped = look(net, inputs32())
    assert skipped["up"] == f"{which}.weight is tied to embedding.weight"


def test_a_block_that_runs_three_times():
    up, down = nn.Linear(4, 12), nn.Linear(12, 4)
    net = nn.Sequential(*[up, nn.ReLU(), down] * 3)
    (block,) = look(net, inputs32())[0].values()
    assert (block.first, block.second, block.calls) == ("0", "2", 3)


def test_a_layer_that_follows_itself():
    layer = nn.Linear(4, 4)
    net = nn.Sequential(*[layer, nn.ReLU()] * 3)
    blocks, skipped = look(net, inputs32())
    assert blocks == {} and list(skipped) == ["0"]


@pytest.mark.parametrize("hook", ["forward", "forward_pre", "full_backward", "instance"])
@pytest.mark.parametrize("which", [0, 2])
def test_hooks_that_a_replacement_would_lose(which, hook):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    if hook == "instance":
        net[which].forward = functools.partial(nn.Linear.forward, net[which])
    else:
        getattr(net[which], f"register_{hook}_hook")(lambda *args: None)
    blocks, skipped = look(net, inputs32())
    assert blocks == {}
    assert skipped["0"] == f"{which} carries hooks, which a replacement would lose"


def test_parametrized_layers():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    parametrizations.weight_norm(net[0])
    parametrizations.orthogonal(net[2])
    assert list(look(net, inputs32())[0]) == ["0"]


def test_a_model_without_linear_layers():
    assert look(nn.Sequential(nn.Tanh()), inputs32()) == ({}, {})


def test_on_the_meta_device():
    net = chain(4, 8, 2).to("meta")
    assert list(look(net, inputs(3, 4))[0]) == ["0"]


def hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_always_called)
        for m in model.modules()
    )


class TestLeavesTheModel:
    @pytest.fixture
    def net(self):
        net = nn.Sequential(
            *(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.Linear(12, 12), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(12, 4),),
        ).eval()
        net[4].train()  # observe takes modes as they are
        return net

    @pytest.fixture
    def state(self, net):
        return {
            "modes": [module.training for module in net.modules()],
            "hooks": hooks(net),
            "state": {name: tensor.clone() for name, tensor in net.state_dict().items()},
            "versions": [tensor._version for tensor in net.state_dict().values()],
        }

    def check(self, net, state):
        assert [module.training for module in net.modules()] == state["modes"]
        assert hooks(net) == state["hooks"]
        assert [tensor._version for tensor in net.state_dict().values()] == state["versions"]
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, state["state"][name])
        assert torch.backends.mha.get_fastpath_enabled()

    def test_as_it_was(self, net, state, global_state_unchanged):
        net.eval()
        state["modes"] = [False] * len(state["modes"])
        look(net, inputs32())
        self.check(net, state)

    def test_after_an_error(self, net, state):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            observe(net, Batch((torch.randn(3, 5),), {}, 0))
        self.check(net, state)

    def test_inputs_too(self):
        net = Net(lambda net, x: net.down(net.up(x.mul_(2)).relu()))
        x = inputs32()
        look(net, x)
        assert torch.equal(x, inputs32())
