"""Image and mask files as arrays."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from compress.data.arrays import TIFF_MAGIC, read_npy, read_tiff
from compress.data.coding import CLASS_IDS, OBJECT_255, VOID, Coding
from compress.errors import DataError
from compress.machine import cores
from compress.recipe import Recipe
from compress.terminal.progress import tqdm

Size = tuple[int, int]  # height, width
THUMBNAIL = 32  # height and width, of what `checked` gives
SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
IMAGE_SUFFIXES = (*SUFFIXES, ".npy")
"""A mask is no array."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 64  # results that wait for their reader at most
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Those of `SUFFIXES`. Pillow's others are never tried, whatever a file is called: some start programs."""
_LOSSY = ("JPEG", "MPO", "WEBP")
_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations in which height and width change places."""
_WHITE = 128  # what is lighter in a mask of a lossy format is the object
LOSSY_MASK = "JPEG and WebP do not keep class ids; save masks as PNG"


@dataclass(frozen=True)
class Reading:
    """How the values in a file become the pixels that a network reads, uint8 of `channels`: the one rule for it.

    8 bits stay as they are. Of anything else `range`, its lowest and highest value, is spread over 0 to 255; None: 16
    bits are divided by 257, and fractions go from 0 to 1.
    """

    channels: int = 3
    range: tuple[float, float] | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "Reading":
        return cls(recipe.model.channels, recipe.preprocess.range)

    @property
    def words(self) -> str:
        """The rule, for people and for manifests; empty for RGB photographs, of which nothing need be said."""
        if self.range:
            low, high = self.range
            return f"uint8; 16 bits and fractions: round(255 * (value - {low:g}) / {high - low:g}), from 0 to 255"
        return "" if self.channels == 3 else "uint8; 16 bits: value // 257; fractions: round(255 * value)"


RGB = Reading()


@dataclass(frozen=True)
class LabelMasks:
    """A mask of several labels at once: for each label the picture of where it is; None: it is nowhere."""

    files: tuple[Path | None, ...]

    @property
    def named(self) -> tuple[Path, ...]:
        return tuple(path for path in self.files if path)

    def __str__(self) -> str:
        return str(self.named[0])


Mask = Path | LabelMasks


class UnreadableError(DataError):
    """A file that cannot be decoded: zero bytes, truncated, or no image at all."""


def read_image(path: Path, size: Size | None = None, reading: Reading = RGB) -> np.ndarray:
    """Pixels, uint8 [H, W, channels], upright by the EXIF orientation, resized bilinearly (antialiased) to `size`,
    each channel by itself. Of several pictures in a file the first.

    For one channel and for three, greyscale, palette, CMYK and see-through pictures are converted, the last laid over
    white; any other number of channels is what the file holds. Raises UnreadableError, and DataError for other
    channels, or values that `reading` does not say how to read.
    """
    pixels = _decoded(path, reading)[1]
    return resized(pixels, size) if size else pixels


def resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [H, W, C] -> the same at `size`, each channel by itself."""
    if pixels.shape[:2] == size:
        return pixels
    parts = [pixels] if pixels.shape[2] == 3 else [pixels[..., i] for i in range(pixels.shape[2])]
    wanted, how = (size[1], size[0]), Image.Resampling.BILINEAR
    scaled = [np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize(wanted, how)) for part in parts]
    return scaled[0] if pixels.shape[2] == 3 else np.stack(scaled, axis=-1)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] -> what people are shown of it, uint8 [H, W, 3]: the first three channels, or the first as
    grey."""
    return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)


def read_mask(path: Mask, coding: Coding = CLASS_IDS, size: Size | None = None) -> np.ndarray:
    """Class ids, uint8 [H, W], with 255 for void pixels; nearest pixel where resized to `size`.

    What is named in the coding are grey values, as a viewer shows them, and of a palette with colours the indices; or
    else colours, of whatever kind of picture. JPEG and WebP change values: what is lighter than a middle grey is class
    1 there, everything else 0.

    Raises UnreadableError, or DataError for a value that is not in the coding, for a picture of colours where numbers
    are, and for one in JPEG or WebP where they are named. Of several labels at once: sets of them,
    int32, as `compress.measure.masks` has them.
    """
    if isinstance(path, LabelMasks):
        return _label_sets(path, size)
    with _opened(path) as image:
        _turn_upright(image)
        picture = _as_colours(image, path) if coding.colours else _one_channel(image, path)
        if size and picture.size != (size[1], size[0]):
            picture = picture.resize((size[1], size[0]), Image.Resampling.NEAREST)
        values = np.asarray(picture)
        if image.format in _LOSSY and coding in (CLASS_IDS, OBJECT_255):
            return (values >= _WHITE).astype(np.uint8)
        if image.format in _LOSSY:
            raise DataError(f"{path}: {LOSSY_MASK}")
    if coding.colours:
        values = values.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    return coding.ids(values, path)


def read_values(path: Path) -> tuple[np.ndarray, int]:
    """What a grey picture holds, whole numbers [H, W], upright, and the largest that its file can: 255 or 65535. Raises
    UnreadableError, and DataError for colours and fractions."""
    with _opened(path) as image:
        _turn_upright(image)
        picture = _one_channel(image, path)
        return np.asarray(picture), 65535 if picture.mode.startswith("I") else 255


def upright_size(path: Path, reading: Reading = RGB) -> Size:
    """Height and width of an image, without decoding a picture whole. Raises as `read_image` does."""
    if path.suffix.lower() == ".npy" or _is_for_tifffile(path, reading):
        return _decoded(path, reading)[0]
    with _opened(path) as image:
        turned = False
        with contextlib.suppress(Exception):  # a broken EXIF block breaks no pixel
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE
        return (image.width, image.height) if turned else (image.height, image.width)


def _label_sets(masks: LabelMasks, size: Size | None) -> np.ndarray:
    sets = np.zeros((1, 1), np.int32)
    for label, path in enumerate(masks.files):
        if path is None:
            continue
        marked = read_mask(path, size=size)
        wrong = marked[(marked > 1) & (marked != VOID)]
        if wrong.size:
            raise DataError(f"{path}: holds {wrong[0]}; the mask of a label is 0, and 1 or 255 where the label is")
        if sets.size > 1 and marked.shape != sets.shape:
            raise DataError(f"{path}: is not as large as {masks}; save the masks of all labels at one size")
        sets = sets | (marked > 0).astype(np.int32) << label
    return sets


def is_lossy(path: Path) -> bool:
    """Whether a mask's format changes values, so that `read_mask` takes it for black and white. Raises
    UnreadableError."""
    with _opened(path) as image:
        return image.format in _LOSSY


def checked(path: Path, reading: Reading = RGB) -> tuple[Size, np.ndarray]:
    """Height and width of the upright image and a thumbnail of it, uint8 [32, 32, 3], after decoding the whole file.

    Raises as `read_image` does.
    """
    # A JPEG decodes at down to an eighth of its size, every byte still being read. At half the thumbnail's detail to
    # spare, copies of other sizes have the same thumbnail to 1 % of its contrast.
    size, pixels = _decoded(path, reading, at_least=(2 * THUMBNAIL, 2 * THUMBNAIL))
    return size, as_rgb(resized(pixels, (THUMBNAIL, THUMBNAIL)))


def read_all(read: Callable[[Item], Result], items: Sequence[Item], desc: str) -> Iterator[Result]:
    """read(item) for each item, in order, on several threads (Pillow decodes outside the GIL), under a progress bar."""
    pool = ThreadPoolExecutor(min(cores(), 8))
    try:
        with tqdm(total=len(items), desc=desc, unit="file", delay=1) as bar:
            for start in range(0, len(items), _BATCH):
                for result in pool.map(read, items[start : start + _BATCH]):
                    yield result
                    bar.update()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _decoded(path: Path, reading: Reading, at_least: Size | None = None) -> tuple[Size, np.ndarray]:
    """Height and width of the upright image, and its pixels, uint8 [H, W, channels]: of a JPEG fewer, but no fewer than
    `at_least`, where that is given."""
    with _named(path):
        if path.suffix.lower() == ".npy" or _is_for_tifffile(path, reading):
            values = read_npy(path) if path.suffix.lower() == ".npy" else read_tiff(path, reading.channels)
            pixels = _of_array(values, reading, path)
            return (pixels.shape[0], pixels.shape[1]), pixels
    with _opened(path) as image:
        width, height = image.size
        _check_depth(image, reading, path)
        if at_least:
            image.draft(None, at_least)
        lies_on_its_side = _turn_upright(image)
        pixels = _of_picture(image, reading, path)
        return (width, height) if lies_on_its_side else (height, width), pixels


def _is_for_tifffile(path: Path, reading: Reading) -> bool:
    """Whether it is a TIFF file whose channels Pillow does not read, or not as they are."""
    with path.open("rb") as file:
        if file.read(4) not in TIFF_MAGIC:
            return False
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            if reading.channels == 3 and reading.range is None:
                return False
            bands, bits = len(image.getbands()), image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
            samples = image.tag_v2.get(277, 1)  # type: ignore[attr-defined]
            alone = samples == 1 and reading.channels not in (1, 3)  # a page of several
            return samples != bands or alone or (bands > 1 and max(bits) > 8)
    except UnidentifiedImageError:
        return True


def _check_depth(image: Image.Image, reading: Reading, path: Path) -> None:
    """Raises DataError for PNG files of 16 bits in colour, of which Pillow gives the upper 8 alone."""
    deep = image.format == "PNG" and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if reading.range and deep and len(image.getbands()) > 1:
        raise DataError(f"{path}: a colour PNG of 16 bits, of which 8 can be read; save it as .tif or .npy")


def _of_picture(image: Image.Image, reading: Reading, path: Path) -> np.ndarray:
    """uint8 [H, W, channels], of an upright picture."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_in_8_bits(_deep(image, reading), reading, path))
    if reading.channels == 3:
        return np.asarray(_to_rgb(image))
    if reading.channels == 1:
        return np.asarray(_to_rgb(image).convert("L"))[..., None]
    if reading.channels == 4 and image.has_transparency_data:
        image = image.convert("RGBA")
    if image.mode not in ("LA", "RGBA") or len(image.getbands()) != reading.channels:
        raise _of_other_channels(path, len(image.getbands()), image.mode, reading)
    return np.asarray(image)


