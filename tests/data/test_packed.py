import errno
import os

import numpy as np
import pytest
from PIL import Image

from compress.data import packed
from compress.data.coding import CLASS_IDS, OBJECT_255
from compress.data.images import read_image, read_mask
from compress.data.packed import pack_images, pack_masks
from compress.errors import DataError
from compress.files import cache_folder


@pytest.fixture
def paths(tmp_path):
    """Five random images of different sizes."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for number, file in enumerate(files):
        Image.fromarray(rng.integers(0, 256, (8 + number, 9, 3), np.uint8)).save(file)
    return files


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_holds_the_resized_images_in_order(paths, cache):
    images = pack_images(paths, (6, 4), cache).array
    assert (images.shape, images.dtype) == ((5, 6, 4, 3), np.uint8)
    for image, path in zip(images, paths, strict=True):
        np.testing.assert_array_equal(image, read_image(path, (6, 4)))


def test_masks_hold_class_ids(tmp_path, cache):
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "m.png")
    void, known = (pack_masks([tmp_path / "m.png"], (4, 4), cache, flag) for flag in (CLASS_IDS, OBJECT_255))
    np.testing.assert_array_equal(void.array[0], read_mask(tmp_path / "m.png", size=(4, 4)))
    assert set(np.unique(known.array)) == {0, 1}
    assert void.key != known.key


def test_no_paths_are_an_empty_array(cache):
    assert pack_images([], (6, 4), cache).array.shape == (0, 6, 4, 3)
    assert pack_masks([], (6, 4), cache).array.shape == (0, 6, 4)


def test_second_time_nothing_is_decoded(paths, cache, monkeypatch):
    first = pack_images(paths, (6, 4), cache)
    monkeypatch.setattr(packed, "read_image", lambda *_: pytest.fail("decoded again"))
    second = pack_images(paths, (6, 4), cache)
    assert second.key == first.key
    np.testing.assert_array_equal(second.array, first.array)


def test_changed_image_never_meets_the_old_entry(paths, cache):
    """Same name, size in bytes and time of change, other pixels."""
    Image.new("RGB", (4, 4), (1, 1, 1)).save(paths[2])
    before, stat = pack_images(paths, (6, 4), cache), paths[2].stat()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(paths[2])
    assert paths[2].stat().st_size == stat.st_size
    os.utime(paths[2], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = pack_images(paths, (6, 4), cache)
    assert after.key != before.key
    assert (after.array[2] == 9).all()


def test_order_and_size_are_part_of_the_key_and_the_folder_is_not(paths, cache, tmp_path):
    key = pack_images(paths, (6, 4), cache).key
    assert pack_images(paths[::-1], (6, 4), cache).key != key
    assert pack_images(paths, (4, 6), cache).key != key
    (tmp_path / "moved").mkdir()
    moved = [path.rename(tmp_path / "moved" / path.name) for path in paths]
    assert pack_images(moved, (6, 4), cache).key == key


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DataError, "no space left for 0 MB"),
        (OSError(errno.EACCES, "Permission denied"), DataError, "Permission denied"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_leaves_nothing_half_written(paths, cache, monkeypatch, raised, expected, message):
    def fail(*_):
        assert list(cache.glob("*.partial"))
        raise raised

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(expected, match=message):
        pack_images(paths, (6, 4), cache)
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_image_that_broke_since_it_was_checked_is_named(paths, cache):
    paths[3].write_bytes(paths[3].read_bytes()[:40])
    with pytest.raises(DataError, match=r"3\.png"):
        pack_images(paths, (6, 4), cache)
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_cache_folder_is_made_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "here/there"))
    assert cache_folder() == tmp_path / "here/there"
    assert cache_folder().is_dir()


def test_cache_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(DataError, match=r"file/cache: .*COMPRESS_CACHE"):
        cache_folder()
