"""Regression by a Gaussian process whose variance has any distribution."""

from collections.abc import Callable
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_int, check_real
from .._core.config import require_memory
from ..kernels import Kernel
from .base import Machine
from .gp_draws import covariance_factor
from .gp_exact import by_blocks, prior_covariance
from .gp_settings import fit_inputs, normalise
from .inverse_gamma import InverseGamma
from .rows import as_tensor, check_rows, check_targets, in_kind

Prior = InverseGamma | Callable[[int, np.random.RandomState], np.ndarray]


@final
class ScaleMixtureProcess(RegressorMixin, Machine):
    r"""Regression by a Gaussian process of random variance, for any distribution of it.

    .. math::

        \sigma^2 \sim H, \quad y \mid \sigma^2 \sim N(0, \sigma^2 K + \epsilon I), \quad
        w_s \propto N(y; 0, \sigma_s^2 K + \epsilon I)

    The posterior is a mixture of those of Gaussian processes, over variances drawn from the prior
    and weighted by how likely they make the data: importance sampling, with one eigendecomposition
    for all of them. The noise is not scaled; where the prior is an inverse gamma distribution and
    the noise is to be scaled too, `StudentTProcessRegressor` has the answer in closed form.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (with the median distance of the data as its lengthscale, and the
        targets' variance) or itself; its hyperparameters are not fitted.
    prior : InverseGamma or callable, optional
        H: a distribution, or ``draw(count, random_state)`` that returns variances (count,). None
        is ``InverseGamma(2, 2)``.
    noise : float, default 1e-2
        :math:`\epsilon`, in units of the normalised targets' variance, positive.
    num_samples : int, default 1000
        Variances that are drawn.
    normalize_y : bool, default True
        Whether targets are brought to mean 0 and standard deviation 1.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1.
    random_state : int, RandomState instance or None, default None
        Of the variances.

    Attributes
    ----------
    kernel_ : Kernel
        The kernel.
    scales_, weights_ : ndarray of shape (num_samples,)
        The variances drawn, and their weights after the data.
    effective_samples_ : float
        :math:`1 / \sum_s w_s^2`: how many draws the posterior rests on.
    log_marginal_likelihood_value_ : float
        Logarithm of the mean of the likelihoods, an estimate.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.
    MemoryError
        If the eigenvectors do not fit the memory budget.

    References
    ----------
    Lee, Yun, Yang, Lee: Scale mixtures of neural network Gaussian processes, ICLR 2022, arXiv
    2107.01408.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.kernels import RBF
    >>> from mercer.machines import ScaleMixtureProcess
    >>> X = np.linspace(0, 6, 30)[:, None]
    >>> two = lambda count, state: state.choice([1.0, 100.0], count)
    >>> model = ScaleMixtureProcess(RBF(), two, normalize_y=False, random_state=0)
    >>> model = model.fit(X, 10 * np.sin(X[:, 0]))
    >>> bool(model.weights_[model.scales_ == 100.0].sum() > 0.999)
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        prior: Prior | None = None,
        noise: float = 1e-2,
        *,
        num_samples: int = 1000,
        normalize_y: bool = True,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.prior = prior
        self.noise = noise
        self.num_samples = num_samples
        self.normalize_y = normalize_y
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any) -> Self:
        """Decompose the kernel matrix, and weigh the variances by the data.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,)
            Their targets.

        Returns
        -------
        ScaleMixtureProcess
            The machine itself.
        """
        noise = check_real("noise", self.noise, above=0.0)
        count = check_int("num_samples", self.num_samples)
        rows = check_rows(self, X, reset=True)
        targets = check_targets(y, rows, multi_output=False).double()
        targets, self._mean, self._scale = normalise(targets.unsqueeze(-1), self.normalize_y)
        size = float(targets.square().mean()) or 1.0
        self._inputs = fit_inputs(
            self.kernel, as_tensor(rows), size, ard=False, standardize=self.standardize
        )
        n = len(targets)
        option = "fit to fewer rows, or use GaussianProcessRegressor(method='inducing')"
        require_memory(8 * (4 * n * n + 3 * n * count), f"eigenvectors of shape {(n, n)}", option)
        values, vectors = torch.linalg.eigh(self._inputs.kernel(self._inputs.points))
        if float(values[0]) < -1e-6 * max(float(values[-1]), noise):
            raise ValueError(
                "kernel: expected a positive semi-definite matrix, got eigenvalues from "
                f"{float(values[0]):.3g} to {float(values[-1]):.3g}"
            )
        scales = self._draw(count).to(values)  # (s,)
        variances = scales.unsqueeze(-1) * values.clamp_min(0.0) + noise  # (s, n)
        turned = (vectors.mT @ targets).squeeze(-1)  # (n,)
        logs = -0.5 * (turned.square() / variances + variances.log()).sum(-1)
        logs = logs - 0.5 * n * float(torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64)))
        total = torch.logsumexp(logs, 0)
        weights = (logs - total).exp()
        self.log_marginal_likelihood_value_ = float(total) - float(np.log(count))
        self.effective_samples_ = 1.0 / float(weights.square().sum())
        self.scales_, self.weights_ = scales.cpu().numpy(), weights.cpu().numpy()
        # How each draw shrinks each direction: s_i / (s_i lambda + noise).
        self._shrink = scales.unsqueeze(-1) / variances  # (s, n)
        self._vectors, self._turned = vectors, turned
        return self

    @property
    def kernel_(self) -> Kernel:
        """The kernel."""
        check_is_fitted(self)
        return self._inputs.kernel

    def _draw(self, count: int) -> Tensor:
        prior = InverseGamma(2.0, 2.0) if self.prior is None else self.prior
        state = check_random_state(self.random_state)
        if isinstance(prior, InverseGamma):
            drawn = prior.draw(count, state)
        elif callable(prior):
            drawn = np.asarray(prior(count, state), dtype=float)
        else:
            raise TypeError(
                f"prior: expected an InverseGamma or a callable, got {type(prior).__name__}"
            )
        if drawn.shape != (count,) or not np.isfinite(drawn).all() or drawn.min() < 0:
            raise ValueError(
                f"prior: expected {count} finite variances >= 0 from its draw, got shape "
                f"{drawn.shape}"
            )
        return torch.from_numpy(drawn)

    def _weights(self) -> Tensor:
        return torch.from_numpy(self.weights_).to(self._turned)

    def _means(self, turned: Tensor) -> Tensor:
        """Means of all draws (s, m) where the kernel with the eigenvectors is turned (m, n)."""
        return (self._shrink * self._turned) @ turned.mT

    def _turn(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self._inputs.cross(x) @ self._vectors)  # (m, n)

    @torch.no_grad()
    def predict(self, X: Any, return_std: bool = False, *, include_noise: bool = False) -> Any:
        """Predict the mean of the mixture, and its standard deviation.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.
        return_std : bool, default False
            Whether to return standard deviations: within the draws and between them.
        include_noise : bool, default False
            Whether these are of new observations, and not of the function.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            The mean; a tensor for a tensor. With ``return_std`` a tuple with deviations.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        weights, extra = self._weights(), self.noise if include_noise else 0.0
        scales = torch.from_numpy(self.scales_).to(weights)

        def moments(block: Tensor) -> Tensor:
            turned = self._turn(block)  # (b, n)
            means = self._means(turned)  # (s, b)
            mean = weights @ means
            if not return_std:
                return mean.unsqueeze(-1)
            left = (scales.unsqueeze(-1) * self._shrink) @ turned.square().mT  # (s, b)
            within = (weights * scales).sum() * self._inputs.diag(block) - weights @ left
            between = weights @ (means - mean).square()
            deviation = (within + between + extra).clamp_min(0.0).sqrt()
            return torch.stack([mean, deviation], -1)

        found = by_blocks(moments, x, len(self._turned) + len(weights)) * self._scale
        mean = in_kind((found[:, 0] + self._mean).to(x.dtype), rows)
        return (mean, in_kind(found[:, 1].to(x.dtype), rows)) if return_std else mean

    @torch.no_grad()
    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> Any:
        """Draw functions from the posterior: a variance by its weight, then a function.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_rows, n_features)
            Rows.
        n_samples : int, default 1
            Number of draws.
        random_state : int, RandomState instance or None, default 0
            Their source.

        Returns
        -------
        ndarray or Tensor of shape (n_rows, n_samples)
            The draws; a tensor for a tensor.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            As `predict`.
        """
        check_is_fitted(self)
        count = check_int("n_samples", n_samples)
        state = check_random_state(random_state)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        turned, prior = self._turn(x), prior_covariance(self._inputs, x)
        means = self._means(turned)  # (s, m)
        chosen = state.choice(len(self.weights_), count, p=self.weights_ / self.weights_.sum())
        drawn = turned.new_empty(len(x), count)
        for s in np.unique(chosen):
            places = np.flatnonzero(chosen == s)
            scale = float(self.scales_[s])
            shrunk = (turned * (scale * self._shrink[s])) @ turned.mT
            normals = torch.from_numpy(state.standard_normal((len(places), len(x)))).to(turned)
            factor = covariance_factor(scale * prior - shrunk)
            drawn[:, places] = means[s].unsqueeze(-1) + factor @ normals.mT
        return in_kind((drawn * self._scale + self._mean).to(x.dtype), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
