"""Two releases side by side: what an app would notice. By what it relies on, the second is a drop-in for the first, or
breaks it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from compress.errors import RegistryError, one_line
from compress.release.contract import input_contract, output_contract
from compress.release.manifest import range_of

_NONE = "–"
_FEW = 8
_INPUT = ("name", "shape", "dtype", "layout", "mean", "std", "range")
_OUTPUT = ("name", "shape", "dtype", "layout", "scale", "zero_point", "activation")
"""What of a file's own input and output an app's code knows. The scale of the pixels it need not know: it gives them
as they are."""
_SAME_IMAGES = ("iou", "miou", "iou_drop")
_FIGURES = {"iou": "IoU", "miou": "mIoU", "iou_drop": "IoU below the heavy model", "speedup": "times faster"}


@dataclass(frozen=True)
class Row:
    """One line: what it is, and what both have."""

    what: str
    before: str
    after: str
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """`breaking`: each reason for which an app that has the first cannot take the second as it is."""

    names: tuple[str, str]
    rows: tuple[Row, ...]
    breaking: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        return "breaking" if self.breaking else "drop-in"


def compare(before: dict[str, Any], after: dict[str, Any]) -> Difference:
    """Of two manifests, of either schema. Raises RegistryError for one that states no input or output."""
    names = (_title(before), _title(after))
    broken = list(_broken(before, after))
    return Difference(names, tuple(_rows(before, after)), tuple(broken), tuple(_notes(before, after)))


def describe_diff(difference: Difference) -> str:
    """A table in Markdown, which a terminal and a pull request both show, and the verdict."""
    first, second = difference.names
    rows = [("", first, second, ""), *((row.what, row.before, row.after, row.note) for row in difference.rows)]
    cells = [[one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(4)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    if difference.breaking:
        lines += [
            "",
            f"**breaking** for an app that has {first}:",
            *(f"- {one_line(reason)}" for reason in difference.breaking),
        ]
    else:
        lines += ["", f"**drop-in**: an app that has {first} can take {second} as it is"]
    return "\n".join([*lines, *(["", *difference.notes] if difference.notes else [])])


def _title(manifest: dict[str, Any]) -> str:
    return f"{manifest.get('name', _NONE)!s:.60} {manifest.get('version', _NONE)!s:.40}"


def _broken(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for words, ours, theirs in (
        ("input", _input(before), _input(after)),
        ("output", _output(before), _output(after)),
    ):
        yield from _changes(words, ours, theirs)
    if before.get("classes") != after.get("classes"):
        yield f"labels: {_said(before.get('classes'))} became {_said(after.get('classes'))}"
    if before.get("multilabel", False) != after.get("multilabel", False):
        yield "labels: a pixel can have several of them in one of both alone"
    later = _by_format(after)
    for form, entry in _by_format(before).items():
        if form not in later:
            yield f"{form}: there is no such file any more"
            continue
        yield from _changes(f"{form} input", _part(entry, "input", _INPUT), _part(later[form], "input", _INPUT))
        yield from _changes(f"{form} output", _part(entry, "output", _OUTPUT), _part(later[form], "output", _OUTPUT))
        yield from _newer_runtime(form, entry, later[form])


def _newer_runtime(form: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    old, new = (_oldest(entry) for entry in (before, after))
    if old and new and _numbers(new) > _numbers(old):
        yield f"{form} runtime: {new} is the oldest that reads it, where {old} was"


def _changes(words: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in before:
        if before[key] != after.get(key):
            yield f"{words} {key.replace('_', ' ')}: {_said(before[key])} became {_said(after.get(key))}"


def _rows(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Row]:
    ours, theirs = _by_format(before), _by_format(after)
    for form in dict.fromkeys([*ours, *theirs]):
        sizes = [each.get(form, {}).get("size_bytes") for each in (ours, theirs)]
        yield Row(f"{form} bytes", _bytes(sizes[0]), _bytes(sizes[1]), _change(*sizes))
        times = [_p50(manifest, form) for manifest in (before, after)]
        yield Row(
            f"{form} latency p50", _ms(times[0]), _ms(times[1]), _change(*times) if _same_machine(before, after) else ""
        )
        for key, words in _FIGURES.items():
            found = [_interval(manifest, form, key) for manifest in (before, after)]
            if any(found):
                moved = _moved(*found) if key in _SAME_IMAGES and _same_images(before, after) else ""
                yield Row(f"{form} {words}", _with_ends(found[0]), _with_ends(found[1]), moved)
    yield Row("input", _pixels(_input(before)), _pixels(_input(after)))
    yield Row("output", _map(_output(before)), _map(_output(after)))
    yield Row("labels", _said(before.get("classes")), _said(after.get("classes")))
    yield Row("preprocessing", _preprocessing(before), _preprocessing(after))


def _notes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    if not _same_machine(before, after):
        yield "Latencies are of different machines, or it is not known of which: they are not compared."
    if not _same_images(before, after):
        yield "IoU is of different images, or it is not known of which: it is not compared."
    for key in ("licence", "author"):
        if before.get(key) != after.get(key) and key in before and key in after:
            yield f"The {key} changed: {_said(before[key])} became {_said(after[key])}."


def _by_format(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["format"]: entry for entry in manifest["files"]}


def _input(manifest: dict[str, Any]) -> dict[str, Any]:
    if "input" in manifest:
        return dict(manifest["input"])
    return _stated(manifest, lambda entry: input_contract(entry["input"]))


def _output(manifest: dict[str, Any]) -> dict[str, Any]:
    if "output" in manifest:
        return dict(manifest["output"])
    classes, multilabel = manifest.get("classes") or [], manifest.get("multilabel", False)
    return _stated(manifest, lambda entry: output_contract(entry["output"], classes, multilabel))


def _stated(manifest: dict[str, Any], contract: Any) -> dict[str, Any]:
    """What schema 2 says once, of the first file of schema 1."""
    try:
        found: dict[str, Any] = contract(manifest["files"][0])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise RegistryError(f"{_title(manifest)}: its manifest states no shape and layout; run it again") from None
    return found


def _part(entry: dict[str, Any], key: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    found = entry.get(key, {})
    return {each: found.get(each) for each in wanted}


def _oldest(entry: dict[str, Any]) -> str | None:
    runtime = entry.get("runtime")
    found = runtime.get("oldest") if isinstance(runtime, dict) else None
    return found if isinstance(found, str) else None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:4] if part.isascii() and part.isdigit() and len(part) < 10]


def _measured(manifest: dict[str, Any]) -> dict[str, Any]:
    found = manifest.get("measurements")
    return found if isinstance(found, dict) else {}


def _of(manifest: dict[str, Any], form: str) -> dict[str, Any]:
    of = _measured(manifest).get("of")
    found = of.get(form) if isinstance(of, dict) else None
    return found if isinstance(found, dict) else {}


def _p50(manifest: dict[str, Any], form: str) -> float | None:
    latency = _of(manifest, form).get("latency")
    return _number(latency.get("p50_ms")) if isinstance(latency, dict) else None


def _same_machine(before: dict[str, Any], after: dict[str, Any]) -> bool:
    ours, theirs = ((_measured(each).get("cpu"), _measured(each).get("cores")) for each in (before, after))
    return ours == theirs and bool(ours[0])


def _same_images(before: dict[str, Any], after: dict[str, Any]) -> bool:
    ours, theirs = (
        (_measured(each).get("images_sha256"), _measured(each).get("reference")) for each in (before, after)
    )
    return ours == theirs and bool(ours[0])


def _interval(manifest: dict[str, Any], form: str, key: str) -> tuple[float, float, float] | None:
    found = _of(manifest, form).get(key)
    if not isinstance(found, dict):
        return None
    mean, low, high = (_number(found.get(each)) for each in ("mean", "low", "high"))
    return None if mean is None or low is None or high is None else (mean, low, high)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e18 and math.isfinite(value) else None


def _change(before: float | None, after: float | None) -> str:
    if not before or after is None:
        return ""
    return f"{100 * (after / before - 1):+.1f} %"


def _moved(before: tuple[float, float, float] | None, after: tuple[float, float, float] | None) -> str:
    return "" if before is None or after is None else f"{after[0] - before[0]:+.3f}"


def _bytes(value: Any) -> str:
    return f"{value:,}" if type(value) is int else _NONE


def _ms(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f} ms"


def _with_ends(value: tuple[float, float, float] | None) -> str:
    return _NONE if value is None else f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def _pixels(found: Mapping[str, Any]) -> str:
    return f"{found.get('colours')} {found.get('height')}x{found.get('width')}"


def _map(found: Mapping[str, Any]) -> str:
    return f"{found.get('values')} {found.get('height')}x{found.get('width')}, {found.get('decision')}"


def _preprocessing(manifest: dict[str, Any]) -> str:
    said = []
    for form, entry in _by_format(manifest).items():
        given = entry.get("input", {})
        scaled = (
            f"mean {_said(given['mean'])}, std {_said(given.get('std'))}" if given.get("mean") else "pixels as they are"
        )
        ends = range_of(entry)
        said.append(f"{form}: {scaled}" + (f", {ends[0]:g} to {ends[1]:g}" if ends else ""))
    return "; ".join(said)


def _said(value: Any) -> str:
    if not isinstance(value, list):
        return _NONE if value is None else f"{value!s:.60}"
    few = [f"{each!s:.60}" for each in value[:_FEW]]
    return ", ".join(few) + (f", ... ({len(value)})" if len(value) > _FEW else "")
