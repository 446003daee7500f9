"""What a kernel predicts for ridge regression on it, from its spectrum or from its Gram matrix."""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_real, check_tensor
from ..linalg.psd import check_psd_matrix, psd_spectrum
from .learning_curve_inputs import Numbers, columns, numbers, shown
from .learning_curve_law import effective_ridge, moments, risks, solve_gamma
from .learning_curve_optimum import best_gamma, ends
from .learning_curve_result import LearningCurve

_OPTION = "predict from fewer points"
_ROUNDING = 1e-12


@final
@dataclass(frozen=True, eq=False)
class KernelRisk:
    r"""The risk of kernel ridge regression, and of random features, predicted without training.

    With eigenvalues :math:`\lambda_i` of the kernel, the target's coefficients :math:`v_i` on the
    eigenfunctions, noise of variance :math:`s^2`, n samples, k random features (infinitely many
    for the kernel itself) and ridge :math:`\delta`, solve for the effective ridges
    :math:`\kappa` and :math:`\gamma`

    .. math::
        \sum_i e_i + \frac{\delta}{\kappa} = n, \quad
        \sum_i e_i + \frac{k \kappa}{\gamma} = k, \quad e_i = \frac{\lambda_i}{\lambda_i + \gamma},

    then with :math:`z = \sum_i e_i`, :math:`q = \sum_i e_i^2`

    .. math::
        \text{test} = \frac{\sum_i (1 - e_i - \frac{k - z}{k - q} e_i (1 - e_i)) v_i^2 + s^2}
        {1 - \frac{q (k - 2z) + z^2}{n (k - q)}}, \qquad
        \text{train} = (1 - z/n)^2 \, \text{test}.

    The predictor is :math:`\hat k^\top (\hat K + \delta I)^{-1} y`: the ridge is added to the Gram
    matrix, not to its mean over samples, and features carry a factor :math:`1/\sqrt k`.

    *From a Gram matrix of N points* the eigenvalues and coefficients are those of the sample.
    Put into the formula above, they describe a population of N points in which the training points
    are met again, and predictions are too low by about n/N. `from_gram` therefore predicts what
    happens when n of the N points are drawn without replacement and the others are the test
    points; on average over samples this is the error on new points. It comes to
    :math:`\delta = \kappa (n - z) / (1 - z/N)` and, with Q the numerator of the fraction above
    divided by :math:`k - q`, to the denominator
    :math:`1 - Q/n - (2z - Q - z^2/n)/N`; see the source for its derivation. At n = N it is
    generalised cross-validation.

    Both take the eigenfunctions for as good as independent numbers. Where the inputs have few
    dimensions or fall into clusters, and samples are few, the true risk is somewhat higher: by 2 to
    6 % on handwritten digits.

    Make it with `from_gram`, `from_spectrum` or `from_covariance`.

    Attributes
    ----------
    eigenvalues : Tensor of shape (modes,)
        Of the kernel operator, falling, float64; those of a Gram matrix are divided by N.
    power : Tensor of shape (modes,)
        Squares of the target's coefficients, summed over outputs; their sum is the mean square of
        the part of the target that the kernel can learn.
    noise_variance : float
        Mean square of what it cannot, summed over outputs.
    population : float
        N, or infinity where the spectrum is that of a distribution.

    References
    ----------
    Simon, Karkada, Ghosh, Belkin, "More is better in modern machine learning: when infinite
    overparameterization is optimal and overfitting is obligatory", ICLR 2024, arXiv 2311.14646.

    Examples
    --------
    >>> import torch
    >>> i = torch.arange(1, 401, dtype=torch.float64)
    >>> risk = KernelRisk.from_spectrum(i**-1.5, i**-0.75, noise_variance=0.1)
    >>> risk.predict(samples=[50, 100], ridge=0.1).test
    tensor([0.5245, 0.3746], dtype=torch.float64)
    >>> risk.predict(samples=60, features=[20, 200], ridge="optimal").test
    tensor([0.9493, 0.5534], dtype=torch.float64)
    """

    eigenvalues: Tensor
    power: Tensor
    noise_variance: float
    population: float

    # -- where the spectrum comes from -----------------------------------------------------------

    @classmethod
    def from_spectrum(
        cls, eigenvalues: Tensor, coefficients: Tensor, noise_variance: float = 0.0
    ) -> "KernelRisk":
        """Predict from the eigenvalues of a kernel under a distribution of inputs.

        Parameters
        ----------
        eigenvalues : Tensor of shape (modes,)
            Not negative, at least one of them positive.
        coefficients : Tensor of shape (modes,) or (modes, outputs)
            The target on the eigenfunctions.
        noise_variance : float, default 0
            Of the labels, summed over outputs.

        Returns
        -------
        KernelRisk
            What predicts.

        Raises
        ------
        TypeError
            If one of both is not a floating-point tensor.
        ValueError
            If shapes do not fit, a number is not finite, or an eigenvalue is negative.
        """
        check_tensor("eigenvalues", eigenvalues, ndim=1)
        check_finite("eigenvalues", eigenvalues)
        coefficients = columns("coefficients", coefficients, len(eigenvalues))
        values = eigenvalues.detach().double()
        if not len(values) or float(values.min()) < 0 or float(values.max()) == 0:
            ends = (float(values.min()), float(values.max())) if len(values) else "none"
            raise ValueError(
                "eigenvalues: expected numbers >= 0, at least one of them above, "
                f"got from smallest to largest {ends}"
            )
        noise = check_real("noise_variance", noise_variance, least=0.0)
        order = values.argsort(descending=True, stable=True)
        power = coefficients.square().sum(-1)
        return cls(values[order].cpu(), power[order].cpu(), noise, math.inf)

    @classmethod
    def from_gram(cls, gram: Tensor, targets: Tensor) -> "KernelRisk":
        """Predict from the kernel matrix of N labelled points.

        Parameters
        ----------
        gram : Tensor of shape (N, N)
            The kernel between the points; positive semi-definite. In float64 if it can be: modes
            below the rounding of its dtype count as not learnable.
        targets : Tensor of shape (N,) or (N, outputs)
            Their labels, noise included; centre them if the predictor has an intercept.

        Returns
        -------
        KernelRisk
            What predicts, for up to N samples.

        Raises
        ------
        TypeError
            If one of both is not a floating-point tensor.
        ValueError
            If shapes do not fit, a number is not finite, or the matrix is not symmetric and
            positive semi-definite.
        MemoryError
            If its eigenvectors do not fit the memory budget.
        """
        eigenvalues, vectors = psd_spectrum(gram, None, _OPTION)
        n = len(vectors)
        y = columns("targets", targets, n)
        power = (vectors.mT @ y).square().sum(-1) / n  # (rank,)
        return cls._of_population(eigenvalues, power, float(y.square().sum()) / n, n)

    @classmethod
    def from_covariance(cls, gram: Tensor, covariance: Tensor) -> "KernelRisk":
        """Predict the mean over targets drawn from a Gaussian process.

        Parameters
        ----------
        gram : Tensor of shape (N, N)
            The student's kernel between N points.
        covariance : Tensor of shape (N, N)
            The teacher's kernel between the same points: targets are drawn from N(0, covariance).

        Returns
        -------
        KernelRisk
            What predicts, for up to N samples.

        Raises
        ------
        TypeError
            If one of both is not a floating-point tensor.
        ValueError
            If shapes do not fit, a number is not finite, or a matrix is not symmetric and
            positive semi-definite.
        MemoryError
            If the eigenvectors do not fit the memory budget.
        """
        eigenvalues, vectors = psd_spectrum(gram, None, _OPTION)
        teacher = check_psd_matrix("covariance", covariance)
        n = len(vectors)
        if len(teacher) != n:
            raise ValueError(
                f"covariance: expected shape ({n}, {n}) like gram, got {tuple(covariance.shape)}"
            )
        power = ((teacher @ vectors) * vectors).sum(0).clamp(min=0) / n  # (rank,)
        return cls._of_population(eigenvalues, power, float(teacher.trace()) / n, n)

    @classmethod
    def _of_population(cls, eigenvalues: Tensor, power: Tensor, total: float, n: int):
        if not len(eigenvalues):
            raise ValueError("gram: expected a matrix that is not zero")
        # What lies on no mode above rounding cannot be learnt from n points either.
        left = max(total - float(power.sum()), 0.0)
        return cls(eigenvalues.flip(0).cpu() / n, power.flip(0).cpu(), left, float(n))

    # -- predictions -----------------------------------------------------------------------------

    def predict(
        self,
        samples: Numbers,
        *,
        features: Numbers | None = None,
        ridge: Numbers | Literal["optimal"] = 0.0,
    ) -> LearningCurve:
        """Predict the risk for each number of samples, features, and ridge.

        Parameters
        ----------
        samples : float, sequence or Tensor
            Numbers of training points; with `features` and `ridge` of shapes that broadcast.
        features : float, sequence or Tensor, optional
            Numbers of random features; None, or infinity, is the kernel itself.
        ridge : float, sequence, Tensor or "optimal", default 0
            What is added to the diagonal of the Gram matrix; "optimal" takes for each the ridge of
            least test risk.

        Returns
        -------
        LearningCurve
            Risks, of the broadcast shape; infinite at the peak where samples equal features
            without a ridge.

        Raises
        ------
        TypeError
            If one is not made of real numbers.
        ValueError
            If shapes do not broadcast, a number is out of range, there are more samples than points
            in the Gram matrix, or no ridge and as many samples and features as eigenvalues above
            zero.
        """
        if isinstance(ridge, str):
            if ridge != "optimal":
                raise ValueError(f'ridge: expected numbers >= 0 or "optimal", got {ridge!r}')
            n, k, _ = self._questions(samples, features, 0.0)
            spectrum = (self.eigenvalues, self.power, self.noise_variance, self.population)
            gamma = best_gamma(*spectrum, n.flatten(), k.flatten())
            return self._curve(n, k, gamma, optimal=True)
        n, k, d = self._questions(samples, features, ridge)
        rank = int((self.eigenvalues > 0).sum())
        if bool(((d == 0) & (torch.minimum(n, k) >= rank)).any()):
            raise ValueError(
                f"ridge: expected > 0 for samples and features that both reach the {rank} "
                f"eigenvalues above zero, got 0 with samples {shown(samples)}"
            )
        gamma = solve_gamma(
            self.eigenvalues, n.flatten(), k.flatten(), d.flatten(), self.population
        )
        return self._curve(n, k, gamma, given=d)

    def path(
        self, samples: float, *, features: float | None = None, num_ridges: int = 200
    ) -> LearningCurve:
        """Compute the risk along a path of ridges from none, without solving for any.

        Parameters
        ----------
        samples : float
            Number of training points.
        features : float, optional
            Number of random features; None is the kernel itself.
        num_ridges : int, default 200
            Points of the path, evenly spaced in the logarithm of the effective ridge gamma.

        Returns
        -------
        LearningCurve
            Risks of shape (num_ridges,), by rising ridge.

        Raises
        ------
        TypeError
            If an argument is not a number.
        ValueError
            If a number is out of range.
        """
        steps = check_int("num_ridges", num_ridges, least=2)
        n, k, _ = self._questions(samples, features, 0.0)
        if n.ndim:
            raise ValueError(f"samples, features: expected one number, got shape {tuple(n.shape)}")
        low, high = ends(self.eigenvalues, self.population, n.reshape(1), k.reshape(1))
        t = torch.linspace(0, 1, steps, dtype=torch.float64)
        gamma = low * (high / low) ** t  # (num_ridges,)
        n, k = n.expand(steps), k.expand(steps)
        return self._curve(n, k, gamma)

    # -- their parts -----------------------------------------------------------------------------

    def _questions(self, samples, features, ridge) -> tuple[Tensor, Tensor, Tensor]:
        """Return samples, features and ridge as float64 tensors of one shape, checked."""
        n = numbers("samples", samples, above=0.0)
        k = numbers("features", math.inf if features is None else features, above=0.0)
        d = numbers("ridge", ridge, least=0.0)
        if not bool(n.isfinite().all() & d.isfinite().all()):
            raise ValueError("samples, ridge: expected finite numbers")
        if float(n.max()) > self.population:
            raise ValueError(
                f"samples: expected at most the {self.population:.0f} points of the Gram matrix, "
                f"got {shown(samples)}"
            )
        try:
            n, k, d = torch.broadcast_tensors(n, k, d)
        except RuntimeError as error:
            raise ValueError(
                f"samples, features, ridge: shapes do not broadcast, got {tuple(n.shape)}, "
                f"{tuple(k.shape)}, {tuple(d.shape)}"
            ) from error
        return n, k, d

    def _curve(self, n, k, gamma: Tensor, given: Tensor | None = None, optimal: bool = False):
        """Evaluate the law at gamma (b,), in the shape of n."""
        flat_n, flat_k = n.flatten(), k.flatten()
        m = moments(self.eigenvalues, self.power, gamma)
        kappa, ridge = effective_ridge(flat_n, flat_k, self.population, gamma, m.z)
        found = (*risks(m, flat_n, flat_k, self.population, self.noise_variance), kappa, gamma)
        test, train, overfitting, kappa, gamma = (each.reshape(n.shape) for each in found)
        if given is None:  # computed from n - z, of which rounding leaves a rest where it is none
            ridge = torch.where(flat_n - m.z > _ROUNDING * flat_n, ridge, 0.0).reshape(n.shape)
        else:
            ridge = given
        return LearningCurve(n, k, ridge, test, train, kappa, gamma, overfitting, optimal)
