import copy
import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from mercer.convert import bundle
from tests.convert.models import (
    CHOOSE,
    WAYS,
    chain,
    encoder,
    every_way,
    inputs,
    numbers,
    same,
    snapshot,
    with_affine,
)


class TestWhere:
    def test_a_regular_expression_a_function_and_all(self):
        net, x = encoder(3), inputs(20, 5, 8)

        def names(**options):
            return [b.name for b in bundle(net, x, dry_run=True, **options).report.blocks]

        every = [f"layers.{i}.linear1" for i in range(3)]
        assert names() == names(where="ffn") == names(where=r"linear1$") == every
        assert names(where=r"^layers\.[02]\.") == [every[0], every[2]]
        assert names(where=lambda name: name == every[1]) == [every[1]]

    def test_what_it_leaves_out_is_told_and_left_alone(self):
        net, x = encoder(2), inputs(20, 5, 8)
        bundled = bundle(net, x, where="layers.1")
        assert ("layers.0.linear1", "where leaves it out") in {
            (item.name, item.reason) for item in bundled.report.skipped
        }
        left = {k: v for k, v in bundled.model.state_dict().items() if "layers.0" in k}
        assert same(left, {k: v for k, v in net.state_dict().items() if "layers.0" in k})

    @pytest.mark.parametrize("where", ["nothing", lambda name: False])
    def test_no_match(self, where):
        with pytest.raises(ValueError, match=r"where: no block .*0: where leaves it out"):
            bundle(chain(5, 24, 3), inputs(20, 5), where=where)

    def test_many_layers_that_do_not_match_are_cut_short(self):
        layers = [m for _ in range(30) for m in (nn.Linear(4, 4), nn.LayerNorm(4))]
        with pytest.raises(ValueError, match="and 18 more") as caught:
            bundle(nn.Sequential(*layers), torch.randn(4, 4))
        assert len(str(caught.value)) < 2000

    def test_a_dry_run_without_numbers(self):
        net = chain(5, 24, 3).to("meta")
        assert bundle(net, inputs(20, 5), dry_run=True).report.stored_before == 24 * 6 + 3 * 25


