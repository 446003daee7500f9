"""SNNK adapters in training: Trainer, accelerate, mixed precision, checkpoints of activations."""

import copy

import pytest
import torch
from safetensors.torch import load_file

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from mercer.convert import SNNKConfig  # noqa: E402
from tests.convert.models import same, snapshot  # noqa: E402
from tests.convert.peft_models import (  # noqa: E402
    KINDS,
    answer,
    build,
    logits,
    stir,
    trained,
    words,
)

SMALL = {"num_features": 12, "bottleneck": 4}
BESIDE = {**SMALL, "placement": "replacement", "rank": 3}
both_places = pytest.mark.parametrize("options", [SMALL, BESIDE], ids=["after", "beside"])

# The older versions of transformers in our range know no other name.
old_name = pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated")


def adapted(kind: str = "bert", options=SMALL, **more) -> peft.PeftModel:
    model = peft.get_peft_model(build(kind), SNNKConfig(**{**options, **more}))
    stir(model)
    return model


def gradients(model, kind: str) -> dict[str, torch.Tensor]:
    model.zero_grad()
    answer(model, kind).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in trained(model).items()}


@both_places
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@old_name
def test_activations_computed_twice(kind, reentrant, options):
    model = adapted(kind, options).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):  # as older versions of transformers keep it
            module.dropout_prob = 0.0
    expected = gradients(model, kind)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    base = model.get_base_model()
    assert getattr(base, "is_activation_checkpointing", base.is_gradient_checkpointing)
    found = gradients(model, kind)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-6 * gradient.abs().max(), name


@both_places
def test_mixed_precision(options):
    model = adapted("bert", options)
    exact = logits(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = answer(model)
        out.float().square().mean().backward()
    assert (out - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(parameter.dtype == torch.float32 for parameter in trained(model).values())
    assert all(parameter.grad.isfinite().all() for parameter in trained(model).values())


@both_places
def test_training_in_a_bfloat16_model(options):
    base = build("bert", dtype=torch.bfloat16)
    model = peft.get_peft_model(base, SNNKConfig(**options))
    before = snapshot(model)
    optimizer = torch.optim.AdamW(trained(model).values(), lr=0.01)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(answer(model).float(), torch.arange(4) % 3)
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]
    frozen = [name for name in before if name not in trained(model)]
    assert all(torch.equal(before[name], snapshot(model)[name]) for name in frozen)


class Rows(torch.utils.data.Dataset):
    """Tokens with labels that the first token gives away."""

    def __init__(self) -> None:
        tokens = words()
        self.rows = [
            {"input_ids": ids, "attention_mask": mask, "labels": ids[0] % 3}
            for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"], strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


def trainer(model, folder, **options) -> transformers.Trainer:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        learning_rate=0.01,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=3,
        save_steps=4,
        max_steps=8,
        **options,
    )
    return transformers.Trainer(model, arguments, train_dataset=Rows())


@pytest.mark.parametrize("stored", [True, False])
def test_the_trainer_of_transformers(stored, tmp_path):
    model = adapted(task_type="SEQ_CLS", save_projection=stored)
    before, base = snapshot(model), logits(model)
    run = trainer(model, tmp_path, save_strategy="steps", logging_steps=1)
    run.train()
    losses = [row["loss"] for row in run.state.log_history if "loss" in row]
    assert len(losses) == 8
    after = snapshot(model)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == set(trained(model))
    model.eval()
    assert (logits(model) - base).abs().max() > 1e-3
    # What the Trainer saves is the adapter, and it can go on from there.
    saved = load_file(tmp_path / "checkpoint-8" / "adapter_model.safetensors")
    assert all("mercer_snnk_" in name or "classifier" in name for name in saved)
    loaded = peft.PeftModel.from_pretrained(build("bert"), tmp_path / "checkpoint-8")
    assert torch.equal(logits(loaded), logits(model))
    again = adapted(task_type="SEQ_CLS", save_projection=stored)
    trainer(again, tmp_path / "again").train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(snapshot(again), snapshot(model)), "the same weights as without the break"


@old_name
@pytest.mark.filterwarnings("ignore:.torch.cpu.amp.autocast")  # by old versions of accelerate
def test_the_trainer_with_activations_computed_twice(tmp_path):
    model = adapted(task_type="SEQ_CLS")
    options = {"gradient_checkpointing_kwargs": {"use_reentrant": False}, "bf16": True}
    trainer(model, tmp_path, save_strategy="no", gradient_checkpointing=True, **options).train()
    assert logits(model.eval()).isfinite().all()


@both_places
def test_under_accelerate(options):
    accelerate = pytest.importorskip("accelerate")
    # One state in a process: a Trainer before this may have asked for another precision.
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    plain = adapted("bert", options)
    model = copy.deepcopy(plain)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="no")
    optimizer = torch.optim.SGD(trained(model).values(), lr=0.1)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    accelerator.backward(answer(prepared).square().mean())
    optimizer.step()
    other = torch.optim.SGD(trained(plain).values(), lr=0.1)
    answer(plain).square().mean().backward()
    other.step()
    state = accelerator.get_state_dict(prepared)
    assert same(state, snapshot(plain))
    unwrapped = accelerator.unwrap_model(prepared)
    assert torch.equal(logits(unwrapped), logits(plain))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("bert", SMALL, id="bert-after"),
        pytest.param("timm", BESIDE, id="timm-beside"),
        pytest.param("bert", BESIDE, id="bert-beside", marks=pytest.mark.slow),
        pytest.param("gpt2", SMALL, id="gpt2-after", marks=pytest.mark.slow),
        pytest.param("gpt2", BESIDE, id="gpt2-beside", marks=pytest.mark.slow),
    ],
)
def test_compiled(kind, options):
    targets = KINDS[kind].targets if options is SMALL else KINDS[kind].beside
    model = adapted(kind, options, target_modules=targets)
    expected = gradients(model, kind)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    assert (logits(compiled, kind) - logits(model, kind)).abs().max() <= 1e-5
    compiled.zero_grad()
    answer(compiled, kind).square().mean().backward()
    for name, gradient in expected.items():
        found = model.get_parameter(name).grad
        assert (found - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


def test_a_compiled_model_gets_the_same_draws():
    plain = adapted()
    compiled = torch.compile(build("bert"), backend="aot_eager")
    model = peft.get_peft_model(compiled, SNNKConfig(**SMALL))
    mine = [t for n, t in model.state_dict().items() if "features.weight" in n]
    other = [t for n, t in plain.state_dict().items() if "features.weight" in n]
    assert len(mine) == 4
    assert all(map(torch.equal, mine, other))
