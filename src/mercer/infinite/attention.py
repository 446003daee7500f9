"""Self-attention that has a kernel at infinite width."""

from typing import final

import torch
from torch import Tensor, nn

from .rules import rule
from .signal import Signal


@final
class SelfAttention(nn.Module):
    r"""Self-attention with tied queries and keys, and scores divided by the key's width.

    .. math:: f(X) = \zeta\!\left(\frac{(X W_k)(X W_k)^T}{d}\right) X W_v W_o + b

    Scores divided by :math:`\sqrt d`, as in ``nn.MultiheadAttention``, stay random however wide
    the network is; divided by d they become the covariances of the positions,
    :math:`G_x = \zeta(\sigma_k^2 S_{xx})`, so that

    .. math:: S' = \sigma_v^2 \sigma_o^2 G_x S G_{x'}^T + \sigma_b^2, \qquad
        T' = \sigma_v^2 \sigma_o^2 G_x T G_{x'}^T + 2 (S' - \sigma_b^2) + \sigma_b^2.

    Parameters
    ----------
    embed_dim : int
        Width of the tokens and of the output.
    key_dim : int, optional
        Width d of the keys; by default that of the tokens.
    attention : {"softmax", "identity"}, default "softmax"
        The function :math:`\zeta` of the scores; a softmax is over the positions attended to.
    bias : bool, default True
        Whether the output has biases.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        If the attention is neither.

    References
    ----------
    Hron, Bahri, Sohl-Dickstein, Novak: Infinite attention, 2020, arXiv 2006.10540.

    Examples
    --------
    >>> import torch
    >>> SelfAttention(8)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        embed_dim: int,
        key_dim: int | None = None,
        *,
        attention: str = "softmax",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if attention not in ("softmax", "identity"):
            raise ValueError(f"attention: expected 'softmax' or 'identity', got {attention!r}")
        self.attention = attention
        key_dim = embed_dim if key_dim is None else key_dim
        made = {"device": device, "dtype": dtype}
        self.key = nn.Linear(embed_dim, key_dim, bias=False, **made)  # pyright: ignore
        self.value = nn.Linear(embed_dim, embed_dim, bias=False, **made)  # pyright: ignore
        self.out = nn.Linear(embed_dim, embed_dim, bias=bias, **made)  # pyright: ignore

    def reset_parameters(self) -> None:
        """Draw the weights anew, as `nn.Linear` does."""
        for layer in (self.key, self.value, self.out):
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens.

        Parameters
        ----------
        x : Tensor of shape (..., tokens, embed_dim)
            Tokens.

        Returns
        -------
        Tensor of shape (..., tokens, embed_dim)
            Mixed tokens.
        """
        keys = self.key(x)  # (..., t, d)
        scores = keys @ keys.mT / keys.shape[-1]  # (..., t, t)
        if self.attention == "softmax":
            scores = scores.softmax(-1)
        return self.out(scores @ self.value(x))

    def extra_repr(self) -> str:
        """Say what is done to the scores."""
        return f"attention={self.attention!r}"


@rule(SelfAttention)
def self_attention(module: SelfAttention, x: Signal) -> Signal:
    """Mix positions by weights that are their own covariances."""
    bias = module.out.bias
    return x.attended(
        module.attention == "softmax",
        bias is not None,
        width=module.value.out_features,
        trains_value=module.value.weight.requires_grad,
        trains_out=module.out.weight.requires_grad,
        trains_bias=bias is not None and bias.requires_grad,
    )
