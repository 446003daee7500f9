"""Axes to draw on."""

import pytest

from mercer._core.axes import axes_or_new

plt = pytest.importorskip("matplotlib.pyplot")


def test_those_given_come_back():
    ax = plt.figure().add_subplot()
    assert axes_or_new(ax) is ax
    plt.close(ax.figure)


@pytest.mark.parametrize("size", [(6.4, 3.6), (2.0, 5.0)])
def test_new_ones_have_the_size(size):
    ax = axes_or_new(None, size)
    assert tuple(ax.figure.get_size_inches()) == size
    plt.close(ax.figure)
