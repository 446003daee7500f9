"""Support vector classification with any kernel."""

import warnings
from itertools import combinations
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from ..kernels import Kernel
from .base import Machine
from .class_weights import weigh_classes
from .kernel_input import KernelInput
from .labels import as_labels, check_labels
from .landmark_basis import SELECTIONS, landmark_basis
from .losses import SmoothHinge
from .ridge_fit import evaluate
from .rows import as_tensor, check_rows, check_weights, in_kind
from .svm_rows import COPIES, SOLVERS, plan, sharpen
from .training_matrix import training_matrix


@final
class SVC(ClassifierMixin, Machine):
    r"""Separate classes with the largest margin in the function space of a kernel.

    .. math:: \min_{f, b} \; \frac12 \|f\|^2 + C \sum_i w_i \max(0, 1 - y_i (f(x_i) + b))

    for each pair of classes, which then vote. Few rows are solved in the dual,

    .. math:: \max_a \; 1^\top a - \tfrac12 (a \circ y)^\top K (a \circ y), \qquad
        0 \le a_i \le C w_i, \quad y^\top a = 0

    by the solver of scikit-learn on the kernel's matrix, to the numbers of scikit-learn's SVC;
    only support vectors are kept. With many rows f is a function of landmarks (Nystroem), the
    corner of the hinge is rounded over a width of 0.03, and Newton's method runs on blocks of
    rows.

    There is no ``probability``: scikit-learn's ``CalibratedClassifierCV`` around this classifier
    gives calibrated ones, and `KernelLogisticRegression` has its own.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its lengthscale), or
        itself; it is not changed. ``"precomputed"`` takes X as the kernel matrix.
    C : float, default 1.0
        Weight of the losses against the norm, the bound of the dual.
    class_weight : dict or "balanced", optional
        Weights of classes; ``"balanced"`` gives all classes the same sum of weights.
    solver : {"auto", "dual", "nystroem"}, default "auto"
        ``"dual"`` is exact and builds the kernel matrix; ``"nystroem"`` never does. ``"auto"`` is
        exact up to 10,000 different rows, where memory allows.
    landmarks : int, default 1000
        Most landmarks of ``"nystroem"``.
    selection : {"kmeans", "uniform", "leverage", "greedy", "kdpp"}, default "kmeans"
        How landmarks are chosen; see `mercer.features.Nystroem.from_data`. Those of a
        precomputed matrix are uniform.
    decision_function_shape : {"ovr", "ovo"}, default "ovr"
        Whether `decision_function` tells the votes of each class, with their confidence, or the
        function of each pair. Two classes have one function.
    tol : float, default 1e-4
        Of the dual: by how much its conditions may be violated. Of Newton's method: its square
        is the share of the objective that a further step is expected to gain.
    max_iter : int, default -1
        Most iterations of the dual, or Newton steps of a pair and a width; -1 is no bound of the
        dual, and 100 steps.
    standardize : bool, default False
        Whether to bring columns to mean 0 and standard deviation 1 first.
    random_state : int, RandomState instance or None, default None
        Source of the choice of landmarks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    support_ : ndarray of shape (n_support,) or None
        Numbers of the support vectors among the rows; of equal rows the first. None for
        landmarks.
    dual_coef_ : ndarray or Tensor of shape (p, n_pairs)
        Coefficients of support vectors, or landmarks, in the function of each pair of classes
        (0, 1), (0, 2), ..., (1, 2), ..., which is positive for the first class of a pair; the one
        of two classes is positive for the second, as in scikit-learn.
    intercept_ : ndarray of shape (n_pairs,)
        b of each pair.
    kernel_ : Kernel
        A frozen copy of the kernel, what was left to the data set from it.
    solver_, solver_reason_ : str
        The solver that was taken, and why.
    n_iter_ : int
        Most iterations of a pair.
    converged_ : bool
        Whether all pairs reached the tolerance.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described, there is one class, or a precomputed
        matrix is not symmetric positive semi-definite; the text names it.
    MemoryError
        In ``fit``, if ``"dual"`` does not fit the memory budget.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` iterations were not enough.

    References
    ----------
    Cortes, Vapnik, "Support-vector networks", Machine Learning 20 (1995).

    Chapelle, "Training a support vector machine in the primal", Neural Computation 19 (2007).

    Chang, Lin, "LIBSVM: a library for support vector machines", TIST 2 (2011).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mercer.machines import SVC
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SVC("matern52", C=10.0).fit(X, y)
    >>> model.solver_, len(model.support_) < 100, model.score(X, y) > 0.97
    ('dual', True, True)
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        C: float = 1.0,
        *,
        class_weight: Any = None,
        solver: str = "auto",
        landmarks: int = 1000,
        selection: str = "kmeans",
        decision_function_shape: str = "ovr",
        tol: float = 1e-4,
        max_iter: int = -1,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.C = C
        self.class_weight = class_weight
        self.solver = solver
        self.landmarks = landmarks
        self.selection = selection
        self.decision_function_shape = decision_function_shape
        self.tol = tol
        self.max_iter = max_iter
        self.standardize = standardize
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the functions of all pairs of classes.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features) or (n_samples, n_samples)
            The rows; the kernel matrix for ``kernel="precomputed"``.
        y : array-like or Tensor of shape (n_samples,)
            Their labels.
        sample_weight : array-like or Tensor of shape (n_samples,), or float, optional
            Weights of the losses; a whole number is the same as so many equal rows.

        Returns
        -------
        SVC
            The classifier itself.
        """
        check_choice("decision_function_shape", self.decision_function_shape, ("ovr", "ovo"))
        check_choice("solver", self.solver, SOLVERS)
        check_choice("selection", self.selection, SELECTIONS)
        check_real("C", self.C, above=0.0)
        check_real("tol", self.tol, above=0.0)
        check_int("max_iter", self.max_iter, least=-1)
        check_int("landmarks", self.landmarks)
        rows = check_rows(self, X, reset=True)
        self.classes_, numbers = check_labels(y, rows)
        given = check_weights(sample_weight, rows)
        source = KernelInput.fit(self.kernel, rows, weights=given, standardize=self.standardize)
        numbers = numbers.to(source.points.device)
        weights = weigh_classes(self.class_weight, self.classes_, numbers, given)  # (n,)
        index, weights, self.solver_, self.solver_reason_ = plan(
            source, numbers, weights, self.solver
        )  # (k,)
        numbers = numbers[index]
        if self.solver_ == "dual":
            self._solve_dual(source, index, numbers, weights)
        else:
            self._solve_primal(source, index, numbers, weights)
        self.dual_coef_ = in_kind(self.dual_coef_, rows)
        self.kernel_ = self._input.kernel
        return self

    def _solve_dual(
        self, source: KernelInput, index: Tensor, numbers: Tensor, weights: Tensor
    ) -> None:
        """Solve the dual of each pair by scikit-learn, and keep the support vectors."""
        from sklearn import svm

        option = "use solver='nystroem'"
        matrix = training_matrix(source, index, copies=COPIES, option=option)
        peer = svm.SVC(C=self.C, kernel="precomputed", tol=self.tol, max_iter=self.max_iter)
        peer.fit(matrix.cpu().numpy(), numbers.cpu().numpy(), weights.cpu().numpy())
        kept = torch.from_numpy(peer.support_).long().to(index.device)
        coef = torch.from_numpy(np.asarray(peer.dual_coef_))  # (c - 1, s)
        if len(self.classes_) == 2:
            pairs = coef.mT
        else:  # The rows of its coefficients are the other classes, each without itself.
            of_class, parts = numbers[kept].cpu(), []
            for i, j in combinations(range(len(self.classes_)), 2):
                parts.append((of_class == i) * coef[j - 1] + (of_class == j) * coef[i])
            pairs = torch.stack(parts, -1)  # (s, pairs)
        self._input = source.keep(index[kept])
        self.support_ = index[kept].cpu().numpy()
        self.dual_coef_ = pairs.contiguous().to(index.device)
        self.intercept_ = np.array(peer.intercept_)
        self.n_iter_ = max(int(np.max(peer.n_iter_)), 1)
        self.converged_ = not peer.fit_status_  # It has warned.

    def _solve_primal(
        self, source: KernelInput, index: Tensor, numbers: Tensor, weights: Tensor
    ) -> None:
        """Minimise the rounded hinge of each pair over functions of landmarks."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        basis = landmark_basis(
            source,
            index,
            self.landmarks,
            method=self.selection,
            center=True,
            generator=torch.Generator().manual_seed(seed),
        )
        count = len(self.classes_)
        coef, bias, steps, converged = [], [], [], []
        for i, j in combinations(range(count), 2):
            rows = ((numbers == i) | (numbers == j)).nonzero().squeeze(-1)
            first = numbers[rows] == (j if count == 2 else i)
            signs = torch.where(first, 1.0, -1.0).double().unsqueeze(-1)
            share = self.C * weights[rows].unsqueeze(-1)
            fit = sharpen(
                basis if count == 2 else basis.on_rows(rows),
                lambda width, s=signs, w=share: SmoothHinge(s, w, width),
                lambda _: 1.0,
                tol=self.tol**2,
                max_iter=100 if self.max_iter < 1 else self.max_iter,
            )
            coef.append(basis.coefficients(fit.coefficients))
            bias.append(fit.intercept - basis.shift @ fit.coefficients)
            steps.append(fit.iterations)
            converged.append(fit.converged)
        self._input, self.support_ = basis.input, None
        self.dual_coef_ = torch.cat(coef, -1)  # (m, pairs)
        self.intercept_ = torch.cat(bias).cpu().numpy()
        self.n_iter_, self.converged_ = max(steps), all(converged)
        if not self.converged_:
            warnings.warn(
                f"SVC: {self.n_iter_} Newton steps were not enough; raise max_iter or tol, "
                "or lower C",
                ConvergenceWarning,
                stacklevel=4,  # past no_grad, to the caller of fit
            )

    def _pairs(self, X: Any) -> tuple[Tensor, Any]:
        """Return the functions (m, pairs) of all pairs, and the checked rows."""
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        bias = torch.as_tensor(self.intercept_)
        found = evaluate(self._input, as_tensor(self.dual_coef_), bias, rows)
        return found.to(as_tensor(rows[:0]).dtype), rows

    def _votes(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the votes (m, c) of each class, and the sums of their confidence."""
        votes = pairs.new_zeros(len(pairs), len(self.classes_))
        sums = torch.zeros_like(votes)
        for k, (i, j) in enumerate(combinations(range(len(self.classes_)), 2)):
            first = pairs[:, k] > 0
            votes[:, i] += first
            votes[:, j] += ~first
            sums[:, i] += pairs[:, k]
            sums[:, j] -= pairs[:, k]
        return votes, sums

    def decision_function(self, X: Any) -> Any:
        """Compute the functions, or the votes of classes, block by block.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows, or their kernel with the training rows for ``kernel="precomputed"``.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_pairs)
            The function of two classes; else by ``decision_function_shape``.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        pairs, rows = self._pairs(X)
        if len(self.classes_) == 2:
            pairs = pairs.squeeze(-1)
        elif self.decision_function_shape == "ovr":
            votes, sums = self._votes(pairs)
            pairs = votes + sums / (3 * (sums.abs() + 1))  # by less than half a vote
        return in_kind(pairs, rows)

    def predict(self, X: Any) -> Any:
        """Predict the class with most votes; of equally many, the first.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples,)
            The labels: a tensor for a tensor, if they are numbers.

        Raises
        ------
        NotFittedError, ValueError
            As `decision_function`.
        """
        pairs, rows = self._pairs(X)
        if len(self.classes_) == 2:
            return as_labels(self.classes_, (pairs[:, 0] > 0).long(), rows)
        return as_labels(self.classes_, self._votes(pairs)[0].argmax(-1), rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags
