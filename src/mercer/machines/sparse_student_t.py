"""The variational bound of a sparse Student-t process under a softmax."""

import math
from typing import final

import torch
from torch import Tensor, nn

from ..kernels import Kernel

_JITTER = 1e-6  # of the mean diagonal of the landmarks' matrix


@final
class SparseStudentT(nn.Module):
    r"""What is known of c functions at m landmarks, and of the variance that they share.

    .. math::

        \sigma^2 \sim \mathrm{InvGamma}(a, b), \quad
        v_c \mid \sigma^2 \sim N(m_c, \sigma^2 \operatorname{diag} s_c), \quad
        f_c(Z) = L v_c, \quad L L^\top = K_{ZZ}

    Where the paper has a diagonal covariance of the values at landmarks themselves, here it is
    one of v: neighbouring landmarks are strongly correlated, which no diagonal can say.

    Parameters
    ----------
    landmarks : Tensor of shape (m, d)
        Z, float64.
    classes : int
        c.
    alpha, beta : float
        Shape and scale of the prior of the variance.
    """

    landmarks: Tensor

    def __init__(self, landmarks: Tensor, classes: int, alpha: float, beta: float) -> None:
        super().__init__()
        count = len(landmarks)
        like = {"dtype": landmarks.dtype, "device": landmarks.device}
        self.prior = (alpha, beta)
        self.register_buffer("landmarks", landmarks)
        self.means = nn.Parameter(torch.zeros(count, classes, **like))
        self.log_spread = nn.Parameter(torch.zeros(count, classes, **like))
        self.log_shape = nn.Parameter(torch.tensor([alpha, beta], **like).log())

    def divergence(self) -> Tensor:
        r"""Divergence of the posterior of v and the variance from their prior.

        .. math::

            \tfrac12 \sum \left(s - 1 - \log s + \tfrac ab m^2\right)
            + \alpha \ln \tfrac b\beta - \ln \Gamma(a) + \ln \Gamma(\alpha)
            + (a - \alpha) \psi(a) + \tfrac ab (\beta - b)
        """
        alpha, beta = self.prior
        a, b = self.log_shape.exp()
        spread = self.log_spread.exp()
        inside = spread - 1 - self.log_spread + a / b * self.means.square()
        variance = alpha * (b / beta).log() - torch.lgamma(a) + math.lgamma(alpha)
        variance = variance + (a - alpha) * torch.digamma(a) + a / b * (beta - b)
        return 0.5 * inside.sum() + variance

    def moments(self, kernel: Kernel, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (n, c) of f, and its variance (n, c) in units of the shared one."""
        gram = kernel(self.landmarks)
        jitter = _JITTER * gram.diagonal().mean()
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky(gram + jitter * eye)
        cross = kernel(self.landmarks, x)
        half = torch.linalg.solve_triangular(factor, cross, upper=False).mT  # (n, m)
        rest = (kernel.diag(x) - half.square().sum(-1)).clamp_min(0.0)
        return half @ self.means, half.square() @ self.log_spread.exp() + rest.unsqueeze(-1)

    def draw(
        self, mean: Tensor, variance: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """Draw logits (count, n, c); the classes of a draw share its variance."""
        a, b = self.log_shape.exp()
        # Differentiable in a, and of a source of its own, as torch.distributions is not.
        gamma = torch._standard_gamma(  # pyright: ignore[reportPrivateImportUsage]
            a.expand(count), generator
        )
        scale = (b / gamma.clamp_min(1e-30)).reshape(-1, 1, 1)
        normals = torch.randn(
            count, *mean.shape, generator=generator, dtype=mean.dtype, device=mean.device
        )
        return mean + (scale * variance + 1e-12).sqrt() * normals

    def bound(
        self,
        kernel: Kernel,
        x: Tensor,
        labels: Tensor,
        total: int,
        count: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Estimate the evidence lower bound of all rows from some of them.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        x : Tensor of shape (n, d)
            Some rows.
        labels : LongTensor of shape (n,)
            Their classes.
        total : int
            Number of all rows.
        count : int
            Draws of the logits.
        generator : torch.Generator
            Their source.

        Returns
        -------
        Tensor of shape ()
            The bound.
        """
        logits = self.draw(*self.moments(kernel, x), count, generator)  # (s, n, c)
        each = logits.log_softmax(-1).mean(0).gather(-1, labels.unsqueeze(-1))
        return total * each.mean() - self.divergence()
