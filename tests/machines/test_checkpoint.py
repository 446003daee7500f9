import numpy as np
import pytest
import torch

from mercer.kernels import RBF
from mercer.machines import KernelRidge, checkpoint, ridge_all_rows, ridge_landmarks
from mercer.machines.checkpoint import Checkpoint, fingerprint


@pytest.fixture(autouse=True)
def _every_step(monkeypatch):
    monkeypatch.setattr(checkpoint, "_EVERY", 0.0)
    monkeypatch.setattr(ridge_all_rows, "_RANK", 5)  # so that there are steps to interrupt


class _Killed(KeyboardInterrupt):
    pass


def _kill(monkeypatch, after):
    """Interrupt the save of that number."""
    count, save = [0], Checkpoint.save

    def counted(self, name, tensors, **more):
        count[0] += 1
        save(self, name, tensors, **more)
        if count[0] == after:
            raise _Killed

    monkeypatch.setattr(Checkpoint, "save", counted)
    return lambda: monkeypatch.setattr(Checkpoint, "save", save)


def _rows(n=120):
    source = np.random.default_rng(0)
    x = source.normal(size=(n, 2))
    return x, np.stack([np.sin(3 * x[:, 0]), x[:, 1] ** 2], 1)


def _iterate(monkeypatch):
    for name, value in {"_MOST_SUMMED": 0, "_POOL": 30, "_SAMPLE": 0}.items():
        monkeypatch.setattr(ridge_landmarks, name, value)


@pytest.mark.parametrize("after", [2, 9, 30])
@pytest.mark.parametrize("solver", ["cg", "falkon"])
def test_two_penalties_that_look_alike_go_on_to_the_same_numbers(
    solver, after, monkeypatch, tmp_path
):
    _iterate(monkeypatch)
    x, y = _rows()
    alpha = [1e-2, 1.000000001e-2]
    given = {"landmarks": x[:20]} if solver == "falkon" else {}
    model = KernelRidge(RBF(0.7), alpha, solver=solver, tol=1e-10, **given)
    expected = model.fit(x, y).dual_coef_
    again = _kill(monkeypatch, after)
    try:
        model.fit(x, y, checkpoint=tmp_path / "state")
    except KeyboardInterrupt:
        assert list(tmp_path.iterdir())
    again()
    found = model.fit(x, y, checkpoint=tmp_path / "state").dual_coef_
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["x", "y", "weights", "kernel", "alpha", "matrix"])
def test_another_fit_does_not_go_on_from_a_state(change, monkeypatch, tmp_path):
    x, y = _rows()
    weights = np.ones(120)
    model = KernelRidge(RBF(torch.tensor([0.7, 1.0]).double()), 1e-3, solver="cg", tol=1e-10)
    rows = x
    if change == "matrix":
        model.set_params(kernel="precomputed")
        rows = RBF(0.7).requires_grad_(False)(torch.from_numpy(x)).numpy()
    again = _kill(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows, y, weights, checkpoint=tmp_path / "state")
    again()
    if change == "x":
        rows = rows + 1e-9
    elif change == "y":
        y = y + 1e-9 * x
    elif change == "weights":
        weights[7] = 2.0
    elif change == "kernel":  # whose text is the same
        other = RBF(torch.tensor([0.7, 1.0000001]).double())
        assert repr(other) == repr(model.kernel)
        model.set_params(kernel=other)
    elif change == "alpha":
        model.set_params(alpha=1.0000001e-3)
    else:
        rows = rows + 1e-9 * np.eye(120)
    with pytest.raises(ValueError, match=r"checkpoint: .* other data or parameters"):
        model.fit(rows, y, weights, checkpoint=tmp_path / "state")


def test_choosing_and_fitting_twice_leave_no_state(tmp_path):
    x, y = _rows()
    for solver in ("cholesky", "falkon"):
        model = KernelRidge("rbf", "loo", solver=solver)
        found = [model.fit(x, y, checkpoint=tmp_path / "a" / "state").alpha_ for _ in range(2)]
        assert found[0] == found[1]
        assert not (tmp_path / "a" / "state").exists()


def test_folders_that_cannot_hold_a_state(tmp_path):
    x, y = _rows()
    model = KernelRidge("rbf", solver="cg")
    (tmp_path / "file").write_text("text")
    with pytest.raises(NotADirectoryError, match=r"checkpoint: .* not a directory"):
        model.fit(x, y, checkpoint=tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("text")
    with pytest.raises(ValueError, match=r"checkpoint: .* something else"):
        model.fit(x, y, checkpoint=tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "text"
    keeper = Checkpoint(tmp_path / "state", "own")
    keeper.save("cg", {"x": torch.ones(100)})
    path = tmp_path / "state" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"checkpoint: .* damaged"):
        model.fit(x, y, checkpoint=tmp_path / "state")


def test_where_nothing_may_be_written_it_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"checkpoint: .* cannot be written to"):
        Checkpoint(tmp_path / "state", "own")


def test_only_what_it_wrote_is_removed(tmp_path):
    keeper = Checkpoint(tmp_path / "state", "own")
    keeper.save("cg", {"x": torch.ones(2)})
    aside = tmp_path / f".state.{'0' * 32}"
    others = [tmp_path / ".state.backup", tmp_path / f".state.2.{'0' * 32}", tmp_path / ".other"]
    for folder in (aside, *others):
        folder.mkdir()
    (tmp_path / "state" / "notes.txt").write_text("text")
    keeper.done()
    assert not aside.exists() and all(folder.exists() for folder in others)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["notes.txt"]


def test_a_fingerprint_tells_shapes_types_and_order_apart():
    x = torch.arange(6.0)
    texts = [(x,), (x.reshape(2, 3),), (x.double(),), (x.flip(0),), (x, 1), (x, "1"), (x, 1.0)]
    assert len({fingerprint(*parts) for parts in texts}) == len(texts)
