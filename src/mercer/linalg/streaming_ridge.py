"""Ridge regression in one pass over batches, the ridge chosen by generalised cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .._core.checks import check_real, check_tensor
from .._core.config import require_memory
from .normal_equations import solve_normal_equations
from .streaming_moments import StreamingMoments


@dataclass(frozen=True, eq=False)
class RidgeSolution:
    """What `StreamingRidge.solve` found; all tensors are float64.

    Attributes
    ----------
    weight : Tensor of shape (num_outputs, num_features)
        W, for predictions ``features @ W.mT + bias``.
    bias : Tensor of shape (num_outputs,)
        b; zero without an intercept.
    ridge : float
        The ridge that was used.
    gcv : float
        The criterion there; infinite where no degree of freedom is left.
    effective_dof : float
        Trace of the hat matrix, the intercept included.
    r2_train : Tensor of shape (num_outputs,)
        Coefficient of determination of each output on the accumulated data.
    ridges : Tensor of shape (grid,)
        The ridges that were scanned; the one given where the ridge was a number.
    gcv_path : Tensor of shape (grid,)
        The criterion at each of them.
    """

    weight: Tensor
    bias: Tensor
    ridge: float
    gcv: float
    effective_dof: float
    r2_train: Tensor
    ridges: Tensor
    gcv_path: Tensor


class StreamingRidge:
    r"""Least squares with a ridge, from moments that one pass over batches accumulates.

    .. math::
        \min_{W, b} \sum_i w_i \|y_i - W z_i - b\|^2 + \lambda \|W\|_F^2

    Parameters
    ----------
    num_features : int
        Length p of a row z of features.
    num_outputs : int
        Length q of a row y of targets.
    intercept : bool, default True
        Whether to fit b.
    device : torch.device or str, optional
        Where the moments live; batches are moved there.

    Attributes
    ----------
    moments : StreamingMoments
        All that is remembered of the data; its moments are attributes here too.

    References
    ----------
    Golub, Heath, Wahba, "Generalized cross-validation as a method for choosing a good ridge
    parameter", Technometrics 21 (1979).

    Examples
    --------
    >>> import torch
    >>> z = torch.linspace(-1, 1, 64).reshape(-1, 1)
    >>> ridge = StreamingRidge(1, 1)
    >>> for batch in z.split(16):
    ...     _ = ridge.update(batch, 3 * batch + 2)
    >>> solution = ridge.solve(ridge=0.0)
    >>> round(solution.weight.item(), 5), round(solution.bias.item(), 5)
    (3.0, 2.0)
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        *,
        intercept: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        self.moments = StreamingMoments(num_features, num_outputs, device=device)
        self.num_features, self.num_outputs = self.moments.num_features, self.moments.num_outputs
        self.intercept = bool(intercept)

    @classmethod
    def from_moments(
        cls,
        *,
        count: float,
        feature_mean: Tensor,
        target_mean: Tensor,
        feature_scatter: Tensor,
        cross_scatter: Tensor,
        target_scatter: Tensor,
        intercept: bool = True,
    ) -> Self:
        """Start from moments computed elsewhere.

        Parameters
        ----------
        count : float
            Number of rows, or the sum of their weights.
        feature_mean : Tensor of shape (num_features,)
            Mean of the features.
        target_mean : Tensor of shape (num_outputs,)
            Mean of the targets.
        feature_scatter : Tensor of shape (num_features, num_features)
            Sum (not mean) of centred products of features.
        cross_scatter : Tensor of shape (num_features, num_outputs)
            Sum of centred products of features and targets.
        target_scatter : Tensor of shape (num_outputs,)
            Sum of centred squares of the targets.
        intercept : bool, default True
            Whether to fit an intercept.

        Returns
        -------
        StreamingRidge
            With copies of the moments in float64, on their device.

        Raises
        ------
        TypeError
            If a moment is not a floating-point tensor.
        ValueError
            If the shapes do not fit, ``feature_scatter`` is not symmetric, a number is not
            finite, or ``count`` is negative.
        """
        check_tensor("feature_mean", feature_mean, ndim=1)
        check_tensor("target_mean", target_mean, ndim=1)
        made = cls(
            len(feature_mean), len(target_mean), intercept=intercept, device=feature_mean.device
        )
        state = {
            "count": torch.tensor(check_real("count", count, least=0.0), dtype=torch.float64),
            "feature_mean": feature_mean,
            "target_mean": target_mean,
            "feature_scatter": feature_scatter,
            "cross_scatter": cross_scatter,
            "target_scatter": target_scatter,
        }
        made.load_state_dict(state)
        return made

    @property
    def count(self) -> float:
        """Sum of the weights so far; the number of rows where none were given."""
        return self.moments.count

    @property
    def feature_mean(self) -> Tensor:
        """Mean of the features, shape (num_features,)."""
        return self.moments.feature_mean

    @property
    def target_mean(self) -> Tensor:
        """Mean of the targets, shape (num_outputs,)."""
        return self.moments.target_mean

    @property
    def feature_scatter(self) -> Tensor:
        """Centred second moment of the features (num_features, num_features)."""
        return self.moments.feature_scatter

    @property
    def cross_scatter(self) -> Tensor:
        """Centred second moment with the targets (num_features, num_outputs)."""
        return self.moments.cross_scatter

    @property
    def target_scatter(self) -> Tensor:
        """Centred sum of squares of each target, shape (num_outputs,)."""
        return self.moments.target_scatter

    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> Self:
        """Add a batch of rows (..., num_features), (..., num_outputs), weights (...).

        See `StreamingMoments.update`, which also says what is refused.
        """
        self.moments.update(features, targets, weights)
        return self

    def merge(self, other: "StreamingRidge") -> Self:
        """Add what another regression has seen; ``other`` stays as it is.

        Raises
        ------
        TypeError
            If ``other`` is not a StreamingRidge.
        ValueError
            If its numbers of features or outputs differ.
        """
        if not isinstance(other, StreamingRidge):
            raise TypeError(f"other: expected a StreamingRidge, got {type(other).__name__}")
        self.moments.merge(other.moments)
        return self

    def subset(self, indices: Tensor | Sequence[int]) -> "StreamingRidge":
        """Return the regression on some of the features, from the same moments.

        See `StreamingMoments.subset` for what ``indices`` may be.
        """
        moments = self.moments.subset(indices)
        return StreamingRidge._of(moments, self.intercept)

    def transformed(self, matrix: Tensor) -> "StreamingRidge":
        """Return the regression on linear combinations ``z @ matrix`` of the features.

        See `StreamingMoments.transformed` for when this is accurate.
        """
        return StreamingRidge._of(self.moments.transformed(matrix), self.intercept)

    @classmethod
    def _of(cls, moments: StreamingMoments, intercept: bool) -> Self:
        made = cls.__new__(cls)
        made.moments, made.intercept = moments, intercept
        made.num_features, made.num_outputs = moments.num_features, moments.num_outputs
        return made

    @torch.no_grad()
    def solve(self, ridge: float | str = "gcv") -> RidgeSolution:
        """Find W and b: one eigendecomposition, one Cholesky factorisation.

        Where the features are linearly dependent and the ridge is zero, the solution of
        smallest norm.

        Parameters
        ----------
        ridge : "gcv" or float, default "gcv"
            The ridge, at least 0, or how to choose it.

        Returns
        -------
        RidgeSolution
            The solution with the criterion and the fit.

        Raises
        ------
        TypeError
            If ``ridge`` is neither a number nor a text.
        ValueError
            If no row was added, or ``ridge`` is negative or an unknown text.
        """
        if isinstance(ridge, str):
            if ridge != "gcv":
                raise ValueError(f"ridge: expected 'gcv' or a number >= 0, got {ridge!r}")
        else:
            ridge = check_real("ridge", ridge, least=0.0)
        self._require_rows()
        p, seen = self.num_features, self.moments
        require_memory(
            8 * 5 * p * p, f"solving for {p} features", "choose some of them with subset(indices)"
        )
        gram, cross, total = seen.feature_scatter, seen.cross_scatter, seen.target_scatter
        if not self.intercept:
            gram = gram.addr(seen.feature_mean, seen.feature_mean, alpha=seen.count)
            cross = cross.addr(seen.feature_mean, seen.target_mean, alpha=seen.count)
            total = total + seen.count * seen.target_mean.square()

        found = solve_normal_equations(
            gram,
            cross,
            float(total.sum()),
            count=seen.count,
            free=float(self.intercept),
            ridge=None if isinstance(ridge, str) else ridge,
        )
        if self.intercept:
            bias = seen.target_mean - found.weight @ seen.feature_mean
        else:
            bias = torch.zeros_like(seen.target_mean)
        return RidgeSolution(
            weight=found.weight,
            bias=bias,
            ridge=found.ridge,
            gcv=found.curve(found.ridge),
            effective_dof=found.curve.effective_dof(found.ridge),
            r2_train=self.score((found.weight, bias)),
            ridges=found.ridges,
            gcv_path=found.gcv_path,
        )

    @torch.no_grad()
    def score(self, solution: "RidgeSolution | tuple[Tensor, Tensor | None]") -> Tensor:
        """Coefficient of determination of each output on the accumulated data.

        Parameters
        ----------
        solution : RidgeSolution or tuple of Tensor
            Any ``(weight, bias)`` of shapes (num_outputs, num_features) and (num_outputs,);
            a bias of None is zero.

        Returns
        -------
        Tensor of shape (num_outputs,)
            ``1 - RSS / TSS`` in float64; for a constant output 1 where the fit is exact and 0
            elsewhere, as in scikit-learn.

        Raises
        ------
        ValueError
            If no row was added, or the shapes do not fit.
        """
        self._require_rows()
        seen = self.moments
        weight, bias = (
            (solution.weight, solution.bias) if isinstance(solution, RidgeSolution) else solution
        )
        expected = (seen.num_outputs, seen.num_features)
        if check_tensor("weight", weight).shape != expected:
            raise ValueError(f"weight: expected shape {expected}, got {tuple(weight.shape)}")
        weight = weight.to(seen.feature_mean)
        offset = seen.target_mean - weight @ seen.feature_mean  # (q,), what the bias should be
        if bias is not None:
            if check_tensor("bias", bias).shape != expected[:1]:
                raise ValueError(f"bias: expected shape {expected[:1]}, got {tuple(bias.shape)}")
            offset = offset - bias.to(offset)
        total = seen.target_scatter
        fitted = weight @ seen.feature_scatter - 2 * seen.cross_scatter.mT  # (q, p)
        residual = (total + (fitted * weight).sum(-1)).clamp_min(0.0)
        residual = residual + seen.count * offset.square()
        constant = total == 0
        r2 = 1 - residual / torch.where(constant, 1.0, total)
        return torch.where(constant, (residual == 0).to(r2), r2)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments as plain tensors, copies, to save and resume a long pass."""
        return self.moments.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over moments that `state_dict` returned; see `StreamingMoments.load_state_dict`."""
        self.moments.load_state_dict(state)

    def _require_rows(self) -> None:
        if self.count == 0:
            raise ValueError(
                "features: no rows to solve from; call update(features, targets) first"
            )

    def __repr__(self) -> str:
        return (
            f"StreamingRidge(num_features={self.num_features}, num_outputs={self.num_outputs}, "
            f"intercept={self.intercept}, count={self.count:g})"
        )
