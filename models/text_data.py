"""Builds photographs with text in them, and masks of the text's characters, from what Debian carries.

    python models/text_data.py [--out data/text] [--seed 0] [--work DIR]

The photographs are those of models/demo_data.py, the fonts and the words those of the packages below, all of them free.
What comes out:

    train/images/*.jpg  train/masks/*.png    240 photographs of 384x384 with words drawn over them,
    val/images/*.jpg    val/masks/*.png      100 more; a mask holds 255 in the middle of every character, else 0
    licences/, README.txt                    where everything is from

No font, no word and no photograph of val is in train: fonts go by package, photographs by family (see demo_data),
words one by one. The same seed gives the same bytes on the same Pillow.

How a photograph gets its text: blocks of one to three lines, each in one font, colour and size, rotated, in
perspective, some with an outline, a shadow, a plate behind them, or less contrast than is comfortable; then the whole
picture gets a lamp from one side, blur, noise and JPEG. Blocks do not overlap, and all of each is within the picture.

A character's mask is the ellipse in the box of its ink, ELLIPSE times as high and wide, turned with the text. It is
what a network says that was trained as CRAFT was, on a Gaussian in each box, where it is sure.
"""

import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from debian import ImageSet, command
from demo_data import MEGABYTES, PHOTOS, WALLPAPERS, backgrounds, photographs, split, square_of
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

from compress.errors import DataError

SIZE = 384
COUNTS = {"train": 240, "val": 100}
ELLIPSE = 0.85
TRAIN_FONTS = """
    adf-baskervald adf-gillius allerta bebas-neue cabin clear-sans comfortaa comic-neue courier-prime dancingscript
    dejavu-core dosis ebgaramond inconsolata junction jura lato league-spartan liberation2 lobster oldstandard open-sans
    prociono roadgeek sil-gentium yanone-kaffeesatz
"""
VAL_FONTS = """
    adf-switzera arapey b612 cantarell essays1743 gnutypewriter kaushanscript karla linuxlibertine manrope national-park
    opendin oxygen play quattrocento quicksand tuffy
"""
FONTS = {
    part: [f"fonts-{name}" for name in names.split()] for part, names in (("train", TRAIN_FONTS), ("val", VAL_FONTS))
}
WORDS = "wamerican"
PACKAGES = {
    **{package: MEGABYTES[package] for package in (*WALLPAPERS, PHOTOS)},
    **dict.fromkeys((*FONTS["train"], *FONTS["val"], WORDS), 1),
}
"""Debian package -> MB to download."""
OTHERWISE = "unpack the packages into the folder --work elsewhere, each into a folder of its name"
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ODD_FONT = re.compile(r"outline|ornament|initials|shadow|symbol|oblique", re.IGNORECASE)


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Sources:
    """What pictures are made of."""

    photographs: list[Image.Image]
    fonts: list[Path]
    words: list[str]


@dataclass(frozen=True)
class Block:
    """Lines of text as they are drawn: `layer` RGBA, `mask` L of the same size with 255 in its characters."""

    layer: Image.Image
    mask: Image.Image


@dataclass(frozen=True)
class Style:
    """How a block looks. `spacing`, `stroke` and the shadow's `depth` in pixels; no plate and no shadow where there is
    no colour for it."""

    colour: Colour
    spacing: float = 0.0
    stroke: int = 0
    edge: Colour = (0, 0, 0)
    plate: Colour | None = None
    shadow: Colour | None = None
    depth: int = 1


def ellipse_in(box: Box, share: float = ELLIPSE) -> Box:
    """The box of an ellipse about the same middle, `share` times as wide and high."""
    left, top, right, bottom = box
    x, y, wide, high = (left + right) / 2, (top + bottom) / 2, share * (right - left) / 2, share * (bottom - top) / 2
    return x - wide, y - high, x + wide, y + high


def characters(
    line: str, font: ImageFont.FreeTypeFont, left: float, top: float, spacing: float
) -> list[tuple[str, tuple[float, float], Box]]:
    """(character, where it is drawn, box of its ink) of a line that begins at left, top; `spacing` pixels are added to
    each advance. Spaces have no ink and are left out."""
    found = []
    for character in line:
        if character != " ":
            ink = font.getbbox(character)
            found.append((character, (left, top), (left + ink[0], top + ink[1], left + ink[2], top + ink[3])))
        left += font.getlength(character) + spacing
    return found


def extent(lines: list[str], font: ImageFont.FreeTypeFont, spacing: float) -> tuple[int, int]:
    """(width, height) of a block, with a margin of half the font's size around the lines."""
    wide = max(sum(font.getlength(character) + spacing for character in line) for line in lines)
    return round(wide + font.size) + 4, round((1.25 * len(lines) + 1) * font.size) + 4


