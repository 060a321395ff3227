from pathlib import Path

import numpy as np

from compress.formats.artifact import Artifact, IOSpec
from compress.measure.stability import recompressed, shifted, stability


def test_a_pixelwise_network_moves_with_the_picture(brightness):
    """What it sees at a pixel depends on that pixel alone."""
    images = np.random.default_rng(0).integers(0, 2, (3, 8, 8, 1)).astype(np.uint8).repeat(3, -1) * 255
    result = stability(brightness, images, threads=1)
    assert result.shift == (0.0, 0.0, 0.0)
    assert len(result.jpeg) == 3


def test_a_picture_at_the_threshold_flips_with_compression(brightness):
    """JPEG cannot keep a chequerboard of two greys that lie just beside 0.5 each."""
    images = np.random.default_rng(1).choice([127, 128], (1, 8, 8, 1)).astype(np.uint8).repeat(3, -1)
    (flips,) = stability(brightness, images, threads=1).jpeg
    assert flips > 0.2
    flat = np.full((1, 8, 8, 3), 200, np.uint8)
    assert stability(brightness, flat, threads=1).jpeg == (0.0,)


def test_at_most_16_images_evenly_spread():
    asked = []

    class Brightness:
        """A child that calls white what is brighter than the middle."""

        def __init__(self, path, threads):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def probabilities(self, image, mean, std):
            asked.append(int(image[0, 0, 0]))
            return image[None, :, :, 0] / np.float32(255)

    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 8, 8, 3))
    spec = IOSpec("image", (1, 8, 8, 3), "uint8", "NHWC")
    result = stability(Artifact(Path("model.tflite"), "tflite", "", 0, spec, spec), images, open_child=Brightness)
    assert len(result.shift) == 16
    assert asked[::3][0] == 0
    assert asked[::3][-1] == 99


def test_shift_and_jpeg_keep_shape_and_content():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    moved = shifted(image)
    np.testing.assert_array_equal(moved[1:, 1:], image[:-1, :-1])
    np.testing.assert_array_equal(moved[0, 1:], image[0, :-1])
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (64, 64, 3))
    assert np.abs(recompressed(smooth).astype(int) - smooth).max() < 8
    assert recompressed(image).shape == image.shape == moved.shape
    assert recompressed(image[..., :1]).shape == (9, 7, 1)


def test_what_is_neither_grey_nor_rgb_is_no_jpeg():
    class Flat:
        def __init__(self, path, threads):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def probabilities(self, image, mean, std):
            return np.zeros((1, 8, 8), np.float32)

    spec = IOSpec("image", (1, 8, 8, 4), "uint8", "NHWC")
    images = np.zeros((2, 8, 8, 4), np.uint8)
    result = stability(Artifact(Path("model.tflite"), "tflite", "", 0, spec, spec), images, open_child=Flat)
    assert (result.shift, result.jpeg) == ((0.0, 0.0), ())
