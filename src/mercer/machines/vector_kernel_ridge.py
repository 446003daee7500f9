"""Kernel ridge regression of vectors, with a kernel between their entries too."""

from typing import Any, Self, final

import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_finite, check_real
from .._core.config import require_memory
from ..kernels import Kernel
from .base import Machine
from .kernel_input import KernelInput
from .rows import as_tensor, check_rows, check_targets, check_weights, in_kind
from .training_matrix import training_matrix


@final
class VectorKernelRidge(MultiOutputMixin, RegressorMixin, Machine):
    r"""Regress vectors whose entries have to do with each other, by a separable kernel.

    .. math:: k(x, y) = \kappa(x, y) \, B, \qquad
        \min_f \sum_i w_i \| y_i - f(x_i) \|^2 + \alpha \|f\|^2, \qquad B = U \Lambda U^\top

    The system of n q equations falls into q systems of n: column j of :math:`Y U` is solved with
    :math:`\lambda_j K + \alpha I`, all from one eigendecomposition of K. With B = I the entries
    are regressed one by one, as `KernelRidge` does; a B with large entries off the diagonal
    lets them share what they learn.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        :math:`\kappa`, by name (then with the median distance of the data as its lengthscale) or
        itself, which is not changed; or ``"precomputed"``: X is then the kernel matrix.
    alpha : float, default 1.0
        The ridge, in the units of the kernel, not divided by n.
    output_kernel : array-like or Tensor of shape (n_targets, n_targets), "covariance" or None
        B, symmetric positive semi-definite; ``"covariance"`` takes the correlations of the targets
        and None the identity. Entries in the null space of B are predicted as zero.
    standardize : bool, default False
        Whether columns of X are brought to mean 0 and standard deviation 1 first.

    Attributes
    ----------
    dual_coef_ : Tensor of shape (n_centers, n_targets)
        Coefficients A B of the predictions :math:`\kappa(x, X) A B`.
    output_kernel_ : Tensor of shape (n_targets, n_targets)
        B.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.
    MemoryError
        In ``fit``, if the matrix does not fit the memory budget.

    References
    ----------
    Micchelli, Pontil, "On learning vector-valued functions", Neural Computation 17 (2005).

    Álvarez, Rosasco, Lawrence, "Kernels for vector-valued functions: a review", 2012, arXiv
    1106.6251.

    Examples
    --------
    >>> import numpy as np
    >>> from mercer.machines import VectorKernelRidge
    >>> x = np.linspace(0, 1, 50)[:, None]
    >>> y = np.concatenate([np.sin(6 * x), -np.sin(6 * x)], 1)
    >>> model = VectorKernelRidge(alpha=1e-3, output_kernel=[[1.0, -0.9], [-0.9, 1.0]]).fit(x, y)
    >>> model.score(x, y) > 0.999
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        alpha: float = 1.0,
        *,
        output_kernel: Any = None,
        standardize: bool = False,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.output_kernel = output_kernel
        self.standardize = standardize

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the coefficients.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix where it is precomputed.
        y : array-like or Tensor of shape (n_samples,) or (n_samples, n_targets)
            The targets.
        sample_weight : array-like or Tensor of shape (n_samples,), optional
            Weights of rows; a whole number is the same as so many equal rows.

        Returns
        -------
        VectorKernelRidge
            The estimator itself.
        """
        alpha = check_real("alpha", self.alpha, above=0.0)
        rows = check_rows(self, X, reset=True)
        targets = check_targets(y, rows).double()
        self._flat = targets.ndim == 1
        targets = targets.unsqueeze(-1) if self._flat else targets  # (n, q)
        given = check_weights(sample_weight, rows)
        source = KernelInput.fit(self.kernel, rows, weights=given, standardize=self.standardize)
        weights = targets.new_ones(len(targets)) if given is None else given
        index = weights.nonzero().squeeze(-1)
        targets, roots = targets[index], weights[index].sqrt().unsqueeze(-1)
        self.output_kernel_ = self._outputs(targets, weights[index])
        eigenvalues, turn = torch.linalg.eigh(self.output_kernel_)
        eigenvalues = eigenvalues.clamp(min=0)
        option = "use KernelRidge, which iterates"
        matrix = training_matrix(source, index, copies=6, option=option)
        n = len(matrix)
        require_memory(8 * 3 * n * n, f"the eigenvectors of {n} rows", option)
        values, vectors = torch.linalg.eigh(roots * matrix * roots.mT)  # of W^(1/2) K W^(1/2)
        turned = vectors.mT @ (roots * targets @ turn)  # (n, q)
        solved = turned / (values.clamp(min=0).unsqueeze(-1) * eigenvalues + alpha)
        coefficients = roots * (vectors @ solved)  # (n, q), of Y U
        self.dual_coef_ = (coefficients * eigenvalues) @ turn.mT
        self._input, self.kernel_ = source.keep(index), source.kernel
        return self

    def _outputs(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Return B."""
        q = targets.shape[1]
        if self.output_kernel is None:
            return torch.eye(q).to(targets)
        if isinstance(self.output_kernel, str):
            if self.output_kernel != "covariance":
                raise ValueError(
                    "output_kernel: expected a matrix, 'covariance' or None, "
                    f"got {self.output_kernel!r}"
                )
            share = (weights / weights.sum()).unsqueeze(-1)
            gaps = targets - (share * targets).sum(0)
            found = (share * gaps).mT @ gaps
            scale = found.diagonal().sqrt()
            scale = torch.where(scale > 0, scale, 1.0)
            return found / scale / scale.unsqueeze(-1) + torch.diag(
                (found.diagonal() == 0).double()
            )
        found = torch.as_tensor(self.output_kernel, dtype=torch.float64).to(targets)
        if found.shape != (q, q):
            raise ValueError(
                f"output_kernel: expected shape ({q}, {q}) for {q} targets, "
                f"got {tuple(found.shape)}"
            )
        check_finite("output_kernel", found)
        gap = float((found - found.mT).abs().max())
        values = torch.linalg.eigvalsh((found + found.mT) / 2)
        scale = float(values.abs().max())
        if gap > 1e-8 * scale or float(values[0]) < -1e-8 * scale:
            raise ValueError(
                "output_kernel: expected a symmetric positive semi-definite matrix, got entries "
                f"that differ by {gap:.3g} from their mirror images and eigenvalues from "
                f"{float(values[0]):.6g} to {float(values[-1]):.6g}"
            )
        return (found + found.mT) / 2

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Predict the targets.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows; the kernel between them and the training rows where it is precomputed.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,) or (n_samples, n_targets)
            The predictions, in the caller's kind and dtype.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        cross = self._input.cross(rows)
        found = (cross @ self.dual_coef_.to(cross.dtype)).to(as_tensor(rows[:0]).dtype)
        return in_kind(found.squeeze(-1) if self._flat else found, rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
