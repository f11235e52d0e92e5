"""A recipe: TOML read into typed models, with every mistake found at once."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from glob import escape, glob, has_magic
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from detcal.errors import RecipeError
from detcal.frames.selection import parse_frames


class InputFile(str):
    """The path of something that a recipe reads: every such value in a recipe is found by its type."""


def in_folder(path: str, info: ValidationInfo) -> str:
    """A path as seen from the recipe's folder; absolute, because workers may run in another."""
    folder = Path((info.context or {})["folder"]).absolute()
    plain = folder / expanduser(path)
    return str(plain) if plain.exists() or not has_magic(path) else str(Path(escape(str(folder)), expanduser(path)))


def existing(path: str, info: ValidationInfo) -> InputFile:
    """The same, of files that must be there."""
    found = in_folder(path, info)
    if not (Path(found).exists() or glob(found)):
        raise ValueError(f"no such file: {found}")
    return InputFile(found)


def known_frames(choice: Any) -> Any:
    """A choice of frames as it is written, if it is one."""
    if choice is not None:
        parse_frames(choice)
    return choice


def path_alone(value: Any) -> Any:
    """A plain string where a table {path, dataset} may stand."""
    return {"path": value} if isinstance(value, str) else value


InputPath = Annotated[str, AfterValidator(existing)]
OutputPath = Annotated[str, AfterValidator(in_folder)]
Frames = Annotated[Any, AfterValidator(known_frames)]
Flip = Literal["ud", "lr", "both"]


class Table(BaseModel):
    """A table of the recipe: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Source(Table):
    """A file, where in it the data is, which frames of it are meant, and how they are turned over."""

    role: ClassVar[str | None] = None  # the frames of a file with an image_key that are meant where none are named

    path: InputPath
    dataset: str | None = None
    frames: Frames = None
    flip: Flip | None = None


class DarkSource(Source):
    """A dark image or frames."""

    role = "darks"


class FlatSource(Source):
    """A flat image or frames."""

    role = "flats"


Image = Annotated[Source, BeforeValidator(path_alone)]  # one image: a mask, gains, or a calibration in its place
Darks = Annotated[DarkSource, BeforeValidator(path_alone)]  # these are averaged
Flats = Annotated[FlatSource, BeforeValidator(path_alone)]
Ends = Annotated[list[float], Field(min_length=2, max_length=2)]


class Plane(Table):
    """A plane detector, as detcal.sensor.PlanarGeometry."""

    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    pixel_size_m: Annotated[list[float], Field(min_length=2, max_length=2)]
    distance_m: float
    poni_m: Annotated[list[float], Field(min_length=2, max_length=2)]


PLANE = "[plane]"  # in brackets, as pydantic writes the names of types that are no part of a place in the recipe
Geometry = Annotated[
    Annotated[Plane, Tag(PLANE)] | Annotated[InputPath, Tag("[path]")],
    Discriminator(lambda given: "[path]" if isinstance(given, str) else PLANE),
]


class Input(Table):
    """The raw frames."""

    path: InputPath | Annotated[list[InputPath], Field(min_length=1)] = Field(
        description="HDF5/NeXus, zarr or .npy file, or EDF, CBF, TIFF files: a path, a list or a glob", examples=["scan.h5"]
    )
    dataset: str | None = Field(
        None, description="where the frames are in an HDF5 or zarr file; by itself the only 3-D one", examples=["/entry/data/data"]
    )
    frames: Frames = Field(
        None, description='a number, a list, a slice such as "10:50", or by the image_key "projections", "flats", "darks"', examples=["::2"]
    )
    flip: Flip | None = Field(None, description="reverse rows (ud), columns (lr) or both", examples=["ud"])
    chunk_frames: int | None = Field(None, gt=0, description="frames a task; by itself what the memory allows", examples=[16])
    mask: Image | None = Field(None, description="what was not measured: an image (not 0), or a response", examples=["mask.edf"])
    dummy: float | Annotated[list[float], Field(min_length=1)] | None = Field(
        None, description="number or numbers that stand for no reading; default: what the file, or else its type, says", examples=[-1]
    )
    valid_range: Ends | None = Field(None, description="(low, high): what is outside is no reading", examples=[[0.0, 60000.0]])


class FitResponse(Table):
    """Fit the pixels' gains to a beam sweep."""

    operation: Literal["fit_response"]
    dark: Darks | None = Field(None, description="dark image or frames: a path, or { path, dataset, frames, flip }", examples=["dark.h5"])
    mask: Image | None = Field(None, description="known bad pixels: an image (not 0: bad), or an earlier response", examples=["first.zarr"])
    sigma: float = Field(50.0, gt=0, description="of the gaussian that gives the expected signal, pixels")
    cutoff: float = Field(300.0, description="smoothed signals below it are left out, counts")
    order: Literal[1, 2] = Field(1, description="1: linear; 2: with a curvature")
    intercept: bool = Field(False, description="fit an offset too; else the line goes through the origin")
    boundary: Literal["nearest", "reflect", "mirror", "wrap"] = Field(
        "nearest", description="beyond the edge: nearest, reflect, mirror or wrap"
    )
    truncate: float = Field(4.0, gt=0, description="radius of the gaussian, sigmas")
    dummy: float | None = Field(None, description="stands for no reading, in the dark too, in place of all other flags", examples=[-1])


