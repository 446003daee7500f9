"""Networks of infinite width: the kernels of torch modules, their training and their limits.

====================== ==========================================================================
You want               Use
====================== ==========================================================================
kernels of finite      `monte_carlo`: means over networks, with standard errors
networks
what a kernel predicts `learning_curve`: risk against samples, width and ridge from one kernel
                       matrix; `KernelRisk` for several questions, or from a spectrum
====================== ==========================================================================
"""

from .learning_curve import learning_curve as learning_curve
from .learning_curve_result import LearningCurve as LearningCurve
from .learning_curve_risk import KernelRisk as KernelRisk
from .monte_carlo import MonteCarloKernel as MonteCarloKernel
from .monte_carlo import monte_carlo as monte_carlo
