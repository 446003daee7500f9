"""The Stanford Sentiment Treebank with two classes: sentences from movie reviews."""

from .._core.checks import check_choice
from .find import find
from .read_texts import Texts, read_texts


def sst2(split: str = "train") -> Texts:
    """Return the sentences of SST-2 with their classes, ``"0"`` (negative) and ``"1"``.

    Parameters
    ----------
    split : str
        ``"train"`` (6,920 sentences), ``"dev"`` (872) or ``"test"`` (1,821).

    Returns
    -------
    Texts
        Sentences and classes.

    Raises
    ------
    ValueError
        If ``split`` is none of these.
    FileNotFoundError
        If the folder named by ``MERCER_DATA`` has no ``sst2/``.

    References
    ----------
    Socher et al. (2013), Recursive Deep Models for Semantic Compositionality Over a Sentiment
    Treebank; the form is that of GLUE (Wang et al., 2018, arXiv 1804.07461).

    Examples
    --------
    >>> from mercer.datasets import sst2
    >>> len(sst2("dev").texts)  # doctest: +SKIP
    872
    """
    check_choice("split", split, ("train", "dev", "test"))
    return read_texts(find("sst2") / f"{split}.tsv", text_column=0, label_column=1)
