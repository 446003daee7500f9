"""The matrix and the offset of a linear layer, whichever class holds them."""

from torch import Tensor, nn


def dense_weight(name: str, module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Read a linear layer as ``x @ weight.mT + bias``.

    Parameters
    ----------
    name : str
        The argument that an error will name.
    module : Module
        An `torch.nn.Linear`, or a ``Conv1D`` of transformers (GPT-2), which stores the transpose.

    Returns
    -------
    tuple of Tensor
        The weight (out, in) and the bias (out,) or None: the layer's own, or a view of them.

    Raises
    ------
    TypeError
        If the module is neither.

    Examples
    --------
    >>> import torch
    >>> weight, bias = dense_weight("linear", torch.nn.Linear(3, 5))
    >>> weight.shape, bias.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """
    if isinstance(module, nn.Linear):
        return module.weight, module.bias
    weight = getattr(module, "weight", None)
    # Known by its attributes: transformers is not imported for this.
    if (
        type(module).__name__ == "Conv1D"
        and isinstance(weight, Tensor)
        and weight.ndim == 2
        and weight.shape[1] == getattr(module, "nf", None)
    ):
        bias = getattr(module, "bias", None)
        return weight.mT, bias if isinstance(bias, Tensor) else None
    raise TypeError(
        f"{name}: expected a torch.nn.Linear or a Conv1D of transformers, "
        f"got {type(module).__name__}"
    )
