"""The sensor is that which the geometry, its detector or the frames' file states; who overrules them is told so."""

import json
import re

import h5py
import numpy as np
import pytest
import xraydb
from pyFAI.detectors.sensors import SensorConfig
from pyFAI.geometry import Geometry

import detcal
from detcal.azimuthal import build_bins
from detcal.sensor import PlanarGeometry, attenuation_per_m, build_psf, deconvolve
from tests.sensor.geometries import refused

MATERIALS = {"Si": (450e-6, "silicon"), "CdTe": (1e-3, "CdTe"), "GaAs": (500e-6, "GaAs")}  # and as xraydb calls them
DETECTORS = {
    "Pilatus100k": "Pilatus100k",
    "Eiger2 500k": "Eiger2_500k",
    "Lambda 250k": "Lambda250k",
    "Maxipix": "Maxipix",
    "a detector": None,
}
PLANE = PlanarGeometry((20, 30), (172e-6, 172e-6), 0.2, (0.0, 0.0))


def poni_of(folder, detector, material, thickness, kev):
    """A file with the sensor that it names."""
    sensor = f'"sensor": {{"material": "{material}", "thickness": {thickness}}}'
    own = '"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [40, 50], "orientation": 3, ' if detector is None else ""
    path = folder / "detector.poni"
    path.write_text(
        f"poni_version: 2.1\nDetector: {detector or 'Detector'}\nDetector_config: {{{own}{sensor}}}\n"
        f"Distance: 0.2\nPoni1: 0.01\nPoni2: 0.01\nRot1: 0.1\nRot2: 0\nRot3: 0\nWavelength: {12.398419843320026e-10 / kev}\n"
    )
    return path


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize(("material", "kev"), [("Si", 12.4), ("CdTe", 60.0), ("GaAs", 30.0)])
def test_what_a_geometry_states_is_what_is_built(tmp_path, detector, material, kev):
    thickness, _ = MATERIALS[material]
    path = poni_of(tmp_path, DETECTORS[detector], material, thickness, kev)
    for geometry in (path, open_pyfai(path)):
        psf = build_psf(geometry)
        assert psf.thickness_m == pytest.approx(thickness)
        assert psf.attenuation_per_m == pytest.approx(attenuation_per_m(material, kev), rel=1e-6)
        density = {"Si": 2.329, "CdTe": 5.85, "GaAs": 5.317}[material]
        assert psf.attenuation_per_m == pytest.approx(100 * xraydb.material_mu(material, 1000 * kev, density=density), rel=0.05)
        efficiency = -np.expm1(-psf.attenuation_per_m * thickness / psf.geometry.incidence())
        assert psf.efficiency.values[5, 5] == pytest.approx(efficiency[5, 5], rel=1e-3)


def open_pyfai(path):
    geometry = Geometry()
    geometry.load(str(path))
    return geometry


def nexus_of(folder, **facts):
    """Frames whose file says these of their detector."""
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        detector = entry.create_group("instrument/detector")
        file["entry/instrument"].attrs["NX_class"] = "NXinstrument"
        detector.attrs["NX_class"] = "NXdetector"
        detector["data"] = np.ones((2, 20, 30), np.uint16)
        for name, (value, units) in facts.items():
            detector[name] = value
            if units:
                detector[name].attrs["units"] = units
        beam = entry.create_group("instrument/beam")
        beam.attrs["NX_class"] = "NXbeam"
        beam["incident_wavelength"] = 0.5
        beam["incident_wavelength"].attrs["units"] = "angstrom"
    return detcal.open_frames(path, dataset="/entry/instrument/detector/data")


def test_what_a_file_states_is_what_is_built(tmp_path):
    frames = nexus_of(tmp_path, sensor_thickness=(750.0, "um"), sensor_material=("CdTe", None))
    psf = build_psf(PLANE, frames=frames)
    assert psf.thickness_m == pytest.approx(750e-6)
    assert psf.attenuation_per_m == pytest.approx(attenuation_per_m("CdTe", 24.7968397), rel=1e-5)
    assert build_psf(PLANE, frames=nexus_of(tmp_path, sensor_thickness=(0.32, "mm")), material="silicon").thickness_m == pytest.approx(
        320e-6
    )


