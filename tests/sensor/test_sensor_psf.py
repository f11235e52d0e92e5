"""The point-spread matrix of a thick sensor against brute-force rays, closed forms, and itself in other tiles."""

from functools import cache
from typing import NamedTuple

import dask
import numpy as np
import pytest
import scipy.sparse as sp
import xraydb
from distributed import Client, LocalCluster
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyFAI.detectors import Detector, detector_factory
from pyFAI.detectors.sensors import SensorConfig
from pyFAI.geometry import Geometry
from pyFAI.parallax import Parallax, ThinSensor

from detcal.errors import InputError
from detcal.sensor import PlanarGeometry, attenuation_per_m, build_psf
from tests.reference import sensor as reference

PITCH = 172e-6
SQUARE = (PITCH, PITCH)
SILICON = 1356.0  # µ_en at 17.793 keV, 1/m
SENSOR = {"thickness_m": 450e-6, "material": "Si"}
TAN_75 = np.tan(np.radians(75))


class Case(NamedTuple):
    """A detector, its sensor, and the entry pixels whose columns are compared."""

    plane: PlanarGeometry
    thickness: float
    mu: float
    entries: list[tuple[int, int]]
    cells: int = 1000

    @property
    def matrix(self):
        return matrix(self.plane, self.thickness, self.mu)


def plane(shape, pixel_size, distance, poni_px):
    """The PONI in pixels."""
    return PlanarGeometry(shape, pixel_size, distance, tuple(np.multiply(poni_px, pixel_size).tolist()))


def beyond(shape, pixel_size, distance, tangent_y, tangent_x):
    """A detector whose first corner is seen at these tangents of the incidence: the PONI is outside."""
    return PlanarGeometry(shape, pixel_size, distance, (-distance * tangent_y, -distance * tangent_x))


CASES = {
    "PONI inside a pixel": Case(plane((9, 9), SQUARE, 0.2845, (4.3, 4.6)), 450e-6, SILICON, [(4, 4), (4, 5), (3, 5), (6, 7)]),
    "PONI inside a pixel, near": Case(plane((9, 9), SQUARE, 0.02, (4.3, 4.6)), 1e-3, 3e3, [(4, 4), (4, 5), (5, 3), (2, 6)]),
    "PONI on a border": Case(plane((9, 9), SQUARE, 0.1, (4, 4.6)), 450e-6, SILICON, [(4, 4), (3, 4), (5, 5)]),
    "PONI on a corner": Case(plane((9, 9), SQUARE, 0.01, (4, 4)), 450e-6, SILICON, [(4, 4), (3, 3), (3, 4), (5, 6)]),
    "far from the PONI": Case(plane((1043, 60), SQUARE, 0.2845, (515.41, 519.24)), 450e-6, SILICON, [(3, 8), (515, 20), (1030, 40)]),
    "PONI outside": Case(beyond((12, 12), SQUARE, 0.2, 0.75, 0.65), 450e-6, SILICON, [(2, 2), (5, 3)]),
    "PONI outside, other quadrant": Case(plane((12, 12), SQUARE, 0.2, (900.3, -700.2)), 450e-6, SILICON, [(9, 2), (5, 3)]),
    "pixels 172×50 µm": Case(beyond((12, 30), (PITCH, 50e-6), 0.2, 0.5, 0.6), 450e-6, SILICON, [(2, 3), (5, 8)]),
    "pixels 50×172 µm": Case(beyond((30, 12), (50e-6, PITCH), 0.2, 0.5, 0.6), 450e-6, SILICON, [(2, 3), (9, 5)]),
    "pixels 172×50 µm, PONI inside": Case(plane((9, 9), (PITCH, 50e-6), 0.05, (4.3, 4.6)), 450e-6, SILICON, [(4, 4), (5, 7)]),
    "1 mm CdTe, µ 3000/m": Case(beyond((12, 12), SQUARE, 0.1, 0.5, 0.2), 1e-3, 3e3, [(2, 2), (3, 3)]),
    "1 mm CdTe, µ 30000/m": Case(beyond((12, 12), SQUARE, 0.1, 0.5, 0.2), 1e-3, 3e4, [(2, 2), (3, 3)], 1600),
    "75°": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, SILICON, [(2, 2)], 500),
    "75°, 1 mm CdTe": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, 3e4, [(2, 2)]),
    "75° along a row": Case(
        PlanarGeometry((4, 40), SQUARE, 0.1, (2.5 * PITCH, -0.1 * TAN_75)), 1e-3, SILICON, [(2, 2), (1, 1)], 500
    ),
    "edge": Case(beyond((6, 6), SQUARE, 0.1, 1.5, 1.0), 1e-3, SILICON, [(5, 5), (4, 5), (5, 0)]),
}  # fmt: skip


@cache
def matrix(geometry, thickness, mu):
    """In CSC, from which columns are cheap."""
    return build_psf(geometry, thickness_m=thickness, attenuation_per_m=mu).to_scipy().tocsc()


