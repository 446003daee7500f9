"""Networks of infinite width: the kernels of torch modules, their training and their limits.

=========================== =======================================================================
You want                    Use
=========================== =======================================================================
kernels of a network        `NTK`, `NNGP`: of an ordinary torch module; `explain` says how each
                            step is read and what it costs, `read` gives the `Network`
a rule of your own          `rule`, on `Signal`; `supported` lists the rules that there are,
                            `NoRuleError` says where one is missing
attention                   `SelfAttention`, which has a kernel at infinite width
surrogate gradients         `SurrogateNTK`: training through steps and signs, a kernel that is not
                            symmetric; `SurrogateSpectrum` says whether it converges
kernels of finite networks  `monte_carlo`: means over networks, with standard errors
what a kernel predicts      `learning_curve`: risk against samples, width and ridge from one kernel
                            matrix; `KernelRisk` for several questions, or from a spectrum
training by squared error   `dynamics`: means, covariances and errors of the ensemble at any time,
                            in closed form; early stopping, learning times
training by cross-entropy   `cross_entropy_dynamics`: the equation in function space, integrated
Bayesian inference          `posterior`
initialisation at any depth `criticality` (the variances), `critical_init_` (a module in place),
                            `layerwise_learning_rates`, `edge_of_chaos` for given biases
what depth does             `signal_propagation` layer by layer, `susceptibilities` of one layer,
                            `depth_scales`, `criticality_map` over all initialisations
infinite depth              `deep_limit`: what it makes of an activation; `optimal_activation`;
                            `mercer.machines.DeepLimitClassifier`
what width does             `finite_width_report` of a module, `optimal_depth`
exact permutations          `permutation_law`: how many networks learn to permute words from single
                            bits
linear student, many inputs `LinearDynamics`: errors in time, when to stop, which ridge, from the
                            `MarchenkoPastur` law
power laws of a task        `fit_power_law`, `fit_power_laws`: exponents of spectrum and target
networks on patches         `hierarchical_kernel`, of the module that `hierarchical_network` makes,
                            for inputs by `normalize_patches`; `sector_exponents` and
                            `predicted_rate`
teachers and students       `teacher_student_curve`; `sample_gaussian_field` draws teachers alone
=========================== =======================================================================
"""

from .attention import SelfAttention as SelfAttention
from .critical_init import critical_init_ as critical_init_
from .criticality import Criticality as Criticality
from .criticality import criticality as criticality
from .criticality_map import CriticalityMap as CriticalityMap
from .criticality_map import criticality_map as criticality_map
from .cross_entropy import CrossEntropyPath as CrossEntropyPath
from .cross_entropy import cross_entropy_dynamics as cross_entropy_dynamics
from .deep_limit import DeepLimit as DeepLimit
from .deep_limit import deep_limit as deep_limit
from .depth_scales import DepthScales as DepthScales
from .depth_scales import depth_scales as depth_scales
from .dynamics import dynamics as dynamics
from .early_stopping import StoppingTime as StoppingTime
from .edge_of_chaos import edge_of_chaos as edge_of_chaos
from .error_curve import ErrorCurve as ErrorCurve
from .finite_width import FiniteWidthReport as FiniteWidthReport
from .finite_width import finite_width_report as finite_width_report
from .finite_width import optimal_depth as optimal_depth
from .hierarchical import SectorExponents as SectorExponents
from .hierarchical import hierarchical_kernel as hierarchical_kernel
from .hierarchical import hierarchical_network as hierarchical_network
from .hierarchical import normalize_patches as normalize_patches
from .hierarchical import predicted_rate as predicted_rate
from .hierarchical import sector_exponents as sector_exponents
from .hierarchical_teacher import TeacherStudentCurve as TeacherStudentCurve
from .hierarchical_teacher import sample_gaussian_field as sample_gaussian_field
from .hierarchical_teacher import teacher_student_curve as teacher_student_curve
from .learning_curve_result import LearningCurve as LearningCurve
from .learning_curve_risk import KernelRisk as KernelRisk
from .learning_curves import learning_curve as learning_curve
from .learning_rates import LayerwiseRates as LayerwiseRates
from .learning_rates import layerwise_learning_rates as layerwise_learning_rates
from .learning_times import LearningTimes as LearningTimes
from .linear_dynamics import LinearDynamics as LinearDynamics
from .linear_dynamics import LinearErrors as LinearErrors
from .marchenko_pastur import MarchenkoPastur as MarchenkoPastur
from .monte_carlo import MonteCarloKernel as MonteCarloKernel
from .monte_carlo import monte_carlo as monte_carlo
from .network import Network as Network
from .optimal_activation import optimal_activation as optimal_activation
from .permutation_law import PermutationLaw as PermutationLaw
from .permutation_law import permutation_law as permutation_law
from .posterior import posterior as posterior
from .power_law import PowerLaw as PowerLaw
from .power_law import PowerLaws as PowerLaws
from .power_law import fit_power_law as fit_power_law
from .power_law import fit_power_laws as fit_power_laws
from .prediction import Prediction as Prediction
from .propagation import Propagation as Propagation
from .propagation import signal_propagation as signal_propagation
from .reader import read as read
from .reading import Reading as Reading
from .reading import ReadingRow as ReadingRow
from .reading import explain as explain
from .rules import rule as rule
from .rules import supported as supported
from .signal import Signal as Signal
from .surrogate_ntk import SurrogateNTK as SurrogateNTK
from .surrogate_spectrum import SurrogateSpectrum as SurrogateSpectrum
from .susceptibility import Susceptibilities as Susceptibilities
from .susceptibility import susceptibilities as susceptibilities
from .tape import NoRuleError as NoRuleError
from .trained_ensemble import Dynamics as Dynamics
from .wide_kernel import NNGP as NNGP
from .wide_kernel import NTK as NTK
