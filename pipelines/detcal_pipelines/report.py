"""Plans and outcomes as tables."""

from rich.table import Table

from detcal_pipelines.plan import Plan, PlannedStep, size
from detcal_pipelines.quarantine import counted
from detcal_pipelines.run import Outcome
from detcal_pipelines.trial import Trial

HEADINGS = ("step", "in", "out", "bytes out", "memory a task")


def plan_table(planned: Plan) -> Table:
    """Each step with what goes in, what comes out and what a task of it holds."""
    table = Table(title="Plan", title_justify="left", caption_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading == "step")
    for step in planned.steps:
        table.add_row(*cells_of(step))
    table.caption = "\n".join([*copy_in_words(planned), work_in_words(planned), peak_in_words(planned)])
    return table


def cells_of(step: PlannedStep) -> tuple[str, ...]:
    """A step under the headings."""
    return step.operation, step.takes, step.gives, size(step.bytes_out), size(step.needs.task)


def copy_in_words(planned: Plan) -> list[str]:
    """What is copied first, and what that takes on the disk while the run lasts."""
    if planned.copy is None:
        return []
    rows = planned.copy.frames.data.chunksize[1]
    return [
        f"first the frames, which the file has by rows, are copied by {planned.copy.blocks} × {rows} rows to {planned.copy.store.name}: up "
        f"to {size(planned.copy.nbytes)} on disk while the run lasts"
    ]


def work_in_words(planned: Plan) -> str:
    """How much there is to do, and in how many blocks."""
    blocks = f"{planned.blocks} × {planned.depth} {planned.cut.unit}"
    return f"{blocks}, {size(planned.bytes_in)} in, {size(planned.bytes_out)} out (uncompressed)"


def peak_in_words(planned: Plan) -> str:
    """Memory at the peak, how much there may be, and open files."""
    tasks = f"{planned.tasks} task{'s' if planned.tasks > 1 else ''} at once"
    where = "" if len(planned.places) == 1 else f" of the fullest of {len(planned.places)} workers"
    return f"{tasks}: peak{where} {size(planned.peak_bytes)} of {size(planned.budget)}, up to {planned.files} open files"


def trial_table(trial: Trial) -> Table:
    """What one block took, and what the run will."""
    planned = trial.plan
    table = Table(title="Tried one block; nothing was kept", title_justify="left", show_header=False)
    table.add_row("first block", f"{trial.first:.2f} s, with what all share")
    table.add_row("each other block", f"{trial.block:.2f} s, {planned.tasks} at once, {trial.blocks} in all")
    table.add_row("the whole run", f"about {in_words(trial.seconds)}")
    written = f"about {size(trial.output_bytes)}" if trial.stored_bytes else f"up to {size(planned.bytes_out)}"
    table.add_row("the output", f"{written} on disk")
    table.add_row("peak memory, planned", f"{size(planned.peak_bytes)} of {size(planned.budget)}")
    table.add_row("peak memory, of one block", size(trial.peak_bytes))
    return table


def in_words(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def outcome_table(outcome: Outcome) -> Table:
    """What was planned and what was measured."""
    table = Table(title=f"Wrote {outcome.output}", title_justify="left", show_header=False)
    table.add_row("time", f"{outcome.seconds:.1f} s")
    table.add_row(f"{outcome.plan.cut.unit} a second", f"{outcome.rate:.0f}")
    table.add_row("bytes in", size(outcome.plan.bytes_in))
    table.add_row("bytes out", f"{size(outcome.plan.bytes_out)}, {size(outcome.stored_bytes)} on disk")
    table.add_row("peak memory, planned", f"{size(outcome.plan.peak_bytes)} of {size(outcome.plan.budget)}")
    table.add_row("peak memory, measured", "on other machines" if outcome.peak_bytes is None else size(outcome.peak_bytes))
    table.add_row("report", "none: see the warning" if outcome.report is None else str(outcome.report))
    if outcome.quarantine.noted:
        table.add_row("quarantined", counted(outcome.quarantine.noted))
    return table