def column(found, entry, shape):
    """What enters one pixel, where it is recorded (y, x)."""
    return found[:, entry[0] * shape[1] + entry[1]].toarray().reshape(shape)


def rays(case, entry, **options):
    """The same by the reference."""
    image = np.zeros(case.plane.shape)
    shares = reference.blur_of_pixel(
        entry, case.plane.shape, case.plane.pixel_size_m, case.plane.distance_m, case.plane.poni_m, case.thickness, case.mu, **options
    )
    for pixel, share in shares.items():
        image[pixel] = share
    return image


def absorbed(geometry, entry, thickness, mu):
    return reference.absorbed_fraction(entry, geometry.pixel_size_m, geometry.distance_m, geometry.poni_m, thickness, mu)


# ----------------------------------------------------------------------------------------------------------- reference


def test_reference_loses_nothing_inside_the_detector():
    case = CASES["PONI inside a pixel, near"]
    for entry in case.entries:
        assert rays(case, entry, n=100).sum() == pytest.approx(absorbed(case.plane, entry, case.thickness, case.mu), abs=1e-7)


def test_reference_does_not_depend_on_how_its_cells_are_cut():
    case = CASES["PONI outside"]
    graded, plain = (rays(case, (2, 2), n=400, graded=graded) for graded in (True, False))
    np.testing.assert_allclose(graded, plain, atol=2e-6)


def test_reference_converges():
    """As 1/n²: so that 1000 × 1000 rays are as good as the comparison needs."""
    for name in ("PONI outside", "PONI inside a pixel, near", "1 mm CdTe, µ 30000/m"):
        case = CASES[name]
        coarse, middle, fine = (rays(case, case.entries[0], n=n) for n in (100, 200, 400))
        assert abs(middle - fine).max() < 0.4 * abs(coarse - middle).max()


# -------------------------------------------------------------------------------------------------------- coefficients


@pytest.mark.parametrize("name", CASES)
def test_columns_are_those_of_brute_force_rays(name):
    case = CASES[name]
    for entry in case.entries:
        found = column(case.matrix, entry, case.plane.shape)
        np.testing.assert_allclose(found, rays(case, entry, n=case.cells), rtol=0, atol=2e-6)


def test_the_cases_at_75_degrees_cross_many_pixels_and_those_at_the_edge_lose_shares():
    grazing, edge = CASES["75°"], CASES["edge"]
    assert grazing.plane.incidence().max() < np.cos(np.radians(75))
    assert (column(grazing.matrix, (2, 2), grazing.plane.shape) > 1e-6).sum() > 50
    for entry in edge.entries:
        kept = column(edge.matrix, entry, edge.plane.shape).sum()
        assert kept < absorbed(edge.plane, entry, edge.thickness, edge.mu) - 0.5


@settings(max_examples=60, deadline=None)
@given(
    distance=st.floats(0.005, 1),
    pixel_size=st.tuples(st.floats(40e-6, 200e-6), st.floats(40e-6, 200e-6)),
    tangent=st.tuples(st.floats(-2.5, 2.5), st.floats(-2.5, 2.5)),
    offset=st.tuples(st.floats(0, 4), st.floats(0, 5)),
    inside=st.booleans(),
    thickness=st.floats(50e-6, 1e-3),
    optical=st.floats(0.05, 2.5),
    entry=st.tuples(st.integers(0, 3), st.integers(0, 4)),
)
def test_any_column_is_that_of_brute_force_rays(distance, pixel_size, tangent, offset, inside, thickness, optical, entry):
    geometry = plane((4, 5), pixel_size, distance, offset) if inside else beyond((4, 5), pixel_size, distance, *tangent)
    case = Case(geometry, thickness, optical / thickness, [entry])
    found = column(build_psf(geometry, thickness_m=thickness, attenuation_per_m=case.mu).to_scipy().tocsc(), entry, geometry.shape)
    np.testing.assert_allclose(found, rays(case, entry, n=400), rtol=0, atol=2e-5)


@pytest.mark.parametrize("degrees", [0, 5, 15])
def test_parallel_rays_share_as_the_closed_form_says(degrees):
    """Far away all rays are parallel, and where two pixels are crossed at most the integral over the depth is elementary."""
    distance, thickness, mu = 1000.0, 450e-6, SILICON
    tangent = np.tan(np.radians(degrees))
    assert thickness * tangent < PITCH
    geometry = PlanarGeometry((1, 8), SQUARE, distance, (PITCH / 2, 3.5 * PITCH - distance * tangent))
    slope = mu * np.sqrt(1 + tangent**2)
    kept = -np.expm1(-slope * thickness)
    passed = tangent / PITCH * (kept / slope - thickness * np.exp(-slope * thickness))
    found = column(matrix(geometry, thickness, mu), (0, 3), geometry.shape)[0]
    np.testing.assert_allclose(found[3:5], [kept - passed, passed], atol=1e-6)
    assert np.delete(found, [3, 4]).max() < 1e-6