def test_the_master_of_an_eiger_states_the_sensor(tmp_path):
    """Its frames lie in files beside it, and the energy may be Dectris' photon_energy alone, in eV."""
    for number in (1, 2):
        with h5py.File(tmp_path / f"e_data_00000{number}.h5", "w") as file:
            file["entry/data/data"] = np.full((2, *PLANE.shape), 60, np.uint32)
    with h5py.File(tmp_path / "e_master.h5", "w") as file:
        for number in (1, 2):
            file[f"entry/data/data_00000{number}"] = h5py.ExternalLink(f"e_data_00000{number}.h5", "/entry/data/data")
        detector = file.create_group("entry/instrument/detector")
        detector["sensor_material"], detector["sensor_thickness"] = np.bytes_("CdTe"), 750e-6
        detector["detectorSpecific/photon_energy"] = 24000.0
    frames = detcal.open_frames(tmp_path / "e_master.h5")
    psf = build_psf(PLANE, frames=frames)
    assert (psf.thickness_m, psf.attenuation_per_m) == pytest.approx((750e-6, attenuation_per_m("CdTe", 24)))
    assert deconvolve(frames, psf, method="direct").compute().shape == (4, *PLANE.shape)
    with h5py.File(tmp_path / "e_master.h5", "a") as file:
        file["entry/instrument/beam/incident_wavelength"] = 0.5
    both = build_psf(PLANE, frames=detcal.open_frames(tmp_path / "e_master.h5"))
    assert both.attenuation_per_m == pytest.approx(attenuation_per_m("CdTe", 24.7968397), rel=1e-5)  # as bins have it


def test_a_file_tells_which_of_a_models_sensors_it_is(tmp_path):
    geometry = Geometry(0.2, 0.01, 0.01, detector="Pilatus100k", wavelength=1e-10)
    refused("Si 320 µm; Si 450 µm; Si 1000 µm: give thickness_m", build_psf, geometry)
    assert build_psf(geometry, frames=nexus_of(tmp_path, sensor_thickness=(1.0, "mm"))).thickness_m == pytest.approx(1e-3)


def test_a_header_of_dectris_states_the_sensor(shared_data):
    path = shared_data / "sensor" / "thau_3_2_0010.cbf.bz2"
    if not path.exists():
        pytest.skip(f"no measured frame: {path.name} is not there")
    plane = PlanarGeometry((2527, 2463), (172e-6, 172e-6), 0.351, (0.2, 0.2))
    psf = build_psf(plane, frames=detcal.open_frames(path))
    assert (psf.thickness_m, psf.attenuation_per_m) == pytest.approx((450e-6, attenuation_per_m("Si", 12.39841984 / 0.96859)), rel=1e-5)


def test_who_overrules_a_file_is_told_so(tmp_path):
    frames = nexus_of(tmp_path, sensor_thickness=(750.0, "um"), sensor_material=("CdTe", None))
    with pytest.warns(UserWarning, match="^Si 450 µm is taken, as given, though .* from the frames' file: CdTe 750 µm"):
        assert build_psf(PLANE, frames=frames, thickness_m=450e-6, material="si").thickness_m == 450e-6
    with pytest.warns(UserWarning, match="^20 keV is taken, as given, though .*24.797 keV"):
        build_psf(PLANE, frames=frames, energy_kev=20)
    build_psf(PLANE, frames=frames, thickness_m=750e-6, material="CdTe", energy_kev=24.797)  # warnings are errors here


def test_an_attenuation_that_is_not_the_files_is_told(tmp_path):
    """That of the energy which stays is meant by some, and is no contradiction."""
    frames = nexus_of(tmp_path, sensor_thickness=(750.0, "um"), sensor_material=("CdTe", None))
    stays, leaves = (attenuation_per_m("CdTe", 24.7968397, absorption=kind) for kind in ("energy", "total"))
    for given in (stays, leaves):
        build_psf(PLANE, frames=frames, attenuation_per_m=given)  # warnings are errors here
    with pytest.warns(
        UserWarning, match=rf"^attenuation_per_m = 900 is taken, as given, though .* CdTe 750 µm, of which it is {leaves:.4g}"
    ):
        assert build_psf(PLANE, frames=frames, attenuation_per_m=900.0).attenuation_per_m == 900


