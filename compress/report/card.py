"""MODEL_CARD.md: what one must know to use a run's files, for people and, at its head, for Hugging Face."""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compress.formats.artifact import LOGITS, Artifact
from compress.measure.values import Measurement
from compress.report.pictures import WORST, Picture
from compress.report.record import RunRecord
from compress.report.result import figures, lead, remarks
from compress.report.summary import columns, confused, headline, interval, verdict_line
from compress.report.tables import Cell, class_rows, measured_rows
from compress.report.words import TITLES

FILE = "MODEL_CARD.md"
POOR = 0.5
"""IoU under which an image counts as one that the file is bad at."""
_LIBRARIES = {"tflite": "litert", "onnx": "onnx", "ort": "onnx"}
_HUB_LICENCES = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "gpl-2.0"),
    *("gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ncsa", "odbl", "unlicense", "wtfpl", "zlib"),
    *("cc-by-3.0", "cc-by-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "epl-2.0", "eupl-1.2", "unknown"),
)
"""Those that Hugging Face has a name for, which is SPDX's in lower case."""
_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


class Markdown(str):
    """Text that is Markdown already; any other is escaped where a template shows it."""

    __slots__ = ()


def render_card(record: RunRecord, pictures: Sequence[Picture]) -> str:
    """The card as text."""
    first = lead(record.measurements)
    measured = columns(record)
    leading = measured[first] if first else Measurement()
    return (
        _environment()
        .get_template("card.md")
        .render(
            front=Markdown(_yaml(front_matter(record))),
            record=record,
            said={key: _said(record, key) for key in ("description", "author", "licence")},
            lines=[Markdown(f"{title}: {words}") for title, words in _told(record)],
            first=_artifact(record, first),
            artifacts={artifact.format: artifact for artifact in record.artifacts},
            titles=TITLES,
            channels=_channels(record),
            decision=_decision(record),
            columns=[TITLES.get(name, name) for name in measured],
            rows=[(title, [_cell(cell) for cell in cells]) for title, cells in measured_rows(measured)],
            classes=[(name, [_cell(cell) for cell in cells]) for name, _, cells in class_rows(record, measured)],
            headline=headline(record.verdict),
            checks=[Markdown(verdict_line(check)) for check in record.verdict.checks],
            poor=sum(iou < POOR for iou in leading.per_image_iou),
            below=POOR,
            leading=leading,
            tenth=Markdown(interval(leading.worst_decile_iou)),
            worst=sorted(pictures, key=lambda picture: picture.student_iou)[: WORST // 2],
            confused=confused(leading),
        )
        .strip()
        + "\n"
    )


def front_matter(record: RunRecord) -> dict[str, Any]:
    """What Hugging Face reads of a model: https://huggingface.co/docs/hub/model-cards."""
    first = lead(record.measurements)
    formats = [artifact.format for artifact in record.artifacts]
    found: dict[str, Any] = {
        **_licence(_said(record, "licence")),
        "pipeline_tag": "image-segmentation",
        "base_model": record.source.file.rpartition("/")[2].rpartition(".")[0] or record.source.file,
        "base_model_relation": "quantized",
        "tags": [*formats, "int8", "quantized", *_pruned(record), *_distilled(record), "on-device"],
    }
    if first in _LIBRARIES:
        found["library_name"] = _LIBRARIES[first]
    if first and (results := _results(record, first)):
        found["model-index"] = [{"name": record.name, "results": [results]}]
    return found


def _pruned(record: RunRecord) -> list[str]:
    return ["pruned"] if any(layer.after_channels < layer.before_channels for layer in record.layers) else []


def _distilled(record: RunRecord) -> list[str]:
    return ["distilled"] if any(point.stage == "distil" for point in record.history) else []


def _results(record: RunRecord, name: str) -> dict[str, Any]:
    """The IoU of a file with labels; agreement with a teacher is no accuracy, and is left out."""
    measured = record.measurements[name]
    known = {"mean_iou": (measured.iou, "mean IoU over images"), "miou": (measured.miou, "mIoU over classes")}
    metrics = [
        {
            "type": kind,
            "name": words,
            "value": round(value.mean, 4),
            "args": {
                "low": round(value.low, 4),
                "high": round(value.high, 4),
                "interval": 0.95,
                "file": f"model.{name}",
            },
        }
        for kind, (value, words) in known.items()
        if value
    ]
    if record.data.reference != "labels" or not metrics:
        return {}
    return {
        "task": {"type": "image-segmentation", "name": "Image segmentation"},
        "dataset": {
            "type": "own",
            "name": f"{record.data.val or 0} labelled images kept out of training",
            "split": "val",
            **({"revision": record.data.val_sha256} if record.data.val_sha256 else {}),
        },
        "metrics": metrics,
    }


def _licence(named: str) -> dict[str, str]:
    """As Hugging Face says it: its own name for it, or "other" beside what it is called."""
    short = named.lower().removesuffix("-only").removesuffix("-or-later")
    if not named:
        return {"license": "unknown"}
    return {"license": short} if short in _HUB_LICENCES else {"license": "other", "license_name": named}


def _said(record: RunRecord, key: str) -> str:
    """What the recipe says of the model; empty where it does not, as in older reports."""
    value = record.recipe.get(key)
    return value if isinstance(value, str) else ""


def _told(record: RunRecord) -> list[tuple[str, str]]:
    first = lead(record.measurements)
    lines = [(TITLES.get(first, first), ", ".join(each.line for each in figures(record)))] if first else []
    return [*lines, *remarks(record)]


def _artifact(record: RunRecord, name: str | None) -> Artifact | None:
    return next((each for each in record.artifacts if each.format == name), next(iter(record.artifacts), None))


def _channels(record: RunRecord) -> list[tuple[str, str]]:
    """Each channel of the map and what it is the probability of."""
    first = _artifact(record, lead(record.measurements))
    if first and first.output.side("C") == 1:
        return [("0", record.classes[-1])]
    return [(str(place), name) for place, name in enumerate(record.classes)]


def _decision(record: RunRecord) -> str:
    """How probabilities become a mask: "labels", "threshold" or "likeliest"; "logit": a threshold of 0."""
    first = _artifact(record, lead(record.measurements))
    if record.multilabel:
        return "labels"
    if first is None or first.output.side("C") > 1:
        return "likeliest"
    return "logit" if first.output.activation == LOGITS else "threshold"


def _cell(cell: Cell) -> Markdown:
    """For example "0.896 [0.876, 0.914]", "3.97 MB (3,965,410 bytes)"."""
    main, detail = cell
    detail = detail.replace("\u00a0", " ")
    return Markdown(f"{main} {detail}" if detail.startswith("[") else f"{main} ({detail})" if detail else main)


def _escaped(value: Any) -> Any:
    """A value as Markdown shows it in a line: nothing in it is a sign, a link or a tag."""
    if isinstance(value, Markdown):
        return value
    return _SIGNS.sub(r"\\\1", " ".join(str(value).split()))


def _code(value: object) -> Markdown:
    """A value in backticks, more of them than it has in a row."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + max((len(found) for found in re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return Markdown(f"{fence}{pad}{text}{pad}{fence}" if text else "")


def _plain(value: object) -> Markdown:
    """A value in a block of code, in one line."""
    return Markdown(" ".join(str(value).split()))


def _quoted(value: object) -> Markdown:
    """Text in a program within a block of code, which nothing in it ends."""
    return Markdown(json.dumps(str(value)).replace("`", "\\u0060"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("compress.report", ""),
        autoescape=False,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "plain": _plain, "quoted": _quoted}
    return environment


def _yaml(value: Any, indent: str = "") -> str:
    """Tables, lists and plain values as YAML."""
    if isinstance(value, dict):
        return "".join(f"{indent}{key}:{_nested(each, indent)}" for key, each in value.items())
    lines = []
    for each in value:
        inner = _yaml(each, f"{indent}  ") if isinstance(each, dict) else f"{_scalar(each)}\n"
        lines.append(f"{indent}- {inner.lstrip()}")
    return "".join(lines)


def _nested(value: Any, indent: str) -> str:
    return f"\n{_yaml(value, indent + '  ')}" if isinstance(value, dict | list) else f" {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    """As JSON, which YAML reads too, but for signs that it does not allow in text."""
    if isinstance(value, str):
        value = "".join(each if each.isprintable() else " " for each in value)
    return json.dumps(value, ensure_ascii=False)
