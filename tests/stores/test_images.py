"""One image where one is expected: a stack is none, and counts are neither gains nor a mask."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detcal_pipelines.chain import build
from detcal_pipelines.recipe import read_recipe

from detcal import response, save
from detcal.errors import InputError
from detcal.frames.images import mask_of_image, one_image
from tests.stores.recipes import CORRECT, FIT, RINGS, SHAPE, refused, write


@pytest.mark.parametrize(("step", "key"), [(CORRECT, "response"), (RINGS, "mask"), (FIT, "mask")], ids=["response", "rings", "fit"])
def test_a_stack_is_no_image_of_gains_nor_a_mask(step: str, key: str, folder: Path) -> None:
    (said,) = refused(write(step.format(**{key: '"scan.npy"'})))
    assert re.search(r"expected a .*one image, got a stack of 12 frames .*scan\.npy.*{ path = .*scan\.npy.*, frames = 0 }", said)


def test_a_chosen_frame_and_a_stack_of_one_are_images(folder: Path) -> None:
    np.save("gains.npy", np.stack([np.full(SHAPE, value, np.float32) for value in (2, 3, 4)]))
    np.save("one.npy", np.full((1, *SHAPE), 5, np.float32))
    raw = np.load("scan.npy")
    for source, gain in (('{ path = "gains.npy", frames = 1 }', 3), ('{ path = "gains.npy", frames = [-1] }', 4), ('"one.npy"', 5)):
        found = build(read_recipe(write(CORRECT.format(response=source))))
        np.testing.assert_allclose(found.values, raw * np.float32(gain))


def test_counts_are_no_gains(folder: Path) -> None:
    np.save("flat.npy", np.full(SHAPE, 2000.0, np.float32))
    for source, words in (
        ('{ path = "scan.npy", frames = 3 }', "uint16 with a median of"),
        ('"flat.npy"', "float32 with a median of 2000"),
    ):
        (said,) = refused(write(CORRECT.format(response=source)), "check")
        assert "expected gains, reals about 1, got counts" in said
        assert words in said
    for values in (np.full(SHAPE, 3), np.full(SHAPE, 101.0)):
        with pytest.raises(InputError, match="got counts"):
            response.Response.from_gain(values)
    for gains in (np.ones(SHAPE, int), np.full(SHAPE, np.nan), np.full(SHAPE, 0.01), np.zeros(SHAPE, int)):
        assert response.Response.from_gain(gains).shape == SHAPE
    with pytest.raises(InputError, match=r"expected gains, one image, got a stack of 3 frames: choose one, as frames\[0\]"):
        response.Response.from_gain(np.ones((3, *SHAPE)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(SHAPE, 700, np.uint16), "no 0, so that no pixel is left"),
        (np.linspace(0, 1, 72).reshape(SHAPE), "fractions"),
        (np.arange(400).reshape(20, 20), "400 different values"),
    ],
)
def test_counts_are_no_mask(values: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"expected a mask, 0 in good pixels.*got {words}"):
        mask_of_image(one_image(values, "a mask"))


def test_masks_of_all_kinds_are_masks() -> None:
    bad = np.eye(*SHAPE, dtype=bool)
    bits = np.where(bad, np.arange(9) + 2**31, 0).astype(np.uint32)
    for values in (bad, bad.astype(float) * 255, bits, np.where(bad, np.nan, 0.0), -bad.astype(np.int8), bad[None]):
        np.testing.assert_array_equal(mask_of_image(one_image(values, "a mask")), bad)


def test_a_response_has_no_frames_to_choose(folder: Path) -> None:
    (said,) = refused(write(CORRECT.format(response='{ path = "response.zarr", flip = "ud" }')), "check")
    assert "a response has no frames to choose or to turn over" in said


def test_masks_of_a_list_add_up(folder: Path) -> None:
    corner = np.zeros(SHAPE, np.uint8)
    corner[-1, 0] = 1
    np.save("corner.npy", corner)
    bad = np.eye(*SHAPE, dtype=bool)
    save(response.Response.from_gain(np.where(np.arange(9) == 4, np.nan, np.ones(SHAPE))), "columns.zarr")
    for given, expected in (
        ('["mask.npy", "corner.npy"]', bad | (corner > 0)),
        ('{ path = ["mask.npy", "columns.zarr"] }', bad | (np.arange(9) == 4)),
        ('["corner.npy"]', corner > 0),
    ):
        fitted = build(read_recipe(write(FIT.format(mask=given).replace("sigma", "cutoff = 1.0\nsigma"))))
        np.testing.assert_array_equal(fitted.mask, expected)


def test_masks_of_a_list_have_one_shape(folder: Path) -> None:
    np.save("small.npy", np.zeros((4, 5), np.uint8))
    (said,) = refused(write(FIT.format(mask='["mask.npy", "small.npy"]')), "check")
    assert re.search(r"expected masks of one shape, got \(8, 9\) in .*mask\.npy and \(4, 5\) in .*small\.npy", said)
