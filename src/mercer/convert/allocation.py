"""Shares for each of several blocks under one budget: the exact choice, and what it looks like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_STATES = 100_000  # of the exact search; beyond that, costs that nearly agree count as one
_SLACK = 1e-12  # relative, for sums of costs that differ by rounding


@dataclass(frozen=True)
class Allocation:
    """Which share each block keeps, and what that is predicted to cost.

    Attributes
    ----------
    keep : dict of str to float
        The share of each block's stored numbers; what ``bundle(keep=...)`` takes.
    cost : str
        ``"parameters"`` or ``"latency"``.
    budget : float
        What the blocks may cost together: numbers, or seconds.
    spent : float
        What they cost.
    predicted : float
        Sum of the errors that the blocks cause one by one at the model's output, relative to its
        variance.
    uniform : float
        The same where every block keeps the share asked for.
    shares : tuple of float
        The shares that were tried.
    errors, costs : dict of str to tuple of float
        For each block, the error it causes and what it costs at each share.
    front : tuple of tuple of float
        Pairs (cost, predicted error) that no other choice beats in both.
    """

    keep: dict[str, float]
    cost: str
    budget: float
    spent: float
    predicted: float
    uniform: float
    shares: tuple[float, ...]
    errors: dict[str, tuple[float, ...]]
    costs: dict[str, tuple[float, ...]]
    front: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        unit = "numbers" if self.cost == "parameters" else "s"
        lines = [
            f"{len(self.keep)} blocks, {self.spent:,.6g} of {self.budget:,.6g} {unit}; predicted "
            f"error {self.predicted:.4f}, {self.uniform:.4f} with one share for all"
        ]
        lines += [f"  {name}: {share:g}" for name, share in self.keep.items()]
        return "\n".join(lines)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the Pareto front of cost and predicted error, and the choice on it.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        costs, errors = zip(*self.front, strict=True)
        ax.step(costs, errors, where="post", color="#0072B2", label="best for each cost")
        ax.plot(self.spent, self.predicted, "o", color="#D55E00", label="chosen")
        ax.axvline(self.budget, color="0.5", linestyle="--", linewidth=1, label="budget")
        if self.uniform > 0 and min(errors) > 0:
            ax.set_yscale("log")
        ax.set_xlabel("stored numbers" if self.cost == "parameters" else "time of the blocks [s]")
        ax.set_ylabel("predicted error")
        ax.set_title("Shares of the blocks under one budget")
        ax.legend()
        return ax


def choose_shares(
    costs: Sequence[Sequence[float]], errors: Sequence[Sequence[float]], budget: float
) -> tuple[list[int], list[tuple[float, float]]]:
    r"""Choose one option for each block: least total error within a budget.

    .. math::
        \min_{s} \sum_b e_b(s_b) \quad \text{subject to} \quad \sum_b c_b(s_b) \le \text{budget}

    Blocks are joined one after the other, and of the sums so far only those are kept that no
    other beats in both cost and error, so the result is exact; beyond a hundred thousand such
    sums, those of nearly the same cost count as one, and the budget still holds.

    Parameters
    ----------
    costs, errors : sequence of sequence of float
        For each block, those of each option.
    budget : float
        The largest sum of costs.

    Returns
    -------
    chosen : list of int
        The option of each block.
    front : list of tuple of float
        All pairs (cost, error) that no other choice beats in both, by rising cost.

    Raises
    ------
    ValueError
        If the cheapest options exceed the budget.
    """
    least = sum(min(each) for each in costs)
    if least > budget * (1 + _SLACK):
        raise ValueError(
            f"keep: the smallest shares cost {least:.6g} together, the budget is {budget:.6g}; "
            "allow more, or smaller shares"
        )
    cost, error = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    history: list[tuple[Tensor, Tensor]] = []  # for each state: its state before, its option
    for block_costs, block_errors in zip(costs, errors, strict=True):
        options = len(block_costs)
        more_cost = torch.tensor(block_costs, dtype=torch.float64)
        more_error = torch.tensor(block_errors, dtype=torch.float64)
        cost = (cost.unsqueeze(-1) + more_cost).flatten()  # (states * options,)
        error = (error.unsqueeze(-1) + more_error).flatten()
        kept = _undominated(cost, error)
        cost, error = cost[kept], error[kept]
        history.append((kept // options, kept % options))
    state = int((cost <= budget * (1 + _SLACK)).sum()) - 1  # costs rise, errors fall
    front = list(zip(cost.tolist(), error.tolist(), strict=True))
    chosen: list[int] = []
    for before, option in reversed(history):
        chosen.append(int(option[state]))
        state = int(before[state])
    return chosen[::-1], front


def _undominated(cost: Tensor, error: Tensor) -> Tensor:
    """Return indices of pairs that no other beats, by rising cost."""
    by_error = error.argsort(stable=True)
    order = by_error[cost[by_error].argsort(stable=True)]  # by cost, then by error
    sorted_error = error[order]
    best = torch.cummin(sorted_error, dim=0).values
    new = torch.ones_like(order, dtype=torch.bool)
    new[1:] = sorted_error[1:] < best[:-1]
    kept = order[new]
    if len(kept) > _MOST_STATES:
        bins = torch.linspace(0, len(kept) - 1, _MOST_STATES).round().long()
        kept = kept[bins.unique()]
    return kept
