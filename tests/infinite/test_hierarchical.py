"""Wide convolutional networks on patches: the paper's recursion, its spectrum, its rates."""

import math

import matplotlib as mpl
import pytest
import torch

from mercer.infinite import (
    NNGP,
    NTK,
    SectorExponents,
    TeacherStudentCurve,
    fit_power_law,
    hierarchical_kernel,
    hierarchical_network,
    normalize_patches,
    predicted_rate,
    sample_gaussian_field,
    sector_exponents,
    teacher_student_curve,
)
from mercer.kernels import RBF

mpl.use("agg")
SHEET = "infinite-wide-cnn-spectrum"


def kappa(t):
    """The arc-cosine kernels of order 0 and 1 between unit vectors."""
    t = t.clamp(-1, 1)
    rest = math.pi - t.acos()
    return rest / math.pi, ((1 - t * t).sqrt() + rest * t) / math.pi


def naive(x, y, sizes):
    """The recursion of the paper on a tree, term by term: NNGP and NTK of unit patches."""
    a, b = (z.reshape(len(z), -1, sizes[0]) for z in (x, y))
    k = torch.einsum("nps,mps->pnm", a, b)
    t = k.clone()
    for size in [*sizes[1:], None]:
        k0, k1 = kappa(k)
        groups = (-1, size or len(k))
        k = k1.unflatten(0, groups).mean(1)
        t = (k0 * t + k1).unflatten(0, groups).mean(1)
    return k[0], t[0]


def dense(x, y, depth):
    """The kernels of a fully connected network with `depth` hidden layers of ReLU."""
    k = x @ y.mT
    t = k.clone()
    for _ in range(depth):
        k0, k1 = kappa(k)
        k, t = k1, k0 * t + k1
    return k, t


def patches(n, d, size):
    return normalize_patches(torch.randn(n, d, dtype=torch.float64), size)