@pytest.mark.parametrize("name", ["PONI inside a pixel, near", "PONI outside", "pixels 172×50 µm"])
def test_exchanging_the_axes_transposes_and_turning_one_round_mirrors(name):
    case = CASES[name]
    (rows, columns), (py, px), (size_y, size_x) = case.plane.shape, case.plane.poni_m, case.plane.pixel_size_m
    exchanged = PlanarGeometry((columns, rows), (size_x, size_y), case.plane.distance_m, (px, py))
    mirrored = PlanarGeometry((rows, columns), (size_y, size_x), case.plane.distance_m, (py, columns * size_x - px))
    for row, place in case.entries:
        found = column(case.matrix, (row, place), (rows, columns))
        swapped = column(matrix(exchanged, case.thickness, case.mu), (place, row), (columns, rows))
        turned = column(matrix(mirrored, case.thickness, case.mu), (row, columns - 1 - place), (rows, columns))
        np.testing.assert_allclose(swapped.T, found, atol=2e-7)
        np.testing.assert_allclose(turned[:, ::-1], found, atol=2e-7)


@settings(max_examples=100, deadline=None)
@given(
    distance=st.floats(0.002, 1),
    pixel_size=st.tuples(st.floats(30e-6, 300e-6), st.floats(30e-6, 300e-6)),
    poni_px=st.tuples(st.floats(-20, 30) | st.integers(-5, 15), st.floats(-20, 30) | st.integers(-5, 15)),
    thickness=st.floats(50e-6, 2e-3),
)
def test_rays_move_only_outward_from_the_poni(distance, pixel_size, poni_px, thickness):
    """So that the matrix is triangular in the order of the distances in rows, then columns, from the PONI."""
    geometry = plane((9, 11), pixel_size, distance, poni_px)
    assume(geometry.incidence().min() > np.cos(np.radians(80)))
    found = build_psf(geometry, thickness_m=thickness, attenuation_per_m=SILICON).to_scipy().tocoo()
    for axis, (recorded, entry) in enumerate(zip(np.divmod(found.row, 11), np.divmod(found.col, 11), strict=True)):
        # where the PONI is on a border, rounding decides which pixel holds it
        beyond_poni, before_poni = entry - poni_px[axis] > 1e-9, entry + 1 - poni_px[axis] < -1e-9
        assert (entry <= recorded)[beyond_poni].all()
        assert (entry >= recorded)[before_poni].all()
        # of the pixel that holds the PONI rays go to both sides, but still outward
        assert (abs(entry + 0.5 - poni_px[axis]) <= abs(recorded + 0.5 - poni_px[axis]) + 1e-9).all()
    assert (found.diagonal() > 0).all()


# ----------------------------------------------------------------------------------------------------------- column sums


@pytest.mark.parametrize(
    ("geometry", "thickness", "mu", "margin"),
    [
        (plane((21, 23), SQUARE, 0.2845, (10.3, 11)), 450e-6, SILICON, 1),
        (plane((21, 23), SQUARE, 0.01, (10.3, 11)), 1e-3, 3e3, 3),
        (plane((21, 23), (PITCH, 50e-6), 0.05, (8.2, -300.5)), 450e-6, SILICON, 4),
        (beyond((40, 30), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, 3e3, 19),
        (beyond((21, 23), SQUARE, 0.3, 0.7, 0.7), 1e-3, 3e4, 6),
    ],
)
def test_column_sums_are_what_the_sensor_absorbs(geometry, thickness, mu, margin):
    """The average of 1 − exp(−µ·t·secθ) over the pixel, where no ray leaves the detector."""
    psf = build_psf(geometry, thickness_m=thickness, attenuation_per_m=mu)
    found = psf.efficiency
    assert found.dims == ("y", "x")
    tangent = [
        max(abs(poni), abs(size * pitch - poni)) / geometry.distance_m
        for size, pitch, poni in zip(geometry.shape, geometry.pixel_size_m, geometry.poni_m, strict=True)
    ]
    reach = [int(np.ceil(thickness * tangent[axis] / geometry.pixel_size_m[axis])) for axis in (0, 1)]
    assert max(reach) <= margin
    inner = (slice(margin, geometry.shape[0] - margin), slice(margin, geometry.shape[1] - margin))
    wanted = np.reshape([absorbed(geometry, entry, thickness, mu) for entry in np.ndindex(geometry.shape)], geometry.shape)
    np.testing.assert_allclose(found.values[inner], wanted[inner], rtol=0, atol=1e-6)
    assert (found.values <= wanted + 1e-6).all()


def test_nothing_is_stored_of_what_no_ray_reaches():
    """At 75° and 30 per mm the sensor is a hundred mean free paths deep: a coefficient from there would be 0 in float32."""
    found = build_psf(beyond((40, 30), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), thickness_m=1e-3, attenuation_per_m=3e4).to_scipy()
    assert found.data.min() > np.finfo(np.float32).tiny
    whole = build_psf(beyond((40, 30), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), thickness_m=1e-3, attenuation_per_m=3e3).to_scipy()
    assert found.nnz < whole.nnz


def test_what_falls_into_a_dead_pixel_is_lost_and_nothing_else_changes():
    geometry = plane((20, 24), SQUARE, 0.01, (9.3, 11.6))
    dead = np.random.default_rng(3).random(geometry.shape) < 0.15
    dead[9, 11] = True  # where the PONI is
    whole, holed = (build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON, mask=mask, tile_rows=7) for mask in (None, dead))
    np.testing.assert_array_equal(holed.mask, dead)
    assert not whole.mask.any()
    everything, kept = whole.to_scipy(), holed.to_scipy()
    assert (np.diff(kept.indptr)[dead.ravel()] == 0).all()
    alive = ~dead.ravel()
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(kept[alive], name), getattr(everything[alive], name))
    lost = everything[~alive].sum(axis=0).reshape(geometry.shape)
    np.testing.assert_allclose(holed.efficiency, whole.efficiency - lost, atol=1e-6)