class TestManners:
    @pytest.mark.parametrize("training", [False, True])
    @every_way
    @with_affine
    def test_the_original_stays(self, features, projection, affine, training):
        net, x = encoder().train(training), inputs(20, 5, 8)
        before, modules = snapshot(net), list(net.modules())
        bundle(net, x, features=features, projection=projection, affine=affine, generator=0)
        assert same(before, net.state_dict())
        assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
        assert all(module.training is training for module in net.modules())
        assert all(layer.activation is F.relu for layer in net.layers)
        assert torch.backends.mha.get_fastpath_enabled()

    @pytest.mark.parametrize("inplace", [False, True])
    @pytest.mark.parametrize("projection", ["leverage", "orthogonal"])
    @with_affine
    def test_every_mode_is_kept(self, projection, inplace, affine):
        net = nn.Sequential(
            *(nn.Linear(5, 24), nn.GELU(), nn.Dropout(), nn.Linear(24, 20), nn.GELU()),
            *(nn.Linear(20, 3),),
        ).double()
        net.train()
        for index in (1, 3):
            net[index].eval()
        modes = {name: module.training for name, module in net.named_modules()}
        bundled = bundle(
            net, inputs(100, 5), projection=projection, affine=affine, inplace=inplace, generator=0
        )
        for name, module in bundled.model.named_modules():
            *_, known = (n for n in modes if n == "" or f"{name}.".startswith(f"{n}."))
            assert module.training is modes[known], name

    def test_dropout_is_off_while_calibrating(self):
        net = nn.Sequential(nn.Linear(5, 24), nn.GELU(), nn.Dropout(0.9), nn.Linear(24, 3)).double()
        net, x, state = net.train(), inputs(100, 5), torch.get_rng_state()
        bundled = bundle(net, x, keep=1.0)
        assert torch.equal(torch.get_rng_state(), state)
        torch.testing.assert_close(bundled.model.eval()(x), net.eval()(x), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(("features", "projection"), [WAYS[0], WAYS[3], WAYS[7], WAYS[-1]])
    @with_affine
    def test_dtype(self, dtype, features, projection, affine):
        net, x = chain(5, 40, 3, dtype=dtype), inputs(200, 5).to(dtype)
        bundled = bundle(net, x, features=features, projection=projection, affine=affine)
        assert bundled.model(x).dtype == dtype
        assert {p.dtype for p in bundled.model.parameters()} == {dtype}
        wide = bundle(
            copy.deepcopy(net).double(),
            x.double(),
            features=features,
            projection=projection,
            affine=affine,
        )
        assert bundled.report.blocks[0].r2 == pytest.approx(wide.report.blocks[0].r2, abs=0.2)

    def test_training_flags(self):
        net = chain(5, 24, 3)
        net[0].weight.requires_grad_(False)
        net[2].bias.requires_grad_(False)
        model = bundle(net, inputs(40, 5)).model
        flags = {name: p.requires_grad for name, p in model.named_parameters()}
        assert flags == {"0.weight": False, "0.bias": True, "2.weight": True, "2.bias": False}

    def test_a_bias_that_is_new_trains_with_its_weight(self):
        net = nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 3, bias=False)).double()
        net.requires_grad_(False)
        model = bundle(net, inputs(40, 5)).model
        assert not any(p.requires_grad for p in model.parameters())

    def test_parametrized_layers_become_plain(self):
        net, x = chain(5, 24, 3), inputs(200, 5)
        parametrizations.weight_norm(net[0])
        net[0].parametrizations.weight.original0.data *= 3
        bundled = bundle(net, x, keep=0.9)
        rows = (net[0].weight[:, None] == bundled.model[0].weight).all(-1).any(1)
        assert int(rows.sum()) == bundled.report.blocks[0].num_features
        assert type(bundled.model[0]) is nn.Linear
        assert all(p.requires_grad for p in bundled.model.parameters())

    def test_what_is_bundled_trains(self):
        model = bundle(chain(5, 24, 3), inputs(40, 5), affine=True).model
        model(inputs(4, 5)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())

    @pytest.mark.parametrize(("features", "projection"), [WAYS[2], *WAYS[3:]])
    def test_generator(self, features, projection, global_state_unchanged):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net, x = chain(5, 40, 20, 3), inputs(100, 5)

        def run(generator) -> dict[str, Tensor]:
            options = {"features": features, "projection": projection, "keep": 0.6}
            return bundle(net, x, generator=generator, **options).model.state_dict()

        assert same(run(3), run(torch.Generator().manual_seed(3)))
        assert not same(run(3), run(4))

    def test_choosing_by_leverage_draws_nothing(self, global_state_unchanged):
        with torch.random.fork_rng():
            net = chain(5, 24, 3)
        for projection in ("leverage", "greedy"):
            bundle(net, inputs(40, 5), projection=projection)

    def test_without_a_generator_draws_come_from_the_default_one(self):
        net, x, found = chain(5, 24, 3), inputs(40, 5), []
        for _ in range(2):
            torch.manual_seed(5)
            found.append(bundle(net, x, projection="gaussian").model.state_dict())
        assert same(*found)

    @pytest.mark.parametrize(("features", "projection"), [WAYS[0], WAYS[5], WAYS[9], WAYS[-1]])
    @with_affine
    def test_compiles(self, features, projection, affine):
        torch.compiler.reset()
        model = bundle(
            chain(5, 40, 3), inputs(100, 5), features=features, projection=projection, affine=affine
        ).model
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(inputs(7, 5)), model(inputs(7, 5)))
        torch.compiler.reset()

    def test_progress_is_shown_only_when_asked_for(self, capfd):
        bundle(chain(5, 24, 3), inputs(40, 5))
        assert capfd.readouterr() == ("", "")
        bundle(chain(5, 24, 3), inputs(40, 5), progress=True)
        shown = capfd.readouterr()
        assert shown.out == "" and "bundle: " in shown.err and "0/1" in shown.err

    def test_a_model_after_torch_compile_is_refused(self):
        compiled = torch.compile(chain(5, 24, 3), backend="eager")
        with pytest.raises(ValueError, match="model: it is compiled"):
            bundle(compiled, inputs(40, 5))
        with pytest.raises(ValueError, match="model: it is compiled"):
            bundle(torch.jit.script(chain(5, 24, 3)), inputs(40, 5))
        net = nn.Sequential(nn.Identity(), chain(5, 24, 3))
        net[1].compile(backend="eager")
        with pytest.raises(ValueError, match="model: it is compiled"):
            bundle(net, inputs(40, 5))

    def test_a_model_on_the_meta_device_is_refused(self):
        with pytest.raises(ValueError, match="model: it is on the meta device"):
            bundle(chain(5, 24, 3).to("meta"), inputs(40, 5))


