"""Handwritten digits: 1,797 images of 8 x 8 pixels that ship inside scikit-learn."""

import torch

from .split import Rows, Split


def digits(random_state: int = 0, dtype: torch.dtype = torch.float32) -> Split:
    """Return scikit-learn's handwritten digits, scaled and split by class.

    Of the 1,797 images a quarter (450) is for testing and 247 are for calibration, which leaves
    1,100 for training; each part has the classes in the same proportions. The pixels, integers
    from 0 to 16 in the source, are standardised by one mean and one standard deviation, those
    of all pixels of the training part, so that a pixel that is always blank stays harmless.

    Parameters
    ----------
    random_state : int
        Seed of the split.
    dtype : torch.dtype
        Type of the inputs.

    Returns
    -------
    Split
        Inputs of shape (n, 64) and classes of shape (n,).

    References
    ----------
    Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository.

    Examples
    --------
    >>> from mercer.datasets import digits
    >>> split = digits()
    >>> split.train.x.shape, len(split.calibration), len(split.test)
    (torch.Size([1100, 64]), 247, 450)
    """
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, classes = load_digits(return_X_y=True)
    rest_x, test_x, rest_y, test_y = train_test_split(
        pixels, classes, test_size=450, random_state=random_state, stratify=classes
    )
    train_x, cal_x, train_y, cal_y = train_test_split(
        rest_x, rest_y, test_size=247, random_state=random_state, stratify=rest_y
    )
    mean, scale = np.mean(train_x), np.std(train_x)

    def rows(x, y) -> Rows:
        return Rows(torch.tensor((np.asarray(x) - mean) / scale, dtype=dtype), torch.tensor(y))

    return Split(rows(train_x, train_y), rows(cal_x, cal_y), rows(test_x, test_y))
