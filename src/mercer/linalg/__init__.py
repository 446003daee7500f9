"""Linear algebra that never builds more than it must.

Which one should I use?

============================= ====================================================================
use                           for
============================= ====================================================================
`StreamingRidge`              the best linear map from features to targets, in one pass over
                              batches, also on subsets of the features; its ridge by `GCVCurve`
`StreamingMoments`            means and second moments alone, for that or for selection
`solve_normal_equations`      the same map from moments that you have
`RidgePath`                   kernel ridge regression for every ridge: leave-one-out and GCV
`RidgeChoice`                 the ridge that it chose, with the curve
`conjugate_gradient`          A x = b for a matrix that is only multiplied with, many b at once
`LowRankPreconditioner`       to cut its steps, from a `pivoted_cholesky`
`nystrom_preconditioner`      the same from products alone, where no column can be asked for
`eigenpro`                    such systems a few rows at a time, for large ridges or early stopping
`chebyshev_iteration`         such systems without inner products, from bounds of the spectrum
`largest_eigenvalue`          such a bound, from a few products
`lanczos`                     a tridiagonal matrix in place of a large one, on a Krylov space
`stochastic_logdet`           log-determinants of matrices that are only multiplied with
`stochastic_trace`            traces of functions of them, both with standard errors
`spectral_density`            all of their spectrum at a glance
`solve_psd`                   the same for a dense matrix that fits into memory
`solve_refined`               the same, in half the time where the matrix is large and has a ridge
`IncrementalCholesky`         a factor that rows join and leave
`ResidualKernel`              what weighted points leave of a kernel, as they join and leave
`ridge_leverage_scores`       how much each point, or neuron, matters to such a fit
`approximate_leverage_scores` the same for a matrix that is never built
`SequentialLeverage`          the same in one pass over a stream, from a small weighted dictionary
`ink_estimate`                the same where scores must not be too large, and columns come whole
`effective_dimension`         the sum of the scores: how many directions stand out
`pivoted_cholesky`            the k points that leave the least variance, greedily, from a few
                              columns of a matrix that is never built
`top_eigenpairs`              the largest eigenvalues of such a matrix, with their vectors
`sample_kdpp`                 k points at random that do not repeat each other
`sample_dpp`                  as many of them as the matrix has room for
`volume_sampling`             more rows than columns of a factor, for unbiased least squares;
                              with repetition by `rescaled_volume_sampling`
`optimal_design`              at which points, of data or of a continuum, to look at a function for
                              its best fit; the space and the measure are a `ChristoffelDensity`,
                              the fit is `weighted_least_squares`
`projection_dpp`              the same from an orthonormal basis that you have
`smooth`                      weighted means where weights are given by their logarithms, and how
                              many points each rests on: densities, smoothing, attention
`dominance_sums`              weights of all points below a point in every coordinate: distribution
                              functions, near-linear; `dominance_sums_on_grid` at nodes of a grid
`product_kernel_sums`         products with the matrix of a Laplacian, Matérn or compact product
                              kernel, near-linear; `product_kernel_sums_on_grid` at nodes of a grid
============================= ====================================================================

Choosing k of n points (landmarks, neurons): `pivoted_cholesky` is deterministic, costs O(n k^2)
and looks at k columns only; scores cost one decomposition, or as much as the former where they
are approximate, and rank the points one by one, blind to duplicates; a k-DPP costs one
decomposition plus O(n k^2) and chooses the set as a whole. Matrices and factors come as tensors
or callables; all of it runs in float64.
"""

from .approximate_leverage import LeverageEstimate as LeverageEstimate
from .approximate_leverage import approximate_leverage_scores as approximate_leverage_scores
from .chebyshev import chebyshev_iteration as chebyshev_iteration
from .christoffel import ChristoffelDensity as ChristoffelDensity
from .conjugate_gradient import conjugate_gradient as conjugate_gradient
from .dominance_sums import dominance_sums as dominance_sums
from .dpp import projection_dpp as projection_dpp
from .dpp import sample_kdpp as sample_kdpp
from .eigenpro import EigenProSolution as EigenProSolution
from .eigenpro import eigenpro as eigenpro
from .gcv import GCVCurve as GCVCurve
from .grid_sums import dominance_sums_on_grid as dominance_sums_on_grid
from .incremental_cholesky import IncrementalCholesky as IncrementalCholesky
from .ink_estimate import InkEstimate as InkEstimate
from .ink_estimate import ink_estimate as ink_estimate
from .lanczos import LanczosResult as LanczosResult
from .lanczos import lanczos as lanczos
from .lanczos import largest_eigenvalue as largest_eigenvalue
from .leverage import effective_dimension as effective_dimension
from .leverage import ridge_leverage_scores as ridge_leverage_scores
from .linear_solution import LinearSolution as LinearSolution
from .normal_equations import NormalSolution as NormalSolution
from .normal_equations import solve_normal_equations as solve_normal_equations
from .nystrom_preconditioner import nystrom_preconditioner as nystrom_preconditioner
from .optimal_least_squares import LeastSquares as LeastSquares
from .optimal_least_squares import OptimalDesign as OptimalDesign
from .optimal_least_squares import optimal_design as optimal_design
from .optimal_least_squares import weighted_least_squares as weighted_least_squares
from .pivoted_cholesky import PivotedCholesky as PivotedCholesky
from .pivoted_cholesky import pivoted_cholesky as pivoted_cholesky
from .preconditioner import LowRankPreconditioner as LowRankPreconditioner
from .product_kernel_sums import product_kernel_sums as product_kernel_sums
from .product_kernel_sums import product_kernel_sums_on_grid as product_kernel_sums_on_grid
from .refined_cholesky import solve_refined as solve_refined
from .residual_kernel import ResidualKernel as ResidualKernel
from .ridge_path import RidgeChoice as RidgeChoice
from .ridge_path import RidgePath as RidgePath
from .sample_dpp import sample_dpp as sample_dpp
from .sequential_leverage import SequentialLeverage as SequentialLeverage
from .smoother import Smoothing as Smoothing
from .smoother import smooth as smooth
from .solve_psd import solve_psd as solve_psd
from .spectral_density import SpectralDensity as SpectralDensity
from .spectral_density import spectral_density as spectral_density
from .stochastic_lanczos import StochasticEstimate as StochasticEstimate
from .stochastic_lanczos import stochastic_logdet as stochastic_logdet
from .stochastic_lanczos import stochastic_trace as stochastic_trace
from .streaming_moments import StreamingMoments as StreamingMoments
from .streaming_ridge import RidgeSolution as RidgeSolution
from .streaming_ridge import StreamingRidge as StreamingRidge
from .top_eigenpairs import TopEigenpairs as TopEigenpairs
from .top_eigenpairs import top_eigenpairs as top_eigenpairs
from .volume_sampling import rescaled_volume_sampling as rescaled_volume_sampling
from .volume_sampling import volume_sampling as volume_sampling
