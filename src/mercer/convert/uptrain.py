"""Bundle a model, then train it for a set number of steps to give what the dense model gives."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.checks import check_choice, check_int, check_real
from .._core.saving import load_state, write_folder, write_text
from .bundle import bundle
from .bundled import Bundled, report_from_dict, save_converted
from .calibration import Batch, Calibration
from .distil import Distiller, Output, batches_of, divide
from .load import load
from .observe import Block, observe
from .running import check_model, evaluating, reaching
from .training import Diverged, batch_indices
from .training import train as train_steps
from .uptrained import Trial, Uptrained, UptrainReport

_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # climbed from the middle
_ROWS_PER_NEURON = 16  # what the closed form is calibrated on; training sees the rest
_TRIALS = "trials.json"


def uptrain(
    model: nn.Module,
    data: Tensor | Iterable[Any],
    where: str | Callable[[str], bool] = "ffn",
    keep: float | Mapping[str, float] = 0.5,
    steps: int = 1000,
    *,
    features: str = "neuron",
    projection: str | None = None,
    ridge: float | str = "gcv",
    affine: bool = False,
    train: str = "all",
    learning_rate: float | Sequence[float] | None = None,
    weight_decay: float = 0.0,
    output: Output | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> Uptrained:
    r"""Bundle a model, then distil the dense model into it for a set number of steps.

    The dense model is the teacher, in evaluation mode. With y the outputs of its blocks, z that
    of the whole model (logits, or hidden states) and e the mean of z over a sample's tokens, each
    step of AdamW takes one batch and goes down

    .. math::
        \frac{1}{B} \sum_{b=1}^{B} d(y_b, \hat y_b) + d(z, \hat z) + (1 - \cos(e, \hat e)),
        \qquad d(y, \hat y) = \operatorname{mean}_j \frac{(y_j - \hat y_j)^2}{v_j},

    where :math:`v_j` is the variance of the j-th output (see `Distance`), and the last term is
    there for hidden states only. Padding does not count. No labels are
    used. What the teacher gives is computed once and kept where `mercer.config.memory_budget`
    allows; otherwise again in every epoch, with the same result.

    Parameters
    ----------
    model : Module
        The dense model; it is left as it was.
    data : Tensor, or iterable of batches
        Inputs, as `bundle` takes them; each batch is one step (a tensor is divided into batches of
        32). Every eighth batch, at most 16 of them, is held out: nothing is fitted to it, and the
        learning rate is judged on it. The closed form is calibrated on as many of the others as
        it takes for 16 rows a hidden neuron, and training goes through all of them.
    where, features, projection, ridge, affine
        See `bundle`.
    keep : float or mapping of str to float, default 0.5
        See `bundle`; `allocate` finds a mapping.
    steps : int, default 1000
        Steps of the training proper; 0 for the closed form alone.
    train : {"all", "blocks"}, default "all"
        What trains: all parameters but embedding tables, whose rare rows a few batches would
        spoil, or those of the bundled blocks alone.
    learning_rate : float, sequence of float, or None
        The largest learning rate. Of several, the one whose short trial (a twentieth of
        the steps, each from the same start) ends closest to the teacher on held-out batches; None
        climbs from 1e-3 along 1e-4, 3e-4, 1e-3, 3e-3, 1e-2 while trials get better.
    weight_decay : float, default 0
        Of AdamW.
    output : callable, optional
        From what the model returns and the batch (a mapping, or a tuple of positional
        arguments) to a tensor (..., d) that takes the place of z; by default ``logits`` where the
        model returns them, else ``last_hidden_state``, else its (first) tensor.
    checkpoint : path, optional
        Folder for what is needed to go on after a kill: the closed form, the trials, the state of
        the training. The result has the same bits as without the kill.
    every : int, default 100
        Steps between two checkpoints.
    seed : int, default 0
        Of the draws of `bundle` and the order of the batches.
    progress : bool, default False
        Whether to show progress bars.

    Returns
    -------
    Uptrained
        The smaller model and a report.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or the model's output is not understood.
    ValueError
        If an argument is out of range, `bundle` refuses the model, or the checkpoint is of
        another uptraining.

    References
    ----------
    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov, "Scalable neural network kernels", ICLR
    2024, arXiv:2310.13225 (uptraining). Hinton, Vinyals, Dean, "Distilling the knowledge in a
    neural network", 2015, arXiv:1503.02531. Romero et al., "FitNets: hints for thin deep nets",
    2015, arXiv:1412.6550.

    Examples
    --------
    >>> import torch
    >>> from mercer.convert import uptrain
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    >>> uptrained = uptrain(net, torch.randn(1024, 8), keep=0.25, steps=100, learning_rate=3e-3)
    >>> uptrained.model[0]
    Linear(in_features=8, out_features=15, bias=True)
    >>> bool(uptrained.report.after.output < uptrained.report.before.output)
    True
    """
    check_int("steps", steps, least=0)
    check_int("every", every)
    check_int("seed", seed, least=0)
    check_choice("train", train, ("all", "blocks"))
    check_real("weight_decay", weight_decay, least=0.0)
    rates, climbs = _read_rates(learning_rate)
    check_model(model)
    calibration = batches_of(data)
    fitted, held_out = divide(calibration.batches)
    folder = None if checkpoint is None else Path(checkpoint)
    with evaluating(model):
        blocks = observe(model, calibration.batches[0])[0]
        options = {
            "where": where,
            "keep": keep,
            "features": features,
            "projection": projection,
            "ridge": ridge,
            "affine": affine,
        }
        key = ""
        if folder is not None:
            told = {name: str(value) for name, value in options.items() if not callable(value)}
            if callable(where):  # what it chooses counts, not where it lies in memory
                told["where"] = str([block.name for block in blocks if where(block.name)])
            if output is not None:
                told["output"] = getattr(output, "__qualname__", type(output).__qualname__)
            key = _digest(model, calibration.batches, {**told, "seed": seed})
        bundled = _start(folder, key, model, calibration, blocks, fitted, options, seed, progress)
        student = bundled.model
        names = {block.name for block in bundled.report.blocks}
        distiller = Distiller(calibration, [b for b in blocks if b.name in names], output)
        with evaluating(student), _training(student, bundled._placed, train):
            distiller.scale(model, held_out)
            before = distiller.measure(student, model, held_out)
            loss = _Loss(distiller, student, model, fitted, seed)
            common = {
                "weight_decay": weight_decay,
                "seed": seed,
                "progress": progress,
            }

            def trial(rate: float) -> float:
                start, count = _snapshot(student), max(steps // 20, 1)
                label = f"trial {rate:g}"
                try:
                    with torch.enable_grad():
                        train_steps(student, loss, count, learning_rate=rate, label=label, **common)
                    found = distiller.measure(student, model, held_out).loss
                    return found if math.isfinite(found) else math.inf
                except Diverged:
                    return math.inf
                finally:
                    _restore(student, start)

            trials: list[Trial] = []
            if steps and len(rates) > 1:
                made_from = f"{key} {steps} {train} {weight_decay} {rates}"
                trials = _search(rates, climbs, trial, folder, made_from)
            best = min(trials, key=lambda each: each.loss).learning_rate if trials else rates[0]
            with torch.enable_grad():
                training = train_steps(
                    student,
                    loss,
                    steps,
                    learning_rate=best,
                    key=f"{key} {train}",
                    checkpoint=None if folder is None else folder / "training",
                    every=every,
                    label="uptrain",
                    **common,
                )
            after = distiller.measure(student, model, held_out)
    student.train(model.training)
    report = UptrainReport(
        bundle=bundled.report,
        steps=steps,
        learning_rate=best,
        trials=tuple(trials),
        losses=training.losses,
        before=before,
        after=after,
        train=train,
        batches=len(fitted),
        held_out=len(held_out),
        resumed=training.resumed,
        seconds=training.seconds,
    )
    return Uptrained(student, report, bundled._placed)


def _read_rates(given: Any) -> tuple[list[float], bool]:
    """Return the candidates, and whether they are climbed instead of all tried."""
    if given is None:
        return list(_RATES), True
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not several:
        raise ValueError("learning_rate: expected at least one candidate, got none")
    return [check_real("learning_rate", rate, above=0.0) for rate in several], False


def _start(
    folder: Path | None,
    key: str,
    model: nn.Module,
    calibration: Calibration,
    blocks: list[Block],
    fitted: list[Batch],
    options: dict[str, Any],
    seed: int,
    progress: bool,
) -> Bundled:
    """Bundle, or read what an earlier run bundled."""
    if folder is not None and (folder / "bundled" / "config.json").is_file():
        config, _ = load_state(folder / "bundled")
        if config.get("key") != key:
            raise ValueError(
                f"checkpoint: {folder} holds the uptraining of another model, of other data or "
                "with other options; name another folder, or remove it"
            )
        loaded = load(folder / "bundled", model)
        anchor = next(model.parameters(), None)
        loaded = loaded if anchor is None else loaded.to(anchor.device)
        return Bundled(loaded, report_from_dict(config["report"]), tuple(config["placed"]))
    enough = _enough(model, calibration, blocks, fitted)
    given = [batch.kwargs or batch.args for batch in enough]
    bundled = bundle(model, given, **options, generator=seed, progress=progress)
    if folder is not None:
        more = {"report": asdict(bundled.report), "key": key}
        save_converted(folder / "bundled", "convert.Bundled", bundled.model, bundled._placed, more)
    return bundled


def _enough(
    model: nn.Module, calibration: Calibration, blocks: list[Block], fitted: list[Batch]
) -> list[Batch]:
    """Batches with enough rows for the closed form, spread over all of them."""
    if not blocks:
        return fitted
    order = batch_indices([1] * len(fitted), 1, 0, 0)
    wanted = _ROWS_PER_NEURON * max(block.hidden_features for block in blocks)
    chosen: list[int] = []
    rows = 0
    for index in map(int, order):
        if rows >= wanted:
            break
        rows += sum(len(r.x) for r in reaching(model, blocks[0], fitted[index], calibration))
        chosen.append(index)
    return [fitted[index] for index in sorted(chosen)]


class _Loss:
    """The loss of a step: one batch, in an order that the epoch's number decides."""

    def __init__(
        self,
        distiller: Distiller,
        student: nn.Module,
        teacher: nn.Module,
        batches: list[Batch],
        seed: int,
    ) -> None:
        self._distiller, self._student, self._teacher = distiller, student, teacher
        self._batches, self._seed = batches, seed
        self._epoch, self._order = -1, [0]

    def __call__(self, step: int) -> Tensor:
        # The teacher runs without dropout and with the statistics that it has; so must the student.
        self._student.eval()
        epoch, place = divmod(step, len(self._batches))
        if epoch != self._epoch:
            indices = batch_indices([1] * len(self._batches), 1, self._seed, epoch)
            self._epoch, self._order = epoch, [int(index) for index in indices]
        batch = self._batches[self._order[place]]
        gap = self._distiller.gap(self._student, self._teacher, batch)
        return self._distiller.loss(gap)


