"""Linear algebra that never builds more than it must.

Which one should I use?

==================================================== =========================================
you have                                             use
==================================================== =========================================
batches of features and targets, more than fit       `StreamingRidge` (one pass; ridge by GCV)
==================================================== =========================================
"""

from .gcv import GCVCurve as GCVCurve
from .streaming_ridge import RidgeSolution as RidgeSolution
from .streaming_ridge import StreamingRidge as StreamingRidge
