"""Take a trained model apart and put it back smaller, or fine-tune it with few trained numbers.

Which one should I use?

==================== ====================================================================
`bundle`             a trained model with blocks Linear -> activation -> Linear that should
                     become smaller and faster, without training
`uptrain`            the same, when there are minutes for training: bundles, then distils the
                     dense model into the bundled one, without labels
`bundle_head`        a trained classifier whose head, pooler and classifier, should become frozen
                     features and one matrix: in closed form, or to be trained
`allocate`           which share each block should keep under one budget of numbers or time
`solve`              a multilayer perceptron to be trained in closed form, without a
                     gradient step
`load`               read back what ``bundle(...)`` and the others wrote by
                     ``save_pretrained(folder)``
`adapt`              a trained model to be fine-tuned with few trained numbers: SNNK adapters
                     after some of its modules, all else frozen
`SNNKConfig`         the same, or SNNK beside linear layers, through PEFT: several named
                     adapters, the ``Trainer`` of transformers; see `mercer.convert.peft`
`load_adapters`      put back what ``adapt(...).save_pretrained(folder)`` wrote
`trainable`          any model: what trains in it, and how much
==================== ====================================================================
"""

import typing

from .adapt import adapt as adapt
from .adapted import Adapted as Adapted
from .adapted import AdapterReport as AdapterReport
from .adapted import AdaptReport as AdaptReport
from .adapted import load_adapters as load_adapters
from .allocate import allocate as allocate
from .allocation import Allocation as Allocation
from .bundle import bundle as bundle
from .bundled import BlockReport as BlockReport
from .bundled import Bundled as Bundled
from .bundled import BundleReport as BundleReport
from .distil import Distance as Distance
from .head import bundle_head as bundle_head
from .load import load as load
from .observe import Skipped as Skipped
from .solve import Solved as Solved
from .solve import solve as solve
from .trainable import TrainableReport as TrainableReport
from .trainable import TrainedParameter as TrainedParameter
from .trainable import trainable as trainable
from .uptrain import uptrain as uptrain
from .uptrained import Trial as Trial
from .uptrained import Uptrained as Uptrained
from .uptrained import UptrainReport as UptrainReport

if typing.TYPE_CHECKING:
    from .peft import SNNKConfig as SNNKConfig

_FROM_PEFT = ("SNNKConfig",)


def __getattr__(name: str) -> typing.Any:
    """Import what needs PEFT when it is asked for."""
    if name in _FROM_PEFT:
        from . import peft

        return getattr(peft, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM_PEFT})