def block(lines: list[str], font: ImageFont.FreeTypeFont, style: Style) -> Block:
    """The lines under each other, in the middle of their margin."""
    size = extent(lines, font, style.spacing)
    layer = Image.new("RGBA", size, (*style.plate, 255) if style.plate else (*style.colour, 0))
    mask = Image.new("L", size)
    draw, marked = ImageDraw.Draw(layer), ImageDraw.Draw(mask)
    margin = font.size / 2 + 2
    for row, line in enumerate(lines):
        placed = characters(line, font, margin, margin + 1.25 * row * font.size, style.spacing)
        if style.shadow:
            for character, (left, top), _ in placed:
                draw.text((left + style.depth, top + style.depth), character, (*style.shadow, 255), font)
        for character, corner, box in placed:
            edge = (*style.edge, 255)
            draw.text(corner, character, (*style.colour, 255), font, stroke_width=style.stroke, stroke_fill=edge)
            marked.ellipse(ellipse_in(box), 255)
    return Block(layer, mask)


def brightness(colour: Colour) -> float:
    """0 to 255, as the eye weighs the channels."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def against(ground: float, rng: np.random.Generator, least: float) -> Colour:
    """A colour whose brightness differs from `ground` by `least`, at most 110, or more."""
    while True:
        tint = rng.integers(0, 256, 3)
        grey = rng.integers(0, 256)
        mixed = grey + (tint - grey) * rng.choice([0.1, 0.5, 1.0])
        colour = (int(mixed[0]), int(mixed[1]), int(mixed[2]))
        if abs(brightness(colour) - ground) >= least:
            return colour


def random_style(ground: float, size: int, spacing: float, rng: np.random.Generator) -> Style:
    """How text of that size looks on a ground of that brightness."""
    plate = against(ground, rng, 20.0) if rng.random() < 0.3 else None
    colour = against(ground if plate is None else brightness(plate), rng, rng.uniform(45, 110))
    return Style(
        colour=colour,
        spacing=spacing,
        stroke=max(1, size // 16) if rng.random() < 0.12 else 0,
        edge=against(brightness(colour), rng, 80.0),
        plate=plate,
        shadow=against(brightness(colour), rng, 60.0) if rng.random() < 0.2 else None,
        depth=max(1, size // 14),
    )


def corners(width: float, height: float, rng: np.random.Generator) -> np.ndarray:
    """[4, 2]: where the corners of a block come to lie, from the upper left clockwise, about (0, 0)."""
    flat = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    tilt, turn = rng.normal(0, 0.12, 2) if rng.random() < 0.6 else (0.0, 0.0)
    depth = 1 + tilt * flat[:, 0] / max(width, 1) * 2 + turn * flat[:, 1] / max(width, 1) * 2
    squeezed = flat * [rng.uniform(0.75, 1.0), 1.0] / np.clip(depth, 0.5, 2)[:, None]
    angle = np.deg2rad(rng.normal(0, 12) if rng.random() < 0.8 else rng.uniform(-60, 60))
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return squeezed @ turned


def homography(target: np.ndarray, source: np.ndarray) -> list[float]:
    """Pillow's eight coefficients: x' = (ax + by + c) / (gx + hy + 1), y' = (dx + ey + f) / (gx + hy + 1), which lead
    from the target's four points [4, 2] to the source's."""
    rows = []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return [float(value) for value in np.linalg.solve(np.array(rows), source.reshape(8))]


def warped(image: Image.Image, target: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The whole image with its corners at `target`, on an empty picture of `size`."""
    width, height = image.size
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    return image.transform(size, Image.Transform.PERSPECTIVE, homography(target, source), Image.Resampling.BICUBIC)


def random_lines(words: list[str], rng: np.random.Generator) -> list[str]:
    """One to three lines of one to three words, all in lower case, in upper case, or with capitals."""
    form = [str.lower, str.upper, str.title][rng.integers(3)]
    lines = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        line = [words[rng.integers(len(words))] for _ in range(rng.choice([1, 1, 2, 3]))]
        if rng.random() < 0.2:
            line[-1] = str(rng.integers(0, 10 ** int(rng.integers(1, 5))))
        lines.append(form(" ".join(line)))
    return lines


