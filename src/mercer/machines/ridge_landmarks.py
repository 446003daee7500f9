"""Kernel ridge regression on landmarks, for rows that are read in blocks."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from .._core.config import config, resident_memory
from ..datasets.row_source import ArrayRows, RowBlock, RowSource
from ..features.landmark_choice import choose_landmarks
from ..kernels.ordered_sum import check_same
from ..linalg import GCVCurve, RidgeChoice
from .checkpoint import Checkpoint, fingerprint
from .kernel_input import KernelInput, fit_kernel
from .landmark_system import LandmarkSystem, Rows
from .ridge_fit import RidgeFit, RidgeOptions, as_residual, tolerance_of
from .rows import as_tensor

_POOL = 20_000  # rows at least from which landmarks and a lengthscale are taken
_SAMPLE = 16  # rows a landmark whose scatter is the preconditioner
_MOST_SUMMED = 4096  # landmarks beyond which the scatter of all rows costs more than iterations


def fit_landmarks(
    rows: Any,
    y: Tensor | None,
    weights: Tensor | None,
    options: RidgeOptions,
    reason: str,
    group: ProcessGroup | None,
    checkpoint: Any,
) -> RidgeFit:
    """Fit f = sum_j a_j k(z_j, .) + b with a penalty alpha |f|^2; see `fit_ridge`."""
    source: RowSource = rows if isinstance(rows, RowSource) else ArrayRows(rows, y, weights)
    n, seed = len(source), _agree(options.seed, group)
    if n == 0:
        raise ValueError("X: expected at least one row, got n_samples = 0")
    first = next(source.blocks(1))
    if first.y is None:
        raise ValueError("y: the rows come without targets")
    d, q = first.x.shape[1], first.y.shape[1]
    options = options.check(q)
    center, scale = _scales(source) if options.standardize else (None, None)
    shift = torch.zeros(q, dtype=torch.float64, device=first.x.device)

    def prepare(block: RowBlock) -> Rows:
        x = block.x
        if center is not None and scale is not None:
            x = ((x.double() - center) / scale).to(x.dtype)
        assert block.y is not None
        return x, block.y.double() - shift, block.weight

    def read(size: int, start: int) -> Iterator[Rows]:
        for block in source.blocks(size, start):
            if block.weight is not None and bool((block.weight < 0).any()):
                raise ValueError("sample_weight: expected numbers of at least 0")
            yield prepare(block)

    count = _number(options.landmarks, n)
    size = min(n, max(_POOL, _SAMPLE * count))
    pool = prepare(_pool(source, n, size, seed))
    if options.fit_intercept:  # else digits of targets far from zero are lost in their squares
        share = torch.ones_like(pool[1][:, 0]) if pool[2] is None else pool[2]
        shift += (share / share.sum()) @ pool[1]
        pool = (pool[0], pool[1] - shift, pool[2])
    kernel = fit_kernel(options.kernel, pool[0], pool[2])
    parts = [shift, *(part for part in pool if part is not None)]
    own = fingerprint(n, d, q, *parts, *options.identity(kernel))
    keeper = Checkpoint(checkpoint, own)
    saved = keeper.part("landmarks")
    points = saved["points"] if saved else None
    if points is None:
        points = _landmarks(options, kernel, pool[0], count, seed, center, scale)
    if group is not None:
        points = points.contiguous()
        dist.broadcast(points, dist.get_global_rank(group, 0), group=group)
        check_same(group, "rows and parameters", [shift, pool[0], pool[1], points])
    keeper.put("landmarks", {"points": points})
    choosing = isinstance(options.alpha, str)
    system = LandmarkSystem(
        kernel,
        points,
        read,
        n,
        q,
        intercept=bool(options.fit_intercept),
        corrected=not choosing,
        group=group,
        show_progress=options.show_progress,
    )
    m = len(system.points)
    direct = choosing or (group is None and (m <= _MOST_SUMMED or n <= 2 * _SAMPLE * m))
    system.survey(
        direct=direct,
        save=lambda state: keeper.save("moments", state),
        resume=keeper.part("moments") or None,
    )
    if direct:
        keeper.put("moments", {**vars(system.moments), "rows": torch.tensor(n)})
    how = f"{m} landmarks, " + (
        "one sum over the rows" if direct else f"iterations, a sum over {size} rows before them"
    )
    choice, whitened, alphas = None, None, np.asarray(options.alpha)
    if choosing:
        whitened = system.whitened(system.moments)
        choice = _choose(system, whitened, read, options.alpha)
        alphas = np.asarray(choice.ridge)
    alphas = np.broadcast_to(alphas.astype(np.float64), (q,))
    coef, bias = system.points.new_zeros(m, q, dtype=torch.float64), torch.zeros(q).double()
    found = []
    for number, alpha in enumerate(np.unique(alphas)):
        own = torch.from_numpy(np.flatnonzero(alphas == alpha))
        name = f"cg {number}"

        def save(state: dict[str, Tensor], name: str = name) -> None:
            keeper.save(name, state)

        solved, a, b = system.solve(
            float(alpha),
            lambda: _split(pool, system.summed),
            tolerance=tolerance_of(options, system.work),
            max_iterations=options.max_iter,
            whitened=whitened,
            refine=options.tol is not None,
            save=save,
            resume=keeper.part(name) or None,
        )
        coef[:, own], bias[own] = a[:, own], b[own].cpu()
        found.append(solved)
    keeper.done()
    return RidgeFit(
        input=KernelInput(kernel, system.landmarks, center, scale, d),
        coef=coef,
        intercept=bias.to(coef) + shift,
        alpha=choice.ridge if choice is not None else options.alpha,
        solver="falkon",
        reason=f"{reason}; {how}",
        iterations=max(s.iterations for s in found),
        residual=max(as_residual(s.residual) for s in found),
        converged=all(s.converged for s in found),
        choice=choice,
    )


def _pool(source: RowSource, n: int, size: int, seed: int) -> RowBlock:
    """Draw rows of positive weight, from which landmarks and a lengthscale are taken."""
    order = np.random.RandomState(seed).permutation(n)[:size]
    pool = source.take(torch.from_numpy(np.sort(order)))
    if pool.weight is None or bool((pool.weight > 0).all()):
        return pool
    # Some have none: then draw among the others only, which takes a pass.
    signs = [block.weight > 0 for block in source.blocks(2**14) if block.weight is not None]
    known = torch.cat(signs).nonzero().squeeze(-1).cpu()
    if len(known) == 0:
        raise ValueError("sample_weight: expected positive weights among the rows")
    order = np.random.RandomState(seed).permutation(len(known))[:size]
    return source.take(known[torch.from_numpy(np.sort(order))])


def _agree(seed: int, group: ProcessGroup | None) -> int:
    """Return the seed of the first process."""
    if group is None:
        return seed
    shared = torch.tensor(seed)
    dist.broadcast(shared, dist.get_global_rank(group, 0), group=group)
    return int(shared)


def _number(landmarks: Any, n: int) -> int:
    """Return how many landmarks there are to be."""
    if landmarks is None:
        free = max(config.memory_budget - resident_memory(), 0)
        most = math.isqrt(int(free / 2 / (8 * 8)))  # some square matrices of that size
        return max(1, min(n, most, max(1000, 5 * math.isqrt(n))))
    if isinstance(landmarks, int | np.integer):
        return min(int(landmarks), n)
    return min(len(landmarks), n)


def _landmarks(
    options: RidgeOptions,
    kernel: Any,
    pool: Tensor,
    count: int,
    seed: int,
    center: Tensor | None,
    scale: Tensor | None,
) -> Tensor:
    """Return the landmarks (m, d), on the scale of the rows."""
    if options.landmarks is not None and np.ndim(options.landmarks) == 2:
        own = as_tensor(
            options.landmarks
            if isinstance(options.landmarks, Tensor)
            else np.asarray(options.landmarks, dtype=np.float64)
        ).to(pool)
        if own.shape[1] != pool.shape[1] or not bool(own.isfinite().all()) or len(own) == 0:
            raise ValueError(
                f"landmarks: expected finite points of {pool.shape[1]} columns, "
                f"got shape {tuple(own.shape)}"
            )
        if center is not None and scale is not None:
            own = ((own.double() - center) / scale).to(pool)
        return own
    if count >= len(pool) or count * 4 >= len(pool):
        distinct = pool.unique(dim=0)
        if count >= len(distinct):
            return distinct
        pool = distinct
    return choose_landmarks(kernel, pool, count, method=options.selection, generator=seed)


def _scales(source: RowSource) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations of columns, of weighted rows."""
    total, mean, square, largest = 0.0, None, None, None
    for x, _, w in source.blocks(2**14):
        wide = x.double()
        own = float(len(x)) if w is None else float(w.sum())
        if own == 0.0:
            continue
        share = wide.new_full((len(x), 1), 1 / own) if w is None else (w / own).unsqueeze(-1)
        average = (share * wide).sum(0)  # (d,)
        spread = own * (share * (wide - average).square()).sum(0)
        top = wide.abs().amax(0) if w is None else wide[w > 0].abs().amax(0)
        if mean is None or square is None or largest is None:
            total, mean, square, largest = own, average, spread, top
            continue
        gap = average - mean
        square = square + spread + gap.square() * (total * own / (total + own))
        mean = mean + gap * (own / (total + own))
        largest = torch.maximum(largest, top)
        total += own
    if mean is None or square is None or largest is None:
        raise ValueError("sample_weight: expected positive weights among the rows")
    scale = (square / total).sqrt()
    return mean, torch.where(scale > 1e-12 * largest, scale, 1.0)