class CorrectResponse(Table):
    """Take off the dark, multiply by the gain, divide by the flat."""

    operation: Literal["correct_response"]
    response: Image = Field(description="what fit_response wrote, or an image of gains", examples=["response.zarr"])
    dark: Darks | None = Field(None, description="dark image or frames: a path, or { path, dataset, frames, flip }", examples=["dark.h5"])
    flat: Flats | None = Field(None, description="sample-free image or frames", examples=["flat.h5"])
    flat_is_dark_subtracted: bool = Field(False, description="the flat has had its dark taken off already")
    residual_sigma: float | None = Field(
        None, ge=0, description="keep what the flat still shows above this many standard deviations", examples=[3.0]
    )
    dummy: float | None = Field(None, description="stands for no reading, in dark and flat too, in place of all other flags", examples=[-1])


class BuildPSF(Table):
    """The blur of a thick sensor as a sparse matrix; there are no frames, and so no [input]."""

    operation: Literal["build_psf"]
    geometry: Geometry = Field(description=".poni file, or { shape, pixel_size_m, distance_m, poni_m }", examples=["detector.poni"])
    thickness_m: float | None = Field(None, gt=0, description="of the sensor, m; default: what the geometry says", examples=[450e-6])
    material: str | None = Field(
        None, description="of the sensor: Si, CdTe, … or a formula, with its density; default: what the geometry says", examples=["Si"]
    )
    energy_kev: float | None = Field(None, gt=0, description="of the photons; by itself the geometry's", examples=[17.4])
    attenuation_per_m: float | None = Field(None, gt=0, description="in place of a material and an energy, 1/m", examples=[1500.0])
    absorption: Literal["total", "energy"] = Field("total", description="total: all that leaves the beam; energy: what stays in the sensor")
    density_g_cm3: float | None = Field(None, gt=0, description="in place of the tabulated one, g/cm³", examples=[2.33])
    mask: Image | None = Field(
        None, description="pixels that record nothing: an image (not 0), or a response; by itself the geometry's", examples=["mask.edf"]
    )
    tile_rows: int | None = Field(None, gt=0, description="rows of the detector a task; by itself what the memory allows", examples=[64])


class Deconvolve(Table):
    """Undo the blur of a thick sensor."""

    operation: Literal["deconvolve"]
    psf: InputPath = Field(description="what build_psf wrote", examples=["psf.zarr"])
    method: Literal["direct", "lsmr", "mlem"] = Field(
        "direct", description="direct: exact; lsmr: least squares; mlem: non-negative, of highest likelihood"
    )
    max_iterations: int | None = Field(None, gt=0, description="lsmr, mlem: at most so many; fewer are smoother", examples=[20])
    tolerance: float | None = Field(None, gt=0, lt=1, description="lsmr, mlem: when to end", examples=[1e-4])
    dummy: float | None = Field(None, description="stands for no reading, also in the result, which else has NaN", examples=[-1])