class TestSmallAndStrange:
    def test_modules_that_keep_more_than_tensors(self):
        class Versioned(nn.Tanh):
            def get_extra_state(self):
                return {"version": 3}

        net = nn.Sequential(nn.Linear(5, 24), Versioned(), nn.Linear(24, 3)).double()
        assert bundle(net, inputs(40, 5)).report.model_before == 24 * 6 + 3 * 25

    def test_one_neuron(self):
        net, x = chain(4, 1, 2), inputs(40, 4)
        bundled = bundle(net, x, keep=1.0)
        torch.testing.assert_close(bundled.model(x), net(x), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("biases", [(False, True), (True, False), (False, False)])
    @with_affine
    def test_without_bias(self, biases, affine):
        net = nn.Sequential(
            nn.Linear(5, 40, bias=biases[0]), nn.Tanh(), nn.Linear(40, 3, bias=biases[1])
        ).double()
        bundled = bundle(net, inputs(200, 5), affine=affine)
        assert bundled.report.model_after == numbers(bundled.model)
        first = bundled.model[0].features if affine else bundled.model[0]
        assert (first.bias is not None) is biases[0]
        assert bundled.model[2].bias is not None

    def test_neurons_that_never_fire(self):
        net, x = chain(5, 24, 3, activation=nn.ReLU), inputs(40, 5)
        net[0].bias.data.fill_(-100)
        for projection in CHOOSE:
            bundled = bundle(net, x, projection=projection, generator=0)
            torch.testing.assert_close(bundled.model(x), net(x))

    def test_more_features_than_rows(self):
        net, x = chain(5, 200, 3), inputs(20, 5)
        bundled = bundle(net, x, ridge=0.0)
        assert bundled.report.blocks[0].num_features > 20
        torch.testing.assert_close(bundled.model(x), net(x), rtol=0, atol=1e-9)

    def test_images_and_channels_last(self):
        net = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4)).double()
        bundled = bundle(net, inputs(20, 3, 2, 4))
        assert bundled.report.blocks[0].rows == 120

    @pytest.mark.parametrize("way", [dict, tuple, list])
    def test_models_that_return_more_than_a_tensor(self, way):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = chain(5, 24, 3)

            def forward(self, x):
                y = self.net(x)
                return {"y": y, "n": 3} if way is dict else way([y, None, "text"])

        assert len(bundle(Net(), inputs(40, 5)).report.blocks) == 1

    def test_a_layer_in_two_places_is_replaced_in_both(self):
        class Holder(nn.ModuleDict):
            def forward(self, x):
                return self["a"](x)

        net = chain(5, 24, 5)
        holder = Holder({"a": net, "b": net[0], "c": nn.ModuleList([net[2]])})
        model = bundle(holder, inputs(40, 5)).model
        assert model["a"][0] is model["b"] and model["a"][2] is model["c"][0]

    def test_the_models_own_forward_hooks_stay(self):
        net, x, seen = chain(5, 24, 3), inputs(40, 5), []
        net.register_forward_hook(lambda module, args, y: seen.append(len(y)))
        model = bundle(net, x).model
        seen.clear()
        model(x)
        assert seen == [40]


def test_arguments_stand_in_the_order_of_the_issue():
    names = list(inspect.signature(bundle).parameters)
    assert names[:7] == [
        *("model", "calibrate", "keep", "where", "features", "projection", "ridge"),
    ]