# ----------------------------------------------------------------------------------------------------- tiles, schedulers


@pytest.fixture(scope="module")
def tiled():
    """A detector with dead pixels, seen up to 60°, and its matrix as one task makes it."""
    geometry = plane((70, 41), (PITCH, 75e-6), 0.006, (24.3, 11))
    mask = np.random.default_rng(4).random(geometry.shape) < 0.05
    mask[30:33] = True  # a band without any coefficient

    def build(tile_rows):
        psf = build_psf(geometry, thickness_m=1e-3, attenuation_per_m=SILICON, mask=mask, tile_rows=tile_rows)
        return psf.data, psf.indices, psf.indptr

    return build, dask.compute(*build(None), scheduler="synchronous")


def assert_same_bits(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("tile_rows", [None, 1, 7, 64, 1000])
def test_matrix_does_not_depend_on_tiles(tiled, tile_rows, scheduler):
    build, wanted = tiled
    parts = build(tile_rows)
    assert (parts[0].npartitions > 1) == ((tile_rows or 70) < 70)
    assert_same_bits(dask.compute(*parts, scheduler=scheduler), wanted)


def test_matrix_does_not_depend_on_processes(tiled):
    build, wanted = tiled
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        for tile_rows in (None, 7, 64):
            assert_same_bits(dask.compute(*build(tile_rows)), wanted)


@pytest.mark.parametrize("tile_rows", [None, 7])
def test_types_are_those_that_are_documented(tiled, tile_rows):
    lazy = tiled[0](tile_rows)
    for parts in (lazy, dask.compute(*lazy)):
        assert [part.dtype for part in parts] == [np.float32, np.int32, np.int64]


def test_matrix_is_csr_with_rising_indices(tiled):
    data, indices, indptr = tiled[1]
    indptr = indptr.astype(np.int64)
    assert indptr.shape == (70 * 41 + 1,)
    assert indptr[0] == 0
    assert indptr[-1] == len(data) == len(indices)
    assert (np.diff(indptr) >= 0).all()
    row = np.repeat(np.arange(70 * 41), np.diff(indptr))
    assert (np.diff(row * 70 * 41 + indices) > 0).all()  # so none is there twice
    assert indices.min() >= 0
    assert indices.max() < 70 * 41
    assert (data >= 0).all()
    assert (data < 1).all()


def test_lazy_arrays_say_their_shape_and_type_before_they_are_computed(tiled):
    build, wanted = tiled
    for lazy, array in zip(build(7), wanted, strict=True):
        assert lazy.shape == array.shape
        assert lazy.dtype == array.dtype


def test_saved_npz_is_the_matrix(tmp_path):
    psf = build_psf(plane((5, 7), SQUARE, 0.02, (1, 2.5)), thickness_m=450e-6, attenuation_per_m=SILICON)
    psf.save_npz(tmp_path / "psf.npz")
    found, wanted = sp.load_npz(tmp_path / "psf.npz"), psf.to_scipy()
    assert (found.shape, found.format) == ((35, 35), "csr")
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_computed_psf_is_the_same_in_memory():
    lazy = build_psf(plane((5, 7), SQUARE, 0.02, (1, 2.5)), thickness_m=450e-6, attenuation_per_m=SILICON, tile_rows=2)
    computed = lazy.compute()
    assert lazy.data.npartitions == 3
    assert computed.data.npartitions == 1
    assert_same_bits(dask.compute(computed.data, computed.indices, computed.indptr), dask.compute(lazy.data, lazy.indices, lazy.indptr))
    np.testing.assert_array_equal(computed.efficiency, lazy.efficiency)
    assert computed.geometry == lazy.geometry == plane((5, 7), SQUARE, 0.02, (1, 2.5))


# -------------------------------------------------------------------------------------------------------------- geometry


def tilted(rotations=(0.3, -0.2, 0.7), orientation=3, mask=None):
    detector = Detector(PITCH, 75e-6, max_shape=(12, 16), orientation=orientation)
    if mask is not None:
        detector.mask = mask
    rot1, rot2, rot3 = rotations
    return Geometry(0.0123456789, 1.1e-3, -0.7e-3, rot1, rot2, rot3, detector=detector, wavelength=0.6968e-10)


def arrays(psf):
    return dask.compute(psf.data, psf.indices, psf.indptr)


@pytest.mark.parametrize("rotations", [(0.3, 0, 0), (0, -0.2, 0), (0, 0, 0.7), (0.3, -0.2, 0.7)])
def test_tilt_does_not_change_the_matrix(rotations):
    assert_same_bits(arrays(build_psf(tilted(rotations), **SENSOR)), arrays(build_psf(tilted((0, 0, 0)), **SENSOR)))


def test_rays_in_the_tilted_laboratory_go_where_the_matrix_says():
    """pyFAI's own pixel positions in three dimensions: PONI and distance are the foot of the normal and its length."""
    geometry = tilted()
    positions = np.stack(geometry.calc_pos_zyx(corners=False), axis=-1)
    along_y, along_x = (a / np.linalg.norm(a) for a in (positions[1, 0] - positions[0, 0], positions[0, 1] - positions[0, 0]))
    normal = np.cross(along_y, along_x)
    distance = positions @ normal
    np.testing.assert_allclose(abs(distance), geometry.dist, rtol=1e-6)  # pyFAI's positions are float32
    outwards = normal * np.sign(distance[0, 0])
    secant = np.linalg.norm(positions, axis=-1) / (positions @ outwards)
    plain = PlanarGeometry((12, 16), (PITCH, 75e-6), geometry.dist, (geometry.poni1, geometry.poni2))
    np.testing.assert_allclose(1 / secant, plain.incidence(), rtol=1e-6)
    # on through the sensor to a depth of 1 mm, and straight back to the front
    depth = 1e-3
    deep = positions * (1 + depth * secant / np.linalg.norm(positions, axis=-1))[..., None] - depth * outwards
    for axis, (direction, pitch, poni) in enumerate(((along_y, PITCH, geometry.poni1), (along_x, 75e-6, geometry.poni2))):
        index = np.indices((12, 16))[axis]
        shift = (deep - positions) @ direction
        np.testing.assert_allclose(shift, ((index + 0.5) * pitch - poni) * depth / geometry.dist, rtol=0, atol=5e-11)


@pytest.mark.parametrize("orientation", [1, 2, 4])
def test_detectors_that_are_read_from_another_corner(orientation):
    """pyFAI counts the PONI from the corner that the orientation names; pixels are numbered as they lie in the file."""
    geometry = tilted((0, 0, 0), orientation)
    psf = build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON)
    y, x, _ = geometry.detector.calc_cartesian_positions()
    cosine = geometry.dist / np.sqrt(geometry.dist**2 + (y - geometry.poni1) ** 2 + (x - geometry.poni2) ** 2)
    np.testing.assert_allclose(psf.geometry.incidence(), cosine, rtol=1e-6)


