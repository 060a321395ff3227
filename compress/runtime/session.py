"""Opens an exported file in the runtime that apps use, and states what the file itself says.

The runtimes are imported when a file needs them: one process that times models should hold one of them.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import MeasureError
from compress.files import sha256_of
from compress.formats.artifact import IMAGE_EXPECTED, LOGITS, Artifact, IOSpec, image_layout
from compress.machine import THREADS

Values = tuple[float, ...]
NOISE_READING = ((127.5,), (64.0,))
"""Mean and std, of every channel, by which a float32 input reads noise, where the file states none."""


@dataclass(frozen=True)
class Session:
    """An opened file. `input` and `output` are read from it; scale and zero point are None for float32."""

    path: Path
    runtime: str  # name and version
    input: IOSpec
    output: IOSpec
    infer: Callable[[np.ndarray], dict[str, np.ndarray]]  # every output by name
    load_ms: float = 0.0  # that the runtime took to open it

    def run(self, array: np.ndarray) -> np.ndarray:
        """One inference in the file's own shape, layout and dtype. Raises MeasureError for any other array."""
        return self.run_all(array)[self.output.name]

    def run_all(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The same, of every output by name."""
        if array.shape != self.input.shape or array.dtype != self.input.dtype:
            raise MeasureError(
                f"{self.path}: the input is {self.input.dtype} {list(self.input.shape)}, "
                f"not {array.dtype} {list(array.shape)}; resize or convert the image first"
            )
        return self.infer(array)

    def prepare(self, image: np.ndarray, mean: Values | None = None, std: Values | None = None) -> np.ndarray:
        """uint8 [H, W, channels] -> what `run` takes. A float32 input reads (pixel - mean) / std: those that the file
        states, or else these, of each channel or of every one."""
        channels = self.input.side("C")
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise MeasureError(
                f"{self.path}: an image must be uint8 [H, W, {channels}], not {image.dtype} {list(image.shape)}"
            )
        if self.input.dtype == "float32":
            mean, std = self.input.mean or mean, self.input.std or std
            if mean is None or std is None:
                raise MeasureError(f"{self.path}: a float32 input needs the mean and std of its manifest")
            if not {len(mean), len(std)} <= {1, channels}:
                raise MeasureError(
                    f"{self.path}: reads {channels} channels, and mean and std have {len(mean)} and {len(std)} values; "
                    "give as many as channels"
                )
            image = (image - np.array(mean, np.float32)) / np.array(std, np.float32)
        ordered = image if self.input.layout == "NHWC" else image.transpose(2, 0, 1)
        return np.ascontiguousarray(ordered)[np.newaxis]

    def probabilities(self, image: np.ndarray, mean: Values | None = None, std: Values | None = None) -> np.ndarray:
        """uint8 [H, W, channels] at the file's input size -> float32 [classes, H, W], the same for every format.

        `mean` and `std` are those of `prepare`. Raises MeasureError, also for an output that is no map of classes.
        """
        if not _is_map(self.input.shape, self.input.layout, self.output.shape, self.output.layout):
            raise MeasureError(
                f"{self.path}: the output has shape {list(self.output.shape)}; a map of classes in the image's "
                "proportions, [1, h, w, classes] or [1, classes, h, w], is expected"
            )
        values = self.run(self.prepare(image, mean, std))
        if values.shape != self.output.shape:
            raise MeasureError(
                f"{self.path}: output {self.output.name!r} is {list(values.shape)}, and the file says "
                f"{list(self.output.shape)}; export it again"
            )
        values = values[0]
        if self.output.scale is not None and self.output.zero_point is not None:
            values = (values.astype(np.float32) - self.output.zero_point) * np.float32(self.output.scale)
        if not np.isfinite(values).all():
            gives = "NaN" if np.isnan(values).any() else "infinite values"
            raise MeasureError(
                f"{self.path}: output {self.output.name!r} gives {gives}; look for weights that are not finite, or "
                "for a mean and std that it was not trained with"
            )
        return values if self.output.layout == "NCHW" else values.transpose(2, 0, 1)


def import_runtime(path: Path) -> None:
    """Imports what `open_model` would, so that its own cost can be told from the file's."""
    if path.suffix == ".tflite":
        import ai_edge_litert.interpreter  # noqa: F401
    else:
        import onnxruntime  # noqa: F401


def open_model(path: Path, threads: int = THREADS) -> Session:
    """A session on an .onnx or .ort file (onnxruntime, CPU) or a .tflite file (LiteRT, XNNPACK).

    Where there are several outputs the first counts, which must be the map if any is. Raises MeasureError, in one line,
    for a file that is missing, no model, truncated, or not one image in and one map out.
    """
    if path.suffix not in OPENERS:
        raise MeasureError(f"{path}: no runtime for {path.suffix or 'a file without suffix'}; use .onnx, .ort, .tflite")
    if not path.is_file():
        raise MeasureError(f"{path}: no such file")
    try:
        return OPENERS[path.suffix](path, threads)
    except (MeasureError, ImportError):
        raise
    except Exception as error:  # each runtime raises types of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MeasureError(f"{path}: not a model that the runtime can load: {reason}; export it again") from error


def artifact_of(path: Path, source: IOSpec, output: IOSpec, macs: int | None = None) -> Artifact:
    return Artifact(path, path.suffix[1:], sha256_of(path), path.stat().st_size, source, output, macs)


def noise(session: Session) -> np.ndarray:
    """An image to try a file out with, uint8 [H, W, channels]."""
    shape = [session.input.side(axis) for axis in "HWC"]
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def tried_activation(session: Session) -> str | None:
    """LOGITS where the answer to noise leaves 0 to 1, else None: a map of probabilities. A file does not say it itself.

    Raises MeasureError for an output that is no map of classes.
    """
    values = session.probabilities(noise(session), *NOISE_READING)
    return LOGITS if values.min() < 0 or values.max() > 1 else None


def saturates(path: Path) -> bool:
    """Whether onnxruntime computes this int8 file with kernels that saturate: an .ort file on an x86 processor without
    VNNI. In an .onnx file it can exchange the weights for ones that do not; an .ort file stays as it is."""
    return path.suffix == ".ort" and _adds_in_int16()


def _adds_in_int16() -> bool:
    """Whether this is an x86 processor without VNNI, on which onnxruntime's default int8 kernels add two products in
    int16 and saturate: other answers than on a phone."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True
    return not {"avx_vnni", "avx512_vnni", "avx512vnni"} & set(flags)


def _open_onnx(path: Path, threads: int) -> Session:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if _adds_in_int16():  # its exact kernels, which are half as fast where there is no need for them
        options.add_session_config_entry("session.x64quantprecision", "1")
    start = time.perf_counter()
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    load_ms = (time.perf_counter() - start) * 1e3
    facts = session.get_modelmeta().custom_metadata_map
    source, results = _only(path, session.get_inputs(), lambda given: given.name), session.get_outputs()
    layout = _layout(path, source.shape)
    names = [output.name for output in results]
    result = results[0]
    _check_first(path, source.shape, layout, {output.name: output.shape for output in results})

    def infer(array: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {source.name: array}), strict=True))

    return Session(
        path,
        f"onnxruntime {ort.__version__}",
        _onnx_spec(path, "input", source, layout, facts),
        _onnx_spec(path, "output", result, _output_layout(source.shape, layout, result.shape), facts),
        infer,
        load_ms,
    )


def _onnx_spec(path: Path, end: str, value: Any, layout: str, facts: dict[str, str]) -> IOSpec:
    dtype = {"tensor(float)": "float32"}.get(value.type, value.type[len("tensor(") : -1])
    fixed = not value.shape or isinstance(value.shape[0], int)
    spec = _spec(path, end, value.name, value.shape if fixed else [1, *value.shape[1:]], dtype, layout)
    if dtype == "float32":
        return replace(spec, mean=_colours(facts, "mean"), std=_colours(facts, "std")) if end == "input" else spec
    try:
        return _of_scale(path, spec, float(facts[f"{end}_scale"]), int(facts[f"{end}_zero_point"]))
    except (KeyError, ValueError):
        if end == "input":  # it takes the pixels as they are
            return spec
        raise MeasureError(
            f"{path}: the uint8 {end} states no {end}_scale and {end}_zero_point in its metadata; export it again"
        ) from None


def _colours(facts: dict[str, str], key: str) -> Values | None:
    """`input_mean` or `input_std` of the metadata: numbers, or nothing that can be used."""
    try:
        return tuple(map(float, facts[f"input_{key}"].split())) or None
    except (KeyError, ValueError):
        return None


def open_interpreter(path: Path, threads: int) -> Any:
    """LiteRT's interpreter, with its tensors allocated."""
    from ai_edge_litert.interpreter import Interpreter

    with _quiet():
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def _open_tflite(path: Path, threads: int) -> Session:
    import_runtime(path)  # so that opening the file is all that is timed
    start = time.perf_counter()
    interpreter = open_interpreter(path, threads)
    load_ms = (time.perf_counter() - start) * 1e3
    source = _only(path, interpreter.get_input_details(), lambda given: given["name"])
    results = interpreter.get_output_details()
    if any(size < 0 for size in source["shape_signature"][1:].tolist()):
        shape = source["shape_signature"].tolist()
        raise MeasureError(f"{path}: the input has dynamic shape {shape}; export it with one image of a fixed size")
    shape = source["shape"].tolist()
    layout = _layout(path, shape)
    _check_first(path, shape, layout, {result["name"]: result["shape"].tolist() for result in results})

    def infer(array: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.set_tensor(source["index"], array)
        interpreter.invoke()
        return {result["name"]: interpreter.get_tensor(result["index"]) for result in results}

    return Session(
        path,
        f"LiteRT {version('ai-edge-litert')}",
        _tflite_spec(path, "input", source, layout),
        _tflite_spec(path, "output", results[0], _output_layout(shape, layout, results[0]["shape"].tolist())),
        infer,
        load_ms,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT greets on the stderr of the process each time it opens a file; its errors come as exceptions too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _tflite_spec(path: Path, end: str, detail: dict[str, Any], layout: str) -> IOSpec:
    dtype = np.dtype(detail["dtype"]).name
    spec = _spec(path, end, detail["name"], detail["shape"].tolist(), dtype, layout)
    scale, zero_point = detail["quantization"]
    return spec if dtype == "float32" else _of_scale(path, spec, float(scale), int(zero_point))


def _of_scale(path: Path, spec: IOSpec, scale: float, zero_point: int) -> IOSpec:
    if not 0 < scale < float("inf"):
        raise MeasureError(f"{path}: the scale of {spec.name!r} is {scale}, not more than 0; export it again")
    return replace(spec, scale=scale, zero_point=zero_point)


def _spec(path: Path, end: str, name: str, shape: list[Any], dtype: str, layout: str) -> IOSpec:
    what = f"{path}: {end} {name!r} is {dtype} {shape}"
    sizes = [size for size in shape if isinstance(size, int) and size > 0]
    if end == "output" and dtype.startswith(("int", "bool")):
        raise MeasureError(f"{what}: class ids, it seems; export the map that they are taken from, one channel a class")
    if end == "output" and len(sizes) == len(shape) == 3 and shape[0] == 1:
        raise MeasureError(f"{what}: it has no channel axis; export it as [1, 1, {shape[1]}, {shape[2]}]")
    if len(sizes) == len(shape) == 4 and shape[0] != 1:
        raise MeasureError(f"{what}: a batch of {shape[0]}; export it with one image of a fixed size")
    if end == "output" and len(sizes) == len(shape) != 4:
        raise MeasureError(f"{what}: no map of the image; export its map of classes, [1, classes, h, w]")
    if len(sizes) != 4 or len(shape) != 4:
        raise MeasureError(f"{what}; export it with one image of a fixed size")
    if dtype not in ("uint8", "float32"):
        raise MeasureError(f"{path}: {end} {name!r} is {dtype}; only uint8 and float32 are supported")
    return IOSpec(name, tuple(shape), dtype, layout)


def _check_first(path: Path, shape: list[Any], layout: str, results: dict[str, list[Any]]) -> None:
    """Raises MeasureError where another output than the first is the map."""
    maps = [name for name, result in results.items() if _is_some_map(shape, layout, result)]
    first = next(iter(results))
    if maps and first not in maps:
        which = ("second", "third")[place - 1] if (place := list(results).index(maps[0])) < 3 else "other"
        raise MeasureError(
            f"{path}: the first output, {first!r}, is {results[first]} and no map; the {which} output, {maps[0]!r}, is "
            "one: export it first, or alone"
        )


def _only(path: Path, inputs: list[Any], name: Callable[[Any], str]) -> Any:
    if len(inputs) != 1:
        names = ", ".join(name(given) for given in inputs) or "none"
        raise MeasureError(f"{path}: {len(inputs)} inputs ({names}); a network that reads one image is expected")
    return inputs[0]


def _output_layout(shape: list[Any], layout: str, result: list[Any]) -> str:
    """Where the classes are, if the output is a map of them; the input's layout where it is none. The input's comes
    first, because in a square map of as many classes it cannot be told."""
    layouts = (layout, "NCHW" if layout == "NHWC" else "NHWC")
    whole = _are_sizes(shape, result)
    return next((other for other in layouts if whole and _is_map(shape, layout, result, other)), layout)


def _is_some_map(shape: list[Any], layout: str, result: list[Any]) -> bool:
    return _are_sizes(shape, result) and any(_is_map(shape, layout, result, other) for other in ("NCHW", "NHWC"))


def _are_sizes(shape: list[Any], result: list[Any]) -> bool:
    """Whether height, width and channels of both are numbers."""
    return len(result) == 4 and all(isinstance(size, int) and size > 0 for size in (*shape[1:], *result[1:]))


def _is_map(shape: Sequence[int], layout: str, result: Sequence[int], other: str) -> bool:
    """Whether an output is as high and wide as the image, or some times smaller, with few enough classes; a single
    value is no map of an image."""
    height, width = shape[layout.index("H")], shape[layout.index("W")]
    high, wide, classes = (result[other.index(axis)] for axis in "HWC")
    if high * wide == 1 < height * width:
        return False
    return abs(high * width - wide * height) < max(width, height) and classes < 256


def _layout(path: Path, shape: list[Any]) -> str:
    """Where the channels are."""
    layout = image_layout(shape, channels_last=path.suffix == ".tflite")
    if layout is None:
        raise MeasureError(f"{path}: the input has shape {shape}; {IMAGE_EXPECTED}")
    return layout


OPENERS: dict[str, Callable[[Path, int], Session]] = {
    ".onnx": _open_onnx,
    ".ort": _open_onnx,
    ".tflite": _open_tflite,
}