class FitDistortion(Table):
    """Find a camera's distortion from an image of a hole grid."""

    operation: Literal["fit_distortion"]
    pitch_m: float = Field(gt=0, description="distance between neighbouring holes, m", examples=[5e-3])
    method: Literal["auto", "polynomial", "cubic"] = Field(
        "auto", description="polynomial; cubic: with local cubics through what it misses; auto: what predicts dots best"
    )
    order: int | None = Field(None, ge=1, le=30, description="of the polynomial; by itself the best", examples=[5])
    dots: Literal["auto", "bright", "dark"] = Field("auto", description="brighter or darker than what is around them")
    dot_diameter_px: float | None = Field(None, gt=1, description="pixels; by itself found from the image", examples=[20.0])
    spacing_px: float | None = Field(None, gt=1, description="pixels; by itself found from the image", examples=[97.0])
    mask: Image | None = Field(None, description="pixels not to look at: an image (not 0: bad), or a response", examples=["mask.edf"])


class CorrectDistortion(Table):
    """Bring frames to where an even camera would have them."""

    operation: Literal["correct_distortion"]
    distortion: InputPath = Field(
        description="what fit_distortion wrote, a NeXus detector file, or a Fit2D .spline", examples=["distortion.zarr"]
    )
    conserve: Literal["counts", "mean"] = Field("counts", description="counts: no count is lost or made; mean: an even light stays even")
    variance: Literal["poisson"] | None = Field(None, description="poisson: write variances too, of counts", examples=["poisson"])
    coverage: bool = Field(False, description="write how much of each pixel is covered, and the mask of those that are not")
    mask: Image | None = Field(None, description="bad pixels: an image (not 0: bad), or a response", examples=["mask.edf"])
    shape: Literal["cover"] | Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        None, description='rows and columns of the result; "cover": all that the camera sees; by itself the camera\'s', examples=["cover"]
    )
    pixel_size_m: Ends | None = Field(None, description="(y, x) of the result, m; by itself the map's", examples=[[5e-5, 5e-5]])
    origin_m: Ends | None = Field(None, description="(y, x) of its outer corner, m; by itself 0, or for cover", examples=[[0.0, 0.0]])
    dummy: float | None = Field(None, description="stands for no reading, also in the result, which else has NaN", examples=[-1])


class InRings(Table):
    """What all steps have in common that bring frames to profiles."""

    operation: str
    geometry: InputPath = Field(description=".poni file", examples=["detector.poni"])
    npt: int = Field(1000, gt=0, description="number of rings")
    unit: str = Field("q_nm^-1", description="of the radius: q_nm^-1, q_A^-1, 2th_deg, 2th_rad, r_mm, …")
    split: Literal["no", "bbox", "full"] = Field("no", description="no: a pixel is in one ring; bbox, full: in all that it touches")
    npt_azimuth: int | None = Field(None, gt=0, description="cut each ring in so many parts", examples=[36])
    radial_range: Ends | None = Field(None, description="in the unit; by itself the whole detector", examples=[[1.0, 50.0]])
    azimuth_range: Ends | None = Field(None, description="degrees; by itself all around", examples=[[-90.0, 90.0]])
    mask: Image | None = Field(
        None, description="bad pixels: an image (not 0: bad), or a response; by itself the detector's", examples=["mask.edf"]
    )
    dark: Darks | None = Field(None, description="dark image or frames: a path, or { path, dataset, frames, flip }", examples=["dark.h5"])
    flat: Flats | None = Field(None, description="flat image or frames, dark taken off", examples=["flat.h5"])
    polarization: float | None = Field(None, ge=-1, le=1, description="factor, 1 for a beam polarised horizontally", examples=[0.99])
    solid_angle: bool = Field(True, description="divide by the solid angle of the pixels")
    dummy: float | None = Field(
        None, description="stands for no reading; default: what the file, the detector or the type says", examples=[4294967295]
    )


