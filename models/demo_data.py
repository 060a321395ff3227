"""Builds the demo's images from free photographs that Debian carries.

    python models/demo_data.py [--out data/demo] [--seed 0] [--work DIR]

`apt-get download` and `dpkg-deb -x` fetch and unpack the packages below into a work folder; no root is needed.
The packages' licences allow use, not all allow us to pass the pictures on, so nothing of them is committed.
What comes out:

    train/images/*.jpg  train/masks/*.png    120 composites of photographed objects over backgrounds, 320x320,
    val/images/*.jpg    val/masks/*.png      100 more; masks hold 0 and 255, from the cut-out's alpha
    unlabelled/*.jpg                         at most 60 whole photographs, longest side 320
    licences/, README.txt                    where everything is from

A file's name says what is in it: 017-tiger-on-Dune. The same seed gives the same bytes on the same Pillow.
A cut-out is in train or in val, never in both, and so is its family (grave-a, grave-b, ...), which is the first
word of its name; backgrounds likewise.

Which stamps of tuxpaint-stamps-default are used (photographs of whole, solid objects):
- The longest side of the visible part is at least 120 pixels, the shortest at least 60.
- Solid: at least 80 % of the visible pixels (alpha > 12) are opaque (alpha > 242). Leaves out smoke, fire, glass.
- Thick: with the longest side scaled to 128, at least 35 % of the area survives an erosion by 4 pixels. Leaves out
  the stethoscope, the mantis, outlines.
- Photographed: at most 40 % of horizontally neighbouring opaque pixels have the very same colour. Drawings with flat
  fills have 43 to 99 %.
- Not in the folders SKIPPED_FOLDERS and not in SKIPPED_STAMPS: drawings with shaded fills, which no figure above
  tells from photographs, and mirrored twins.

Which backgrounds: opaque, at most 50 % of neighbouring pixels the same at 320 pixels, one file of each wallpaper (the
largest that is wider than high), and not in SKIPPED_BACKGROUNDS, which show an object of their own.

Which photographs of gcompris-qt-data: images in the .rcc files of PHOTO_ACTIVITIES (the others hold drawings and
paintings), opaque, longest side at least 200 pixels, shortest at least 120, at least 60 colours of 5 bits a channel.
"""

import io
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from debian import ImageSet, command
from PIL import Image, ImageChops, ImageEnhance, ImageFilter
from tqdm import tqdm

from compress.errors import DataError

SIZE = 320
COUNTS = {"train": 120, "val": 100}
MOST_PHOTOS = 60
"""The heavy model looks at each for about a second on two cores."""
STAMPS, PHOTOS = "tuxpaint-stamps-default", "gcompris-qt-data"
WALLPAPERS = ("lomiri-wallpapers-16.04", "mate-backgrounds", "plasma-workspace-wallpapers")
MEGABYTES = {STAMPS: 161, WALLPAPERS[0]: 16, WALLPAPERS[1]: 47, WALLPAPERS[2]: 94, PHOTOS: 44}
ELSEWHERE = "use a folder of your own photographs: make demo IMAGES=~/Pictures"

SKIPPED_FOLDERS = {"cartoon", "easter", "flags", "roadsigns", "symbols"}
SKIPPED_STAMPS = re.compile(r"(butterfly|button|santa|daffodil-plant.*|.*_mirror|.*_cartoon)$", re.IGNORECASE)
SKIPPED_BACKGROUNDS = re.compile(
    r"Picture_\w+|Wine_.*|free_.*|friends_.*|greentock_.*|seeding_.*|umang_.*"  # fruit, brushes, chair, bird, dogs
    r"|Aqua|Garden|LadyBird|TwoWings|YellowFlower|MATE-.*|GreenTraditional"  # drop, flowers, insects, logos
    r"|Autumn|FallenLeaf|Flow|FlyingKonqui|Kite|OneStandsOut|Patak|SafeLanding"  # tree, leaf, dragon, balloon, rocket
)
PHOTO_ACTIVITIES = (
    "categorization",
    "clickgame",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
)
IMAGE_STARTS = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)


def is_solid_photo(stamp: Image.Image) -> bool:
    """Whether an RGBA stamp, cropped to its visible part, is a photograph of a whole, solid object (see above)."""
    if max(stamp.size) < 120 or min(stamp.size) < 60:
        return False
    pixels = np.asarray(stamp)
    visible, opaque = pixels[..., 3] > 12, pixels[..., 3] > 242
    if opaque.sum() < 0.8 * visible.sum():
        return False
    scale = 128 / max(stamp.size)
    small = stamp.getchannel("A").resize([max(1, round(side * scale)) for side in stamp.size], Image.Resampling.BOX)
    shape = Image.new("L", (small.width + 10, small.height + 10))
    shape.paste(small.point(lambda alpha: 255 * (alpha > 127)), (5, 5))
    eroded = shape.filter(ImageFilter.MinFilter(9))
    if np.asarray(eroded, bool).sum() < 0.35 * np.asarray(shape, bool).sum():
        return False
    return _same_neighbours(pixels[..., :3], opaque) <= 0.4