def random_scene(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A square part of it, SIZE wide, mirrored or not."""
    scene = square_of(photograph, SIZE, rng)
    return scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else scene


def with_block(
    picture: Image.Image, mask: Image.Image, taken: Image.Image, sources: Sources, rng: np.random.Generator
) -> bool:
    """Draws one block into the picture, its characters into the mask, and where it lies into `taken`; False where it
    found no room."""
    size = round(float(np.exp(rng.uniform(np.log(14), np.log(76)))))
    font = ImageFont.truetype(sources.fonts[rng.integers(len(sources.fonts))], size)
    lines = random_lines(sources.words, rng)
    spacing = size * max(0.0, rng.normal(0.02, 0.05))
    points = corners(*extent(lines, font, spacing), rng)
    room = np.array(picture.size) - (points.max(axis=0) - points.min(axis=0))
    if room.min() <= 0:
        return False
    target = points - points.min(axis=0) + rng.uniform(0, 1, 2) * room
    place = Image.new("L", picture.size)
    ImageDraw.Draw(place).polygon([tuple(point) for point in target], 255)
    where = np.asarray(place) > 0
    if (np.asarray(taken)[where] > 0).any() or not where.any():
        return False
    ground = float(np.asarray(picture.convert("L"))[where].mean())
    drawn = block(lines, font, random_style(ground, size, spacing, rng))
    layer = warped(drawn.layer, target, picture.size)
    share = rng.uniform(0.75, 1.0)
    alpha = layer.getchannel("A").point(lambda value: round(value * share))
    softness = rng.uniform(0, 0.02) * size
    picture.paste(layer.convert("RGB"), mask=alpha.filter(ImageFilter.GaussianBlur(softness)))
    mask.paste(255, mask=warped(drawn.mask, target, picture.size).point(lambda value: 255 * (value >= 128)))
    taken.paste(255, mask=place)
    return True


def weathered(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same as a poor camera sees it: light from one side, blur, noise, JPEG."""
    if rng.random() < 0.35:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    height, width = picture.height, picture.width
    down, right = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    slope = rng.normal(0, 0.15, 2)
    light = rng.uniform(0.75, 1.2) * (1 + slope[0] * down + slope[1] * right)
    noise = rng.normal(0, rng.uniform(0, 7), (height, width, 1))
    pixels = np.asarray(picture, np.float32) * light[..., None] + noise
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(40, 96)))
    return Image.open(file).convert("RGB")


def text_over(photograph: Image.Image, sources: Sources, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """(RGB picture, L mask of 0 and 255) of SIZE: a part of the photograph with one to eight blocks of text."""
    picture = random_scene(photograph, rng)
    mask, taken = Image.new("L", picture.size), Image.new("L", picture.size)
    wanted, drawn = int(rng.integers(1, 9)), 0
    for attempt in range(200):
        drawn += with_block(picture, mask, taken, sources, rng)
        if drawn and (drawn >= wanted or attempt > 30):
            break
    return weathered(picture, rng), mask


def is_plain_font(path: Path) -> bool:
    """Whether a font draws every letter and digit, each in its own way, as filled shapes."""
    if path.suffix.lower() not in (".ttf", ".otf") or ODD_FONT.search(path.stem):
        return False
    font = ImageFont.truetype(path, 32)
    inks = {bytes(font.getmask(glyph)) for glyph in GLYPHS}
    return len(inks) >= len(GLYPHS) - 12


def fonts(roots: list[Path]) -> list[Path]:
    """The plain fonts below some folders."""
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if is_plain_font(path)]


def words(root: Path) -> list[str]:
    """Words of two to eleven letters, without names' apostrophes and accents."""
    lines = (root / "usr/share/dict/american-english").read_text().split()
    return sorted({word.lower() for word in lines if re.fullmatch(r"[A-Za-z]{2,11}", word)})


def sources(work: Path, seed: int) -> dict[str, Sources]:
    """What train and val are made of, out of packages unpacked in `work`. Raises DataError where it is too little."""
    photos = backgrounds([work / package for package in WALLPAPERS])
    photos |= dict(photographs(work / PHOTOS, longest=640))
    rng = np.random.default_rng(seed)
    names = split(list(photos), rng)
    every = words(work / WORDS)
    of_val = rng.permutation(len(every)) % 4 == 0
    found = {}
    for part in COUNTS:
        own_fonts = fonts([work / package for package in FONTS[part]])
        own_words = [word for word, val in zip(every, of_val, strict=True) if val == (part == "val")]
        found[part] = Sources([photos[name] for name in names[part]], own_fonts, own_words)
        have = {"photographs": len(names[part]), "fonts": len(own_fonts), "words": len(own_words)}
        if min(have.values()) < 10:
            few = ", ".join(f"{count} {what}" for what, count in have.items())
            raise DataError(f"too little for {part} in {work}: {few}; {OTHERWISE}")
    return found


def write_pictures(folder: Path, count: int, parts: Sources, seed: int) -> None:
    """Writes `count` pictures into folder/images and folder/masks; every photograph is used about equally often."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    order = np.random.default_rng(seed).permutation(len(parts.photographs))
    for index in tqdm(range(count), desc=folder.name, unit="image"):
        photograph = parts.photographs[order[index % len(order)]]
        picture, mask = text_over(photograph, parts, np.random.default_rng([seed, index]))
        picture.save(folder / "images" / f"{index:03d}.jpg", quality=95)
        mask.save(folder / "masks" / f"{index:03d}.png")


def fill(work: Path, out: Path, seed: int) -> dict[str, int]:
    """Writes train and val into `out` from packages unpacked in `work`; returns how many images each has.

    Raises DataError when the packages hold too little.
    """
    for offset, (part, own) in enumerate(sources(work, seed).items()):
        write_pictures(out / part, COUNTS[part], own, 2 * seed + offset)
    return COUNTS


TEXT = ImageSet(
    script="text_data.py",
    folder=Path("data/text"),
    title="Text over photographs",
    version=1,
    content="The words over them are drawn by the script.",
    megabytes=PACKAGES,
    counts=COUNTS,
    fill=fill,
    otherwise=OTHERWISE,
)


if __name__ == "__main__":
    sys.exit(command(TEXT, "Build photographs with text in them from what Debian packages carry."))
