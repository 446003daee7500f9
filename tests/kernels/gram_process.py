"""What each process of `test_gram_processes.py` runs; it raises where an answer is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from mercer.kernels import RBF, Laplacian, White


def refused(action: Callable[[], object], part: str) -> None:
    try:
        action()
    except ValueError as error:
        assert part in str(error), error
    else:
        raise AssertionError(f"different {part} were not refused")


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    world, rank = dist.group.WORLD, dist.get_rank()
    assert world is not None
    data = load_file(folder / "data.safetensors")
    x, y, v, u = data["x"], data["y"], data["v"], data["u"]
    differing = 0
    for name, kernel in {"rbf": RBF(0.9), "sum": 2.0 * Laplacian(2.0) + White(0.1)}.items():
        x = x.detach().requires_grad_()
        product = kernel.gram(x, group=world) @ v
        gradients = torch.autograd.grad(product.square().sum(), [x, *kernel.parameters()])
        between = kernel.gram(x.detach(), y, group=world) @ u
        solved = kernel.gram(x.detach(), group=world).solve(v, ridge=0.1, max_iterations=8)
        found = {
            "product": product.detach(),
            "between": between.detach(),
            **{f"gradient{i}": g for i, g in enumerate(gradients)},
        }
        for part, value in found.items():
            expected = data[f"{name}.{part}"]
            assert value.shape == expected.shape
            differing += int((value != expected).sum())
        # The solver's own arithmetic depends on the number of threads: compare with as many.
        alone = kernel.gram(x.detach()).solve(v, ridge=0.1, method="cg", max_iterations=8)
        assert torch.equal(solved.solution, alone.solution)
    (folder / f"differing.{dist.get_world_size()}.{rank}").write_text(str(differing))

    x = x.detach()
    refused(lambda: RBF().gram(x + 1e-9 * rank, group=world), "points")
    refused(lambda: RBF().gram(x[: 100 + rank], group=world), "points")
    refused(lambda: RBF(1.0 + rank).gram(x, group=world) @ v, "hyperparameters")
    refused(lambda: RBF().gram(x, group=world) @ (v + rank), "vectors")
    # Each process with data of its own, as under data-parallel training: without a group no
    # process waits for another.
    assert (RBF().gram(x[rank:]) @ v[rank:]).shape == v[rank:].shape

    import mercer

    budget = 2**20 if rank == 1 else 2**40
    with mercer.config.override(memory_budget=budget):
        try:
            RBF().gram(x, group=world) @ v
        except MemoryError:
            assert rank == 1
        except RuntimeError as error:
            assert rank != 1 and "process 1 of the group failed" in str(error)
        else:
            raise AssertionError("one process without memory went unnoticed")
    dist.barrier()  # a process that leaves first can take gloo's threads down in another
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
