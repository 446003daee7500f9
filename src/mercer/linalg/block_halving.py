"""Halving blocks of points by a rank: the step of divide and conquer, for all blocks at once."""

from dataclasses import dataclass

import torch
from torch import Tensor


def halved_size(count: int, leaf: int) -> int:
    """Return the least size >= ``count`` that halves without rest down to at most ``leaf``."""
    halvings = 0
    while count > leaf << halvings:
        halvings += 1
    return -(-count >> halvings) << halvings if halvings else count


@dataclass(frozen=True, eq=False)
class Halving:
    """Blocks (B, S) cut by a rank into (2B, S / 2), the order inside kept.

    Attributes
    ----------
    right : BoolTensor of shape (B, S)
        What goes into the second half of its block.
    source : IntTensor of shape (B * S,)
        Where each entry of the halves was before.
    target : IntTensor of shape (B * S,)
        Where each entry of the blocks went, the inverse permutation.
    """

    right: Tensor
    source: Tensor
    target: Tensor

    def divide(self, values: Tensor) -> Tensor:
        """Rearrange (..., B, S) into (..., 2B, S / 2)."""
        blocks, size = self.right.shape
        lead = values.shape[:-2]
        flat = values.reshape(-1, blocks * size).index_select(1, self.source)
        return flat.view(*lead, 2 * blocks, size // 2)

    def unite(self, values: Tensor) -> Tensor:
        """Rearrange (..., 2B, S / 2) back into (..., B, S)."""
        blocks, size = self.right.shape
        lead = values.shape[:-2]
        flat = values.reshape(-1, blocks * size).index_select(1, self.target)
        return flat.view(*lead, blocks, size)

    def ranks(self, rank: Tensor) -> Tensor:
        """Divide another rank (B, S), and count it anew inside the halves."""
        # In the order of that rank: how many of the second half come up to each entry.
        index = rank.long()
        ordered = torch.empty_like(self.right).scatter_(1, index, self.right)
        seen = ordered.cumsum(1, dtype=torch.int32).gather(1, index)  # (B, S)
        return self.divide(torch.where(self.right, seen - 1, rank - seen))


def halve(rank: Tensor) -> tuple[Halving, Tensor]:
    """Cut each block (B, S) in the middle of a rank; also that rank inside the halves."""
    blocks, size = rank.shape
    half = size // 2
    right = rank >= half
    seen = right.cumsum(1, dtype=torch.int32)
    place = torch.arange(size, dtype=torch.int32, device=rank.device)
    offset = torch.arange(0, blocks * size, size, dtype=torch.int32, device=rank.device)
    target = (torch.where(right, seen + (half - 1), place - seen) + offset.unsqueeze(1)).view(-1)
    every = torch.arange(blocks * size, dtype=torch.int32, device=rank.device)
    source = torch.empty_like(target).scatter_(0, target.long(), every)
    halving = Halving(right, source, target)
    return halving, halving.divide(rank - half * right)