class SigmaClip(InRings):
    """Average in rings without outliers."""

    operation: Literal["sigma_clip"]
    threshold: float = Field(5.0, gt=0, description="further from the mean than so many standard deviations: left out")
    max_iterations: int = Field(5, ge=0, description="clip at most so many times")
    error_model: Literal["azimuthal", "poisson", "hybrid"] = Field(
        "azimuthal",
        description="azimuthal: by the spread in the ring; poisson: by the counts; hybrid: errors of poisson",
    )


class MedianFilter(InRings):
    """The median of each ring, or the mean between two quantiles."""

    operation: Literal["median_filter"]
    quantiles: Ends = Field([0.5, 0.5], description="from 0 to 1: the mean of what lies between")


class Integrate(InRings):
    """Average in rings."""

    operation: Literal["integrate"]
    error_model: Literal["poisson", "azimuthal", "no"] = Field(
        "poisson", description="poisson: errors by the counts; azimuthal: by the spread in the ring; no: none"
    )


class OfScan(Table):
    """What all steps have in common that begin with an X-ray fluorescence scan, in place of frames."""

    operation: str
    scan: InputPath = Field(description="HDF5 file of a Crono scanner", examples=["scan.h5"])
    motor_step_um: float = Field(1.0, gt=0, description="length of a motor step, µm")


class ConvertCrono(OfScan):
    """Smooth the spectra of a scan, and lay out those that its instrument selected; there are no frames, and so no [input]."""

    operation: Literal["convert_crono"]
    sigma_channels: float = Field(7.0, gt=0, description="of the gaussian along the energy, channels")
    chunk_spectra: int | None = Field(None, gt=0, description="spectra a task; by itself what the memory allows", examples=[512])


AUTO = "[auto]"  # in brackets, as PLANE
Lag = Annotated[
    Annotated[Literal["auto"], Tag(AUTO)] | Annotated[float, Tag("[columns]")],
    Discriminator(lambda given: AUTO if isinstance(given, str) else "[columns]"),
]


class RegridXRF(OfScan):
    """Put all spectra of a scan on a regular grid, by their true positions; there are no frames, and so no [input]."""

    operation: Literal["regrid_xrf"]
    method: Literal["drizzle", "linear", "nearest", "gaussian", "selected"] = Field(
        "drizzle", description="drizzle: every count kept; linear, nearest, gaussian; selected: those that the instrument chose"
    )
    step: Ends | None = Field(
        None, description="(y, x) of a pixel, µm; by itself the distances of the lines and spectra", examples=[[500.0, 800.0]]
    )
    line_lag: Lag | None = Field(
        None, description="columns that positions lag behind; auto: found by reading all spectra", examples=["auto"]
    )
    sigma_channels: float | None = Field(None, gt=0, description="also smooth along the energy, channels", examples=[7.0])
    quantity: Literal["rate", "counts"] = Field("rate", description="rate: a live second; counts: where the file has no live times")
    variance: bool = Field(False, description="write the variances of rates too")
    elements: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="write maps of these too", examples=[["Fe", "Pb-L"]]
    )
    element_method: Literal["fit", "window"] = Field("fit", description="fit: patterns of all lines; window: about the strongest")
    fwhm_kev: float = Field(0.14, gt=0, description="resolution of the detector at 5.9 keV")
    tile_lines: int | None = Field(None, gt=0, description="lines of the map a task; by itself what the memory allows", examples=[4])

    @model_validator(mode="after")
    def variances_are_of_rates(self) -> "RegridXRF":
        """Counts have none here."""
        if self.variance and self.quantity == "counts":
            raise ValueError("variances are of rates: leave variance or quantity out")
        return self


WithoutFrames = BuildPSF | OfScan
Step = Annotated[
    FitDistortion | CorrectDistortion | FitResponse | CorrectResponse | BuildPSF | Deconvolve | SigmaClip | MedianFilter | Integrate
    | ConvertCrono | RegridXRF,
    Field(discriminator="operation"),
]  # fmt: skip


