import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mercer.kernels import RBF, Matern
from mercer.linalg import LinearSolution
from mercer.machines import KernelRidge
from mercer.machines.kernel_input import KernelInput
from mercer.machines.saved_values import class_of, decode, encode


def _round_trip(value):
    tensors = {}
    text = json.dumps(encode(value, "it", tensors))
    return decode(json.loads(text), {k: v.clone() for k, v in tensors.items()})


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        float("inf"),
        "text",
        [1, [2.0, "a"]],
        (1, (2,), []),
        {},
        {"a": 1, 2: (3,)},
    ],
)
def test_plain_values_come_back_with_their_types(value):
    found = _round_trip(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1", "b1", "<U3", "O"])
def test_arrays_come_back_with_their_dtype(dtype):
    value = np.array([[1, 0], [0, 1], [1, 1]]).astype(dtype)
    found = _round_trip(value)
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)
    assert found.flags.writeable


def test_arrays_of_objects_keep_each_objects_type():
    value = np.array([1, "x", None, 2.5], dtype=object)
    assert _round_trip(value).tolist() == [1, "x", None, 2.5]


def test_scalars_tensors_dtypes_and_random_states():
    assert _round_trip(np.float32(0.1)) == np.float32(0.1)
    assert type(_round_trip(np.int64(3))) is np.int64
    assert torch.equal(_round_trip(torch.arange(3)), torch.arange(3))
    assert _round_trip(torch.float32) is torch.float32
    assert _round_trip(torch.device("cpu")) == torch.device("cpu")
    state = np.random.RandomState(5)
    state.normal(size=3)
    assert _round_trip(state).normal() == state.normal()


def test_kernels_keep_their_values_and_whether_they_wait_for_data():
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    kernel = (RBF([0.5, 2.0]) + 2.0 * Matern(1.5, nu=1.5)).requires_grad_(False)
    found = _round_trip({"inside": kernel})["inside"]
    assert torch.equal(found(x), kernel(x))
    assert not any(p.requires_grad for p in found.parameters())
    waiting = _round_trip(RBF("median"))
    with pytest.raises(RuntimeError, match="left to the data"):
        waiting(x)
    assert all(p.requires_grad for p in waiting.parameters())


def test_records_of_the_library_come_back_as_such():
    record = LinearSolution(torch.ones(2), torch.zeros(()), 3, True)
    found = _round_trip(record)
    assert isinstance(found, LinearSolution)
    assert found.iterations == 3
    assert torch.equal(found.solution, record.solution)


def test_what_cannot_be_written_is_named():
    with pytest.raises(TypeError, match=r"it\.0.*without pickle"):
        encode([len], "it", {})

    @dataclasses.dataclass
    class Foreign:
        a: int = 1

    with pytest.raises(TypeError, match="Foreign"):
        encode(Foreign(), "it", {})


@pytest.mark.parametrize(
    "name", ["os:system", "machines.base:nothing", "linalg.psd:Tensor", "x", 3]
)
def test_only_classes_of_the_library_are_made(name):
    with pytest.raises(ValueError, match="config"):
        class_of(name)


def test_a_tensor_that_is_missing_and_an_unknown_kind_are_named():
    with pytest.raises(ValueError, match="holds no 'w'"):
        decode({"kind": "tensor", "key": "w"}, {})
    with pytest.raises(ValueError, match="got 'spell'"):
        decode({"kind": "spell"}, {})


def test_kernel_input_standardises_as_repeated_rows_do():
    rows = np.random.default_rng(0).normal(size=(20, 3)) * [1.0, 5.0, 0.0] + [0.0, 3.0, 7.0]
    count = np.arange(20) % 3
    weights = torch.from_numpy(count.astype(float))
    weighted = KernelInput.fit("rbf", rows, weights=weights, standardize=True)
    repeated = KernelInput.fit("rbf", rows.repeat(count, axis=0), standardize=True)
    new = rows[:4] + 0.1
    left = weighted.prepare(new)
    np.testing.assert_allclose(left, repeated.prepare(new), rtol=1e-12)
    assert float(weighted.scale[2]) == 1.0
    gap = weighted.kernel.lengthscale - repeated.kernel.lengthscale
    assert abs(float(gap)) < 1e-12
    found = _round_trip(weighted)
    assert torch.equal(found.cross(new).to_dense(), weighted.cross(new).to_dense())


def test_rows_without_weight_do_not_make_a_column_constant():
    rows = np.random.default_rng(0).normal(size=(20, 2))
    weights = torch.ones(20).double()
    weights[3] = 0.0
    rows[3] = 1e14
    found = KernelInput.fit("rbf", rows, weights=weights, standardize=True)
    expected = np.delete(rows, 3, 0).std(0)
    np.testing.assert_allclose(found.scale, expected, rtol=1e-9)


def test_kernel_input_without_two_different_rows_takes_lengthscale_one():
    found = KernelInput.fit("rbf", np.ones((4, 2)))
    assert float(found.kernel.lengthscale) == 1.0


def test_precomputed_input_gives_the_entries_of_its_matrix():
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)).double()
    k = RBF(1.0).requires_grad_(False)(x)
    found = KernelInput.fit("precomputed", k)
    assert torch.equal(found.gram().to_dense(), k)
    kept = found.keep(torch.tensor([1, 4]))
    assert torch.equal(kept.cross(k[:3]), k[:3][:, [1, 4]])
    with pytest.raises(ValueError, match=r"X: expected a square"):
        KernelInput.fit("precomputed", k[:3])
    with pytest.raises(ValueError, match="precomputed"):
        found.diag(k)


def test_objects_in_arrays_may_be_containers():
    value = np.empty(2, dtype=object)
    value[0], value[1] = [1, 2], (3, "a")
    assert _round_trip(value).tolist() == [[1, 2], (3, "a")]


def test_what_stands_for_a_dtype_must_be_one():
    with pytest.raises(ValueError, match="'save' is no dtype"):
        decode({"kind": "dtype", "value": "save"}, {})


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["values"]["kernel"].pop("config"),
        lambda c: c["values"].update(kernel={"kind": "module"}),
        lambda c: c["values"].update(_input={"kind": "record"}),
        lambda c: c["values"]["_input"]["fields"].pop("kernel"),
        lambda c: c["values"].update(alpha={"kind": "tuple"}),
        lambda c: c["values"].update(alpha={"kind": "scalar", "dtype": 7, "value": 1}),
        lambda c: c["values"].update(dual_coef_={"kind": "array", "key": "missing"}),
        lambda c: c["values"].update(random_state={"kind": "record", "class": "os:system"}),
        lambda c: c.update({"class": "machines.base:Machine"}),
        lambda c: c.update({"class": "os:system"}),
        lambda c: c.update({"class": "__main__:main"}),
        lambda c: c.update({"class": "kernels.rbf:RBF"}),
        lambda c: c.update(values=[1]),
        lambda c: c.pop("class"),
        lambda c: c.pop("tied"),
        lambda c: c.pop("format_version"),
    ],
)
@pytest.mark.filterwarnings("ignore:config.json in")
def test_a_config_changed_by_hand_is_refused(change, tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 2))
    KernelRidge(RBF(1.0)).fit(x, x[:, 0]).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    with safe_open(path, framework="numpy") as file:
        config = json.loads(file.metadata()["config"])
    change(config)
    save_file(load_file(path), path, metadata={"config": json.dumps(config)})
    with pytest.raises(ValueError, match=r"folder|config"):
        KernelRidge.from_pretrained(tmp_path)