def test_numbers_of_numpy_are_numbers():
    given = {"thickness_m": np.array(450e-6), "material": "Si", "energy_kev": np.array(17)}
    psf = build_psf(PLANE, **given)
    assert (psf.thickness_m, psf.attenuation_per_m) == (450e-6, attenuation_per_m("Si", 17.0))
    assert attenuation_per_m("Si", np.array(17.0), density_g_cm3=np.array(2.33)) == attenuation_per_m("Si", 17, density_g_cm3=2.33)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("sensor", "message"),
    [
        ({"thickness": 450e-6}, r'a material of the sensor in the Detector_config of .*, got {"thickness": 0.00045}: add it'),
        ({"material": "Si", "thickness": "thick"}, "thickness in m of the sensor in .* as a number, got 'thick'"),
    ],
)
def test_a_sensor_that_a_geometry_half_states_is_refused(tmp_path, sensor, message, as_json, caplog):
    """By one line: pyFAI would write that it cannot, with a stack of calls."""
    path = poni_of(tmp_path, "Pilatus100k", "Si", 450e-6, 12.4)
    if as_json:
        geometry = open_pyfai(path)
        found = geometry.get_config() | {"poni_version": 2.1}
        path = tmp_path / "detector.json"
        path.write_text(json.dumps({**found, "detector_config": {"sensor": sensor}}, default=str))
    else:
        path.write_text(re.sub(r'"sensor": {[^}]*}', f'"sensor": {json.dumps(sensor)}', path.read_text()))
    for build in (build_psf, build_bins):
        refused(message, build, path)
    assert "Traceback" not in caplog.text
    path.write_text(path.read_text().replace(json.dumps(sensor), json.dumps({"material": None, "thickness": 450e-6})))
    assert build_psf(path, material="Si").thickness_m == 450e-6


def test_a_detectors_sensor_comes_before_the_files(tmp_path):
    geometry = Geometry(0.2, 0.01, 0.01, detector="Pilatus100k", wavelength=1e-10)
    geometry.detector.sensor = SensorConfig.from_dict({"material": "Si", "thickness": 320e-6})
    frames = nexus_of(tmp_path, sensor_thickness=(750.0, "um"), sensor_material=("CdTe", None))
    assert build_psf(geometry, frames=frames).thickness_m == pytest.approx(320e-6)


@pytest.mark.parametrize("name", ["cdte", "CDTE", "Cadmium Telluride", "cadmium_telluride", " CdTe "])
def test_materials_are_known_however_they_are_written(name):
    assert attenuation_per_m(name, 60) == attenuation_per_m("CdTe", 60)
    assert attenuation_per_m("Silicon", 20, absorption="energy") == attenuation_per_m("SI", 20, absorption="energy")


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("from 1e-07 to 0.05 as thickness in m, got 450: is it in another unit", {"thickness_m": 450}),
        ("from 1e-07 to 0.05 as thickness in m, got 0.45: is it in another unit", {"thickness_m": 0.45}),
        ("positive thickness in m, got '450e-6'", {"thickness_m": "450e-6"}),
        ("positive thickness in m, got True", {"thickness_m": True}),
        (r"positive thickness in m, got array\(\[0.0001, 0.0002\]\)", {"thickness_m": np.array([1e-4, 2e-4])}),
        ("from 0.05 to 2000 as energy in keV, got 17400: is it in another unit", {"energy_kev": 17_400}),
        ("positive energy in keV, got '17'", {"energy_kev": "17"}),
        ("material's name or formula, got 3", {"material": 3}),
        ("as attenuation in 1/m, got 1e.09: is it in another unit", {"attenuation_per_m": 1e9}),
        ("positive attenuation in 1/m, got '1600'", {"attenuation_per_m": "1600"}),
        ("frames as open_frames gives them, .* got ndarray", {"frames": np.ones((2, 20, 30))}),
        ("tile_rows as a whole number of at least 1, got 2.5", {"tile_rows": 2.5}),
    ],
)
def test_what_cannot_be_meant_is_refused(message, options):
    good = {"thickness_m": 450e-6, "material": "Si", "energy_kev": 17.4}
    refused(message, build_psf, PLANE, **{**good, **options})


def test_nothing_that_states_a_sensor_is_an_error():
    refused("says nothing of its sensor: give thickness_m and material; .*give energy_kev", build_psf, PLANE)


def test_what_is_no_matrix_is_refused():
    psf = build_psf(PLANE, thickness_m=450e-6, attenuation_per_m=1e3)
    refused("expected a SensorPSF, got csr_matrix: build it", deconvolve, np.ones((20, 30)), psf.to_scipy())
    refused("expected a SensorPSF, got str", deconvolve, np.ones((20, 30)), "psf.zarr")
