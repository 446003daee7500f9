"""Ridge regression on landmarks: rows in blocks, and a system of the landmarks' size."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from .._core.config import require_memory
from .._core.precision import working_dtype
from .._core.progress import progress
from .._core.workers import in_order
from ..kernels import Kernel
from ..kernels.tiles import Spare, plan_tiles
from ..linalg import LinearSolution, conjugate_gradient
from .landmark_sums import (
    LandmarkMoments,
    add_scatter,
    one_thread_a_product,
    pivoted_factor,
    shifted_factor,
)

_JOB_ROWS = 4096  # rows that one thread takes at a time
_MOST_JOBS = 512
_TILE = 2**20  # entries of it that a thread fills: 8 MB, as with fewer threads wait for Python
_SUMMED = 2**23  # entries of the kernel whose products are summed at a time: 64 MB
_SEEN = 1e-4  # share of the ridge above which the rounding of sums is taken out again

Rows = tuple[Tensor, Tensor, Tensor | None]  # x (b, d), y (b, q), weight (b,)
Save = Callable[[dict[str, Tensor]], None]


class LandmarkSystem:
    r"""The normal equations of :math:`\sum_i w_i (y_i - k_i^\top a - b)^2 + \lambda a^\top K a`.

    :math:`k_i` is the kernel between row i and the m landmarks, K that among the landmarks. The
    unknowns are :math:`\beta = L^\top a` with :math:`K = L L^\top`, by a Cholesky decomposition
    with pivots that leaves out landmarks which depend on others:

    .. math:: (L^{-1} H L^{-\top} + \lambda I) \beta = L^{-1} c, \qquad
        H = \sum_i w_i k_i k_i^\top, \quad c = \sum_i w_i y_i k_i

    H is either summed in one pass, or only multiplied with, each product one pass. A sum over
    some rows, scaled, is the preconditioner; over all rows it is the matrix itself, and the
    iteration then takes out the rounding that squaring the kernel has brought in.

    Parameters
    ----------
    kernel : Kernel
        The kernel.
    landmarks : Tensor of shape (m, d)
        The landmarks.
    rows : callable
        ``rows(size, start)`` iterates over the rows in blocks of one size, from one on.
    count : int
        Number of rows.
    outputs : int
        Number q of targets.
    intercept : bool
        Whether b is fitted, without penalty; else it is zero.
    corrected : bool, default True
        Whether `solve` is all that is asked for: it can take rounding out of the sums.
    group : ProcessGroup, optional
        Processes that share the blocks.
    show_progress : bool
        Whether to show progress bars.
    """

    def __init__(
        self,
        kernel: Kernel,
        landmarks: Tensor,
        rows: Callable[[int, int], Iterator[Rows]],
        count: int,
        outputs: int,
        *,
        intercept: bool = False,
        corrected: bool = True,
        group: ProcessGroup | None = None,
        show_progress: bool = False,
    ) -> None:
        m = len(landmarks)
        # K and its factor, the scatter and its factor, and what the products take.
        require_memory(8 * 6 * m * m, f"normal equations of {m} landmarks", "use fewer landmarks")
        self.kernel, self.rows, self.count, self.outputs = kernel, rows, count, outputs
        self.intercept, self.group, self.show = intercept, group, show_progress
        self.size = max(_JOB_ROWS, -(-count // _MOST_JOBS))
        matrix = kernel(landmarks.double())  # (m, m)
        self.work = working_dtype(landmarks.dtype)
        # The factor (r, r), and which landmarks it keeps (r,).
        precision = torch.finfo(self.work).eps
        self.factor, self.kept = pivoted_factor(matrix, precision, corrected=corrected)
        self.landmarks = landmarks[self.kept]
        self.points, self.device = self.landmarks.to(self.work), landmarks.device
        self.summed = max(512, _SUMMED // len(self.points))  # rows in a block of the sums

    # -- passes over the rows ----------------------------------------------------------------------

    def _fill(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the kernel (s, m) of some rows at a time with all landmarks, in one buffer."""
        m = len(self.points)
        step = max(16, _TILE // m)
        fill, spare = plan_tiles(self.kernel, x.to(self.work), self.points), Spare()
        buffer = self.points.new_empty(min(step, len(x)) * m)
        for i in range(0, len(x), step):
            own = slice(i, min(i + step, len(x)))
            view = buffer[: (own.stop - i) * m].view(-1, m)
            fill(own, slice(0, m), view, spare)
            yield own, view

    def _jobs(self) -> tuple[dict[int, Rows], Iterator[int]]:
        """Hand out the numbers of this process's blocks, each as it is read."""
        held: dict[int, Rows] = {}

        def hand_out() -> Iterator[int]:
            if self.group is None:
                for job, block in enumerate(self.rows(self.size, 0)):
                    held[job] = block
                    yield job
                return
            jobs = -(-self.count // self.size)
            for job in range(dist.get_rank(self.group), jobs, self.group.size()):
                held[job] = next(self.rows(self.size, job * self.size))
                yield job

        return held, hand_out()

    def product(self, v: Tensor) -> Tensor:
        """Multiply H, centred where there is an intercept, by vectors (m, q).

        Whatever the kernel is evaluated in, products are float64's: H is then symmetric and
        semi-definite to those digits, on which L^-1 depends.
        """
        held, jobs = self._jobs()

        def work(job: int, check: Callable[[], None]) -> Tensor:
            x, _, w = held.pop(job)
            found = torch.zeros_like(v)
            for rows, k in self._fill(x):
                check()
                k = k.double()
                t = k @ v  # (s, q)
                if w is not None:
                    t *= w[rows].to(t).unsqueeze(-1)
                found += k.mT @ t
            return found

        found = torch.zeros_like(v)
        with closing(self._in_order(in_order(jobs, work, v.device), v)) as parts:
            for part in parts:
                found += part
        if self.intercept:
            found -= torch.outer(self.moments.total, self.moments.total @ v) / self.moments.weight
        return found

    def _in_order(self, parts: Iterator[Tensor], like: Tensor) -> Generator[Tensor]:
        """Yield what the blocks gave in their order, whichever process they were with."""
        if self.group is None:
            yield from parts
            return
        jobs, size = -(-self.count // self.size), self.group.size()
        mine = like.new_zeros(-(-jobs // size), *like.shape)
        for i, part in enumerate(parts):
            mine[i] = part
        everyone = [torch.empty_like(mine) for _ in range(size)]
        dist.all_gather(everyone, mine, group=self.group)
        for job in range(jobs):
            yield everyone[job % size][job // size]

    def sum_rows(
        self,
        rows: Iterator[Rows],
        moments: LandmarkMoments,
        *,
        save: Save | None = None,
        total: int | None = None,
    ) -> None:
        """Add rows to moments, in place."""
        weight = float(moments.weight)
        bar = progress(range(total or 0), "rows", show=self.show and total is not None)
        space = self.points.new_empty(0, dtype=torch.float64)
        with one_thread_a_product():
            for x, y, w in rows:
                own = y.new_ones(len(y)) if w is None else w  # (b,)
                y = y.double()
                sides = torch.cat([y, torch.ones_like(y[:, :1])], 1) * own.double().unsqueeze(-1)
                if len(space) < len(x) * len(self.points):
                    space = space.new_empty(len(x) * len(self.points))
                root = None if w is None else w.double().sqrt()
                k, products = self._whole(x, space, sides, root)
                weight += float(sides[:, -1].sum())
                moments.cross.add_(products[:, :-1])
                moments.total.add_(products[:, -1])
                moments.target_total.add_(sides[:, :-1].sum(0))
                moments.target_square.add_((sides[:, :-1] * y).sum(0))
                moments.counted.add_(float((own > 0).sum()))
                moments.weight.fill_(weight)
                add_scatter(moments.scatter, k)
                next(iter(bar), None)
                if save is not None:
                    save(dict(vars(moments)))

    def _whole(
        self, x: Tensor, space: Tensor, sides: Tensor, root: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the kernel (b, m) between a block and all landmarks, by threads.

        It comes in float64, its rows scaled by ``root`` (b,), with its product (m, s) with
        ``sides`` (b, s), for which they are not.
        """
        b, m = len(x), len(self.points)
        found = space[: b * m].view(b, m)
        step = max(16, _TILE // m)

        def write(job: int, check: Callable[[], None]) -> Tensor:
            own = slice(job * step, min((job + 1) * step, b))
            fill = plan_tiles(self.kernel, x[own].to(self.work), self.points)
            out = found[own]
            part = out if self.work == torch.float64 else torch.empty_like(out, dtype=self.work)
            fill(slice(0, len(part)), slice(0, m), part, Spare())
            if part is not out:
                out.copy_(part)
            product = out.mT @ sides[own]
            if root is not None:
                out *= root[own].unsqueeze(-1)
            return product

        total = sides.new_zeros(m, sides.shape[1])
        for part in in_order(range(-(-b // step)), write, x.device):
            total += part
        return found, total

    def between(self, x: Tensor) -> Tensor:
        """Evaluate the kernel (b, m) between some rows and all landmarks, in float64."""
        sides = x.new_empty(len(x), 0, dtype=torch.float64)
        return self._whole(x, sides.new_empty(len(x) * len(self.points)), sides, None)[0]

    # -- the solution ------------------------------------------------------------------------------

    @property
    def moments(self) -> LandmarkMoments:
        """The sums over all rows; without the scatter where that was not summed."""
        return self._moments

    def survey(
        self, *, direct: bool, save: Save | None = None, resume: dict[str, Tensor] | None = None
    ) -> None:
        """Go through the rows once for c, and for H where ``direct``."""
        moments, start = LandmarkMoments.zeros(len(self.points), self.outputs, self.device), 0
        self._moments, self.direct = moments, direct
        if not direct:
            self._sum_cross(moments)
            return
        if resume:
            for name, tensor in vars(moments).items():
                tensor.copy_(resume[name])
            start = int(resume["rows"])
        done = start

        def note(state: dict[str, Tensor]) -> None:
            nonlocal done
            done = min(done + self.summed, self.count)
            if save is not None:
                save({**state, "rows": torch.tensor(done)})

        if start < self.count:
            blocks = -(-(self.count - start) // self.summed)
            self.sum_rows(self.rows(self.summed, start), moments, save=note, total=blocks)

    def _sum_cross(self, moments: LandmarkMoments) -> None:
        """Sum all but the scatter, shared out as products are."""
        m, q = len(self.points), self.outputs
        held, jobs = self._jobs()

        def work(job: int, check: Callable[[], None]) -> Tensor:
            x, y, w = held.pop(job)
            own = y.new_ones(len(y)) if w is None else w  # (b,)
            y = y.double()
            sides = torch.cat([y, torch.ones_like(y[:, :1])], 1) * own.double().unsqueeze(-1)
            found = y.new_zeros(m + 2, q + 1)
            for rows, k in self._fill(x):
                check()
                found[:m] += k.mT.double() @ sides[rows]
            found[m] = sides.sum(0)
            found[m + 1, :q] = (sides[:, :q] * y).sum(0)
            found[m + 1, q] = (own > 0).sum()
            return found

        like = moments.scatter.new_zeros(m + 2, q + 1)
        with closing(self._in_order(in_order(jobs, work, self.device), like)) as parts:
            for part in parts:
                like += part
        moments.cross.copy_(like[:m, :q])
        moments.total.copy_(like[:m, q])
        moments.target_total.copy_(like[m, :q])
        moments.weight.copy_(like[m, q])
        moments.target_square.copy_(like[m + 1, :q])
        moments.counted.copy_(like[m + 1, q])

    def whitened(self, moments: LandmarkMoments) -> Tensor:
        """Return L^-1 H L^-T (m, m), centred where there is an intercept."""
        h = moments.scatter.triu() + moments.scatter.triu(1).mT
        if self.intercept:
            h.addr_(moments.total, moments.total, alpha=-1.0 / float(moments.weight))
        half = torch.linalg.solve_triangular(self.factor, h, upper=False)
        whole = torch.linalg.solve_triangular(self.factor, half.mT.contiguous(), upper=False)
        return (whole + whole.mT) / 2

    def rounding(self) -> float:
        """Estimate how far rounding moves the whitened scatter, in the units of the ridge."""
        least = float(self.factor.diagonal().square().min())
        largest = float(self.moments.scatter.diagonal().max())
        eps = torch.finfo(torch.float64).eps
        return eps * largest * len(self.points) ** 0.5 / least

    def right_hand_side(self) -> Tensor:
        """Return L^-1 c (m, q), centred where there is an intercept."""
        c = self.moments.cross
        if self.intercept:
            c = c - torch.outer(self.moments.total, self.moments.target_total) / self.moments.weight
        return torch.linalg.solve_triangular(self.factor, c, upper=False)

    def solve(
        self,
        ridge: float,
        sample: Callable[[], Iterator[Rows]],
        *,
        tolerance: float,
        max_iterations: int | None = None,
        whitened: Tensor | None = None,
        refine: bool = True,
        save: Save | None = None,
        resume: dict[str, Tensor] | None = None,
    ) -> tuple[LinearSolution, Tensor, Tensor]:
        """Solve for one ridge.

        Parameters
        ----------
        ridge : float
            The ridge.
        sample : callable
            Iterates over the rows that stand for all, where H was not summed.
        tolerance, max_iterations
            See `conjugate_gradient`.
        whitened : Tensor of shape (m, m), optional
            What `whitened` returned for all rows.
        refine : bool, default True
            Whether products go through the rows also where H was summed; else that is so only
            where the rounding of H could be seen beside the ridge.
        save, resume : optional
            Checkpoints of the iteration.

        Returns
        -------
        tuple
            The solution in beta, the coefficients a (m, q) and the intercept b (q,).
        """
        if whitened is None:
            if self.direct:
                whitened = self.whitened(self.moments)
            else:
                some = LandmarkMoments.zeros(len(self.points), self.outputs, self.device)
                self.sum_rows(sample(), some)
                whitened = self.whitened(some)
                whitened *= self.moments.weight / some.weight
        factor = shifted_factor(whitened, ridge)
        rhs = self.right_hand_side()

        through_rows = refine or not self.direct or self.rounding() > _SEEN * ridge

        def times(beta: Tensor) -> Tensor:
            if not through_rows:
                return whitened @ beta + ridge * beta
            u = torch.linalg.solve_triangular(self.factor.mT, beta, upper=True)
            h = self.product(u)
            return torch.linalg.solve_triangular(self.factor, h, upper=False) + ridge * beta

        def precondition(r: Tensor) -> Tensor:
            return torch.cholesky_solve(r, factor)

        found = conjugate_gradient(
            times,
            rhs,
            preconditioner=precondition,
            tolerance=tolerance,
            max_iterations=max_iterations,
            start=precondition(rhs),
            checkpoint=save,
            resume=resume,
            show_progress=self.show,
        )
        a = torch.linalg.solve_triangular(self.factor.mT, found.solution, upper=True)
        bias = self.moments.target_total.new_zeros(self.outputs)
        if self.intercept:
            mean = self.moments.target_total - self.moments.total @ a
            bias = mean / self.moments.weight
        return found, a, bias
