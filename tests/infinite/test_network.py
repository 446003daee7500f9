"""Networks as records: what is written comes back, what is damaged is refused."""

import copy

import pytest
from torch import nn

from mercer.infinite import Network, read

MODULE = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def test_config_comes_back():
    network = read(MODULE)
    assert Network.from_config(network.to_config()) == network


def drop_layers(config):
    del config["layers"]


def unknown_operation(config):
    config["network"][1]["operation"] = "Nonsense"


def missing_field(config):
    del config["network"][1]["bias"]


def loop(config):
    config["network"][1]["inputs"] = [1]


def no_such_layer(config):
    config["network"][1]["layer"] = 7


def empty(config):
    config["network"] = []


@pytest.mark.parametrize(
    "damage", [drop_layers, unknown_operation, missing_field, loop, no_such_layer, empty]
)
def test_damaged_configs_are_refused(damage):
    config = copy.deepcopy(read(MODULE).to_config())
    damage(config)
    with pytest.raises(ValueError, match=r"config: not a network|operations: "):
        Network.from_config(config)