def _deep(image: Image.Image, reading: Reading) -> np.ndarray:
    """Of a grey picture with more than 8 bits. Pillow has 32 where a file may have 16."""
    values = np.asarray(image)
    return values if image.mode == "F" or reading.range else values.clip(0, 65535).astype(np.uint16)


def _of_array(values: np.ndarray, reading: Reading, path: Path) -> np.ndarray:
    """uint8 [H, W, channels], of values [H, W] or [H, W, C]."""
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise DataError(f"{path}: its shape is {list(values.shape)}; an image is [H, W] or [H, W, channels]")
    values = values[..., None] if values.ndim == 2 else values
    if values.shape[2] not in ((1, 3) if reading.channels == 3 else (reading.channels,)):
        raise _of_other_channels(path, values.shape[2], str(values.dtype), reading)
    pixels = _in_8_bits(values, reading, path)
    return pixels if pixels.shape[2] == reading.channels else as_rgb(pixels)


def _of_other_channels(path: Path, count: int, kind: str, reading: Reading) -> DataError:
    had = f"{count} channel{'s' * (count != 1)} ({kind})"
    return DataError(f"{path}: has {had}, and the network reads {reading.channels}; give images that have them all")


def _in_8_bits(values: np.ndarray, reading: Reading, path: Path) -> np.ndarray:
    """The values as `Reading` says."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    advice = "say which values are 0 and 255: range = [LOW, HIGH] under [preprocess]"
    if values.dtype.kind not in "uif":
        raise DataError(f"{path}: holds {values.dtype}; save uint8, uint16 or float32")
    if reading.range is None and values.dtype.kind != "f":
        if values.dtype.kind != "u" or values.dtype.itemsize != 2:
            raise DataError(f"{path}: holds {values.dtype}; {advice}")
        return (values // 257).astype(np.uint8)
    if not np.isfinite(values).all():
        raise UnreadableError(f"{path}: holds NaN or infinite values; write a number there")
    if reading.range is None and not 0 <= values.min() <= values.max() <= 1:
        raise DataError(f"{path}: holds fractions from {values.min():.4g} to {values.max():.4g}; {advice}")
    low, high = reading.range or (0.0, 1.0)
    return (255 * (values.astype(np.float32) - low) / (high - low)).round().clip(0, 255).astype(np.uint8)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with _named(path), Image.open(path, formats=_FORMATS) as image:
        yield image


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """UnreadableError in place of what broken bytes lead to."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen unrelated kinds on broken bytes
        raise UnreadableError(f"{path}: {_reason(path, error)}") from None


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image" if path.stat().st_size else "zero bytes"
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(said.split())