def test_every_kind_of_geometry_gives_the_same_matrix(tmp_path):
    geometry = tilted()
    geometry.save(str(tmp_path / "tilted.poni"))
    plain = PlanarGeometry((12, 16), (PITCH, 75e-6), 0.0123456789, (1.1e-3, -0.7e-3))
    wanted = build_psf(plain, energy_kev=12.39841984332 / 0.6968, **SENSOR)
    for source in (geometry, str(tmp_path / "tilted.poni"), tmp_path / "tilted.poni"):
        found = build_psf(source, **SENSOR)
        assert found.geometry == plain
        assert found.attenuation_per_m == pytest.approx(wanted.attenuation_per_m, rel=1e-12)
        np.testing.assert_array_equal(found.indices, wanted.indices)
        np.testing.assert_array_equal(found.indptr, wanted.indptr)
        np.testing.assert_allclose(found.data, wanted.data, rtol=1e-6)


def test_planes_may_be_given_as_lists_and_arrays():
    wanted = build_psf(PlanarGeometry((4, 5), SQUARE, 0.01, (1e-4, 2e-4)), thickness_m=450e-6, attenuation_per_m=SILICON)
    for kind in (list, np.array):
        geometry = PlanarGeometry(kind((4, 5)), kind(SQUARE), 0.01, kind((1e-4, 2e-4)))
        assert_same_bits(arrays(build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON)), arrays(wanted))


def test_mask_is_by_default_that_of_the_detector():
    dead = np.zeros((12, 16), bool)
    dead[3:5] = True
    geometry = tilted(mask=dead.astype(np.int8))
    np.testing.assert_array_equal(build_psf(geometry, **SENSOR).mask, dead)
    np.testing.assert_array_equal(build_psf(geometry, mask=~dead, **SENSOR).mask, ~dead)
    gaps = detector_factory("Pilatus300k").mask != 0
    assert gaps.any()
    np.testing.assert_array_equal(
        build_psf(Geometry(0.3, detector="Pilatus300k"), thickness_m=450e-6, attenuation_per_m=SILICON).mask, gaps
    )


# ----------------------------------------------------------------------------------------------------------- attenuation


