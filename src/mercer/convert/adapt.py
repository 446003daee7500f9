"""Insert SNNK adapters into any module and freeze the rest."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from .._core.checks import check_generator, check_int
from .._core.counter import RandomSource
from ..nn.adapter import SNNKAdapter
from .adapted import CHILD, Adapted, attach, device_and_dtype, freeze_rest
from .adapter_places import check_names, choose_places, compiled, output_widths
from .calibration import Batch
from .running import check_model


def adapt(
    model: nn.Module,
    where: str | Iterable[str] | Callable[[str], bool] = "ffn",
    num_features: int = 64,
    activation: str | nn.Module | Callable[[Tensor], Tensor] = "gelu",
    *,
    bottleneck: int | None = None,
    up: bool = True,
    features: str = "neuron",
    projection: str = "orthogonal",
    norm_before: bool = True,
    norm_after: bool = False,
    train: str | Iterable[str] = (),
    example: Any = None,
    inplace: bool = False,
    generator: RandomSource | int | None = None,
) -> Adapted:
    r"""Let SNNK adapters follow some modules of a trained model, and freeze all else.

    .. math:: y = h + U \, W' \phi(N(h)), \qquad U W' = 0 \text{ at the start}

    where h is the output of a chosen module. Until the adapters are trained, the model computes
    what it did.

    Parameters
    ----------
    model : Module
        Any module: a Transformers model, torch's own encoder, your own.
    where : str, iterable of str or callable, default "ffn"
        After which modules: ``"ffn"``, the last linear layer of each feed-forward block;
        ``"attention"``, the output projection of each attention; ``"both"``; or names of modules:
        a list, a regular expression for the whole name, or a function that says of a name whether
        it is meant.
    num_features : int, default 64
        Number m of features of each adapter.
    activation : str, Module or callable, default "gelu"
        The function of the features; see `mercer.nn.SNNKAdapter`, for the following too.
    bottleneck : int, optional
        Rank of what is learned.
    up : bool, default True
        Whether an up-projection ends the branch; otherwise a learned gate does.
    features : {"neuron", "universal", "arc_cosine"}, default "neuron"
        The kind of features.
    projection : str, default "orthogonal"
        How directions are drawn.
    norm_before : bool, default True
        Whether inputs are normalised first.
    norm_after : bool, default False
        Whether a layer norm with trained numbers follows the residual sum.
    train : str or iterable of str, optional
        Other parameters that stay trainable, such as a new head: names of parameters or of
        modules, or a regular expression for the whole of such a name.
    example : Tensor, tuple or mapping, optional
        A batch that the model is called with once, as a tensor, positional arguments or keyword
        arguments. With it, ``"ffn"`` and ``"attention"`` are found in what the model computes
        instead of by the names of common architectures, and widths are measured.
    inplace : bool, default False
        Whether to change that model instead of a copy.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws: each adapter has its own, one after the other. None means torch's
        default generator.

    Returns
    -------
    Adapted
        ``.model``, ``.report`` and ``.save_pretrained(folder)``.

    Raises
    ------
    ValueError
        If no module is found, a width cannot be told, or a name does not exist.

    See Also
    --------
    trainable : What trains in a model, and how much.
    load_adapters : Put saved adapters back.

    References
    ----------
    Houlsby, Giurgiu, Jastrzebski et al.: Parameter-Efficient Transfer Learning for NLP, 2019,
    arXiv 1902.00751. Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov: Scalable Neural Network
    Kernels, 2024, arXiv 2310.13225.

    Examples
    --------
    >>> import torch
    >>> from mercer.convert import adapt
    >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
    >>> encoder = torch.nn.TransformerEncoder(layer, 2).eval()
    >>> adapted = adapt(encoder, "ffn", num_features=16, generator=0)
    >>> print(adapted.report)
    2 adapters, 272 trained numbers, 15.60% of the model's 1,744
      layers.0.linear2: width 8, 16 features, 136 trained of 280
      layers.1.linear2: width 8, 16 features, 136 trained of 280
    >>> x = torch.randn(3, 5, 8)
    >>> torch.allclose(adapted.model(x), encoder(x), atol=1e-6)
    True
    """
    check_model(model)
    check_int("num_features", num_features)
    generator = check_generator(generator)
    batch = None if example is None else _read_example(example)
    names = choose_places(model, where, batch)
    for name in names:
        if hasattr(model.get_submodule(name), CHILD):
            raise ValueError(f"where: {name!r} has an adapter already")
    trained = _named_parameters(model, train)
    widths = output_widths(model, names, batch)
    # All drawn before anything is changed.
    adapters = {}
    for name in names:
        device, dtype = device_and_dtype(model, name)
        adapters[name] = SNNKAdapter(
            widths[name],
            num_features,
            activation,
            up=up,
            bottleneck=bottleneck,
            features=features,
            projection=projection,
            norm_before=norm_before,
            norm_after=norm_after,
            device=device,
            dtype=dtype,
            generator=generator,
        )
    if not inplace:
        model = copy.deepcopy(model)
    for name, adapter in adapters.items():
        attach(model, name, adapter.train(model.get_submodule(name).training))
    return Adapted(model, freeze_rest(model, names, trained))


def _read_example(example: Any) -> Batch:
    if isinstance(example, Tensor):
        return Batch((example,), {}, 0)
    if isinstance(example, Mapping):
        return Batch((), dict(example), 0)
    if isinstance(example, tuple | list):
        return Batch(tuple(example), {}, 0)
    raise TypeError(
        "example: expected a tensor, a tuple of positional arguments or a mapping of keyword "
        f"arguments, got {type(example).__name__}"
    )


def _named_parameters(model: nn.Module, train: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of the parameters that are named, or that a named module holds."""
    if isinstance(train, str):
        matches = compiled("train", train).fullmatch
        wanted = None
    else:
        wanted = set(check_names("train", train))
        matches = wanted.__contains__
    # A tied parameter answers to all its names, and is listed under its first.
    first = {id(p): name for name, p in model.named_parameters()}
    found, used = set(), set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parts = name.split(".")
        hits = {start for i in range(1, len(parts) + 1) if matches(start := ".".join(parts[:i]))}
        if hits:
            found.add(first[id(parameter)])
            used |= hits
    missing = sorted(wanted - used) if wanted is not None else [] if found else [train]
    if missing:
        raise ValueError(
            f"train: no parameter, and no module with parameters, is called {missing[0]!r}"
        )
    return tuple(name for name, _ in model.named_parameters() if name in found)