def gap(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.paper(SHEET, kind="exact", claim="The kernels of the module are the recursion's.")
@pytest.mark.parametrize(
    ("sizes", "d"), [((2,), 8), ((2, 2), 8), ((2, 2, 2), 16), ((3, 2), 12), ((4, 1, 2), 8)]
)
def test_recursion(evidence, sizes, d):
    x, y = patches(7, d, sizes[0]), patches(5, d, sizes[0])
    expected = dict(zip(("nngp", "ntk"), naive(x, y, sizes), strict=True))
    for kind, value in expected.items():
        kernel = hierarchical_kernel(sizes, d, kind=kind)
        assert isinstance(kernel, {"nngp": NNGP, "ntk": NTK}[kind])
        error = gap(kernel(x, y), value)
        evidence(required="<= 1e-12", measured=error, what=kind)
        assert error <= 1e-12
        torch.testing.assert_close(kernel(x).diagonal(), kernel.diag(x), rtol=1e-12, atol=0)


@pytest.mark.paper(
    SHEET, kind="exact", claim="With one patch it is the kernel of a fully connected network."
)
@pytest.mark.parametrize("sizes", [(5,), (5, 1, 1)])
def test_one_patch_is_fully_connected(evidence, sizes):
    x, y = patches(6, 5, 5), patches(4, 5, 5)
    for kind, value in zip(("nngp", "ntk"), dense(x, y, len(sizes)), strict=True):
        error = gap(hierarchical_kernel(sizes, 5, kind=kind)(x, y), value)
        evidence(required="<= 1e-12", measured=error, what=kind)
        assert error <= 1e-12


@pytest.mark.paper(
    SHEET, kind="exact", claim="A module with W_std sqrt 2 differs by the constant 2 / s_1 only."
)
def test_constant_of_plain_weights(evidence):
    x, y = patches(6, 12, 3), patches(4, 12, 3)
    net = hierarchical_network((3, 2), 12)
    plain = NTK(net, w_std=2**0.5, b_std=0.0, example=torch.zeros(1, 12))
    plain.requires_grad_(False)
    error = gap(plain(x, y), 2 / 3 * hierarchical_kernel((3, 2), 12)(x, y))
    evidence(required="<= 1e-6", measured=error)
    assert error <= 1e-6


@pytest.mark.paper(
    SHEET, kind="exact", claim="A finite locally connected network of width 1,024 is within 10 %."
)
def test_finite_locally_connected_network(evidence):
    width, source = 1024, torch.Generator().manual_seed(0)
    x = patches(4, 4, 2)
    first = torch.randn(2, width, 2, dtype=torch.float64, generator=source)
    second = torch.randn(width, 2 * width, dtype=torch.float64, generator=source)
    last = torch.randn(width, dtype=torch.float64, generator=source)
    # sqrt 2 times a ReLU keeps the variance; the second layer has 2 width inputs.
    z1 = torch.einsum("pws,nps->npw", first, x.reshape(4, 2, 2))
    a1 = 2**0.5 * z1.relu()
    z2 = a1.flatten(1) @ second.mT / (2 * width) ** 0.5
    a2 = 2**0.5 * z2.relu()
    back2 = last * (z2 > 0) * 2**0.5 / width**0.5  # (n, width), d output / d z2
    back1 = (back2 @ second / (2 * width) ** 0.5).reshape(4, 2, width) * (z1 > 0) * 2**0.5
    ntk = a2 @ a2.mT / width + (back2 @ back2.mT) * (a1.flatten(1) @ a1.flatten(1).mT) / (2 * width)
    inner = torch.einsum("nps,mps->pnm", x.reshape(4, 2, 2), x.reshape(4, 2, 2))
    ntk = ntk + (torch.einsum("npw,mpw->pnm", back1, back1) * inner).sum(0)
    error = gap(ntk, hierarchical_kernel((2, 2), 4)(x))
    evidence(required="<= 0.1", measured=error)
    assert error <= 0.1


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Sorted eigenvalues of 1,500 points fall as predicted, within 0.2 of the exponent.",
)
@pytest.mark.parametrize(("sizes", "d"), [((2,), 2), ((2, 2), 4)])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_slope_of_the_spectrum(evidence, kind, sizes, d):
    gram = hierarchical_kernel(sizes, d, kind=kind)(patches(1500, d, 2))
    values = torch.linalg.eigvalsh(gram).flip(0) / 1500
    expected = sector_exponents(sizes, kind)[-1].sorted_decay
    # The first modes count as indices and follow no law: the more so, the steeper it is.
    tail = fit_power_law(values, first=80, last=250).exponent
    evidence(required=f"{expected} +- 0.2", measured=tail, what="fit_power_law, 80 to 250")
    assert tail == pytest.approx(expected, abs=0.2)
    if kind == "ntk":
        x, y = torch.arange(20.0, 201.0).log().double(), values[19:200].log()
        slope = -float(((x - x.mean()) * y).sum() / (x - x.mean()).square().sum())
        evidence(required=f"{expected} +- 0.2", measured=slope, what="least squares, 20 to 200")
        assert slope == pytest.approx(expected, abs=0.2)