@pytest.mark.parametrize(
    ("energy_kev", "total_cm2_g", "energy_cm2_g"), [(10, 33.89, 32.89), (15, 10.34, 9.794), (20, 4.464, 4.076), (30, 1.436, 1.164)]
)
def test_silicon_is_nists_where_it_is_tabulated(energy_kev, total_cm2_g, energy_cm2_g):
    assert attenuation_per_m("Si", energy_kev) == pytest.approx(232.9 * total_cm2_g, rel=1e-12)
    assert attenuation_per_m("Si", energy_kev, absorption="energy") == pytest.approx(232.9 * energy_cm2_g, rel=1e-12)


@pytest.mark.parametrize(("absorption", "at_15", "at_20"), [("total", 10.34, 4.464), ("energy", 9.794, 4.076)])
def test_silicon_is_interpolated_in_the_logarithms(absorption, at_15, at_20):
    """Between 15 and 20 keV µ falls as a power of the energy; a straight line, as pyFAI draws it, lies above it."""
    found = attenuation_per_m("Si", 17.793, absorption=absorption)
    power = np.log(at_20 / at_15) / np.log(20 / 15)
    assert found == pytest.approx(232.9 * at_15 * (17.793 / 15) ** power, rel=1e-12)
    chord = 232.9 * np.interp(17.793, [15, 20], [at_15, at_20])
    assert found < 0.9 * chord


def test_the_tutorials_energy():
    found = attenuation_per_m("Si", 17.793, absorption="energy")
    assert found == pytest.approx(1356, abs=1)  # a straight line gives 1537
    photoelectric = 100 * xraydb.material_mu("Si", 17793, density=2.329, kind="photo")
    assert found == pytest.approx(photoelectric, rel=0.01)
    assert attenuation_per_m("Si", 17.793) == pytest.approx(100 * xraydb.material_mu("Si", 17793, density=2.329), rel=0.01)


def test_attenuation_at_an_absorption_edge_is_on_its_side():
    """The table has two values at the K edge of cadmium, 26.7112 keV."""
    below, above = (attenuation_per_m("CdTe", 26.7112 * factor) for factor in (1 - 1e-9, 1 + 1e-9))
    assert below == pytest.approx(585 * 9.834, rel=1e-6)
    assert above == pytest.approx(585 * 29.43, rel=1e-6)


def test_density_takes_the_place_of_the_tabulated_one():
    assert attenuation_per_m("CdTe", 40, density_g_cm3=2 * 5.85) == pytest.approx(2 * attenuation_per_m("CdTe", 40))


def test_formula_with_density_and_materials_by_name_are_xraydbs():
    found = attenuation_per_m("Cd0.9Zn0.1Te", 20, density_g_cm3=5.78)
    assert found == pytest.approx(100 * xraydb.material_mu("Cd0.9Zn0.1Te", 20000, density=5.78), rel=1e-12)
    assert found == pytest.approx(attenuation_per_m("CdTe", 20), rel=0.03)  # a material that resembles it
    assert attenuation_per_m("kapton", 10) == pytest.approx(100 * xraydb.material_mu("kapton", 10000), rel=1e-12)


def test_psf_takes_its_attenuation_from_material_and_energy():
    geometry = plane((4, 5), SQUARE, 0.3, (2, 2))
    options = {"energy_kev": 40, "material": "CdTe", "absorption": "energy", "density_g_cm3": 5.0}
    assert build_psf(geometry, thickness_m=450e-6, **options).attenuation_per_m == pytest.approx(500 * 9.635)
    assert build_psf(geometry, energy_kev=15, **SENSOR).attenuation_per_m == pytest.approx(232.9 * 10.34)
    assert build_psf(tilted(), energy_kev=15, **SENSOR).attenuation_per_m == pytest.approx(232.9 * 10.34)  # before the geometry's own
    assert build_psf(tilted(), thickness_m=450e-6, attenuation_per_m=77.0).attenuation_per_m == 77.0


# ---------------------------------------------------------------------------------------- the sensor of a geometry


def described(psf):
    return psf.thickness_m, psf.attenuation_per_m


def standing(detector, **sensor):
    """A geometry of a pyFAI detector, whose sensor is of this material and thickness, at 20 keV: NIST's table has that energy."""
    geometry = Geometry(0.1, 0.01, 0.01, detector=detector_factory(detector) if isinstance(detector, str) else detector)
    geometry.wavelength = 12.39841984332e-10 / 20
    if sensor:
        geometry.detector.sensor = SensorConfig(**sensor)
    return geometry


SI_20 = 232.9 * 4.464  # 1/m, of NIST's table
CDTE_20 = 100 * xraydb.material_mu("CdTe", 20_000, density=5.85)  # of Elam's tables, which differ by a percent


