"""Estimators with ``fit`` and ``predict`` or ``transform``, as scikit-learn has them.

Which one should I use?

============================ =====================================================================
use                          for
============================ =====================================================================
`KernelRidge`                numbers, by least squares: the first to try; 10 to 10^7 rows
`VectorKernelRidge`          vectors of numbers that go together
`GaussianProcessRegressor`   numbers with error bars; its kernel and noise are fitted too
`StudentTProcessRegressor`   the same where the size of the targets is uncertain
`ScaleMixtureProcess`        the same for any prior of that size
`InverseGamma`               such a prior
`SVR`                        numbers, by support vectors
`NadarayaWatson`             numbers, by what is nearby, constant or linear
`WeightedLeastSquares`       your own features, with the best rows at which to evaluate a function
`KernelLogisticRegression`   classes, with probabilities; on landmarks where rows are many
`KernelRidgeClassifier`      classes, fast: least squares, its penalty chosen in closed form
`SVC`                        classes, by the largest margin
`GaussianProcessClassifier`  classes, with the uncertainty of few rows
`SparseStudentTClassifier`   classes of many rows, with heavy tails
`DeepLimitClassifier`        classes, by the infinitely deep wide network: nothing to choose
`KernelDiscriminantAnalysis` the directions that tell classes apart
`OneClassSVM`                outliers
`ECDF`                       shares of rows below and above, exact, in several columns
`KernelDensity`              densities: radial and product kernels, exact
`kde_phase`                  whether a density averages or looks up its nearest neighbour
`KDEPhase`                   what it says
`kde_log_density_prediction` what a density of many columns tends to
`effective_neighbors`        how many rows a density rests on
`nearest_neighbor_bandwidth` a bandwidth that is near the best in many columns
`KernelPCA`                  fewer columns: principal components in the feature space
`KernelCCA`                  what two sets of columns have in common
`KernelKMeans`               clusters around means in the feature space
`SpectralClustering`         clusters of any shape
`mmd_test`                   whether two samples come from one distribution
`mmd`                        how far their distributions are apart
`hsic_test`                  whether two variables are independent
`hsic`                       how far from it they are
`SampleTest`                 what these tests say
`FeatureTransformer`         features before a linear model of your own, in a pipeline
`StreamingNystroem`          the same in one pass over batches
`TablePredictor`             tables with holes and categories, as ``mercer fit`` saves them
`Machine`                    what all of them are
============================ =====================================================================

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