def what_is_no_frames(step: Step) -> str | None:
    """What a step gives, if no frames for the next."""
    match step:
        case FitResponse() | FitDistortion():
            return "a calibration"
        case InRings():
            return "profiles"
        case CorrectDistortion() if step.variance or step.coverage:
            return "variance or coverage"
    return None


class Output(Table):
    """Where the result goes."""

    path: OutputPath = Field(description=".zarr, .h5 or .nxs (NeXus); frames also .tif or .edf", examples=["corrected.zarr"])
    overwrite: bool = Field(False, description="replace an output that exists, once the new one is whole")
    shard_frames: int | None = Field(None, gt=0, description="zarr only: frames a shard, with a chunk for each frame", examples=[64])


class Compute(Table):
    """What the run may use."""

    memory: Annotated[ByteSize, Field(gt=0)] | None = Field(
        None, description="of the whole process; default: half of what is free", examples=["4GiB"]
    )
    workers: int | None = Field(None, gt=0, description="tasks at once; default: one a core", examples=[4])
    scheduler: str | None = Field(None, description="a running Dask cluster, in place of this process", examples=["tcp://host:8786"])

    @model_validator(mode="after")
    def cluster_has_its_own_limits(self) -> "Compute":
        """Memory and workers are of a run in this process."""
        if self.scheduler is not None and (self.memory is not None or self.workers is not None):
            raise ValueError("a scheduler's workers have limits of their own: leave memory and workers out")
        return self


class Recipe(Table):
    """A whole recipe."""

    steps: list[Step] = Field(min_length=1)
    input: Input | None = Field(None, validate_default=True)
    output: Output
    compute: Compute = Compute()
    _file: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def what_one_file_holds_is_turned_over_alike(self) -> "Recipe":
        """Darks and flats that lie in the file of the frames were recorded by the same pixels."""
        frames = self.input
        for name, source in [each for step in self.steps for each in step]:
            if frames and isinstance(source, DarkSource | FlatSource) and source.path == frames.path and source.flip != frames.flip:
                raise ValueError(f"{name} lies in the file of the frames: give it the same flip as [input]")
        return self

    @property
    def file(self) -> Path | None:
        """Where the recipe was read from."""
        return self._file

    def inputs(self) -> list[str]:
        """Every path that the recipe reads from, in whatever table."""
        return list(dict.fromkeys(paths_in(self)))

    @field_validator("steps")
    @classmethod
    def only_the_last_gives_no_frames(cls, steps: list[Step]) -> list[Step]:
        """Steps need frames, which a step that calibrates does not give; some take none either."""
        alone = [step.operation for step in steps if isinstance(step, WithoutFrames)]
        if len(steps) > 1 and alone:
            raise ValueError(f"{alone[0]} takes no frames, and gives none: make it the only step")
        for step in steps[:-1]:
            if given := what_is_no_frames(step):
                raise ValueError(f"{step.operation} gives {given}, not frames: make it the last step")
        return steps

    @field_validator("input")
    @classmethod
    def frames_where_they_are_needed(cls, frames: Input | None, info: ValidationInfo) -> Input | None:
        """There must be some, but for steps that begin with something else."""
        for first in info.data.get("steps", [])[:1]:
            if frames is None and not isinstance(first, WithoutFrames):
                raise ValueError(f"missing: {first.operation} takes frames")
            if frames is not None and isinstance(first, WithoutFrames):
                raise ValueError(f"{first.operation} takes no frames: leave [input] out")
        return frames


def paths_in(value: Any) -> Iterator[str]:
    """The paths to read from in a table, list or value."""
    if isinstance(value, InputFile):
        yield str(value)
    elif isinstance(value, BaseModel | list | tuple):
        for each in value:
            yield from paths_in(each[1] if isinstance(value, BaseModel) else each)