def _split(pool: Rows, size: int) -> Iterator[Rows]:
    for i in range(0, len(pool[0]), size):
        w = pool[2]
        own = slice(i, i + size)
        yield pool[0][own], pool[1][own], None if w is None else w[own]


def _choose(system: LandmarkSystem, whitened: Tensor, read: Any, criterion: str) -> RidgeChoice:
    """Choose the ridge from the eigenvalues of the system, and for "loo" one more pass."""
    values, vectors = torch.linalg.eigh(whitened)  # ascending
    known = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
    if not bool(known.any()):  # nothing to shrink, as of one row with an intercept
        one = values.new_ones(1)
        return RidgeChoice(1.0, criterion, 0.0, one, torch.zeros_like(one))
    values, vectors = values[known], vectors[:, known]
    rotated = vectors.mT @ system.right_hand_side()  # (r, q)
    sums = system.moments
    total = sums.target_square
    if system.intercept:
        total = total - sums.target_total.square() / sums.weight
    # Rows are left out whole, whatever they weigh.
    free, rows = float(system.intercept), float(sums.counted)
    curve = GCVCurve.from_spectrum(values, rotated, float(total.sum()), rows, free)
    scale = float(values.sum()) / len(values)
    ridge, grid, path = curve.minimise(scale)
    if criterion == "gcv":
        share = rows / float(sums.weight)
        return RidgeChoice(ridge, "gcv", share * curve(ridge), grid, share * path)
    turn = torch.linalg.solve_triangular(system.factor.mT, vectors, upper=True)  # (m, r)
    # Around what the other criterion says, from whose minimum this one is seldom far; then finer.
    # Not lower than the other criterion looks: there 1 - leverage would be rounding.
    wide = (ridge * torch.logspace(-3.5, 3.5, 15, dtype=torch.float64)).clamp_min(1e-10 * scale)
    wide = wide.unique()
    scores = _left_out(system, values, rotated, turn, wide, read)
    best = float(wide[int(scores.argmin())])
    fine = (best * torch.logspace(-0.5, 0.5, 17, dtype=torch.float64)).clamp_min(1e-10 * scale)
    finer = _left_out(system, values, rotated, turn, fine, read)
    ridge, score = float(fine[int(finer.argmin())]), float(finer.min())
    ridges, order = torch.cat([wide, fine]).sort()
    return RidgeChoice(ridge, "loo", score, ridges, torch.cat([scores, finer])[order])


def _left_out(
    system: LandmarkSystem,
    values: Tensor,
    rotated: Tensor,
    turn: Tensor,
    ridges: Tensor,
    read: Any,
) -> Tensor:
    """Return the mean squared leave-one-out error (g,) of each ridge, in one pass."""
    sums = system.moments
    free, weight = float(system.intercept), float(sums.weight)
    inverse = 1.0 / (values.unsqueeze(-1) + ridges.to(values))  # (r, g)
    shift = (sums.total / sums.weight) @ turn  # (r,)
    mean = sums.target_total / sums.weight * free  # (q,)
    scores = torch.zeros_like(ridges)
    for x, y, w in read(system.summed, 0):
        z = system.between(x) @ turn - free * shift  # (b, r)
        own = z.new_ones(len(z)) if w is None else w.to(z)
        lever = z.square() @ inverse + (free / weight)  # (b, g)
        rest = y.to(z) - mean  # (b, q)
        for g in range(len(ridges)):
            fitted = z @ (rotated * inverse[:, g : g + 1])
            left = (rest - fitted) / (1 - own * lever[:, g]).clamp_min(1e-12).unsqueeze(-1)
            scores[g] += (own.unsqueeze(-1) * left.square()).sum().cpu() / weight
    return scores
