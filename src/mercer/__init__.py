"""Mercer: neural networks are kernels, and kernels are neural networks.

The rooms load on first use; ``import mercer`` imports torch and nothing heavier.

================= ======================================================================
`mercer.linalg`   leverage scores, pivoted Cholesky, DPPs, streaming ridge, solvers
`mercer.kernels`  functions k(x, y), and Gram, their matrix as a lazy operator
`mercer.features` explicit maps phi(x): universal, arc-cosine, neurons
`mercer.nn`       layers that stand in for those of ``torch.nn``, adapters for fine-tuning
`mercer.infinite` NNGP and NTK of a torch module of infinite width, training, limits
`mercer.machines` estimators with fit and predict, for scikit-learn's pipelines
`mercer.convert`  take a trained model apart and put it back smaller; fine-tune it
`mercer.datasets` loaders: what ships with scikit-learn, local files
`mercer.report`   one self-contained HTML page for what a command found
`mercer.cli`      the ``mercer`` command
================= ======================================================================
"""

from ._core.config import config as config
from ._core.lazy import lazy_rooms
from ._core.version import __version__ as __version__

__getattr__, __dir__ = lazy_rooms(
    __name__,
    (
        "datasets",
        "linalg",
        "kernels",
        "features",
        "nn",
        "infinite",
        "machines",
        "convert",
        "report",
        "cli",
    ),
)