def test_exponents_and_rates():
    assert sector_exponents((2, 2, 2), "nngp")[2] == SectorExponents(4, 7.0, 1.75)
    assert sector_exponents((3, 2))[1].dimension == 4
    assert predicted_rate((2, 2, 2), (2, 2, 2)) == 0.25  # 2 nu / d: cursed as the teacher deepens
    deep = predicted_rate((2,), (2,) * 20)
    assert deep == pytest.approx(1 / (1 + 1), rel=1e-5)  # 2 nu / (2 nu + d_T)
    assert predicted_rate((2, 2), (2, 2), teacher_kind="nngp", student_kind="nngp") == 1.5


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Deeper teachers are harder at every number of samples, a deeper student is slightly "
    "worse (8 inputs, s_1 = 2, mean of 6 draws).",
)
def test_teachers_and_students(evidence):
    x = patches(2000, 8, 2)
    kernels = {sizes: hierarchical_kernel(sizes, 8) for sizes in ((2,), (2, 2), (2, 2, 2))}
    sheet = {
        ((2,), (2, 2)): (0.065, 0.032, 0.015),
        ((2, 2), (2, 2)): (0.207, 0.089, 0.050),
        ((2, 2), (2, 2, 2)): (0.230, 0.140, 0.073),
    }
    found = {}
    for (teacher, student), values in sheet.items():
        curve = teacher_student_curve(
            kernels[teacher], kernels[student], x, (64, 256, 1024), draws=6, generator=0
        )
        found[teacher, student] = curve
        for i, value in enumerate(values):
            what = f"teacher {teacher}, student {student}, n = {int(curve.samples[i])}"
            evidence(
                required=f"reported; {value} in the sheet, of 3 draws",
                measured=curve.measured[i],
                what=what,
            )
            ratio = float(curve.predicted[i] / curve.measured[i])
            evidence(required="0.8 .. 1.2", measured=ratio, what=f"{what}, predicted / measured")
            assert 0.8 <= ratio <= 1.2
    easy, middle, hard = found.values()
    evidence(
        required="> 1",
        measured=(middle.measured / easy.measured).min(),
        what="deeper teacher / shallower, least",
    )
    assert bool((middle.measured > easy.measured).all())
    assert bool((hard.measured > middle.measured).all())


def test_prediction_follows_the_measurement():
    x = patches(400, 16, 8)
    shallow, deep = hierarchical_kernel((8,), 16), hierarchical_kernel((8, 2), 16)
    curve = teacher_student_curve(shallow, deep, x, [20, 60], ridge=1e-3, draws=30, generator=1)
    assert isinstance(curve, TeacherStudentCurve)
    assert bool(((curve.predicted / curve.measured - 1).abs() < 0.08).all())
    again = teacher_student_curve(shallow, deep, x, [20, 60], ridge=1e-3, draws=30, generator=1)
    assert torch.equal(curve.measured, again.measured)
    ax = curve.plot(label="deep")
    assert ax.lines[0].get_ydata() == pytest.approx(curve.predicted.numpy())
    mpl.pyplot.close("all")


def test_gaussian_field_has_the_covariance(global_state_unchanged):
    x = torch.linspace(-1, 1, 12).reshape(6, 2)
    fields = sample_gaussian_field(RBF(), x, num_fields=40_000, generator=0)
    assert fields.dtype == torch.float32
    # The standard error of each entry is at most sqrt(2 / draws).
    torch.testing.assert_close(fields @ fields.mT / 40_000, RBF()(x).detach(), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: hierarchical_network((2, 2), 6), ValueError, "num_inputs: .* multiple of 4"),
        (lambda: hierarchical_network((), 6), ValueError, "filter_sizes: expected at least one"),
        (lambda: hierarchical_network(2, 6), TypeError, "filter_sizes: expected a sequence"),
        (lambda: hierarchical_network((2.0,), 6), TypeError, "filter_sizes: expected an integer"),
        (lambda: hierarchical_kernel((2,), 4, kind="both"), ValueError, "kind: "),
        (lambda: normalize_patches(torch.zeros(2, 4), 2), ValueError, "x: .*not zero"),
        (lambda: normalize_patches(torch.ones(2, 5), 2), ValueError, "size: .*divisor"),
        (lambda: sector_exponents((1, 2)), ValueError, "first size >= 2"),
        (lambda: predicted_rate((2, 2), (2,)), ValueError, "student: .*begin with"),
        (lambda: sample_gaussian_field("rbf", torch.ones(2, 2)), TypeError, "kernel: "),
        (
            lambda: teacher_student_curve(RBF(), RBF(), torch.rand(5, 2), [5]),
            ValueError,
            "samples: expected numbers below the 5 points",
        ),
        (
            lambda: teacher_student_curve(RBF(), RBF(), torch.rand(5, 2), [2], draws=1),
            ValueError,
            "draws: ",
        ),
    ],
)
def test_bad_input(make, error, match):
    with pytest.raises(error, match=match):
        make()
