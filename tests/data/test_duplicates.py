"""Pictures are found again whatever was done to their files, and different ones are not taken for copies."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data

from compress.data.duplicates import duplicates, fingerprints
from compress.data.images import checked

PHOTOS = {name: Image.fromarray(getattr(data, name)()) for name in ("chelsea", "coffee", "astronaut", "rocket")}


@pytest.fixture
def thumbnails_of(tmp_path):
    def of(*images, **options):
        found = []
        for number, image in enumerate(images):
            image.save(tmp_path / f"{number}.jpg", **options)
            found.append(checked(tmp_path / f"{number}.jpg")[1])
        return np.stack(found)

    return of


CHANGES = {
    "smaller": lambda photo: photo.resize((photo.width // 3, photo.height // 3)),
    "larger": lambda photo: photo.resize((photo.width * 2, photo.height * 2)),
    "stretched": lambda photo: photo.resize((256, 256)),
    "coarse JPEG": lambda photo: jpeg(photo, 10),
    "brighter": lambda photo: photo.point(lambda value: min(255, int(1.2 * value + 10))),
    "grey": lambda photo: photo.convert("L").convert("RGB"),
    "mirrored": lambda photo: photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def jpeg(photo, quality):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_the_photograph_it_was_made_from_and_no_other(thumbnails_of, change):
    originals = thumbnails_of(*PHOTOS.values())
    copies = thumbnails_of(*[CHANGES[change](photo) for photo in PHOTOS.values()])
    assert list(duplicates(copies, originals)) == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_one_hash_for_two_pictures_raises_no_alarm():
    """Blocks of two levels against the same with a strong fine pattern: the low frequencies of both are one."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(90, 160, (8, 8)), np.ones((4, 4)))
    fine = 60 * (np.indices((32, 32)).sum(0) % 2)
    images = [np.repeat(grey[..., None], 3, 2).astype(np.uint8)[None] for grey in (coarse, coarse + fine)]
    hashes = [fingerprints(image).hashes[0] for image in images]
    assert np.bitwise_count(hashes[0] ^ hashes[1]) <= 2
    assert list(duplicates(*images)) == []


def test_the_hash_has_a_bit_for_each_frequency_above_the_median():
    """A wave of one frequency: that bit is set, and as many others as lie above the median of rounding."""
    wave = 128 + 100 * np.cos(np.pi * (2 * np.arange(32) + 1) * 3 / 64)
    image = np.broadcast_to(wave[None, :, None], (32, 32, 3)).round().astype(np.uint8)
    bits = np.unpackbits(fingerprints(image[None]).hashes.view(np.uint8))
    assert bits[2] == 1  # frequency 3 along the rows, the constant being left out
    assert bits.sum() <= 31


def test_flat_pictures_duplicate_nothing():
    white, grey = (np.full((1, 32, 32, 3), value, np.uint8) for value in (255, 128))
    assert list(duplicates(white, white)) == list(duplicates(white, grey)) == []


def test_pictures_of_one_layout_are_not_one_picture(thumbnails_of):
    """A disc on a plain ground, in three places that overlap."""
    images = []
    for x in (40, 52, 64):
        image = Image.new("RGB", (128, 128), (200, 220, 240))
        ImageDraw.Draw(image).ellipse((x, 30, x + 40, 70), (120, 30, 30))
        images.append(image)
    thumbnails = thumbnails_of(*images)
    assert list(duplicates(thumbnails, thumbnails)) == [(0, 0), (1, 1), (2, 2)]


def test_many_images_are_compared_chunk_by_chunk():
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(0, 256, (2500, 8, 8, 3), np.uint8), np.ones((1, 4, 4, 1), np.uint8))
    assert list(duplicates(images, images[[2400, 7]])) == [(7, 1), (2400, 0)]