def test_the_sensor_is_that_of_the_geometry(tmp_path):
    """Of a .poni file's Detector_config, of a detector, of its model where there is but one, of a parallax correction."""
    cdte = standing("Eiger2 CdTe 1M", material="CdTe", thickness=750e-6)
    cdte.save(str(tmp_path / "cdte.poni"))
    thick = standing("Pilatus 100k", material="Si", thickness=1e-3)
    corrected = standing("Pilatus 100k")
    corrected.enable_parallax(True, sensor_material="Si", sensor_thickness=320e-6)
    for geometry, thickness, mu in (
        (cdte, 750e-6, CDTE_20), (tmp_path / "cdte.poni", 750e-6, CDTE_20), (standing("Eiger2 CdTe 1M"), 750e-6, CDTE_20),
        (thick, 1e-3, SI_20), (corrected, 320e-6, SI_20), (standing("Eiger2 500k"), 450e-6, SI_20),
        (standing("Eiger2 CdTe 1M", material="CdTe"), 750e-6, CDTE_20),
    ):  # fmt: skip
        assert described(build_psf(geometry)) == pytest.approx((thickness, mu), rel=0.02), geometry


def test_a_parallax_correction_without_a_material_has_its_own_attenuation():
    geometry = standing("Pilatus 100k")
    geometry.parallax = Parallax(ThinSensor(thickness=600e-6, mu=500.0))
    assert described(build_psf(geometry)) == (600e-6, 500.0)
    assert described(build_psf(geometry, material="Si")) == pytest.approx((600e-6, SI_20))
    refused("is known: unknown material 600 µm: give material$", build_psf, geometry, energy_kev=30)


def test_the_callers_sensor_comes_first():
    geometry = standing("Eiger2 CdTe 1M", material="CdTe", thickness=750e-6)
    assert described(build_psf(geometry, thickness_m=1e-3)) == pytest.approx((1e-3, CDTE_20), rel=0.02)
    assert described(build_psf(geometry, material="Si")) == pytest.approx((750e-6, SI_20))
    assert described(build_psf(geometry, thickness_m=2e-4, material="Si")) == pytest.approx((2e-4, SI_20))
    assert described(build_psf(geometry, attenuation_per_m=77.0)) == (750e-6, 77.0)
    lambda_ = standing("Lambda 750k")  # of Si 300 or 500 µm, GaAs 500 µm, or CdTe 1 mm: one of these answers to what is given
    assert described(build_psf(lambda_, material="CdTe")) == pytest.approx((1e-3, CDTE_20), rel=0.02)
    assert described(build_psf(lambda_, thickness_m=300e-6)) == pytest.approx((300e-6, SI_20))


def test_a_sensor_that_nothing_says_or_that_is_one_of_several_is_refused():
    several = "of the sensor of Pilatus 100k is known: Si 320 µm; Si 450 µm; Si 1000 µm: give thickness_m$"
    refused(several, build_psf, standing("Pilatus 100k"))
    refused("is known: Si 300 µm; .*: give thickness_m and material$", build_psf, standing("Lambda 750k"))
    refused("is known: Si 300 µm; .*: give material$", build_psf, standing("Lambda 750k"), thickness_m=500e-6)
    refused("is known: CdTe of unknown thickness: give thickness_m$", build_psf, standing("Perkin", material="CdTe"))
    nothing = "the geometry says nothing of its sensor: give "
    refused(f"{nothing}thickness_m and material$", build_psf, standing("Perkin"))
    refused(f"{nothing}material$", build_psf, standing("Perkin"), thickness_m=450e-6)
    bare = plane((4, 5), SQUARE, 0.1, (0, 0))
    refused(f"{nothing}thickness_m and material; the geometry has no wavelength: give energy_kev, or attenuation_per_m$", build_psf, bare)
    refused(f"{nothing}thickness_m$", build_psf, bare, attenuation_per_m=SILICON)


# ------------------------------------------------------------------------------------------------------------- bad input


