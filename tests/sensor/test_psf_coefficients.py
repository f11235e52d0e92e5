"""The point-spread matrix of a thick sensor against brute-force rays and closed forms."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from detcal.sensor import PlanarGeometry, build_psf
from tests.sensor.rays import CASES, PITCH, SILICON, SQUARE, TAN_75, Case, absorbed, beyond, column, matrix, plane, rays

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
