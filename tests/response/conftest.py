"""What the tests of responses share."""

import pytest

from detcal import simulate


@pytest.fixture(scope="session")
def scene():
    """A small detector with its sweep, dark and flat."""
    detector = simulate.detector((41, 57), dead=3, stuck=2, seed=5)
    sweep = simulate.beam_sweep(detector, 24).compute()
    dark = simulate.dark_frames(detector, 5).compute()
    flat = simulate.flat_frames(detector, 5).compute()
    return detector, sweep, dark, flat
