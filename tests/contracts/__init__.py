"""Contracts: what every module of a kind must do, joined by a class with a few lines.

class TestMyLayer(LayerContract):
    def make(self, **factory):
        return MyLayer(6, 5, **factory)
"""

import pytest

# Before the import, so that a failing assert shows its values as in a test file.
for _name in ("module", "feature_map", "layer"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")