def _turn_upright(image: Image.Image) -> bool:
    """Decodes the image and turns it as its EXIF block says; whether height and width changed places."""
    image.load()
    orientation = 1
    with contextlib.suppress(Exception):  # a broken EXIF block breaks no pixel
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(image, in_place=True)
    return orientation in _ON_ITS_SIDE


def _one_channel(image: Image.Image, path: Path) -> Image.Image:
    """What a mask holds for each pixel: one number."""
    if image.mode == "1":
        return image.convert("L")  # white is 255 in PNG, whatever the bit depth
    if image.mode == "P":
        return _of_palette(image)
    if image.mode == "L" or image.mode.startswith("I"):
        return image
    if image.mode == "F":
        raise DataError(f"{path}: a mask holds class ids, this fractions; save it greyscale with 8 bits")
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., :3] != rgba[..., :1]).any() or (rgba[..., 3] != 255).any():
        raise DataError(f"{path}: a mask holds one channel of class ids, this is {image.mode}; save it greyscale")
    return Image.fromarray(rgba[..., 0])


def _as_colours(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        raise DataError(f"{path}: masks under [data] names colours, and this is {image.mode}; save it as RGB")
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] != 255).any():
        raise DataError(f"{path}: a mask in colours lets nothing shine through; save it as RGB")
    return Image.fromarray(rgba[..., :3])


def _of_palette(image: Image.Image) -> Image.Image:
    """Grey values where the palette is of different greys, else its indices."""
    indices = np.asarray(image)
    palette = np.reshape(image.getpalette() or [], (-1, 3)).astype(np.uint8)
    coloured = (palette != palette[:, :1]).any() or len(np.unique(palette)) < 2
    return Image.fromarray(indices if coloured or indices.max(initial=0) >= len(palette) else palette[indices, 0])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
