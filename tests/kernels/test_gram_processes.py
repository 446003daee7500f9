"""Gram over several processes: the bits of one, and different data refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mercer.kernels import RBF, Laplacian, White
from mercer.kernels.ordered_sum import cut, owners

ISSUE = "core-scalable-neural-network-kernels"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the points, and what this one process computes from them with two threads."""
    source = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    data = {"x": draw(1700, 5), "y": draw(900, 5), "v": draw(1700, 3), "u": draw(900, 3)}
    x, y, v, u = data["x"], data["y"], data["v"], data["u"]
    results = dict(data)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name, kernel in {"rbf": RBF(0.9), "sum": 2.0 * Laplacian(2.0) + White(0.1)}.items():
            x = x.detach().requires_grad_()
            product = kernel.gram(x) @ v
            gradients = torch.autograd.grad(product.square().sum(), [x, *kernel.parameters()])
            results |= {
                f"{name}.product": product.detach(),
                f"{name}.between": (kernel.gram(x, y) @ u).detach(),
                **{f"{name}.gradient{i}": g for i, g in enumerate(gradients)},
            }
    finally:
        torch.set_num_threads(before)
    path = tmp_path_factory.mktemp("gram")
    # Clones, as nothing here may share memory or keep a graph.
    save_file({k: t.detach().clone() for k, t in results.items()}, path / "data.safetensors")
    return path


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.paper(ISSUE, "exact", "products over gloo processes equal those of one, bitwise")
def test_processes_give_the_bits_of_one(folder, processes, evidence):
    script = Path(__file__).with_name("gram_process.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
    command += [f"--nproc-per-node={processes}", str(script), str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = [int(path.read_text()) for path in folder.glob(f"differing.{processes}.*")]
    evidence(required="0", measured=sum(counts), what=f"differing entries, {processes} processes")
    assert len(counts) == processes and sum(counts) == 0


def test_slabs_depend_on_the_problem_alone():
    assert [list(s) for s in cut(3)] == [[0], [1], [2]]
    assert cut(0) == []
    for count in (1, 31, 32, 33, 1000):
        slabs = cut(count)
        assert [i for s in slabs for i in s] == list(range(count))
        assert max(map(len, slabs)) - min(map(len, slabs)) <= 1


def test_work_is_shared_evenly():
    costs = [float(32 - s) for s in range(32)]  # the slabs of a triangle
    for processes in (1, 2, 3, 4, 7):
        load = [0.0] * processes
        for slab, owner in enumerate(owners(costs, processes)):
            load[owner] += costs[slab]
        assert max(load) <= 1.05 * sum(costs) / processes
