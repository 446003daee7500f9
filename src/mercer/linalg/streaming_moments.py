"""First and second moments of pairs of rows, in one pass over batches, centred, in float64."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from .._core.checks import check_finite, check_int, check_last_dim, check_tensor
from .._core.config import require_memory
from .._core.workers import in_order

_BLOCK_ROWS = 4096  # fixed, not fitted to memory: the same data give the same bits anywhere
_PANEL = 192  # columns of a panel of Z^T Z; only panels on and above the diagonal are computed


class StreamingMoments:
    r"""Means and centred second moments of features z and targets y, batch by batch.

    .. math::
        \bar z = \tfrac1n \sum_i w_i z_i, \qquad
        S_{zz} = \sum_i w_i (z_i - \bar z)(z_i - \bar z)^\top, \qquad n = \sum_i w_i

    Batches are joined with the pairwise update, so that a large common offset does not cancel.
    The result does not depend on how the rows are batched, beyond rounding.

    Parameters
    ----------
    num_features : int
        Length p of a row z.
    num_outputs : int
        Length q of a row y.
    device : torch.device or str, optional
        Where the moments live; batches are moved there.

    Attributes
    ----------
    count : float
        Sum n of the weights so far; the number of rows where none were given.
    feature_mean : Tensor of shape (num_features,)
        Mean of z.
    target_mean : Tensor of shape (num_outputs,)
        Mean of y.
    cross_scatter : Tensor of shape (num_features, num_outputs)
        Sum of w (z - mean)(y - mean)^T.
    target_scatter : Tensor of shape (num_outputs,)
        Sum of w (y - mean)^2.

    References
    ----------
    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", COMPSTAT (1982).

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0], [2.0], [6.0]]) + 1e6
    >>> moments = StreamingMoments(1, 1).update(z[:2], z[:2]).update(z[2:], z[2:])
    >>> moments.feature_mean.item() - 1e6, round(moments.feature_scatter.item(), 6)
    (3.0, 14.0)
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        self.num_features = p = check_int("num_features", num_features)
        self.num_outputs = q = check_int("num_outputs", num_outputs)
        require_memory(
            8 * p * (p + q),
            f"the second moments of {p} features and {q} outputs",
            "use fewer features",
        )
        like: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.count = 0.0
        self.feature_mean = torch.zeros(p, **like)
        self.target_mean = torch.zeros(q, **like)
        self._panels = torch.zeros(p, p, **like)  # valid on and above the diagonal
        self.cross_scatter = torch.zeros(p, q, **like)
        self.target_scatter = torch.zeros(q, **like)

    @property
    def feature_scatter(self) -> Tensor:
        """Sum of w (z - mean)(z - mean)^T, shape (num_features, num_features)."""
        return self._panels.triu() + self._panels.triu(1).mT

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> Self:
        """Add a batch of rows.

        Parameters
        ----------
        features : Tensor of shape (..., num_features)
            Rows z, of any floating-point dtype.
        targets : Tensor of shape (..., num_outputs)
            Rows y.
        weights : Tensor of shape (...), optional
            How often each row counts: repeats, or a mask of zeros and ones. A row of weight
            zero is left out whatever it holds, NaN included.

        Returns
        -------
        StreamingMoments
            Itself.

        Raises
        ------
        TypeError
            If an argument is not a tensor, or not of floating point.
        ValueError
            If shapes do not fit, a row that counts holds NaN or infinity, or a weight is
            negative. Nothing has been added then.
        """
        rows_shape = check_tensor("features", features).shape[:-1]
        check_last_dim("features", features, self.num_features)
        check_last_dim("targets", check_tensor("targets", targets), self.num_outputs)
        if targets.shape[:-1] != rows_shape:
            raise ValueError(
                f"targets: expected the leading axes {tuple(rows_shape)} of features "
                f"{tuple(features.shape)}, got shape {tuple(targets.shape)}"
            )
        z = features.reshape(-1, self.num_features)  # (n, p)
        y = targets.reshape(-1, self.num_outputs)  # (n, q)
        w = None
        if weights is not None:
            w = self._check_weights(weights, rows_shape)  # (n,)
            counted = w > 0
            if not bool(counted.all()):
                z, y, w = z[counted.to(z.device)], y[counted.to(y.device)], w[counted]
        for name, value in (("features", z), ("targets", y)):
            # NaN and infinity survive a sum, and a sum is ten times cheaper than the count.
            if not bool(value.sum().isfinite()):
                check_finite(name, value)
        for start in range(0, len(z), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            self._add_block(z[block], y[block], None if w is None else w[block])
        return self

    def _check_weights(self, weights: Tensor, rows_shape: torch.Size) -> Tensor:
        if not isinstance(weights, Tensor) or weights.is_complex():
            raise TypeError(f"weights: expected a real torch.Tensor, got {type(weights).__name__}")
        if weights.shape != rows_shape:
            raise ValueError(
                f"weights: expected shape {tuple(rows_shape)}, got {tuple(weights.shape)}"
            )
        check_finite("weights", weights)
        if bool((weights < 0).any()):
            raise ValueError(f"weights: expected weights >= 0, got {float(weights.min())}")
        return weights.reshape(-1).to(self.feature_mean)

    def _add_block(self, z: Tensor, y: Tensor, w: Tensor | None) -> None:
        added = float(len(z)) if w is None else float(w.sum())
        together = self.count + added
        # One more row carries the pairwise term n_a n_b / n (mean_b - mean_a)^2 through the
        # same products as the centred rows.
        pairwise = (self.count * added / together) ** 0.5
        z_mean, z = _centred(z.to(self.feature_mean.device), w, pairwise, self.feature_mean)
        y_mean, y = _centred(y.to(self.feature_mean.device), w, pairwise, self.target_mean)
        self._add_products(z, y)
        self.target_scatter += y.square().sum(0)
        self.feature_mean += (added / together) * (z_mean - self.feature_mean)
        self.target_mean += (added / together) * (y_mean - self.target_mean)
        self.count = together

    def _add_products(self, z: Tensor, y: Tensor) -> None:
        """Add Z^T Z to the panels, on and above the diagonal, and Z^T Y."""
        sides = _panels(self.num_features)
        pairs = [(a, b) for i, a in enumerate(sides) for b in sides[i:]]

        def add(pair: int, check: Callable[[], None]) -> None:
            a, b = pairs[pair]
            self._panels[a, b].addmm_(z[:, a].mT, z[:, b])
            if a == b:
                self.cross_scatter[a].addmm_(z[:, a].mT, y)

        for _ in in_order(range(len(pairs)), add, z.device):
            pass

    def merge(self, other: "StreamingMoments") -> Self:
        """Add what another accumulator has seen; ``other`` stays as it is.

        Raises
        ------
        TypeError
            If ``other`` is not a StreamingMoments.
        ValueError
            If its numbers of features or outputs differ.
        """
        if not isinstance(other, StreamingMoments):
            raise TypeError(f"other: expected a StreamingMoments, got {type(other).__name__}")
        if (other.num_features, other.num_outputs) != (self.num_features, self.num_outputs):
            raise ValueError(
                f"other: expected {self.num_features} features and {self.num_outputs} outputs, "
                f"got {other.num_features} and {other.num_outputs}"
            )
        if other.count == 0:
            return self
        together = self.count + other.count
        pairwise = self.count * other.count / together
        device = self.feature_mean.device
        z_gap = other.feature_mean.to(device) - self.feature_mean  # (p,)
        y_gap = other.target_mean.to(device) - self.target_mean  # (q,)
        self._panels.add_(other._panels.to(device)).addr_(z_gap, z_gap, alpha=pairwise)
        self.cross_scatter.add_(other.cross_scatter.to(device)).addr_(z_gap, y_gap, alpha=pairwise)
        self.target_scatter += other.target_scatter.to(device) + pairwise * y_gap.square()
        self.feature_mean += (other.count / together) * z_gap
        self.target_mean += (other.count / together) * y_gap
        self.count = together
        return self

    def subset(self, indices: Tensor | Sequence[int]) -> "StreamingMoments":
        """Return the moments of some of the features.

        Parameters
        ----------
        indices : Tensor of shape (m,), sequence of int, or boolean mask of shape (num_features,)
            Which features, in this order.

        Returns
        -------
        StreamingMoments
            With m features.

        Raises
        ------
        TypeError
            If the indices are not integers.
        ValueError
            If there is none, one is out of range, or a mask has the wrong length.
        """
        chosen = torch.as_tensor(indices, device=self.feature_mean.device)
        if chosen.dtype == torch.bool:
            if chosen.shape != (self.num_features,):
                raise ValueError(
                    f"indices: expected a mask of shape ({self.num_features},), "
                    f"got {tuple(chosen.shape)}"
                )
            chosen = chosen.nonzero().squeeze(-1)
        if chosen.ndim != 1 or len(chosen) == 0:
            raise ValueError(f"indices: expected shape (m,) with m >= 1, got {tuple(chosen.shape)}")
        if chosen.is_floating_point() or chosen.is_complex():
            raise TypeError(f"indices: expected integers, got {chosen.dtype}")
        if int(chosen.min()) < 0 or int(chosen.max()) >= self.num_features:
            raise ValueError(
                f"indices: expected 0 <= index < {self.num_features}, "
                f"got {int(chosen.min())} to {int(chosen.max())}"
            )
        part = StreamingMoments(len(chosen), self.num_outputs, device=chosen.device)
        part.count = self.count
        part.feature_mean = self.feature_mean[chosen]
        part.target_mean = self.target_mean.clone()
        part._panels = self.feature_scatter[chosen][:, chosen]
        part.cross_scatter = self.cross_scatter[chosen]
        part.target_scatter = self.target_scatter.clone()
        return part

    @torch.no_grad()
    def transformed(self, matrix: Tensor) -> "StreamingMoments":
        """Return the moments of linear combinations of the features, of rows ``z @ matrix``.

        Mapping the moments costs p^2 r once, mapping the rows p r for each of them. Directions
        that the matrix blows up carry the rounding of the moments with them, relative to their
        largest entry.

        Parameters
        ----------
        matrix : Tensor of shape (num_features, r)
            The combinations, one a column.

        Returns
        -------
        StreamingMoments
            With r features.

        Raises
        ------
        TypeError
            If it is not a floating-point tensor.
        ValueError
            If the shape does not fit, or a number is not finite.
        """
        if check_tensor("matrix", matrix, ndim=2).shape[0] != self.num_features:
            raise ValueError(
                f"matrix: expected shape ({self.num_features}, r), got {tuple(matrix.shape)}"
            )
        check_finite("matrix", matrix)
        m = matrix.to(self.feature_mean)
        made = StreamingMoments(m.shape[1], self.num_outputs, device=m.device)
        made.count = self.count
        made.feature_mean = self.feature_mean @ m
        made.target_mean = self.target_mean.clone()
        made._panels = m.mT @ (self.feature_scatter @ m)
        made.cross_scatter = m.mT @ self.cross_scatter
        made.target_scatter = self.target_scatter.clone()
        return made

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments as plain tensors, copies, to save and resume a long pass."""
        return {
            "count": torch.tensor(self.count, dtype=torch.float64),
            "feature_mean": self.feature_mean.clone(),
            "target_mean": self.target_mean.clone(),
            "feature_scatter": self.feature_scatter,
            "cross_scatter": self.cross_scatter.clone(),
            "target_scatter": self.target_scatter.clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over moments that `state_dict` returned.

        Raises
        ------
        ValueError
            If names are missing or unknown, shapes do not fit, numbers are not finite, or
            ``feature_scatter`` is not symmetric. Nothing has changed then.
        """
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise ValueError(f"state: expected the names {sorted(mine)}, got {sorted(state)}")
        read = {}
        for name, old in mine.items():
            value = check_tensor(name, state[name])
            if value.shape != old.shape:
                raise ValueError(
                    f"{name}: expected shape {tuple(old.shape)}, got {tuple(value.shape)}"
                )
            check_finite(name, value)
            read[name] = value.detach().to(self.feature_mean, copy=True)
        scatter = read["feature_scatter"]
        tolerance = torch.finfo(state["feature_scatter"].dtype).eps ** 0.5
        if bool((scatter - scatter.mT).abs().amax() > tolerance * scatter.abs().amax()):
            raise ValueError("feature_scatter: expected a symmetric matrix")
        for name in ("count", "target_scatter"):
            if bool((read[name] < 0).any()):
                raise ValueError(f"{name}: expected numbers >= 0, got {float(read[name].min())}")
        self.count = float(read["count"])
        self.feature_mean, self.target_mean = read["feature_mean"], read["target_mean"]
        self._panels, self.cross_scatter = scatter, read["cross_scatter"]
        self.target_scatter = read["target_scatter"]

    def __repr__(self) -> str:
        return (
            f"StreamingMoments(num_features={self.num_features}, "
            f"num_outputs={self.num_outputs}, count={self.count:g})"
        )


def _panels(size: int) -> list[slice]:
    """Cut columns into panels, or leave few together: torch shares one product better then."""
    if size <= 2 * _PANEL:
        return [slice(0, size)]
    return [slice(i, min(i + _PANEL, size)) for i in range(0, size, _PANEL)]


def _centred(x: Tensor, w: Tensor | None, pairwise: float, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return a block's mean (d,) and its rows, centred and weighted, with the pairwise row below.

    The first row is subtracted before the mean is taken: a constant column becomes exactly
    zero, and an offset does not eat the digits of the mean.
    """
    rows = torch.empty(len(x) + 1, x.shape[1], dtype=torch.float64, device=x.device)
    mean = torch.empty_like(rows[0])
    panels = _panels(x.shape[1])

    def centre(panel: int, check: Callable[[], None]) -> None:
        own = panels[panel]
        first = x[0, own].double()
        body = rows[:-1, own].copy_(x[:, own]).sub_(first)  # (n, panel)
        shift = body.mean(0) if w is None else (w / w.sum()) @ body  # (panel,)
        body -= shift
        if w is not None:
            body *= w.sqrt().unsqueeze(-1)
        mean[own] = first + shift
        rows[-1, own] = pairwise * (mean[own] - before[own])

    for _ in in_order(range(len(panels)), centre, x.device):
        pass
    return mean, rows
