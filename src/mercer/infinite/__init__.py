"""Networks of infinite width: the kernels of torch modules, their training and their limits.

====================== ==========================================================================
You want               Use
====================== ==========================================================================
kernels of finite      `monte_carlo`: means over networks, with standard errors
networks
====================== ==========================================================================
"""

from .monte_carlo import MonteCarloKernel as MonteCarloKernel
from .monte_carlo import monte_carlo as monte_carlo
