"""What the files of a stack say of its detector, all of them together."""

from functools import reduce, singledispatch
from typing import Any

import numpy as np

from detcal.stores.sources.hdf5 import Hdf5Reader
from detcal.stores.sources.joined import Joined
from detcal.stores.sources.nxdetector import Said
from detcal.stores.sources.series import Hdf5Series


@singledispatch
def detector_says(reader: Any) -> Said:
    """What the file of a stack says of its detector."""
    return Said()


@detector_says.register
def _(reader: Hdf5Reader | Hdf5Series) -> Said:
    return reader.says.detector


@detector_says.register
def _(reader: Joined) -> Said:
    said = [detector_says(each) for each in reader.readers]
    masks = {id(each.mask): each.mask for each in said if each.mask is not None}
    return Said(reduce(np.logical_or, masks.values()) if masks else None)  # of attributes, what is said together is the reader's own
