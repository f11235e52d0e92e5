"""Several detectors in one profile: what all their pixels give together, as pyFAI's MultiGeometry has it, and numpy's histogram."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.multi_geometry import MultiGeometry

from detcal.azimuthal import build_bins, integrate, integrate_azimuthal, median_filter, quantile_filter, sigma_clip
from detcal.errors import InputError
from tests.azimuthal.rings import make_bins, random_frames, random_rings, random_variance

RANGE = (5.0, 60.0)
SHAPES = (60, 50), (40, 70)
OPTIONS = {"npt": 40, "radial_range": RANGE, "unit": "q_nm^-1"}


def places():
    """A detector of fine pixels, and one of coarse ones, further away and tilted."""
    fine, coarse = (Detector(size, size, max_shape=shape, orientation=3) for size, shape in zip((1e-4, 2e-4), SHAPES, strict=True))
    return (
        AzimuthalIntegrator(0.012, 0.001, 0.002, detector=fine, wavelength=1e-10),
        AzimuthalIntegrator(0.02, 0.006, -0.001, 0.2, -0.1, detector=coarse, wavelength=1e-10),
    )


def counts(*lengths):
    rng = np.random.default_rng(0)
    return [rng.poisson(200, (length, *shape)).astype(np.int32) for length, shape in zip(lengths, SHAPES, strict=True)]


def named(frames, *monitors):
    """Stacks with their monitors as a coordinate."""
    return [
        xr.DataArray(stack, {"monitor": ("frame", monitor)}, ("frame", "y", "x")) for stack, monitor in zip(frames, monitors, strict=False)
    ]


@pytest.mark.parametrize("job", [integrate, sigma_clip, median_filter])
@pytest.mark.parametrize("as_name", [True, False])
def test_each_stack_may_have_monitors_of_its_own(job, as_name):
    """As much brighter as these say, both give the profile of light of 1; it is the first one's that is written down."""
    bins = [build_bins(place, **OPTIONS, solid_angle=False) for place in places()]
    monitors = np.array([1.0, 2.0, 4.0]), np.array([3.0, 6.0, 12.0])
    frames = [np.ones((3, *shape)) * by[:, None, None] for shape, by in zip(SHAPES, monitors, strict=True)]
    options = {"frames": named(frames, *monitors), "normalization": "monitor"} if as_name else {"frames": frames, "normalization": monitors}
    found = job(bins=bins, **options).compute()
    there = found["count"].values > 0
    np.testing.assert_allclose(found.intensity.values[there], 1, rtol=1e-6)
    np.testing.assert_array_equal(found["monitor" if as_name else "normalization"], monitors[0])


def test_monitors_of_the_frames_may_be_those_of_all_stacks():
    bins, frames, monitor = [build_bins(place, **OPTIONS) for place in places()], counts(3, 3), np.array([1.0, 2.0, 4.0])
    found, plain = integrate(frames, bins, normalization=monitor).compute(), integrate(frames, bins).compute()
    np.testing.assert_allclose(found.intensity * monitor[:, None], plain.intensity, rtol=1e-6)


@pytest.mark.parametrize("factors", [None, [1.0, 3.0]])
@pytest.mark.parametrize("solid_angle", [True, False])
def test_integrals_are_those_of_pyfais_several_geometries(solid_angle, factors):
    """Which has them in absolute units, and one ring more in the first one."""
    geometries, frames = places(), counts(1, 1)
    bins = [build_bins(place, **OPTIONS, solid_angle=solid_angle) for place in geometries]
    found = integrate(frames, bins, normalization=factors, sums=True).compute()
    peer = MultiGeometry(geometries, unit="q_nm^-1", radial_range=RANGE, wavelength=1e-10)
    wanted = peer.integrate1d(
        [frame[0] for frame in frames], 40, correctSolidAngle=solid_angle, error_model="poisson", method=("no", "histogram", "cython"),
        normalization_factor=factors and list(factors),
    )  # fmt: skip
    scale = 1e-4**2 / 0.012**2 if solid_angle else 1
    some = found["count"].values[0] > 0
    some[0] = False
    np.testing.assert_array_equal(found["count"][0, 1:], wanted.count[1:])
    np.testing.assert_allclose(found.intensity[0, some], wanted.intensity[some] * scale, rtol=2e-6)
    np.testing.assert_allclose(found.sem[0, some], wanted.sem[some] * scale, rtol=1e-5)
    np.testing.assert_allclose(found.sum_signal[0, 1:], wanted.sum_signal[1:], rtol=1e-6)
    assert (found["count"][0] > integrate(frames[0], bins[0])["count"][0]).any()


