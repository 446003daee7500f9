"""What moves, merges and picks the axes of a signal."""

import abc
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from .operations import Flatten, Mix, Permute, Reshape, Select, Sum
from .signal_base import SignalBase, with_size
from .tape import BATCH, CHANNEL


class SignalAxes(SignalBase, abc.ABC):
    """The axes of a `Signal`.

    Abstract.
    """

    def permuted(self, order: Sequence[int]) -> Self:
        """Put the tensor's axes in another order.

        Parameters
        ----------
        order : sequence of int
            As of `torch.permute`.

        Returns
        -------
        Signal
            The output.
        """
        order = tuple(self.axis(a) for a in order)
        if sorted(order) != list(range(self.ndim)):
            raise self.tape.refuse(f"permutes {self.ndim} axes by {order}")
        if order[0] != 0:
            raise self.tape.refuse("moves the batch axis, which must stay the first")
        shape = tuple(self.shape[i] for i in order)
        roles = tuple(self.roles[i] for i in order)
        if self.is_data:
            step = ("permute", tuple(i - 1 for i in order[1:]))
            return replace(self, shape=shape, roles=roles, steps=(*self.steps, step))
        if self.parts:
            return replace(
                self, shape=shape, roles=roles, parts=tuple(p.permuted(order) for p in self.parts)
            )
        # The covariances keep their order: only the tensor's axes have moved.
        return replace(self, shape=shape, roles=roles)

    def reshaped(self, shape: Sequence[int]) -> Self:
        """Merge or split axes, as `torch.reshape` does.

        Parameters
        ----------
        shape : sequence of int
            The new shape, with the batch in front; one entry may be -1.

        Returns
        -------
        Signal
            The output: positions that become part of the channels are flattened.
        """
        shape = list(shape)
        if -1 in shape:
            rest = math.prod(n for n in shape if n != -1)
            shape[shape.index(-1)] = math.prod(self.shape) // max(rest, 1)
        if math.prod(shape) != math.prod(self.shape) or shape[0] != self.shape[0]:
            raise self.tape.refuse(
                f"reshapes {self.shape_text} to {tuple(shape)}; the batch must stay the first axis"
            )
        if tuple(shape) == self.shape:
            return self
        if self.is_data:
            step = ("reshape", self.shape[1:], tuple(shape[1:]))
            roles = (BATCH, *[None] * (len(shape) - 1))
            return replace(self, shape=tuple(shape), roles=roles, steps=(*self.steps, step))
        return self.settled()._regrouped(tuple(shape))

    def _regrouped(self, shape: tuple[int, ...]) -> Self:
        runs = _runs(self.shape, shape)
        # First bring the covariances' axes into the tensor's order.
        order = tuple(r for r in self.roles if isinstance(r, int))
        found = self
        if order != tuple(range(len(order))):
            rank = {role: i for i, role in enumerate(order)}
            roles = tuple(rank[r] if isinstance(r, int) else r for r in self.roles)
            found = replace(self, roles=roles, gains=self._shared_gains)
            positions = tuple(self.positions[i] for i in order)
            found = found._emit(Permute, order, positions=positions)
        roles, flat, groups, after = [], [], [], []
        start = 0
        for old, new in runs:
            inside = found.roles[old.start : old.stop]
            sizes = shape[new.start : new.stop]
            kept = [r for r in inside if isinstance(r, int)]
            if BATCH in inside:
                if len([n for n in sizes if n != 1]) > 1 or CHANNEL in inside:
                    raise self.tape.refuse(
                        f"reshapes {self.shape_text} to {shape}: the batch must keep its axis"
                    )
                roles += [BATCH, *range(start, start + len(sizes) - 1)]
                # Positions beside it have size one.
                groups += [(len(kept), len(sizes) - 1)] if kept or len(sizes) > 1 else []
                after += sizes[1:]
                start += len(sizes) - 1
            elif CHANNEL in inside:
                full = [i for i, n in enumerate(sizes) if n != 1]
                if len(full) > 1:
                    raise self.tape.refuse(
                        f"reshapes {self.shape_text} to {shape}: splits the channels"
                    )
                place = full[0] if full else 0
                flat += kept
                for i, n in enumerate(sizes):
                    if i == place:
                        roles.append(CHANNEL)
                    else:
                        roles.append(start)
                        start += 1
                        after.append(n)
                        groups.append((0, 1))
            else:
                groups.append((len(kept), len(sizes)))
                roles += range(start, start + len(sizes))
                start += len(sizes)
                after += sizes
        if flat:
            left = [r for r in range(len(found.positions)) if r not in flat]
            single = all(found.positions[r] == 1 for r in flat)
            rank = {r: i for i, r in enumerate(left)}
            positions = tuple(found.positions[r] for r in left)
            # Roles of the tensor between both steps do not matter, but for the positions.
            found = replace(found, roles=tuple(rank.get(r, r) for r in found.roles))
            found = found._emit(
                Flatten,
                tuple(flat),
                positions=positions,
                gaussian=self.gaussian and single,
                alike=self.alike and single,
            )
            before = positions
        else:
            before = found.positions
        if any(old != 1 or new != 1 for old, new in groups):
            node = self.tape.add(
                Reshape((found.node,), tuple(after), self.tape.place, tuple(groups), before)
            )
            found = replace(found, node=node, gains=found._shared_gains)
        return replace(found, roles=tuple(roles), shape=shape)

    def picked(self, axis: int, index: Sequence[int], *, drop: bool = False) -> Self:
        """Pick positions along an axis of the tensor; -1 is zeros, as of padding.

        Parameters
        ----------
        axis : int
            An axis of positions.
        index : sequence of int
            Which positions.
        drop : bool, default False
            Whether the axis, of one position, is dropped.

        Returns
        -------
        Signal
            The output.
        """
        return self._along(axis, Select, tuple(index), len(index), drop)

    def mixed(self, axis: int, matrix: Sequence[Sequence[float]], *, drop: bool = False) -> Self:
        """Mix positions along an axis of the tensor by fixed weights, as pooling does.

        Parameters
        ----------
        axis : int
            An axis of positions.
        matrix : sequence of sequences of float
            A row for each position of the output.
        drop : bool, default False
            Whether the axis, of one position, is dropped.

        Returns
        -------
        Signal
            The output.
        """
        return self._along(axis, Mix, tuple(map(tuple, matrix)), len(matrix), drop)

    def _along(self, axis: int, kind: Any, argument: Any, size: int, drop: bool) -> Self:
        axis = self.axis(axis)
        shape = with_size(self.shape, axis, size)
        if axis == 0:
            raise self.tape.refuse("changes the batch axis")
        if self.is_data:
            name = "pick" if kind is Select else "mix"
            steps = (*self.steps, (name, axis - 1, argument, self.ndim - 1))
            after = replace(self, shape=shape, steps=steps)
            return after.reshaped((*shape[:axis], *shape[axis + 1 :])) if drop else after
        found = self.settled()
        role = found.roles[axis]
        if not isinstance(role, int):
            raise self.tape.refuse(
                f"picks or averages along axis {axis}, the {role} axis; "
                "a channel of a wide network is as good as another"
            )
        changes: dict[str, Any] = {"shape": shape, "gains": found._shared_gains}
        if drop:
            changes |= {
                "shape": (*shape[:axis], *shape[axis + 1 :]),
                "roles": tuple(
                    r - 1 if isinstance(r, int) and r > role else r
                    for i, r in enumerate(found.roles)
                    if i != axis
                ),
            }
        return found._emit(kind, role, argument, drop, **changes)

    def split(self, sizes: Sequence[int], axis: int) -> tuple[Self, ...]:
        """Split the channels, or positions along an axis.

        Parameters
        ----------
        sizes : sequence of int
            Sizes of the parts.
        axis : int
            The axis of the tensor.

        Returns
        -------
        tuple of Signal
            The parts; those of a normal signal's channels are independent.
        """
        axis = self.axis(axis)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        if self.is_data or self.settled().roles[axis] != CHANNEL:
            return tuple(
                self.picked(axis, range(a, a + n)) for a, n in zip(starts, sizes, strict=True)
            )
        found = self.settled()
        if not found.gaussian or self.parts:
            raise self.tape.refuse("splits channels that are not those of one normal signal")
        parts = []
        for a, n in zip(starts, sizes, strict=True):
            width = sum(sizes)
            sources = frozenset(
                (i, low + (high - low) * a // width, low + (high - low) * (a + n) // width)
                for i, low, high in found.sources
            )
            parts.append(replace(found, shape=with_size(found.shape, axis, n), sources=sources))
        # Same covariances, other channels: an operation of its own tells them apart.
        return tuple(p._emit(Sum, (1.0,), 0.0) for p in parts)

    def widened(self, axis: int, channels: int) -> Self:
        """Count channels anew, as where windows became channels.

        Parameters
        ----------
        axis : int
            The axis of the channels.
        channels : int
            Their number.

        Returns
        -------
        Signal
            The same signal.
        """
        return replace(self, shape=with_size(self.shape, self.axis(axis), channels))

    def without_channels(self, gone: set[int]) -> Self:
        """Drop axes of one, the channels' among them.

        Parameters
        ----------
        gone : set of int
            Which axes.

        Returns
        -------
        Signal
            The output of the network.
        """
        kept = [i for i in range(self.ndim) if i not in gone]
        inner = [a for a in gone if self.roles[a] != CHANNEL]
        found = self
        for axis in sorted(inner, reverse=True):
            found = found.picked(axis, [0], drop=True)
        return replace(
            found,
            roles=tuple(self.roles[i] for i in kept),
            shape=tuple(self.shape[i] for i in kept),
        )


def _runs(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[range, range]]:
    """Cut two shapes of as many numbers into the shortest runs of the same product."""
    found = []
    i = j = 0
    while i < len(before) or j < len(after):
        a, b = i, j
        p = q = 1
        if i < len(before):
            p, i = before[i], i + 1
        if j < len(after):
            q, j = after[j], j + 1
        while p != q:
            if p < q:
                p, i = p * before[i], i + 1
            else:
                q, j = q * after[j], j + 1
        # Ones that stand alone at the end belong to the last run.
        while j < len(after) and after[j] == 1 and (i >= len(before) or before[i] != 1):
            j += 1
        while i < len(before) and before[i] == 1 and (j >= len(after) or after[j] != 1):
            i += 1
        found.append((range(a, i), range(b, j)))
    return found
