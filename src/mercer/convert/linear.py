"""What counts as a linear layer of a model, and its numbers in one layout."""

from torch import Tensor, nn

from ..nn.dense_weight import dense_weight


def is_linear(module: nn.Module) -> bool:
    """Whether a module is an ordinary linear layer: ``nn.Linear`` or Transformers' Conv1D."""
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def computes_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, also one that computes it in its own way (quantised)."""
    return isinstance(module, nn.Linear) or is_linear(module)


def weight_of(module: nn.Module) -> Tensor:
    """Weight of a linear layer, shape (out, in)."""
    return dense_weight("model", module)[0].detach()


def bias_of(module: nn.Module) -> Tensor | None:
    """Bias of a linear layer, shape (out,), or None."""
    bias = dense_weight("model", module)[1]
    return None if bias is None else bias.detach()


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """Numbers of inputs and outputs."""
    if isinstance(module, nn.Linear) and not is_linear(module):  # its weight may be packed
        return module.in_features, module.out_features
    out_features, in_features = weight_of(module).shape
    return in_features, out_features


def linear_like(weight: Tensor, bias: Tensor | None, *, like: nn.Module) -> nn.Linear:
    """Make a layer of a weight (out, in) that has dtype, device and training flags of another."""
    old = weight_of(like)
    made = nn.Linear(
        weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=old.dtype
    ).to_empty(device=old.device)
    trains = {name: p.requires_grad for name, p in like.named_parameters()}
    bias_trains = trains.pop("bias", None)
    weight_trains = any(trains.values())  # a parametrized weight has parameters of other names
    made.weight.copy_(weight).requires_grad_(weight_trains)
    if bias is not None:
        made.bias.copy_(bias).requires_grad_(weight_trains if bias_trains is None else bias_trains)
    if not all(bool(parameter.isfinite().all()) for parameter in made.parameters()):
        raise ValueError(
            f"ridge: the solution has numbers up to {float(weight.abs().max()):.3g}, which do not "
            f"fit the model's {old.dtype}; take a larger ridge or a model of a wider dtype"
        )
    return made