@pytest.mark.parametrize("job", [integrate, sigma_clip, median_filter, quantile_filter])
@pytest.mark.parametrize("noisy", [False, True])
def test_two_halves_of_a_detector_are_the_whole_one(job, noisy):
    """In every statistic; pixels that are not measured, and variances, are those of each."""
    rng = np.random.default_rng(1)
    whole = random_rings(rng, (18, 20))
    frames = random_frames(rng, whole.shape)
    noise = random_variance(rng, frames.shape)
    matrix = whole.to_scipy().tocsc()
    halves = []
    for part in (slice(0, 9), slice(9, 18)):
        columns = matrix[:, part.start * 20 : part.stop * 20].tocsr()
        arrays = {"data": columns.data, "indices": columns.indices.astype(np.int32)}
        images = {name: getattr(whole, name)[part] for name in ("norm", "dark", "radius")}
        lines = {name: xr.DataArray(values, dims="entry") for name, values in arrays.items()}
        edges = xr.DataArray(columns.indptr.astype(np.int64), dims="edge")
        halves.append(replace(whole, **images, **lines, indptr=edges, provenance='{"solid_angle": false}'))
    options, parts = {}, {}
    if noisy and job in (integrate, sigma_clip):
        options, parts = {"variance": noise}, {"variance": [noise[:, :9], noise[:, 9:]]}
    wanted = job(frames, whole, **options).compute()
    found = job([frames[:, :9], frames[:, 9:]], halves, **parts).compute()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, err_msg=name)


def test_flags_are_those_of_each_detector():
    """A number that one of them stands for no reading with is a count of the other."""
    bins = [make_bins(np.zeros((4, 5), int)) for _ in range(2)]
    bins = [
        replace(each, provenance='{"solid_angle": false}', detector_dummy=dummy)
        for each, dummy in zip(bins, ((-2.0, 0.5), None), strict=True)
    ]
    frames = [np.full((1, 4, 5), -2, np.int32), np.full((1, 4, 5), 65535, np.uint16)]
    frames[0][0, 0], frames[1][0, 0] = 7, 7
    found = integrate(frames=frames, bins=bins).compute()
    assert (found.intensity.item(), found["count"].item()) == (7, 10)


def test_parts_of_a_ring():
    """Of both detectors."""
    geometries, frames = places(), counts(2, 2)
    bins = [build_bins(place, npt=1, npt_azimuth=8, radial_range=RANGE, azimuth_range=(-180, 180)) for place in geometries]
    found = integrate_azimuthal(frames, bins).compute()
    alone = [integrate_azimuthal(stack, each, sums=True).compute() for stack, each in zip(frames, bins, strict=True)]
    np.testing.assert_array_equal(found["count"], alone[0]["count"] + alone[1]["count"])
    assert found.intensity.dims == ("frame", "azimuthal")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda frames, bins: integrate(frames[0], bins), "expected a list of frames, a stack for each of the 2 bins, got ndarray"),
        (lambda frames, bins: integrate(frames[:1], bins), "each of the 2 bins, got 1 of them"),
        (lambda frames, bins: integrate(counts(1, 3), bins), r"expected frames of as many frames for each of the bins, got \[1, 3\]"),
        (lambda frames, bins: integrate(frames[::-1], bins), r"expected frames of shape \(60, 50\) \(y, x\), as the bins, got \(40, 70\)"),
        (lambda frames, bins: integrate([], []), "expected a list of bins, got none"),
        (lambda frames, bins: integrate(frames, [bins[0], "bins"]), "expected AzimuthalBins, got 'bins'"),
        (
            lambda frames, bins: integrate(frames, [bins[0], build_bins(places()[1], **OPTIONS | {"unit": "2th_deg"})]),
            "expected bins of one unit for one profile, got 'q_nm.-1' and '2th_deg'",
        ),
        (
            lambda frames, bins: integrate(frames, [bins[0], build_bins(places()[1], **OPTIONS | {"radial_range": (5, 61)})]),
            "expected bins of the same rings for one profile: build them with the same npt",
        ),
        (lambda frames, bins: integrate(frames, [bins[0], build_bins(places()[1], **OPTIONS, solid_angle=False)]), "the same solid_angle"),
        (lambda frames, bins: integrate(frames, [bins[0], replace(bins[1], provenance=None)]), "say by what solid angle they divide"),
        (
            lambda frames, bins: integrate(frames, bins, normalization=[1.0]),
            "expected a normalization for each of the 2 frames, or one for",
        ),
        (
            lambda frames, bins: integrate(frames, bins, normalization=[[1.0, 2.0], [2.0, 3.0]]),
            "that change alike in all stacks, .* sums=True",
        ),
        (
            lambda frames, bins: integrate(named(frames, [1.0, 2.0], [2.0, 3.0]), bins, normalization="monitor"),
            "change alike in all stacks",
        ),
        (
            lambda frames, bins: integrate([named(frames, [1.0, 2.0])[0], frames[1]], bins, normalization="monitor"),
            "expected a coordinate of the frames as normalization, got 'monitor': they have none",
        ),
        (lambda frames, bins: integrate(frames, bins, normalization=[1.0, 0.0]), r"for each of the 2 bins, got \[1.0, 0.0\]"),
        (lambda frames, bins: integrate(frames, bins, variance=frames[0]), "expected a list of variance, a stack for each"),
    ],
)
def test_what_does_not_go_into_one_profile(call, message):
    with pytest.raises(InputError, match=message):
        call(counts(2, 2), [build_bins(place, **OPTIONS) for place in places()])