def refused(message, call, *arguments, **options):
    """InputError with the message, in one line."""
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "material", "energy_kev", "options"),
    [
        ("unknown material 'silicium'; near are .*silicon", "silicium", 10, {}),
        ("unknown material 'CdTeSe'; near are CdTe", "CdTeSe", 10, {}),
        ("unknown material 'Bi12GeO20'.*needs density_g_cm3", "Bi12GeO20", 10, {}),
        (r"unknown material '~~~~'\. A chemical formula", "~~~~", 10, {}),
        ("positive energy in keV, got -1", "Si", -1, {}),
        ("positive energy in keV, got 0", "Si", 0, {}),
        ("positive energy in keV, got nan", "Si", np.nan, {}),
        ("Si is not tabulated at 0.5 keV", "Si", 0.5, {}),
        ("Si is not tabulated at 1000000.0 keV", "Si", 1e6, {}),
        ('absorption to be "total" or "energy", got \'x\'', "Si", 10, {"absorption": "x"}),
        ("µ_en is tabulated for Si, .*not for kapton", "kapton", 10, {"absorption": "energy"}),
        ("cannot read 'Xx3' as a chemical formula", "Xx3", 10, {"density_g_cm3": 1}),
        ("cannot read '' as a chemical formula", "", 10, {"density_g_cm3": 1}),
        ("positive density", "Si", 10, {"density_g_cm3": -1}),
        ("positive density", "Si", 10, {"density_g_cm3": 0}),
        ("positive density", "SiO2", 10, {"density_g_cm3": np.nan}),
    ],
)
def test_bad_materials_are_refused(message, material, energy_kev, options):
    refused(message, attenuation_per_m, material, energy_kev, **options)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("positive pixel sizes", {"pixel_size_m": (0, PITCH)}),
        ("positive pixel sizes", {"pixel_size_m": (PITCH, -PITCH)}),
        ("positive pixel sizes and distance, .* and 0 m", {"distance_m": 0}),
        ("positive pixel sizes and distance, .* and -0.1 m", {"distance_m": -0.1}),
        (r"shape \(rows, columns\), got \(0, 5\)", {"shape": (0, 5)}),
        (r"shape \(rows, columns\), got \(4, 5, 6\)", {"shape": (4, 5, 6)}),
        ("positive pixel sizes", {"pixel_size_m": (PITCH, np.nan)}),
        ("positive pixel sizes and distance", {"distance_m": np.nan}),
        ("distance", {"distance_m": np.inf}),
        ("poni", {"poni_m": (np.nan, 0)}),
    ],
)
def test_bad_planes_are_refused(message, change):
    good = {"shape": (4, 5), "pixel_size_m": SQUARE, "distance_m": 0.1, "poni_m": (0, 0)}
    refused(message, PlanarGeometry, **{**good, **change})


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("positive thickness in m, got 0", {"thickness_m": 0}),
        ("positive thickness in m, got -0.00045", {"thickness_m": -450e-6}),
        ("positive thickness in m, got nan", {"thickness_m": np.nan}),
        ("positive attenuation in 1/m, got 0", {"attenuation_per_m": 0}),
        ("positive attenuation in 1/m, got nan", {"attenuation_per_m": np.nan}),
        ("has no wavelength: give energy_kev, or attenuation_per_m", {"attenuation_per_m": None}),
        (r"mask of shape \(4, 5\).*got \(5, 4\)", {"mask": np.zeros((5, 4), bool)}),
        ("the mask leaves no pixel", {"mask": np.ones((4, 5), bool)}),
        ("thickness", {"thickness_m": np.inf}),
        ("attenuation", {"attenuation_per_m": np.inf}),
        ("tile_rows", {"tile_rows": -1}),
    ],
)
def test_bad_options_are_refused(message, change):
    good = {**SENSOR, "attenuation_per_m": SILICON}
    refused(message, build_psf, plane((4, 5), SQUARE, 0.1, (0, 0)), **{**good, **change})


def test_rays_beyond_89_degrees_are_refused():
    for degrees, good in ((88.5, True), (89.1, False)):
        geometry = PlanarGeometry((1, 3), SQUARE, 0.1, (PITCH / 2, -0.1 * np.tan(np.radians(degrees))))
        if good:
            build_psf(geometry, thickness_m=1e-5, attenuation_per_m=SILICON)
        else:
            refused("within 89°", build_psf, geometry, thickness_m=1e-5, attenuation_per_m=SILICON)


@pytest.mark.parametrize("name", ["Aarhus", "Xpad_flat", "Pixirad1", "Cirpad"])
def test_detectors_that_are_not_one_plane_of_equal_pixels_are_refused(name):
    refused("expected a plane detector of equal pixels, got", build_psf, Geometry(0.1, detector=name), attenuation_per_m=SILICON)


def test_geometries_that_lack_something_are_refused():
    refused("has no wavelength", build_psf, Geometry(0.1, detector="Pilatus100k"), thickness_m=450e-6)
    refused("a detector with a shape", build_psf, Geometry(0.1, detector=Detector(PITCH, PITCH)), attenuation_per_m=SILICON)
    refused("positive pixel sizes and distance", build_psf, Geometry(0, detector="Pilatus100k"), attenuation_per_m=SILICON)


def test_a_detector_without_pixel_size_is_refused():
    refused("pixel size", build_psf, Geometry(0.1, detector=Detector(max_shape=(4, 5))), attenuation_per_m=SILICON)


@pytest.mark.parametrize("geometry", [None, 3, np.zeros((4, 5)), detector_factory("Pilatus100k")])
def test_what_is_no_geometry_is_refused(geometry):
    refused("expected a pyFAI geometry, a .poni file or a PlanarGeometry, got", build_psf, geometry)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("cannot read .*bad.poni as a .poni file", bytes(range(128, 256))),
        ("cannot read .*bad.poni as a .poni file", b"poni_version: 2\nDetector: Detector\nDistance: near\n"),
        ("expected a detector with a shape", b"Distance: 0.1\nPoni1: 0\nPoni2: 0\nRot1: 0\nRot2: 0\nRot3: 0\n"),
        ("expected", b""),
    ],
)
def test_files_that_are_no_geometry_are_refused(tmp_path, message, content):
    (tmp_path / "bad.poni").write_bytes(content)
    refused(message, build_psf, tmp_path / "bad.poni", attenuation_per_m=SILICON)


def test_missing_files_are_refused(tmp_path):
    refused("no such file: .*none.poni", build_psf, tmp_path / "none.poni")
    refused("cannot read", build_psf, tmp_path)