def _same_neighbours(pixels: np.ndarray, where: np.ndarray) -> float:
    """Share of horizontally neighbouring pixels of one colour, among the pairs that both lie in `where`."""
    pairs = where[:, 1:] & where[:, :-1]
    same = (pixels[:, 1:] == pixels[:, :-1]).all(axis=-1)
    return float((same & pairs).sum() / max(1, pairs.sum()))


def is_photo(image: Image.Image) -> bool:
    """Whether an image of PHOTO_ACTIVITIES is an opaque photograph that is large enough (see above)."""
    if max(image.size) < 200 or min(image.size) < 120 or _is_see_through(image):
        return False
    small = image.convert("RGB")
    small.thumbnail((SIZE, SIZE))
    colours = (np.asarray(small) >> 3).reshape(-1, 3) @ np.array([1, 32, 1024])
    return len(np.unique(colours)) >= 60


def _is_see_through(image: Image.Image) -> bool:
    return image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 250


def images_in(blob: bytes) -> Iterator[Image.Image]:
    """The JPEG, PNG and WebP images that lie uncompressed in a Qt resource file, in order.

    Each of its payloads follows its own length, four bytes big-endian (Qt's rcc, every format version).
    """
    position = 0
    while match := IMAGE_STARTS.search(blob, position):
        start = match.start()
        position = start + 1
        length = struct.unpack(">I", blob[start - 4 : start])[0] if start >= 4 else 0
        if length <= len(blob) - start:
            try:
                image = Image.open(io.BytesIO(blob[start : start + length]))
                image.load()
            except OSError:
                continue
            yield image
            position = start + length


def cutouts(root: Path) -> dict[str, Image.Image]:
    """Name -> RGBA image cropped to its visible part, at most 320 pixels long, of every stamp that the rule keeps."""
    kept = {}
    for path in tqdm(sorted(root.rglob("*.png")), desc="cut-outs", unit="file"):
        if SKIPPED_FOLDERS & set(path.parts) or SKIPPED_STAMPS.match(path.stem):
            continue
        stamp = Image.open(path).convert("RGBA")
        box = stamp.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
        if box and is_solid_photo(stamp.crop(box)):
            kept[path.stem] = stamp.crop(box)
            kept[path.stem].thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    return kept


def backgrounds(roots: list[Path]) -> dict[str, Image.Image]:
    """Name -> RGB image with a short side of 480 pixels, of every wallpaper that the rule keeps."""
    kept = {}
    files: dict[str, Path] = {}
    for path in sorted(path for root in roots for path in root.rglob("*.[jp][pn]g") if not path.is_symlink()):
        # KDE keeps the sizes of one wallpaper in <name>/contents/images; MATE names them <name>_<width>x<height>
        name = path.parts[-4] if "contents" in path.parts else re.sub(r"_\d+x\d+$", "", path.stem)
        if path.stem == "screenshot" or SKIPPED_BACKGROUNDS.fullmatch(name):
            continue
        if name not in files or _landscape_width(path) > _landscape_width(files[name]):
            files[name] = path
    for name, path in tqdm(files.items(), desc="backgrounds", unit="file"):
        opened = Image.open(path)
        opened.draft("RGB", (960, 960))
        if _is_see_through(opened):
            continue
        image = opened.convert("RGB")
        scale = 480 / min(image.size)
        small = image.resize([round(side * scale) for side in image.size], Image.Resampling.BOX)
        look = small.resize((SIZE, SIZE))
        if _same_neighbours(np.asarray(look), np.ones((SIZE, SIZE), bool)) <= 0.5:
            kept[name] = small
    return kept


def _landscape_width(path: Path) -> int:
    width, height = Image.open(path).size
    return width if width >= height else 0


def photographs(root: Path, longest: int = SIZE) -> list[tuple[str, Image.Image]]:
    """(name, RGB image with a longest side of at most `longest`) of every photograph that the rule keeps."""
    kept: list[tuple[str, Image.Image]] = []
    files = [path for path in sorted(root.rglob("*.rcc")) if path.stem in PHOTO_ACTIVITIES]
    for path in tqdm(files, desc="photographs", unit="file"):
        for image in images_in(path.read_bytes()):
            if is_photo(image):
                photo = image.convert("RGB")
                photo.thumbnail((longest, longest), Image.Resampling.LANCZOS)
                kept.append((f"{len(kept):03d}-{path.stem}", photo))
    return kept


def family(name: str) -> str:
    """First word of a name, in lower case, without digits: the unit that is never split between train and val."""
    return re.findall(r"[a-z]+", name.lower())[0]


