import numpy as np
import pytest
import tifffile
from PIL import Image

from compress.data.coding import OBJECT_255
from compress.data.images import Reading, UnreadableError, as_rgb, checked, is_lossy, read_image, read_mask
from compress.errors import DataError


def save(path, array, mode=None, **options):
    Image.fromarray(np.asarray(array, np.uint8), mode).save(path, **options)
    return path


def test_reads_rgb_pixels_as_they_are(tmp_path):
    pixels = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    image = read_image(save(tmp_path / "a.png", pixels))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_greyscale_becomes_three_equal_channels(tmp_path):
    image = read_image(save(tmp_path / "a.png", [[7, 200]]))
    np.testing.assert_array_equal(image, [[[7, 7, 7], [200, 200, 200]]])


def test_sixteen_bit_greyscale_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 0], [0, 128, 255])


def test_see_through_pixels_lie_over_white(tmp_path):
    image = read_image(save(tmp_path / "a.png", [[[10, 20, 30, 0], [10, 20, 30, 255]]]))
    np.testing.assert_array_equal(image, [[[255, 255, 255], [10, 20, 30]]])


def test_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([1, 2, 3, 40, 50, 60])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[1, 2, 3], [40, 50, 60]]])


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4]
    assert red > 200
    assert green < 60
    assert blue < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """Each orientation by its definition: where row 0 and column 0 of the stored pixels are on the shown image."""
    shown = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.T,
        6: np.rot90(shown),  # shown is the stored image turned a quarter clockwise
        7: shown[::-1, ::-1].T,
        8: np.rot90(shown, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", stored, exif=exif)
    np.testing.assert_array_equal(read_image(path)[..., 0], shown)
    size, thumbnail = checked(path)
    assert size == (2, 3)
    expected = Image.fromarray(shown.astype(np.uint8)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(thumbnail[..., 0], np.asarray(expected))


def test_a_photograph_on_its_side_has_the_upright_size_also_where_it_is_nearly_square(tmp_path):
    """It is decoded at an eighth, where both sides are 125 pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", np.zeros((999, 1000, 3)), exif=exif)
    assert checked(path)[0] == read_image(path).shape[:2] == (1000, 999)


@pytest.mark.parametrize("rest", [b"", b"garbage", b"II*\0\x08\0\0\0\1\0\x12\1\2\0\2\0\0\0\x36\0\0\0\0\0\0\0"])
def test_a_broken_exif_block_breaks_no_pixel(tmp_path, rest):
    path = save(tmp_path / "a.jpg", np.full((20, 30, 3), 90), exif=b"Exif\0\0" + rest)
    assert checked(path)[0] == (20, 30)
    assert np.abs(read_image(path).astype(int) - 90).max() <= 2


def test_resize_averages_what_it_shrinks(tmp_path):
    checkerboard = np.indices((16, 16)).sum(0) % 2 * 255
    image = read_image(save(tmp_path / "a.png", checkerboard), size=(4, 2))
    assert image.shape == (4, 2, 3)
    assert abs(image.astype(int) - 127).max() <= 3


@pytest.mark.parametrize("reader", [read_image, read_mask, checked])
def test_names_what_it_cannot_read(tmp_path, reader):
    whole = save(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 256, (64, 64)))
    broken = {
        "truncated.jpg": whole.read_bytes()[:-500],
        "empty.jpg": b"",
        "text.png": b"no image at all",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=r"truncated\.jpg: .*truncated"):
        reader(tmp_path / "truncated.jpg")
    with pytest.raises(UnreadableError, match=r"empty\.jpg: zero bytes"):
        reader(tmp_path / "empty.jpg")
    with pytest.raises(UnreadableError, match=r"text\.png: not an image"):
        reader(tmp_path / "text.png")
    with pytest.raises(UnreadableError, match=r"gone\.png: No such file"):
        reader(tmp_path / "gone.png")


def test_mask_keeps_ids_and_void(tmp_path):
    path = save(tmp_path / "a.png", [[0, 1, 2, 255]])
    np.testing.assert_array_equal(read_mask(path), [[0, 1, 2, 255]])


def test_palette_mask_gives_indices_not_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 2]], np.uint8), "P")
    image.putpalette([9] * 9)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), [[0, 2]])


def test_object_255_becomes_class_1_even_in_a_one_bit_file(tmp_path):
    grey = save(tmp_path / "a.png", [[0, 255]])
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "b.png")
    for path in (grey, tmp_path / "b.png"):
        np.testing.assert_array_equal(read_mask(path, OBJECT_255), [[0, 1]])
        np.testing.assert_array_equal(read_mask(path), [[0, 255]])


def test_resized_mask_holds_no_class_that_was_not_there(tmp_path):
    mask = read_mask(save(tmp_path / "a.png", [[0, 2], [2, 0]]), size=(5, 7))
    assert mask.shape == (5, 7)
    assert set(np.unique(mask)) == {0, 2}


def test_mask_of_colours_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: .*one channel.*RGB"):
        read_mask(save(tmp_path / "a.png", [[[0, 0, 0], [128, 0, 0]]]))


@pytest.mark.parametrize("extra", [[], [255]])
def test_three_equal_channels_are_one(tmp_path, extra):
    pixels = [[[value] * 3 + extra for value in (0, 1, 255)]]
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", pixels)), [[0, 1, 255]])


def test_see_through_mask_is_refused(tmp_path):
    with pytest.raises(DataError, match="one channel.*RGBA"):
        read_mask(save(tmp_path / "a.png", [[[0, 0, 0, 0], [0, 0, 0, 255]]]))


@pytest.mark.parametrize(
    ("palette", "ids"),
    [
        ([(255,) * 3, (0,) * 3], [[255, 0]]),  # index 0 is shown white
        ([(0,) * 3, (255,) * 3], [[0, 255]]),
        ([(0,) * 3, (2,) * 3], [[0, 2]]),  # what shrinks PNG files makes of a grey mask
        ([(0,) * 3, (128, 0, 0), (0, 128, 0)], [[0, 1]]),  # as PASCAL VOC has it
        ([(7,) * 3, (7,) * 3], [[0, 1]]),  # shows nothing
    ],
)
def test_palette_of_greys_gives_its_greys_and_one_of_colours_its_indices(tmp_path, palette, ids):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([value for colour in palette for value in colour])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)


@pytest.mark.parametrize(("suffix", "lossy"), [("jpg", True), ("webp", True), ("png", False), ("tif", False)])
def test_formats_that_change_values_are_black_and_white(tmp_path, suffix, lossy):
    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 200
    path = save(tmp_path / f"a.{suffix}", half)
    assert is_lossy(path) is lossy
    np.testing.assert_array_equal(read_mask(path), (half > 0) if lossy else half)


def test_a_mask_is_upright_as_its_image_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", np.rot90([[0, 1, 2], [3, 4, 5]]), exif=exif)
    np.testing.assert_array_equal(read_mask(path), [[0, 1, 2], [3, 4, 5]])


def test_an_image_that_no_photograph_is_stored_as_is_never_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UnreadableError, match=r"a\.png: not an image"):
        read_image(tmp_path / "a.png")


def test_fractions_go_from_0_to_1_and_others_ask_for_a_range(tmp_path):
    Image.fromarray(np.array([[0, 0.5], [0.2, 1]], np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", reading=GREY)[..., 0], [[0, 128], [51, 255]])
    Image.fromarray(np.array([[-2, 0], [1, 3]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: holds fractions from -2 to 3; .*range = \[LOW, HIGH\]"):
        read_image(tmp_path / "a.tif")
    found = read_image(tmp_path / "a.tif", reading=Reading(1, (-2, 3)))
    np.testing.assert_array_equal(found[..., 0], [[0, 102], [153, 255]])


def test_images_of_too_many_pixels_are_named(tmp_path):
    (tmp_path / "b.ppm").write_bytes(b"P6 30000 30000 255\n")
    with pytest.raises(UnreadableError, match=r"b\.ppm: .*900000000 pixels"):
        read_image(tmp_path / "b.ppm")


def test_mask_id_beyond_a_byte_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="class id 300"):
        read_mask(tmp_path / "a.png")


GREY = Reading(1)
BANDS = np.random.default_rng(0).integers(0, 65536, (5, 7, 6)).astype(np.uint16)


def test_16_bits_are_divided_by_257_or_spread_over_a_range(tmp_path):
    values = np.array([[0, 256, 257], [1000, 3000, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert read_image(tmp_path / name, reading=GREY)[..., 0].tolist() == [[0, 0, 1], [3, 11, 255]]
        ranged = read_image(tmp_path / name, reading=Reading(1, (0, 3000)))
        assert ranged[..., 0].tolist() == [[0, 22, 22], [85, 255, 255]]


def test_a_photograph_is_grey_to_a_network_of_one_channel(tmp_path):
    path = save(tmp_path / "a.png", np.array([[[255, 0, 0], [0, 255, 0], [9, 9, 9]]]))
    assert read_image(path, reading=GREY)[..., 0].tolist() == [[76, 150, 9]]


def test_four_channels_are_those_of_the_file_each_by_itself(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (200, 100, 50, 0)  # what an alpha of 0 hides is a band like any other
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", reading=Reading(4)), rgba)
    smaller = read_image(tmp_path / "a.png", (2, 4), Reading(4))
    np.testing.assert_array_equal(smaller[:, 0, 0], np.asarray(Image.fromarray(rgba[..., 0]).resize((4, 2), 2))[:, 0])


@pytest.mark.parametrize(
    ("mode", "has"), [("RGB", r"3 channels \(RGB\)"), ("L", r"1 channel \(uint8\)"), ("CMYK", "4 channels")]
)
def test_channels_that_are_not_there_are_no_image(tmp_path, mode, has):
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif: has {has}.*, and the network reads 4") as error:
        checked(tmp_path / "a.tif", Reading(4))
    assert not isinstance(error.value, UnreadableError)


@pytest.mark.parametrize("how", ["contig", "separate", "pages"])
def test_bands_of_a_tiff_file_are_read_however_they_lie(tmp_path, how):
    laid = BANDS if how == "contig" else BANDS.transpose(2, 0, 1)
    more = {} if how == "pages" else {"planarconfig": how}
    tifffile.imwrite(tmp_path / "a.tif", laid, photometric="minisblack", compression="zlib", **more)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", reading=Reading(6)), BANDS // 257)
    with pytest.raises(DataError, match="and the network reads 5"):
        read_image(tmp_path / "a.tif", reading=Reading(5))


def test_16_bits_of_colours_are_read_whole_where_a_range_is_given(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", BANDS[..., :3] // 16, photometric="rgb")
    found = read_image(tmp_path / "a.tif", reading=Reading(3, (0, 4095)))
    np.testing.assert_array_equal(found, np.rint(255 * (BANDS[..., :3] // 16 / np.float32(4095))))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 6)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float32, np.float64])
def test_arrays_are_images_too(tmp_path, shape, dtype):
    pixels = (BANDS // 257).astype(np.uint8).ravel()[: int(np.prod(shape))].reshape(shape)
    held = {"u": pixels.astype(dtype), "f": pixels / np.dtype("f8").type(255)}[np.dtype(dtype).kind].astype(dtype)
    np.save(tmp_path / "a.npy", held * 257 if np.dtype(dtype).itemsize == 2 else held)
    reading = Reading(shape[2] if len(shape) == 3 else 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", reading=reading), pixels.reshape(5, 7, -1))
    if reading.channels == 1:
        assert read_image(tmp_path / "a.npy").shape == (5, 7, 3)


def test_an_array_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([print], object), allow_pickle=True)
    with pytest.raises(UnreadableError, match=r"a\.npy: "):
        read_image(path)
    header = np.lib.format.write_array_header_1_0
    with path.open("wb") as file:
        header(file, {"descr": "<u2", "fortran_order": False, "shape": (60_000, 60_000, 3)})
    with pytest.raises(UnreadableError, match=r"a\.npy: "):
        read_image(path)
    for values, message in (
        (np.zeros((2, 3, 4, 5), np.uint8), "its shape is"),
        (np.zeros((4, 4, 3), np.int16), r"holds int16; .*range = \[LOW, HIGH\]"),
        (np.zeros((4, 4, 3), complex), "holds complex128; save uint8"),
        (np.full((4, 4, 3), np.nan), "holds NaN or infinite values"),
    ):
        np.save(path, values)
        with pytest.raises(DataError, match=message):
            read_image(path)


def test_the_thumbnail_of_many_bands_shows_the_first_three(tmp_path):
    values = np.zeros((40, 64, 6), np.uint8)
    values[..., 1], values[..., 4] = 200, 90
    np.save(tmp_path / "a.npy", values)
    size, thumbnail = checked(tmp_path / "a.npy", Reading(6))
    assert size == (40, 64)
    np.testing.assert_array_equal(thumbnail, np.broadcast_to([0, 200, 0], (32, 32, 3)))
    assert as_rgb(values[..., 4:]).shape == (40, 64, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["contig", "separate", "tiles", "npy"])
def test_what_is_left_of_a_damaged_file_of_bands_is_an_image_or_one_line(tmp_path, kind):
    path, rng = tmp_path / ("a.npy" if kind == "npy" else "a.tif"), np.random.default_rng(0)
    if kind == "npy":
        np.save(path, BANDS)
    else:
        more = {"tile": (16, 16), "compression": "zlib"} if kind == "tiles" else {"planarconfig": kind}
        laid = BANDS.transpose(2, 0, 1) if kind == "separate" else BANDS
        tifffile.imwrite(path, laid, photometric="minisblack", **({"planarconfig": "contig"} | more))
    whole, said = np.frombuffer(path.read_bytes(), np.uint8), []
    for _ in range(40):
        data = whole.copy()
        data[rng.integers(0, min(len(data), 400), 3)] = rng.choice([0, 1, 127, 255], 3)
        path.write_bytes(data[: len(data) if rng.random() < 0.8 else rng.integers(0, len(data))].tobytes())
        try:
            assert read_image(path, reading=Reading(6)).shape[2] == 6
        except DataError as error:
            said.append(str(error))
    assert said
    assert all(path.name in line and "\n" not in line for line in said)
