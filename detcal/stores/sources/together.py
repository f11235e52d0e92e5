"""What the files of a list say of their frames, brought together: what holds for all of them, and what for those of each alone.

Frames have one set of attributes. So flags that differ are applied file by file, as NaN; facts that differ become coordinates; and what
must not differ, since frames would not be comparable, is refused: units, and what was corrected.
"""

import warnings
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np

from detcal.errors import InputError, MissingWarning
from detcal.frames.corrections import ATTRIBUTE
from detcal.frames.flags import MISSING, RANGE, Flags, by_attributes
from detcal.frames.valid import RECORDED
from detcal.stores.sources.detectors import detector_says
from detcal.stores.sources.facts import FACTS, factor_between
from detcal.stores.sources.joined import Joined, name_of, parts_of
from detcal.stores.sources.missing import MissingPart
from detcal.stores.sources.readers import Reader

Attrs = Mapping[str, Any]


def brought_together(reader: Reader, *, own_flags: bool) -> Reader:
    """Frames of several files with what these say together; any other stack as it is.

    Parameters
    ----------
    own_flags
        Whether the files say which numbers are no readings; else the caller does.

    Raises
    ------
    InputError
        Files with frames in other units, or to which something else was done.

    Warns
    -----
    MissingWarning
        A file that says nothing, in a list in which others do: what these say holds for it.
    UserWarning
        Files that flag different numbers, or mask different pixels.
    """
    if not isinstance(reader, Joined) or reader.said is not None:
        return reader
    parts = parts_of(reader)
    there = [part for part in parts if not isinstance(part, MissingPart)]
    names, says = [name_of(part) for part in there], [said_by(part) for part in there]
    check_same_corrections(names, says)
    said = {name: value for name, value in says[0].items() if name not in (*RANGE, MISSING)} | units_of(names, says)
    facts = differing_facts(names, says)
    said = {name: value for name, value in said.items() if name not in facts}
    lines = tuple((name, of_all(there, numbers, parts)) for name, numbers in facts.items() if numbers)
    kinds = (part.attrs().get(RECORDED) for part in parts if part.lacks is not None)
    recorded = next((kind for kind in kinds if kind is not None), None)
    said |= {} if recorded is None else {RECORDED: recorded}
    warn_of_masks(there, names)
    found = flags_of(there, names, says) if own_flags else []
    if len(set(found)) > 1:
        without = {name: value for name, value in said.items() if name != RECORDED}
        return Joined(tuple(parts), of_all(there, found, parts, Flags()), lines, without | {MISSING: nan})
    speaker = next((each for each in says if flags_in(each)), {})
    return Joined(tuple(parts), (), lines, said | flags_in(speaker))


def of_all(there: Sequence[Reader], values: Sequence[Any], parts: Sequence[Reader], other: Any = nan) -> tuple[Any, ...]:
    """Values of the parts that are there, with another one for those that are missing."""
    known = dict(zip(map(id, there), values, strict=True))
    return tuple(known.get(id(part), other) for part in parts)


def said_by(reader: Reader) -> dict[str, Any]:
    """What one file says of its frames; their own attributes say more of them than their detector does."""
    return {**detector_says(reader).attrs, **reader.attrs()}


def flags_in(attrs: Attrs) -> dict[str, Any]:
    """The attributes that say which numbers are no readings."""
    return {name: attrs[name] for name in (*RANGE, MISSING) if attrs.get(name) is not None}


def flags_of(there: Sequence[Reader], names: Sequence[str], says: Sequence[Attrs]) -> list[Flags]:
    """What is no reading in each file; in one that says nothing what the first says that does. None, where no file says anything."""
    own = [by_attributes(said, np.dtype(said.get(RECORDED, part.dtype))) for part, said in zip(there, says, strict=True)]
    speaker = next((place for place, flags in enumerate(own) if flags is not None), None)
    if speaker is None:
        return []
    silent = [name for name, flags in zip(names, own, strict=True) if flags is None]
    if silent:
        warnings.warn(
            f"{several(silent)} not say which numbers are no readings: what {names[speaker]} says holds ({in_words(says[speaker])})",
            MissingWarning, stacklevel=4,
        )  # fmt: skip
    found = [flags or own[speaker] or Flags() for flags in own]
    other = next((place for place, flags in enumerate(found) if flags != found[0]), None)
    if other is not None:
        warnings.warn(
            f"{names[0]} and {names[other]} say that different numbers are no readings ({in_words(says[0] or says[speaker])}; "
            f"{in_words(says[other])}): those of each file are NaN in its own frames",
            stacklevel=4,
        )
    return found


def in_words(attrs: Attrs) -> str:
    """The flags among attributes, as they are written."""
    return ", ".join(f"{name} = {value}" for name, value in flags_in(attrs).items())


def several(names: Sequence[str]) -> str:
    """The first of them, and how many more there are, with a verb."""
    return f"{names[0]} does" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more files do"


def check_same_corrections(names: Sequence[str], says: Sequence[Attrs]) -> None:
    """Refuse frames to which not the same was done: what is done to all of them later would be done twice to some."""
    done = [list(said.get(ATTRIBUTE, ())) for said in says]
    for name, each in zip(names, done, strict=True):
        if each != done[0]:
            raise InputError(
                f"expected frames to which the same was done in all files (their attribute {ATTRIBUTE}), got {done[0] or 'nothing'} in "
                f"{names[0]} and {each or 'nothing'} in {name}: work on each alone"
            )


def units_of(names: Sequence[str], says: Sequence[Attrs]) -> dict[str, str]:
    """The units of all frames; a file that names none has those of the others.

    Raises
    ------
    InputError
        Others in each of two files.
    """
    known = [(name, str(said["units"])) for name, said in zip(names, says, strict=True) if said.get("units")]
    if not known:
        return {}
    first, units = known[0]
    for name, other in known:
        if factor_between(other, units) != 1:
            raise InputError(
                f"expected frames in the same units in all files, got {units!r} in {first} and {other!r} in {name}: work on each alone, or "
                "bring them to the same units first"
            )
    silent = [name for name in names if name not in dict(known)]
    if silent and factor_between(units, "counts") != 1:
        warnings.warn(f"{several(silent)} not name units: they are taken as {units}, as in {first}", MissingWarning, stacklevel=4)
    return {"units": units}


def differing_facts(names: Sequence[str], says: Sequence[Attrs]) -> dict[str, list[float]]:
    """What the files do not say alike of how their frames were recorded, as numbers of each; none of what is a text, which is told."""
    found: dict[str, list[float]] = {}
    for name in FACTS:
        values = [said.get(name) for said in says]
        other = next((place for place, value in enumerate(values) if value != values[0]), None)
        if other is None:
            continue
        are_texts = any(isinstance(value, str) for value in values)
        found[name] = [] if are_texts else [nan if value is None else float(value) for value in values]
        if are_texts or None in values:
            kept = "is left out" if are_texts else "is NaN where it is not said"
            told = [f"{'not said' if values[place] is None else values[place]} in {names[place]}" for place in (0, other)]
            warnings.warn(f"{name} {kept}: it is {' and '.join(told)}", MissingWarning, stacklevel=4)
    return found


def warn_of_masks(there: Sequence[Reader], names: Sequence[str]) -> None:
    """Say so where files mask different pixels: masks add up, over files too."""
    masks = [detector_says(part).mask for part in there]
    other = next((place for place, mask in enumerate(masks) if mask is not masks[0]), None)  # equal ones are the same
    if other is not None:
        warnings.warn(f"{names[0]} and {names[other]} mask different pixels: what one file masks is NaN in the frames of all", stacklevel=4)