def split(names: list[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """Every fourth family to val, the others to train, after shuffling."""
    families = sorted({family(name) for name in names})
    val = {families[i] for i in rng.permutation(len(families))[::4]}
    return {
        "train": [name for name in names if family(name) not in val],
        "val": [name for name in names if family(name) in val],
    }


def place(cutout: Image.Image, background: Image.Image, left: int, top: int) -> tuple[Image.Image, Image.Image]:
    """(RGB picture, L mask of 0 and 255): an RGBA cut-out laid over an RGB background with its corner at left, top.

    A pixel belongs to the object when at least half of it is covered.
    """
    picture = background.copy()
    picture.paste(cutout.convert("RGB"), (left, top), cutout.getchannel("A"))
    alpha = Image.new("L", background.size)
    alpha.paste(cutout.getchannel("A"), (left, top))
    return picture, alpha.point(lambda value: 255 * (value >= 128))


def square_of(picture: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A square part of it at random, `size` pixels wide, whose side is 0.6 of its shorter one or more."""
    side = round(min(picture.size) * rng.uniform(0.6, 1.0))
    left, top = (int(rng.integers(0, whole - side + 1)) for whole in picture.size)
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def composite(
    cutout: Image.Image, background: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """(RGB picture, L mask of 0 and 255), 320x320: random crop, scale, position, flips, brightness, softness."""
    scene = square_of(background, SIZE, rng)
    longest = min(SIZE * rng.uniform(0.4, 0.85), 1.6 * max(cutout.size))  # beyond 1.6 it shows that it was small
    scale = longest / max(cutout.size)
    figure = cutout.resize([max(1, round(length * scale)) for length in cutout.size], Image.Resampling.BICUBIC)
    scene, figure = (
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image for image in (scene, figure)
    )
    scene = ImageEnhance.Brightness(scene).enhance(rng.uniform(0.75, 1.25))
    colours = ImageEnhance.Brightness(figure.convert("RGB")).enhance(rng.uniform(0.8, 1.2))
    alpha = figure.getchannel("A")
    # softened inwards only: outside the cut-out there are no true colours to mix with
    colours.putalpha(ImageChops.darker(alpha, alpha.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2)))))
    corner = (int(rng.integers(0, SIZE - length + 1)) for length in figure.size)
    return place(colours, scene, *corner)


def write_composites(
    folder: Path, count: int, cuts: dict[str, Image.Image], scenes: dict[str, Image.Image], seed: int
) -> None:
    """Writes `count` composites into folder/images and folder/masks; every cut-out is used about equally often."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    order = np.random.default_rng(seed).permutation(len(cuts))
    for index in tqdm(range(count), desc=folder.name, unit="image"):
        rng = np.random.default_rng([seed, index])
        cut = list(cuts)[order[index % len(cuts)]]
        scene = list(scenes)[rng.integers(len(scenes))]
        picture, mask = composite(cuts[cut], scenes[scene], rng)
        stem = re.sub(r"[^\w-]", "", f"{index:03d}-{cut}-on-{scene}")
        picture.save(folder / "images" / f"{stem}.jpg", quality=92)
        mask.save(folder / "masks" / f"{stem}.png")


def fill(work: Path, out: Path, seed: int) -> dict[str, int]:
    """Writes the demo's images into `out` from packages unpacked in `work`; returns how many images each part has.

    Raises DataError when the packages hold too few pictures that the rules keep.
    """
    cuts = cutouts(work / STAMPS)
    scenes = backgrounds([work / package for package in WALLPAPERS])
    photos = photographs(work / PHOTOS)
    photos = photos[:: max(1, -(-len(photos) // MOST_PHOTOS))]
    if min(len(cuts), len(scenes), len(photos)) < 10:
        raise DataError(
            f"only {len(cuts)} cut-outs, {len(scenes)} backgrounds and {len(photos)} photographs in {work}; {ELSEWHERE}"
        )
    rng = np.random.default_rng(seed)
    cut_names, scene_names = split(list(cuts), rng), split(list(scenes), rng)
    for offset, (part, count) in enumerate(COUNTS.items()):
        own_cuts = {name: cuts[name] for name in cut_names[part]}
        own_scenes = {name: scenes[name] for name in scene_names[part]}
        write_composites(out / part, count, own_cuts, own_scenes, 2 * seed + offset)
    (out / "unlabelled").mkdir()
    for name, photo in photos:
        photo.save(out / "unlabelled" / f"{name}.jpg", quality=92)
    return {**COUNTS, "unlabelled": len(photos)}


DEMO = ImageSet(
    script="demo_data.py",
    folder=Path("data/demo"),
    title="Demo images of compress",
    version=1,
    content="File names say which cut-out lies on which background.",
    megabytes=MEGABYTES,
    counts=COUNTS,
    fill=fill,
    otherwise=ELSEWHERE,
)


if __name__ == "__main__":
    sys.exit(command(DEMO, "Build the demo's images from free photographs in Debian packages."))