STEPS: dict[str, type[Table]] = {
    "fit_response": FitResponse, "correct_response": CorrectResponse, "build_psf": BuildPSF, "deconvolve": Deconvolve,
    "fit_distortion": FitDistortion, "correct_distortion": CorrectDistortion,
    "sigma_clip": SigmaClip, "median_filter": MedianFilter, "integrate": Integrate,
    "convert_crono": ConvertCrono, "regrid_xrf": RegridXRF,
}  # fmt: skip


def read_recipe(path: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Recipe:
    """Read a recipe; `changes` are tables of values from the command line that take the place of its own.

    Raises
    ------
    RecipeError
        With a line for each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"no such recipe: {path} (detcal init NAME writes one)") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from None
    for table, given in (changes or {}).items():
        if isinstance(values.setdefault(table, {}), dict):
            values[table].update(given)
    try:
        recipe = Recipe.model_validate(values, context={"folder": path.parent})
    except ValidationError as error:
        mistakes = describe_all(error, key_lines(text))
        raise RecipeError("\n".join([f"{count(mistakes)} in {path}:", *mistakes])) from None
    recipe._file = path.absolute()
    return recipe


def describe_all(error: ValidationError, lines: dict[tuple[str | int, ...], int]) -> list[str]:
    """A line for each mistake, in the order of the file; where a value may be of several types, the first type's."""
    first: dict[tuple[str | int, ...], ErrorDetails] = {}
    for mistake in error.errors():
        first.setdefault(place_of(mistake), mistake)
    return [describe(first[place], lines) for place in sorted(first, key=lambda place: find_line(place, lines))]


def count(mistakes: list[str]) -> str:
    """1 mistake, 2 mistakes."""
    return f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"


def place_of(mistake: ErrorDetails) -> tuple[str | int, ...]:
    """Where in the recipe: pydantic's place without the names of the models that it tried."""
    place = tuple(part for part in mistake["loc"] if part not in STEPS and "[" not in str(part))
    return (*place, "operation") if mistake["type"].startswith("union_tag") else place


def find_line(place: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> int:
    """The line of the nearest enclosing key that has one; 0 if none has."""
    return next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), 0)


def describe(mistake: ErrorDetails, lines: dict[tuple[str | int, ...], int]) -> str:
    """One line: where it is, what is wrong, what was probably meant."""
    place = place_of(mistake)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    line = find_line(place, lines)
    where = f"  {name}" + (f" (line {line})" if line else "")
    match mistake["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key{suggest(str(place[-1]), known_keys(mistake['loc']))}"
        case "missing":
            return f"{where}: missing"
        case "union_tag_invalid":
            return f"{where}: unknown operation{suggest(str(mistake['input'].get('operation')), list(STEPS))}"
        case "union_tag_not_found":
            return f"{where}: missing; one of {', '.join(STEPS)}"
        case "value_error":
            return f"{where}: {mistake['ctx']['error']}"
        case "model_type":
            table = Plane if PLANE in mistake["loc"] else Source
            return f"{where}: expected a path, or {{ {', '.join(table.model_fields)} }}, got {mistake['input']!r}"
        case "byte_size" | "byte_size_unit":
            return f"{where}: expected a size such as 4GiB, got {mistake['input']!r}"
    return f"{where}: {mistake['msg'].lower()}, got {mistake['input']!r}"


def suggest(wrong: str, known: list[str]) -> str:
    """The nearest known name, or all of them."""
    near = get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def known_keys(place: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    if place[0] == "steps":
        return list((Plane if PLANE in place else Source if len(place) > 4 else STEPS[str(place[2])]).model_fields)
    tables: dict[str, type[Table]] = {"input": Input, "output": Output, "compute": Compute}
    return list((Recipe if len(place) == 1 else tables[str(place[0])]).model_fields)


def key_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line of each table and each key that begins one, by its place in the recipe."""
    lines: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    repeats: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([\w.-]+)\s*\]", line):
            name = header[2]
            table = (name,)
            if header[1] == "[[":
                table = (name, repeats.setdefault(name, 0))
                repeats[name] += 1
            lines[table] = number
        elif key := re.match(r"\s*([\w-]+)\s*=", line):
            lines[(*table, key[1])] = number
    return lines
