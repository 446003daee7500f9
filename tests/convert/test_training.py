import json
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mercer._core import saving
from mercer.convert.training import batch_indices, train
from tests.convert.models import inputs, same, snapshot

STEPS = 12


def network(seed: int = 0) -> nn.Sequential:
    """A network with all that moves in training: weights, dropout, running statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 2))
        return nn.Sequential(*layers)


def task(model: nn.Module, steps_seen: list[int] | None = None, stop_at: int | None = None):
    """Make a loss over batches that the number of the step alone decides."""
    x = inputs(40, 4, dtype=torch.float32)
    y = (x[:, 0] * x[:, 1] > 0).long()

    def loss(step: int) -> Tensor:
        if steps_seen is not None:
            steps_seen.append(step)
        if step == stop_at:
            raise KeyboardInterrupt
        batches = batch_indices([1] * 40, 10, seed=0, epoch=step // 4)
        rows = batches[step % 4]
        return nn.functional.cross_entropy(model(x[rows]), y[rows])

    return loss


def run(model: nn.Module, **options):
    given = {"learning_rate": 0.05, "seed": 3, "every": 3, **options}
    steps = given.pop("steps", STEPS)
    return train(model, given.pop("loss", None) or task(model), steps, **given)


class TestResuming:
    @pytest.mark.parametrize("stop_at", range(1, STEPS))
    def test_an_interrupted_run_ends_with_the_same_bits(
        self, stop_at, tmp_path, global_state_unchanged
    ):
        whole, broken, resumed = network(), network(), network()
        expected = run(whole)
        folder = tmp_path / "checkpoint"
        with pytest.raises(KeyboardInterrupt):
            run(broken, loss=task(broken, stop_at=stop_at), checkpoint=folder)
        steps_seen: list[int] = []
        done = run(resumed, loss=task(resumed, steps_seen), checkpoint=folder)
        kept = stop_at - stop_at % 3
        assert done.resumed == kept
        assert steps_seen == list(range(kept, STEPS))
        assert done.losses == expected.losses
        assert same(resumed.state_dict(), whole.state_dict())  # running statistics too

    def test_a_finished_run_is_not_repeated(self, tmp_path):
        model, again = network(), network()
        first = run(model, checkpoint=tmp_path / "checkpoint")
        done = run(again, checkpoint=tmp_path / "checkpoint", loss=lambda step: pytest.fail("ran"))
        assert (done.resumed, done.losses) == (STEPS, first.losses)
        assert same(model.state_dict(), again.state_dict())

    def test_checkpoints_change_nothing(self, tmp_path):
        plain, kept = network(), network()
        run(plain)
        run(kept, checkpoint=tmp_path / "checkpoint", every=1)
        assert same(plain.state_dict(), kept.state_dict())

    def test_frozen_parameters_are_not_in_it(self, tmp_path):
        from safetensors import safe_open

        model = network()
        model[0].requires_grad_(False)
        before = snapshot(model[0])
        run(model, checkpoint=tmp_path / "checkpoint")
        with safe_open(tmp_path / "checkpoint" / "model.safetensors", framework="pt") as file:
            keys = {key for key in file.keys() if key.startswith("model.")}  # noqa: SIM118
        trained = {f"{i}.{what}" for i in (1, 4) for what in ("weight", "bias")}
        statistics = {f"1.{key}" for key in ("running_mean", "running_var", "num_batches_tracked")}
        assert keys == {f"model.{name}" for name in trained | statistics}
        assert same(before, model[0].state_dict())

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
    def test_a_kill_while_it_is_written_leaves_the_one_before(self, file, tmp_path, monkeypatch):
        whole, broken, resumed = network(), network(), network()
        run(whole)
        folder, replace = tmp_path / "checkpoint", Path.replace
        written = []

        def killed(self: Path, target: Path) -> Path:
            if Path(target).name == file and written.count(file) == 1:
                raise KeyboardInterrupt  # between two renames
            written.append(Path(target).name)
            return replace(self, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(saving.Path, "replace", killed)
            run(broken, checkpoint=folder)
        done = run(resumed, checkpoint=folder)
        # The first came by a rename of the folder, the second by renames of its files.
        assert done.resumed == 6
        assert same(resumed.state_dict(), whole.state_dict())

    @pytest.mark.parametrize(
        "options",
        [
            *({"steps": 13}, {"learning_rate": 0.04}, {"seed": 4}, {"weight_decay": 0.0}),
            {"key": "other texts"},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_one_of_other_settings_is_refused(self, options, tmp_path):
        run(network(), checkpoint=tmp_path / "checkpoint", key="texts")
        model = network(seed=1)
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"checkpoint: .* holds another training"):
            run(model, **{"checkpoint": tmp_path / "checkpoint", "key": "texts", **options})
        assert same(before, model.state_dict())

    def test_one_of_another_model_is_refused(self, tmp_path):
        run(network(), checkpoint=tmp_path / "checkpoint")
        half = network()
        half[4].requires_grad_(False)
        without = nn.Sequential(*(m for m in network() if not isinstance(m, nn.BatchNorm1d)))
        untracked = network()
        untracked[1] = nn.BatchNorm1d(8, track_running_stats=False)
        for model in (half, without, untracked):
            with pytest.raises(ValueError, match=r"checkpoint: .* holds another training"):
                run(model, checkpoint=tmp_path / "checkpoint")
        whole = nn.Linear(2, 2)
        saving.save_state(tmp_path / "other", {"class": "convert.Bundled"}, whole.state_dict())
        with pytest.raises(ValueError, match=r"checkpoint: .* holds another training"):
            run(network(), checkpoint=tmp_path / "other")


KILLED = """
import sys
from tests.convert.test_training import network, run, task
model = network()
known = task(model)
def loss(step):
    print(step, flush=True)
    return known(step)
