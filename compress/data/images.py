"""Image and mask files as arrays."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from compress.errors import DataError
from compress.machine import cores
from compress.terminal.progress import tqdm

Size = tuple[int, int]  # height, width
THUMBNAIL = 32  # height and width, of what `checked` gives
VOID = 255  # the class id of mask pixels that count for nothing
SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 64  # results that wait for their reader at most
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Those of `SUFFIXES`. Pillow's others are never tried, whatever a file is called: some start programs."""
_LOSSY = ("JPEG", "MPO", "WEBP")
_WHITE = 128  # what is lighter in a mask of a lossy format is the object


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


def read_image(path: Path, size: Size | None = None) -> np.ndarray:
    """RGB pixels, uint8 [H, W, 3], upright by the EXIF orientation, resized bilinearly (antialiased) to `size`. Of
    several pictures in a file the first.

    Greyscale, palette, CMYK and 16-bit pictures are converted; see-through ones are laid over white.
    Raises UnreadableError.
    """
    with _opened(path) as image:
        _turn_upright(image)
        rgb = _to_rgb(image)
        if size and rgb.size != (size[1], size[0]):
            rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(rgb)


def read_mask(path: Mask, object_is_255: bool = False, size: Size | None = None) -> np.ndarray:
    """Class ids, uint8 [H, W], with 255 for void pixels; nearest pixel where resized to `size`.

    Ids are grey values, as a viewer shows them; of a palette with colours the indices, since colours are no ids. JPEG
    and WebP change values: what is lighter than a middle grey is class 1 there, everything else 0.

    `object_is_255`: the set writes class 1 as 255 (see `Dataset`). Of several labels at once: sets of them, int32, as
    `compress.measure.masks` has them. Raises UnreadableError, or DataError for a picture of colours.
    """
    if isinstance(path, LabelMasks):
        return _label_sets(path, size)
    with _opened(path) as image:
        _turn_upright(image)
        grey = _one_channel(image, path)
        if size and grey.size != (size[1], size[0]):
            grey = grey.resize((size[1], size[0]), Image.Resampling.NEAREST)
        ids = np.asarray(grey)
        if image.format in _LOSSY:
            return (ids >= _WHITE).astype(np.uint8)
    wrong = ids.max(initial=0) if ids.max(initial=0) > VOID else ids.min(initial=0)
    if not 0 <= wrong <= VOID:
        raise DataError(f"{path}: class id {wrong} is more than a mask can hold; ids go from 0 to {VOID - 1}")
    ids = ids.astype(np.uint8)
    if object_is_255:
        ids[ids == 255] = 1
    return ids


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


def checked(path: Path) -> tuple[Size, np.ndarray]:
    """Height and width of the upright image and a thumbnail of it, uint8 [32, 32, 3], after decoding the whole file.

    Raises UnreadableError.
    """
    with _opened(path) as image:
        width, height = image.size
        # A JPEG decodes at down to an eighth of its size, every byte still being read. At half the thumbnail's
        # detail to spare, copies of other sizes have the same thumbnail to 1 % of its contrast.
        image.draft(None, (2 * THUMBNAIL, 2 * THUMBNAIL))
        lies_on_its_side = _turn_upright(image)
        upright = _to_rgb(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
        return (width, height) if lies_on_its_side else (height, width), np.asarray(upright)


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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
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
    return orientation in (5, 6, 7, 8)


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


def _of_palette(image: Image.Image) -> Image.Image:
    """Grey values where the palette is of different greys, else its indices."""
    indices = np.asarray(image)
    palette = np.reshape(image.getpalette() or [], (-1, 3)).astype(np.uint8)
    coloured = (palette != palette[:, :1]).any() or len(np.unique(palette)) < 2
    return Image.fromarray(indices if coloured or indices.max(initial=0) >= len(palette) else palette[indices, 0])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are 32-bit fractions; save it with 8 bits a channel")
    if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow's own conversion clips at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
