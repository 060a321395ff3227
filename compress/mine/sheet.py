"""What mining found, for people: a table and a contact sheet."""

import base64
import csv
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from compress.data.images import as_rgb, read_image
from compress.errors import WriteError
from compress.files import write_whole
from compress.mine.mining import Find, Mined
from compress.mine.uncertainty import Uncertainty
from compress.report.pictures import photo_of, photo_uri
from compress.terminal.progress import tqdm

PHOTO_PX = 240
UNSURE = (230, 159, 0)
DISAGREE = (208, 28, 139)
"""Two colours of Okabe and Ito's kind, apart for colour-blind readers as well."""

_CONTRADICTION = 0.25
"""Share of the uncertainty from which on it is called disagreement; of two models at 0.8 and 0.2 of a class it is
0.28."""

MEANINGS = {
    "uncertainty": "share of what may be an object on which the models are unsure or disagree, 0 to 1: the sum of both",
    "unsure": "the part on which the models, each for itself, do not know the class",
    "disagreement": "the part on which one model contradicts another",
    "apart": "distance in kind from the nearest image ranked above; 1: two images drawn at random",
}
COLUMNS = ("rank", "image", *MEANINGS, "why")


def why(find: Find) -> str:
    disagree = find.score.disagreement > _CONTRADICTION * find.score.uncertainty
    return "the models disagree" if disagree else "the models are unsure"


def to_csv(mined: Mined) -> str:
    """A line for each image, the best first; `image` is the path below the folder that was searched."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for find in mined.finds:
        score = find.score
        figures = [f"{value:.4f}" for value in (score.uncertainty, score.unsure, score.disagreement)]
        writer.writerow([find.rank, find.name, *figures, _apart(find), why(find)])
    return text.getvalue()


def to_html(mined: Mined) -> str:
    """One page with its style and pictures inside, readable offline, on a phone, by day and night."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("compress.mine").joinpath("sheet.html").read_text("utf-8"))
    finds = tqdm(mined.finds, desc="contact sheet", unit="image", delay=1)
    cards = [
        {
            "find": find,
            "why": why(find),
            "apart": _apart(find)[:4],
            "photo": photo_uri(photo_of(as_rgb(read_image(find.image, reading=mined.reading)), PHOTO_PX)),
            "overlay": overlay(find.uncertainty),
        }
        for find in finds
    ]
    return template.render(mined=mined, cards=cards, meanings=MEANINGS, unsure=UNSURE, disagree=DISAGREE)


def overlay(uncertainty: Uncertainty) -> str:
    """PNG data URI of the uncertainty, to be laid over the image: clear where the models are sure; the hue goes from
    unsure to disagreement."""
    total = uncertainty.unsure + uncertainty.disagreement
    share = uncertainty.disagreement / np.maximum(total, 1e-6)
    hue = np.array(UNSURE) * (1 - share[..., None]) + np.array(DISAGREE) * share[..., None]
    alpha = 235 * np.sqrt(total.clip(0, 1))[..., None]
    picture = Image.fromarray(np.concatenate([hue, alpha], axis=2).round().astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_sheet(mined: Mined, out: Path) -> None:
    """mine.csv and mine.html in the folder `out`. Raises WriteError; nothing is left half written."""
    texts = {"mine.csv": to_csv(mined), "mine.html": to_html(mined)}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{out}: cannot be made: {error.strerror}; choose another folder") from None
    for name, text in texts.items():
        write_whole(out / name, text.encode(errors="backslashreplace"))


def describe_mined(mined: Mined, out: Path) -> str:
    """Lines for the terminal."""
    found = [find.score.uncertainty for find in mined.finds]
    disagreements = [why(find) for find in mined.finds].count("the models disagree")
    mean = f"mean uncertainty {np.mean(found):.3f}, of all {mined.everywhere:.3f}; " if found else ""
    return "\n".join(
        [
            *mined.warnings,
            f"{len(found)} of {mined.images} images are worth a label: {mean}on {disagreements} the models disagree, "
            f"on {len(found) - disagreements} they are unsure",
            f"table: {out / 'mine.csv'}",
            f"contact sheet: {out / 'mine.html'}",
        ]
    )


def _apart(find: Find) -> str:
    return "" if find.apart is None else f"{find.apart:.4f}"