run(model, loss=loss, steps={steps}, checkpoint=sys.argv[1], every=2)
import safetensors.torch
safetensors.torch.save_file(model.state_dict(), sys.argv[2])
"""


@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="A training run killed with SIGKILL at a random step and resumed ends with bitwise the "
    "same weights as one that was not.",
)
def test_a_killed_process_resumes_with_the_same_bits(evidence, tmp_path):
    from safetensors.torch import load_file

    steps = 400  # long enough that the kill lands before the end
    code = KILLED.format(steps=steps)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "checkpoint"), str(tmp_path / "weights")]
    # Drawn anew each time; the message of a failure names it.
    kill_at = random.SystemRandom().randrange(4, steps // 2)
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if int(line) == kill_at:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "weights").exists()
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text("utf-8"))
    assert config["class"] == "convert.Training"
    again = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    first = int(again.stdout.split()[0])
    assert 0 < first < steps
    whole = network()
    run(whole, steps=steps, every=2)
    expected, found = whole.state_dict(), load_file(tmp_path / "weights")
    different = sum(int((expected[name] != found[name]).sum()) for name in expected)
    evidence(required=0, measured=different, what="numbers that differ after kill and resume")
    ran = len(again.stdout.split())
    evidence(required=steps - first, measured=ran, what="steps run after resuming")
    assert different == 0, f"killed at step {kill_at}, resumed at {first}"


class TestSteps:
    def test_agree_with_the_formula(self):
        """AdamW, warm-up, linear decay and clipping, written out."""
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        x, y = inputs(20, 3), 30 * inputs(20, 1, seed=2)  # gradients that are clipped at first
        state = {name: p.detach().clone() for name, p in model.named_parameters()}
        first = {name: torch.zeros_like(p) for name, p in state.items()}
        second = {name: torch.zeros_like(p) for name, p in state.items()}
        steps, rate, decay, warmup = 50, 0.1, 0.2, 3
        losses, norms = [], []
        for t in range(steps):
            leaves = {name: p.clone().requires_grad_() for name, p in state.items()}
            value = (torch.func.functional_call(model, leaves, (x,)) - y).square().mean()
            losses.append(value.item())
            grads = dict(
                zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True)
            )
            norm = torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt()
            norms.append(float(norm))
            lr = rate * ((t + 1) / warmup if t < warmup else (steps - t) / (steps - warmup))
            for name, g in grads.items():
                g = g * min(1.0, 1.0 / float(norm + 1e-6))
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g.square()
                m = first[name] / (1 - 0.9 ** (t + 1))
                v = second[name] / (1 - 0.999 ** (t + 1))
                p = state[name] * (1 - lr * decay if state[name].ndim > 1 else 1.0)
                state[name] = p - lr * m / (v.sqrt() + 1e-8)
        assert max(norms) > 1.0  # some were clipped
        done = train(
            model,
            lambda step: (model(x) - y).square().mean(),
            steps,
            learning_rate=rate,
            weight_decay=decay,
        )
        torch.testing.assert_close(dict(model.named_parameters()), state, rtol=1e-10, atol=1e-12)
        assert done.losses == pytest.approx(losses, rel=1e-10)

    @pytest.mark.parametrize("steps", [1, 2, 17, 100])
    def test_the_learning_rate_rises_then_falls(self, steps, monkeypatch):
        rates = []
        step = torch.optim.AdamW.step

        def spy(self, *args, **kwargs):
            rates.append([group["lr"] for group in self.param_groups])
            return step(self, *args, **kwargs)

        monkeypatch.setattr(torch.optim.AdamW, "step", spy)
        run(network(), steps=steps, learning_rate=0.5)
        assert all(a == b for a, b in rates)
        found = [a for a, _ in rates]
        warmup = -(-6 * steps // 100)
        assert found[:warmup] == pytest.approx([0.5 * (i + 1) / warmup for i in range(warmup)])
        after = [0.5 * (steps - i) / max(steps - warmup, 1) for i in range(warmup, steps)]
        assert found[warmup:] == pytest.approx(after)
        assert max(found) == 0.5

    def test_dropout_differs_by_step_and_by_seed(self):
        dropped = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        masks: dict[int, list[Tensor]] = {}
        for seed in (0, 0, 1):

            def loss(step: int, seed: int = seed) -> Tensor:
                y = dropped(torch.ones(16, 4))
                masks.setdefault(seed, []).append((y == 0).detach())
                return y.square().mean()

            train(dropped, loss, 3, learning_rate=1e-4, seed=seed)
        first, second, third, *again = masks[0]
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)
        assert all(torch.equal(a, b) for a, b in zip((first, second, third), again, strict=True))
        assert not torch.equal(first, masks[1][0])

    def test_on_the_cpu_the_state_of_other_devices_stays(self, monkeypatch):
        def seed_everywhere(seed: int) -> None:
            raise AssertionError("this seeds all devices, and no other than the CPU's is put back")

        model = network()
        monkeypatch.setattr(torch, "manual_seed", seed_everywhere)
        run(model)

    def test_numbers_of_numpy_are_numbers(self, tmp_path):
        model, other = network(), network()
        run(model, steps=4, learning_rate=0.5)
        run(other, steps=np.int64(4), learning_rate=np.float32(0.5), checkpoint=tmp_path / "to")
        assert same(model.state_dict(), other.state_dict())

    def test_modes_and_gradients_are_put_back(self, global_state_unchanged):
        model = network().eval()
        model[3].train()
        run(model)
        assert [module.training for module in model] == [False, False, False, True, False]
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_no_steps(self):
        model = network()
        before = snapshot(model)
        assert run(model, steps=0).losses == ()
        assert same(before, model.state_dict())


class TestRefuses:
    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (0.5, "float"),
            (torch.tensor(0.5), r"one of shape \(\), requires_grad=False"),
            (torch.ones(2, requires_grad=True), r"one of shape \(2,\), requires_grad=True"),
        ],
        ids=["float", "constant", "vector"],
    )
    def test_a_loss_that_is_no_scalar_with_a_gradient(self, value, told):
        with pytest.raises(TypeError, match=f"^loss: expected .* scalar .*, got {told}"):
            train(network(), lambda step: value, 3, learning_rate=0.1)

    def test_a_model_of_which_nothing_trains(self):
        with pytest.raises(ValueError, match="model: none of its parameters requires a gradient"):
            run(network().requires_grad_(False))

    def test_a_loss_that_is_not_finite(self, tmp_path):
        model = network().eval()

        def loss(step: int) -> Tensor:
            value = task(model)(step)
            return value * torch.inf if step == 4 else value

        with pytest.raises(ValueError, match=r"learning_rate: the loss of step 4 is inf at .*0.05"):
            run(model, loss=loss, checkpoint=tmp_path / "checkpoint")
        assert all(bool(p.isfinite().all()) for p in model.parameters())
        assert not any(module.training for module in model.modules())

    def test_a_gradient_that_is_not_finite(self):
        model = nn.Linear(1, 1)
        with pytest.raises(ValueError, match=r"learning_rate: the gradient of step 0 is nan"):
            # sqrt has an infinite slope at 0, times 0: the value is fine, its gradient is not.
            run(model, loss=lambda step: (0 * model.weight).sqrt().sum())
        assert all(bool(p.isfinite().all()) for p in model.parameters())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("steps", -1), ("every", 0), ("learning_rate", 0.0), ("learning_rate", float("nan"))),
            *(("weight_decay", -0.1),),
        ],
    )
    def test_numbers_out_of_range(self, name, value):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            run(network(), **{name: value})


class TestBatchIndices:
    def test_a_size_below_one_is_refused(self):
        with pytest.raises(ValueError, match=r"^batch_size: expected an integer >= 1, got 0"):
            batch_indices([1, 2], 0, seed=0, epoch=0)

    @pytest.mark.parametrize(("count", "size"), [(1, 4), (40, 10), (41, 10), (1003, 8)])
    def test_every_sample_comes_once(self, count, size):
        lengths = torch.randint(1, 60, (count,)).tolist()
        batches = batch_indices(lengths, size, seed=0, epoch=0)
        assert sorted(torch.cat(batches).tolist()) == list(range(count))
        assert sorted(map(len, batches), reverse=True)[: count // size] == [size] * (count // size)

    def test_epochs_and_seeds_differ_and_nothing_else_does(self, global_state_unchanged):
        def of(seed, epoch):
            return torch.cat(batch_indices([1] * 100, 10, seed, epoch)).tolist()

        assert of(0, 0) == of(0, 0)
        assert len({tuple(of(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6

    def test_batches_hold_samples_of_like_length(self):
        source = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, 101, (800,), generator=source)
        batches = batch_indices(lengths.tolist(), 8, seed=0, epoch=0)
        padded = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
        # Without sorting a batch of 8 pads to 8/9 of the longest: 1.76 times the tokens.
        assert padded / int(lengths.sum()) < 1.1
        means = [float(lengths[rows].double().mean()) for rows in batches]
        ups = sum(a < b for a, b in pairwise(means))
        assert 30 < ups < 69  # their order is random all the same