@contextmanager
def _training(student: nn.Module, placed: Sequence[str], what: str) -> Iterator[None]:
    """Let only what trains require a gradient; put it back afterwards."""
    before = {parameter: parameter.requires_grad for parameter in student.parameters()}
    if what == "all":
        kept = {p for m in student.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        chosen = {p for p in before if p.is_floating_point() and p not in kept}
    else:
        modules = [student.get_submodule(name) for name in placed]
        chosen = {p for module in modules for p in module.parameters()}
    try:
        for parameter in before:
            parameter.requires_grad_(parameter in chosen)
        yield
    finally:
        for parameter, trains in before.items():
            parameter.requires_grad_(trains)


def _snapshot(student: nn.Module) -> dict[str, Tensor]:
    tensors = (*student.named_parameters(), *student.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors}


@torch.no_grad()
def _restore(student: nn.Module, start: dict[str, Tensor]) -> None:
    for name, tensor in (*student.named_parameters(), *student.named_buffers()):
        tensor.copy_(start[name])


def _search(
    rates: list[float],
    climbs: bool,
    trial: Callable[[float], float],
    folder: Path | None,
    made_from: str,
) -> list[Trial]:
    """Try learning rates, each once; what an earlier run found is read from the folder."""
    known: dict[str, float] = {}
    path = None if folder is None else folder / _TRIALS
    if path is not None and path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["made_from"] == made_from:
            known = {name: math.inf if v is None else v for name, v in found["losses"].items()}

    def reached(index: int) -> float:
        name = repr(rates[index])
        if name not in known:
            known[name] = trial(rates[index])
            if folder is not None:
                # JSON has no infinity, which a trial that diverged gives.
                told = {rate: v if math.isfinite(v) else None for rate, v in known.items()}
                text = json.dumps({"made_from": made_from, "losses": told}, indent=1)
                write_folder(folder, {_TRIALS: write_text(text + "\n")})
        return known[name]

    if climbs:
        best = len(rates) // 2
        for way in (1, -1):  # up while it gets better; down only where up did not
            moved = False
            while 0 <= best + way < len(rates) and reached(best + way) < reached(best):
                best, moved = best + way, True
            if moved:
                break
    else:
        for index in range(len(rates)):
            reached(index)
    return [Trial(rate, known[repr(rate)]) for rate in rates if repr(rate) in known]


def _digest(model: nn.Module, batches: list[Batch], options: dict[str, Any]) -> str:
    """Digest of all that an uptraining depends on, but for how long it trains."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    inputs = (tensor for batch in batches for tensor in batch.tensors())
    for tensor in (*model.state_dict().values(), *inputs):
        if isinstance(tensor, Tensor):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()
