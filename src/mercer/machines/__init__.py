"""Estimators with ``fit`` and ``predict`` or ``transform``, as scikit-learn has them.

Which one should I use?

==================== ============================================================================
You want             Use
==================== ============================================================================
a linear model to be `FeatureTransformer` before it, in a pipeline: explicit features of any
a kernel machine     kernel, for as many rows as you like
the same of a stream `StreamingNystroem`: landmarks chosen in one pass over batches of rows
labels, fast         `KernelRidgeClassifier`: least squares on labels, its penalty chosen in
                     closed form
probabilities of     `KernelLogisticRegression`: exact for few rows, on landmarks for many
classes
features of my own   `WeightedLeastSquares`: with the best rows at which to evaluate a function
error bars           `GaussianProcessRegressor`, whose kernel and noise are fitted too;
                     `StudentTProcessRegressor` where the size of the targets is uncertain;
                     `ScaleMixtureProcess` for any prior of it, such as `InverseGamma`;
                     `GaussianProcessClassifier` for labels, `SparseStudentTClassifier` for many
the largest margin   `SVC` for classes, `SVR` for numbers, `OneClassSVM` to find outliers
to interpolate       `DeepLimitClassifier`: the infinitely deep wide network, a smoother without
labels               parameters
a table with holes   `TablePredictor`: an encoder with a machine, as ``mercer fit`` saves it
and categories
to reduce columns    `KernelPCA`: principal components in the feature space of any kernel
                     `KernelDiscriminantAnalysis`: the columns that tell classes apart
clusters             `KernelKMeans`: means in the feature space of any kernel
                     `SpectralClustering`: clusters of any shape
vectors              `VectorKernelRidge`: regression of entries that go together
two sets of columns  `KernelCCA`: the functions of both that are most correlated
to compare samples   `mmd`, and `mmd_test` whether they come from one distribution
to find dependence   `hsic`, and `hsic_test` whether two variables are independent
distributions        `ECDF`: shares of rows below and above, exact, in any number of columns
densities            `KernelDensity`: radial and product kernels, exact
do they average      `kde_phase` says whether a density does or looks up neighbours (a `KDEPhase`,
                     `kde_log_density_prediction`); `effective_neighbors` counts them;
                     `nearest_neighbor_bandwidth` is near the best in many columns
local averages       `NadarayaWatson`: regression by what is nearby, constant or linear
==================== ============================================================================

They take NumPy arrays and torch tensors and return the caller's kind, pass scikit-learn's checks
of estimators, and never change the kernel that they are given.
"""

from .bandwidth import effective_neighbors as effective_neighbors
from .bandwidth import nearest_neighbor_bandwidth as nearest_neighbor_bandwidth
from .base import Machine as Machine
from .deep_limit_classifier import DeepLimitClassifier as DeepLimitClassifier
from .ecdf import ECDF as ECDF
from .feature_transformer import FeatureTransformer as FeatureTransformer
from .gaussian_process import GaussianProcessRegressor as GaussianProcessRegressor
from .gaussian_process_classifier import GaussianProcessClassifier as GaussianProcessClassifier
from .hsic import hsic as hsic
from .hsic import hsic_test as hsic_test
from .inverse_gamma import InverseGamma as InverseGamma
from .kde_phase import KDEPhase as KDEPhase
from .kde_phase import kde_log_density_prediction as kde_log_density_prediction
from .kde_phase import kde_phase as kde_phase
from .kernel_cca import KernelCCA as KernelCCA
from .kernel_density import KernelDensity as KernelDensity
from .kernel_discriminant_analysis import (
    KernelDiscriminantAnalysis as KernelDiscriminantAnalysis,
)
from .kernel_k_means import KernelKMeans as KernelKMeans
from .kernel_logistic_regression import KernelLogisticRegression as KernelLogisticRegression
from .kernel_pca import KernelPCA as KernelPCA
from .kernel_ridge import KernelRidge as KernelRidge
from .kernel_ridge_classifier import KernelRidgeClassifier as KernelRidgeClassifier
from .mmd import mmd as mmd
from .mmd import mmd_test as mmd_test
from .nadaraya_watson import NadarayaWatson as NadarayaWatson
from .one_class_svm import OneClassSVM as OneClassSVM
from .scale_mixture_process import ScaleMixtureProcess as ScaleMixtureProcess
from .significance import SampleTest as SampleTest
from .sparse_student_t_classifier import SparseStudentTClassifier as SparseStudentTClassifier
from .spectral_clustering import SpectralClustering as SpectralClustering
from .streaming_nystroem import StreamingNystroem as StreamingNystroem
from .student_t_process import StudentTProcessRegressor as StudentTProcessRegressor
from .svc import SVC as SVC
from .svr import SVR as SVR
from .table_predictor import TablePredictor as TablePredictor
from .vector_kernel_ridge import VectorKernelRidge as VectorKernelRidge
from .weighted_least_squares import WeightedLeastSquares as WeightedLeastSquares
