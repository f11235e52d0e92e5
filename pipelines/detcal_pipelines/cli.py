"""The command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detcal_pipelines.exits import FAILED, QUARANTINED, clear_exit, show_plainly

if TYPE_CHECKING:  # what takes its time to import is not for `detcal --help`: commands import what they need
    from detcal_pipelines.recipe import Recipe


class Bytes(click.ParamType):
    """1GiB, 800MB, 2e9."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        from pydantic import ByteSize, TypeAdapter, ValidationError

        try:
            size = int(TypeAdapter(ByteSize).validate_python(value))
        except ValidationError:
            size = 0
        if size <= 0:
            self.fail(f"expected a size such as 1GiB, got {value}", param, ctx)
        return size


RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
MEMORY = click.option("--memory", type=Bytes(), help="Memory of the whole process, such as 4GiB; default: half of what is free.")
WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Tasks at once; default: one a core.")
SCHEDULER = click.option("--scheduler", help="A running Dask cluster, such as tcp://host:8786.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an output that exists.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="detcal")
def main() -> None:
    """From the raw frames of X-ray detectors to corrected science data, out of core.

    Begin with `detcal demo`; for data of your own, `detcal steps` lists what there is, and `detcal init NAME` writes a recipe for it.
    """


@main.command()
@click.argument("name", required=False)
@clear_exit
def steps(name: str | None) -> None:
    """List all steps of recipes, or show the keys of one."""
    if name is None:
        from detcal_pipelines.listing import list_steps

        lines = list_steps()
    else:
        from detcal_pipelines.catalogue import show_step

        lines = show_step(name)
    for line in lines:
        click.echo(line)


@main.command()
@click.argument("name")
@clear_exit
def init(name: str) -> None:
    """Write a commented recipe for the step NAME, NAME.toml, into this folder; `detcal steps` lists them."""
    from detcal.errors import OutputError
    from detcal_pipelines.template import render

    text = render(name)
    path = Path(f"{name}.toml")
    if path.exists():
        raise OutputError(f"{path} exists already: move it away, or work on with it")
    path.write_text(text)
    click.echo(f"wrote {path}: fill in the paths, then\n  detcal check {path}\n  detcal run {path}")


@main.command()
@RECIPE
@OVERWRITE
@clear_exit
def check(recipe: Path, overwrite: bool) -> None:
    """Find every mistake in a recipe, and open its input."""
    from detcal_pipelines.checking import check_recipe

    check_recipe(told(recipe, overwrite))
    click.echo(f"{recipe} is good: detcal plan {recipe} shows what it will take")


@main.command()
@RECIPE
@MEMORY
@WORKERS
@clear_exit
def plan(recipe: Path, memory: int | None, workers: int | None) -> None:
    """Show what a run would read, write and hold in memory; what a run would refuse is refused here too, but an output that exists."""
    from rich.console import Console

    from detcal_pipelines.plan import here
    from detcal_pipelines.report import plan_table
    from detcal_pipelines.run import job_of

    asked = told(recipe, False).output
    if Path(asked.path).exists() and not asked.overwrite:
        show_plainly(f"{asked.path} exists already: a run needs another name, or --overwrite (overwrite = true under [output])")
    found, console = told(recipe, True, memory=memory, workers=workers), Console()
    with job_of(found, console) as job:
        console.print(plan_table(job.prepare([here(limits(found))])[1]))


@main.command()
@RECIPE
@MEMORY
@WORKERS
@SCHEDULER
@OVERWRITE
@click.option("--restart", is_flag=True, help="Begin anew, whatever a run that broke off has done.")
@click.option("--log", type=click.Path(path_type=Path), help="Add to this file what is done, when.")
@click.option(
    "--max-bad", type=click.IntRange(min=0), help="Frames or spectra that may be unreadable or missing; default: any number, but not all."
)
@click.option("--strict", is_flag=True, help="As --max-bad 0.")
@click.option(
    "--dry-run", is_flag=True, help="Run one block of everything on this machine, keep nothing, and tell how long the run will take."
)
@clear_exit
def run(
    recipe: Path,
    memory: int | None,
    workers: int | None,
    scheduler: str | None,
    overwrite: bool,
    restart: bool,
    log: Path | None,
    max_bad: int | None,
    strict: bool,
    dry_run: bool,
) -> None:
    """Run a recipe; one that broke off goes on where it stopped. Beside the output a report of it is written.

    Frames and spectra of the input that cannot be read, or are not there, become NaN, are listed in ledger and report, and make the exit
    code 3.
    """
    from rich.console import Console

    from detcal_pipelines.logs import logged_to
    from detcal_pipelines.report import outcome_table, trial_table
    from detcal_pipelines.run import job_of
    from detcal_pipelines.trial import try_one_block

    found, console = told(recipe, overwrite, memory=memory, workers=workers, scheduler=scheduler), Console()
    if log is not None:
        check_log(log, found)
    with logged_to(log), job_of(found, console, restart=restart, most_bad=0 if strict else max_bad) as job:
        if dry_run:
            console.print(trial_table(try_one_block(job, limits(found))))
            return
        outcome = job.run(limits(found))
    console.print(outcome_table(outcome))
    if outcome.quarantine.noted:
        click.echo(f"warning: {outcome.quarantine.describe()}; {outcome.output} has NaN there, or is made without them", err=True)
        sys.exit(QUARANTINED)


@main.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Look again each second until the run ends.")
@clear_exit
def status(output: Path, watch: bool) -> None:
    """Show how the run of an output is: at work, broken off, or whole."""
    from rich.console import Console

    from detcal_pipelines.status import describe, status_of
    from detcal_pipelines.status import watch as watch_run

    if watch:
        watch_run(output, Console())
        return
    for line in describe(status_of(output)):
        click.echo(line)


@main.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--text", is_flag=True, help="Show it here as text, in place of writing OUTPUT.html.")
@clear_exit
def report(output: Path, text: bool) -> None:
    """Write the report of an output anew, as OUTPUT.html beside it: what made it, from what, at what cost, and how it looks."""
    from detcal_pipelines.reports.gathering import report_of
    from detcal_pipelines.reports.plain import as_text
    from detcal_pipelines.reports.writing import write_report

    click.echo(as_text(report_of(output)) if text else f"wrote {write_report(output)}")


@main.command()
@click.argument("place", type=click.Path(path_type=Path), default=".")
@clear_exit
def clean(place: Path) -> None:
    """Remove what runs that broke off have left in a folder (default: this one), or of one output; they cannot go on then."""
    from detcal_pipelines.clean import clean as remove_remains

    for line in list(remove_remains(place)) or [f"nothing is left in {place}"]:
        click.echo(line)


@main.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Compute again what is bad, from the same inputs; remove what does not belong there.")
@MEMORY
@WORKERS
@clear_exit
def verify(output: Path, repair: bool, memory: int | None, workers: int | None) -> None:
    """Check every file of an output, or of what detcal.save wrote: chunks, metadata, files too many, the ledger. Exit code 1: some are bad.

    --memory and --workers are for --repair.
    """
    from dask.system import CPU_COUNT
    from rich.console import Console

    from detcal_pipelines.repair import repair as mend
    from detcal_pipelines.verify import verify as look

    if repair:
        before, found = mend(output, (memory or free_memory() // 2, workers or CPU_COUNT), Console())
        for line in before.lines() if before is not found else ():
            click.echo(f"before the repair: {line}")
    else:
        found = look(output)
    for line in found.lines():
        click.echo(line)
    if not found.sound:
        sys.exit(FAILED)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@clear_exit
def tree(path: Path) -> None:
    """List what a zarr store or HDF5 file holds."""
    from detcal.stores import tree as draw_tree

    click.echo(draw_tree(path))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", help="Where the frames are in the file; default: what the file says, or the only 3-D one.")
@click.option("--output", type=click.Path(path_type=Path), help="The picture; default: FILE.preview.png in this folder.")
@OVERWRITE
@clear_exit
def preview(file: Path, dataset: str | None, output: Path | None, overwrite: bool) -> None:
    """Look at a few frames of a file: draw three and the histogram, and say what of them was measured."""
    from detcal.first_look import draw_sample, look_at
    from detcal.stores import check_apart
    from detcal.stores.targets.replacing import check_free

    picture = output or Path(f"{file.name}.preview.png")
    check_free(picture, overwrite)
    check_apart(picture, [file])
    sample = look_at(file, dataset)
    click.echo(sample.text)
    draw_sample(sample).savefig(picture, format="png", dpi=100)
    click.echo(f"wrote {picture}")


@main.command()
@click.option("--memory", type=Bytes(), default="1GiB", show_default=True, help="Memory of the whole process.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default="detcal-demo", show_default=True, help="Where the demo writes; must not exist."
)
@clear_exit
def demo(memory: int, folder: Path) -> None:
    """Simulate a beam sweep and a CT scan, correct the scan, and draw a picture.

    The data are larger than the memory that the demo may use.
    """
    from rich.console import Console

    from detcal_pipelines.demo import run_demo

    run_demo(folder, memory, Console())


def told(recipe: Path, overwrite: bool, **given: Any) -> "Recipe":
    """A recipe, with what the command line says in place of what is in it."""
    from detcal_pipelines.recipe import read_recipe

    output = {"output": {"overwrite": True}} if overwrite else {}
    return read_recipe(recipe, {**changes(**given), **output})


def changes(**compute: Any) -> dict[str, dict[str, Any]]:
    """What the command line sets in the recipe's [compute]."""
    return {"compute": {name: value for name, value in compute.items() if value is not None}}


def check_log(log: Path, recipe: "Recipe") -> None:
    """Refuse to add a log to what a run reads or writes."""
    from detcal.stores import check_apart, find_paths

    named = [*(file for path in recipe.inputs() for file in find_paths(path)), recipe.output.path]
    check_apart(log, [*named, *([] if recipe.file is None else [recipe.file])], "file of the run")


def limits(recipe: "Recipe") -> tuple[int, int]:
    """Bytes and tasks at once that a run on this machine may use."""
    from dask.system import CPU_COUNT

    return int(recipe.compute.memory or free_memory() // 2), recipe.compute.workers or CPU_COUNT


def free_memory() -> int:
    """Bytes that are free, and that this process may have: a batch system gives a job less than there is."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return min(psutil.virtual_memory().available, MEMORY_LIMIT)
