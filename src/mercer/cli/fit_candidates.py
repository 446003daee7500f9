"""The kernels that ``mercer fit`` compares."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..kernels import RBF, Kernel, Laplacian, Matern

_MULTIPLES = (1.0, 0.5, 2.0, 0.25, 4.0)  # of the median distance, the likelier first
_STEP = 2**0.5  # between a lengthscale and its refined neighbours
STATIONARY = ("rbf", "matern52", "matern32", "laplacian")
TITLES = {
    "rbf": "RBF",
    "matern52": "Matérn 5/2",
    "matern32": "Matérn 3/2",
    "laplacian": "Laplacian",
    "arc_cosine": "arc-cosine",
    "ntk": "NTK",
}
Candidate = dict[str, Any]  # plain values: "kernel" and what it is made of


def candidates(names: Sequence[str]) -> list[Candidate]:
    """Return the candidates of some families, the likelier first, the families in turn."""
    lists: list[list[Candidate]] = []
    for name in names:
        if name in STATIONARY:
            lists.append([{"kernel": name, "multiple": multiple} for multiple in _MULTIPLES])
        elif name == "arc_cosine":
            lists.append([{"kernel": name, "bias": bias} for bias in (1.0, 0.3, 3.0)])
        else:
            depths = [(2, 1.0), (1, 1.0), (3, 1.0), (1, 0.3), (2, 0.3)]
            lists.append([{"kernel": name, "depth": d, "bias": b} for d, b in depths])
    longest = max(map(len, lists))
    return [each[i] for i in range(longest) for each in lists if i < len(each)]


def neighbours(candidate: Candidate) -> list[Candidate]:
    """Return candidates between the first ones and a good one among them."""
    if "multiple" not in candidate:
        return []
    multiple = candidate["multiple"]
    return [{**candidate, "multiple": m} for m in (multiple / _STEP, multiple * _STEP)]


def title(candidate: Candidate) -> str:
    """Return how a candidate is called."""
    name = TITLES[candidate["kernel"]]
    if "multiple" in candidate:
        return f"{name}, {candidate['multiple']:.3g} × median"
    if candidate["kernel"] == "arc_cosine":
        return f"{name}, bias {candidate['bias']:g}"
    layers = "layer" if candidate["depth"] == 1 else "layers"
    return f"{name}, {candidate['depth']} {layers}, bias {candidate['bias']:g}"


def make_kernel(candidate: Candidate, x: Tensor) -> Kernel:
    """Make a candidate for training rows (n, d), of which the median distance is taken."""
    name = candidate["kernel"]
    if name in STATIONARY:
        kernel = {
            "rbf": lambda: RBF("median"),
            "laplacian": lambda: Laplacian("median"),
            "matern32": lambda: Matern("median", nu=1.5),
            "matern52": lambda: Matern("median", nu=2.5),
        }[name]()
        from ..machines.kernel_input import fit_kernel

        found: Any = fit_kernel(kernel, x)
        length = candidate["multiple"] * float(found.lengthscale)
        return found.set_params(lengthscale=length)
    from ..infinite import NNGP, NTK

    # The arc-cosine kernel of a layer with biases: of inputs at hand and a constant beside them.
    depth = candidate.get("depth", 1)
    layers: list[nn.Module] = []
    for width in [x.shape[1]] + [8] * (depth - 1):  # the widths but the first do not matter
        layers += [nn.Linear(width, 8), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(8, 1))
    kind = NNGP if name == "arc_cosine" else NTK
    return kind(network, b_std=candidate["bias"])
