"""Parts of a stack that say which number their first frame has, as those of Dectris: what lies between them is missing, whatever files
and links there are."""

from collections.abc import Sequence
from dataclasses import replace

from detcal.sizes import MOST_ROWS, check_number
from detcal.stores.sources.hdf5 import FIRST, Hdf5Reader
from detcal.stores.sources.joined import Joined, parts_of
from detcal.stores.sources.missing import MissingPart
from detcal.stores.sources.readers import Reader


def numbered(reader: Reader) -> Reader:
    """Joined parts, each at its number; any other stack as it is."""
    parts = parts_of(reader)
    found = at_their_numbers(parts)
    return reader if found == parts else Joined(tuple(found))


def at_their_numbers(parts: Sequence[Reader]) -> list[Reader]:
    """Parts with as many missing frames between them as their numbers say; as they are, where some have none, or numbers begin anew."""
    there = [part for part in parts if not isinstance(part, MissingPart)]
    known = [part for part in there if isinstance(part, Hdf5Reader) and part.first_number is not None]
    if not known or len(known) < len(there):
        return list(parts)
    found: list[Reader] = []
    lost: list[MissingPart] = []
    expected = 1 if isinstance(parts[0], MissingPart) else known[0].first_number
    for part in parts:
        if isinstance(part, MissingPart):
            lost.append(part)
            continue
        assert isinstance(part, Hdf5Reader)
        assert part.first_number is not None
        assert expected is not None
        between = part.first_number - expected
        if between < 0:
            return list(parts)
        if between:
            check_number(between, MOST_ROWS, "frames", f"{part.path}::{part.dataset}")
            found.append(missing(between, lost, part, expected))
        found.append(part)
        lost, expected = [], part.first_number + part.shape[0]
    return [*found, *lost]


def missing(frames: int, lost: list[MissingPart], part: Hdf5Reader, expected: int) -> MissingPart:
    """So many frames before a part: those of parts that are known to be lost, or else of some of which nothing is left."""
    if lost:
        return replace(lost[0], shape=(frames, *part.shape[1:]))
    hint = f"; by {FIRST} of the parts that are there, images {expected} to {expected + frames - 1} are not"
    return MissingPart((frames, *part.shape[1:]), part.array.recorded, hint)
