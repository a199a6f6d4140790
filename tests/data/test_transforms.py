"""Images changed at random: by the generator alone, and never into something else."""

import numpy as np
import pytest

from penjing.data.transforms import flipped, shifted, zoomed
from pictures import pixels

IMAGES = pixels(12, size=16)[0].transpose(0, 3, 1, 2)
WAYS = {"flipped": flipped, "shifted": lambda x, g: shifted(x, g, by=2), "zoomed": zoomed}


@pytest.mark.parametrize("name", WAYS)
def test_a_transform_is_a_function_of_the_generator(name: str) -> None:
    way = WAYS[name]
    one, same, other = (way(IMAGES, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == IMAGES.shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_flipped_images_are_mirrored_or_as_they_were() -> None:
    mirrored = IMAGES[..., ::-1]
    kinds = {
        bool(np.array_equal(a, b)): True
        for a, b, c in zip(flipped(IMAGES, np.random.default_rng(0)), IMAGES, mirrored, strict=True)
        if np.array_equal(a, b) or np.array_equal(a, c)
    }
    assert set(kinds) == {True, False}


def test_shifted_images_are_windows_of_the_padded_image() -> None:
    found = shifted(IMAGES, np.random.default_rng(0), by=2)
    wide = np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for one, whole in zip(found, wide, strict=True):
        windows = [whole[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        assert any(np.array_equal(one, window) for window in windows)


def test_a_part_brought_to_full_size_keeps_a_constant_image_constant() -> None:
    same = np.full((4, 3, 16, 16), 77, np.uint8)
    assert (zoomed(same, np.random.default_rng(0)) == 77).all()


def test_zoomed_shows_parts_of_the_image_where_they_lie() -> None:
    """A ramp from left to right stays one: its slope is the share of the width that is shown."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 4, (8, 3, 64, 64))
    found = zoomed(ramp, np.random.default_rng(3)).astype(float)
    slopes = np.diff(found[:, 0, 32, 8:56]).mean(1) / 4
    assert (slopes > 0.3).all()
    assert (slopes < 1.01).all()
    assert np.abs(np.diff(found[:, 0, 32, 8:56], n=2)).max() <= 2
