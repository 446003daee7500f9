"""Load a bundled model from a folder."""

import copy
import os

from torch import nn

from .._core.saving import load_state
from .architecture import build_model
from .placing import place, rebuild

_KINDS = ("convert.Bundled", "convert.Uptrained", "convert.Solved")


def load(folder: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Read a model that ``save_pretrained`` of `Bundled`, `Uptrained` or `Solved` wrote.

    No code from the folder is run: a Transformers model is built by the class of that name in
    the installed library, an ``nn.Sequential`` from a list of torch's own layers.

    Parameters
    ----------
    folder : str or path
        The folder.
    model : Module, optional
        For other classes of models: a dense model of the original sizes, whatever its numbers.
        It is copied, not changed.

    Returns
    -------
    Module
        The bundled model on the CPU, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If the folder holds no saved model.
    ValueError
        If it was not written by Mercer, or the model can be built only by the user and none
        was given, or the model given does not fit.

    Examples
    --------
    >>> import tempfile, torch
    >>> from mercer.convert import bundle, load
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    >>> bundled = bundle(net, torch.randn(256, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bundled.save_pretrained(folder)
    ...     again = load(folder)
    >>> x = torch.randn(3, 4)
    >>> torch.equal(again(x), bundled.model(x))
    True
    """
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    config, state = load_state(folder)
    if config.get("class") not in _KINDS:
        raise ValueError(
            f"folder: {folder} holds a {config.get('class')}, not a bundled, uptrained or solved "
            "model; use its class's from_pretrained"
        )
    built = build_model(config["model"]) if model is None else copy.deepcopy(model)
    try:
        for name, description in config["placed"].items():
            place(built, name, rebuild(description))
    except AttributeError as error:
        raise ValueError(f"model: it does not fit the folder {folder}: {error}") from None
    for name, tensor in (*built.named_parameters(), *built.named_buffers()):
        if name in state:
            tensor.data = tensor.data.to(state[name].dtype)
    try:
        built.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"model: it does not fit the folder {folder}: {error}") from None
    return built.eval()
