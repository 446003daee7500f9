"""Classification by a sparse Student-t process: as many rows as you like, in batches."""

from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from ..features.landmark_choice import LANDMARK_CHOICES, choose_landmarks
from ..kernels import Kernel
from .base import Machine
from .gp_hyperparameters import Hyperparameters
from .inverse_gamma import InverseGamma
from .kernel_input import KernelInput
from .labels import as_labels, check_labels
from .rows import as_tensor, check_rows, in_kind
from .sparse_student_t import SparseStudentT

_DRAWS = 1000  # of the logits of a new row


@final
class SparseStudentTClassifier(ClassifierMixin, Machine):
    r"""Classify by Student-t processes under a softmax, known at landmarks only.

    .. math::

        \sigma^2 \sim \mathrm{InvGamma}(\alpha, \beta), \quad
        f_c \mid \sigma^2 \sim GP(0, \sigma^2 k), \quad
        P(y = c \mid x) = \mathrm{softmax}_c f(x)

    The posterior is variational, see `SparseStudentT` in the source; Adam maximises its bound on
    batches of rows, with the kernel's hyperparameters. Heavy tails make it less certain far from
    the data than a Gaussian process would be.

    Parameters
    ----------
    kernel : str or Kernel, default "rbf"
        The kernel, by name (then with the median distance of the data as its first lengthscale)
        or itself; it is not changed. Its size is the variance's.
    num_landmarks : int, default 100
        How many landmarks; at most as many as rows.
    alpha, beta : float, default 2.0
        Shape and scale of the prior of the variance, positive.
    landmarks : {"kmeans", "greedy", "leverage", "kdpp", "uniform"}, default "kmeans"
        How they are chosen; they stay where they are.
    fixed : sequence of str, default ()
        Hyperparameters of the kernel that are not fitted.
    max_iter : int, default 500
        Steps of Adam.
    batch_size : int, default 256
        Rows of a step.
    learning_rate : float, default 0.03
        Of Adam; it falls to zero along a cosine.
    num_samples : int, default 16
        Draws of the logits in a step.
    standardize : bool, default False
        Whether columns are brought to mean 0 and standard deviation 1.
    random_state : int, RandomState instance or None, default None
        Of landmarks, batches and draws.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    kernel_ : Kernel
        The kernel with the hyperparameters found.
    landmarks_ : Tensor of shape (m, n_features)
        The landmarks.
    posterior_scale_ : InverseGamma
        The variance after the data.
    bound_ : float
        The evidence lower bound: the mean of the last tenth of the steps.
    n_iter_ : int
        Steps that were taken.
    n_features_in_ : int
        Number of columns in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they were all texts.

    Raises
    ------
    TypeError, ValueError
        In ``fit``, if an argument is not as described; the text names it.

    References
    ----------
    Lee, Yun, Yang, Lee: Scale mixtures of neural network Gaussian processes, ICLR 2022, arXiv
    2107.01408.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from mercer.machines import SparseStudentTClassifier
    >>> X, y = make_moons(400, noise=0.2, random_state=0)
    >>> model = SparseStudentTClassifier(num_landmarks=30, max_iter=200, random_state=0)
    >>> model.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.9
    True
    """

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        num_landmarks: int = 100,
        alpha: float = 2.0,
        beta: float = 2.0,
        *,
        landmarks: str = "kmeans",
        fixed: Sequence[str] = (),
        max_iter: int = 500,
        batch_size: int = 256,
        learning_rate: float = 0.03,
        num_samples: int = 16,
        standardize: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.num_landmarks = num_landmarks
        self.alpha = alpha
        self.beta = beta
        self.landmarks = landmarks
        self.fixed = fixed
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.num_samples = num_samples
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Choose landmarks, and maximise the bound.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            The rows.
        y : array-like or Tensor of shape (n_samples,)
            Their labels.

        Returns
        -------
        SparseStudentTClassifier
            The machine itself.
        """
        alpha = check_real("alpha", self.alpha, above=0.0)
        beta = check_real("beta", self.beta, above=0.0)
        rate = check_real("learning_rate", self.learning_rate, above=0.0)
        check_choice("landmarks", self.landmarks, LANDMARK_CHOICES)
        for name in ("num_landmarks", "max_iter", "batch_size", "num_samples"):
            check_int(name, getattr(self, name))
        if isinstance(self.kernel, str) and self.kernel == "precomputed":
            raise ValueError(
                "kernel: expected a kernel of rows, which landmarks need, got a matrix"
            )
        rows = check_rows(self, X, reset=True)
        self.classes_, numbers = check_labels(y, rows)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got {len(self.classes_)} class")
        state = check_random_state(self.random_state)
        seeds = [int(state.randint(np.iinfo(np.int32).max)) for _ in range(3)]
        inputs = KernelInput.fit(
            self.kernel, as_tensor(rows).double(), standardize=self.standardize
        )
        count = min(self.num_landmarks, len(numbers))
        found = choose_landmarks(
            inputs.kernel, inputs.points, count, method=self.landmarks, generator=seeds[0]
        )
        model = SparseStudentT(found, len(self.classes_), alpha, beta)
        free = [value for _, value, _ in Hyperparameters(inputs.kernel, self.fixed).free]
        for value in free:
            value.requires_grad_(True)
        generator = torch.Generator(found.device).manual_seed(seeds[1])
        self.bound_ = self._train(model, inputs, numbers.to(found.device), free, rate, generator)
        inputs.kernel.requires_grad_(False)
        self.n_iter_ = self.max_iter
        self._seed = seeds[2]
        self._means = model.means.detach()
        self._log_spread = model.log_spread.detach()
        a, b = model.log_shape.detach().exp().tolist()
        self.posterior_scale_ = InverseGamma(a, b)
        self._inputs = KernelInput(
            inputs.kernel, model.landmarks, inputs.center, inputs.scale, inputs.size
        )
        return self

    def _train(
        self,
        model: SparseStudentT,
        inputs: KernelInput,
        labels: Tensor,
        free: list[Any],
        rate: float,
        generator: torch.Generator,
    ) -> float:
        """Maximise the bound; return its mean over the last tenth of the steps."""
        n = len(labels)
        optimizer = torch.optim.Adam([*model.parameters(), *free], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.max_iter)
        bounds = []
        with torch.enable_grad():
            for _ in range(self.max_iter):
                rows = torch.arange(n, device=labels.device)
                if n > self.batch_size:
                    rows = torch.randint(
                        n, (self.batch_size,), generator=generator, device=labels.device
                    )
                optimizer.zero_grad(set_to_none=True)
                bound = model.bound(
                    inputs.kernel, inputs.points[rows], labels[rows], n, self.num_samples, generator
                )
                (-bound / n).backward()
                optimizer.step()
                schedule.step()
                bounds.append(float(bound.detach()))
        return float(np.mean(bounds[-max(1, self.max_iter // 10) :]))

    @property
    def kernel_(self) -> Kernel:
        """The kernel with the hyperparameters found."""
        check_is_fitted(self)
        return self._inputs.kernel

    @property
    def landmarks_(self) -> Tensor:
        """The landmarks."""
        check_is_fitted(self)
        return self._inputs.points

    def _model(self) -> SparseStudentT:
        """Make the posterior that was found."""
        shape = self.posterior_scale_
        model = SparseStudentT(self._inputs.points, len(self.classes_), shape.alpha, shape.beta)
        model.means.data, model.log_spread.data = self._means, self._log_spread
        return model

    @torch.no_grad()
    def predict_proba(self, X: Any) -> Any:
        """Predict the probability of each class, averaged over draws of the functions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or Tensor of shape (n_samples, n_classes)
            Probabilities, in the order of ``classes_``; the same draws for each row, whatever the
            others. A tensor for a tensor.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X has other columns than in ``fit``, or a number is not finite.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        x = as_tensor(rows)
        return in_kind(self._probabilities(x).to(x.dtype), rows)

    def _probabilities(self, x: Tensor) -> Tensor:
        model = self._model()
        mean, variance = model.moments(self._inputs.kernel, self._inputs.prepare(x))
        # One row of draws for all new rows, so that the answer for one does not depend on others.
        generator = torch.Generator(mean.device).manual_seed(self._seed)
        zero = mean.new_zeros(1, mean.shape[1])
        moves = model.draw(zero, torch.ones_like(zero), _DRAWS, generator)  # (s, 1, c)
        step = max(1, 2**24 // (8 * _DRAWS * mean.shape[1]))
        parts = [
            (m + v.sqrt() * moves).softmax(-1).mean(0)
            for m, v in zip(mean.split(step), variance.split(step), strict=True)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def predict(self, X: Any) -> Any:
        """Predict labels.

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
            As `predict_proba`.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        return as_labels(self.classes_, self._probabilities(as_tensor(rows)).argmax(-1), rows)
