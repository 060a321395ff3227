"""Are the exported files one and the same int8 network, and the one that was trained?"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from compress.data.folders import open_unlabelled
from compress.data.images import Reading, read_image
from compress.errors import ExportError, MeasureError
from compress.formats.npz import read_graph
from compress.formats.stored import READABLE
from compress.graph.quantized import QuantizedGraph, QuantizedOperator
from compress.measure.masks import class_ids, is_near
from compress.measure.parity import WITHIN_ONE, EndParity, LayerParity, Parity
from compress.quantize.simulate import simulate, simulate_operator
from compress.release.export import EXPORTERS
from compress.release.golden import FILE as GOLDEN
from compress.release.golden import read_golden
from compress.release.manifest import FILE as MANIFEST
from compress.release.manifest import changed_files, range_of, read_manifest
from compress.runtime.local import Child
from compress.runtime.readback import said_otherwise
from compress.runtime.session import saturates
from compress.terminal.progress import tqdm

GRAPH = Path("checkpoints") / "graph.npz"
IMAGES = 50


def images_of(run: Path, folder: Path | None) -> np.ndarray | None:
    """Up to 50 images below `folder` at the size of the run's network, uint8 [N, H, W, C]; None without a folder."""
    if folder is None:
        return None
    graph = read_graph(run / GRAPH)
    _, channels, height, width = graph.tensors[graph.input].shape
    said = next(filter(None, map(range_of, read_manifest(run)["files"])), None)
    reading = Reading(channels, said)
    samples = open_unlabelled(folder, ("", ""), seed=0, reading=reading)
    paths = [sample.image for sample in (*samples.val, *samples.unlabelled)][:IMAGES]
    return np.stack([read_image(path, (height, width), reading) for path in paths])


def verify_folder(folder: Path, images: np.ndarray | None = None) -> tuple[list[str], Parity | None]:
    """Check a run's output: the sums of its manifest, then `compare` on `images` (default: the golden image).

    Returns the files that the manifest does not describe any more, one line each, and the parity, which is None
    where there are such. Raises ExportError for a folder that is no run's output, or of another schema.
    """
    manifest = read_manifest(folder)
    paths = {entry["format"]: folder / entry["file"] for entry in manifest["files"]}
    for name, path in paths.items():
        if name not in EXPORTERS or path.suffix != f".{name}":
            raise ExportError(f"{folder / MANIFEST}: {path.name!r} is no file of format {name!r}; run again")
    changed = changed_files(folder, manifest)
    if changed:
        return changed, None
    graph = read_graph(folder / GRAPH)
    if images is None:
        images = read_golden(folder)[None]
    _, channels, height, width = graph.tensors[graph.input].shape
    if images.shape[1:] != (height, width, channels):
        raise ExportError(f"{folder / GOLDEN}: its image is not of the network's size; run again, or give --images")
    return [], compare(graph, paths, images, manifest.get("multilabel", False))


def compare(graph: QuantizedGraph, paths: dict[str, Path], images: np.ndarray, multilabel: bool = False) -> Parity:
    """The files against the graph: what they say; layer by layer on the first image; end to end on all.

    `images` are uint8 [N, H, W, C] at the network's size. A file that says otherwise than the graph is not run.
    Raises ExportError for a file that is no model, and MeasureError for one that a runtime dies on.
    """
    not_run = []
    with TemporaryDirectory(prefix="compress-") as folder:
        readable = {name: path for name, path in paths.items() if path.suffix in READABLE}
        found = said_otherwise(graph, list(readable.values()), Path(folder))
        for path in paths.values():
            if found.get(path):
                not_run.append(f"{path.name}: is not run, since it is another network than the graph")
            elif saturates(path):
                not_run.append(
                    f"{path.name}: is not compared: it cannot be read back, and onnxruntime saturates on a processor "
                    "without VNNI, so it is not run here"
                )
        run = {name: path for name, path in paths.items() if not found.get(path) and not saturates(path)}
        layers = [layer for name in run for layer in _layers(graph, name, Path(folder), images[0])]
    order = {operator.name: index for index, operator in enumerate(graph.operators)}
    layers.sort(key=lambda layer: order[layer.layer])
    stored = tuple(line for lines in found.values() for line in lines)
    ends = tuple(_ends(graph, run, images, multilabel)) if run else ()
    equal = tuple(path.name for path, lines in found.items() if not lines)
    unread = tuple(path.name for path in run.values() if path.suffix not in READABLE)
    return Parity(stored, tuple(layers), ends, tuple(not_run), equal, unread)


def _layers(graph: QuantizedGraph, name: str, folder: Path, image: np.ndarray) -> Iterator[LayerParity]:
    """Each operator of the file that `name` exports, with every tensor in between made visible."""
    visible = [operator.output for operator in graph.operators if operator.output != graph.output]
    path = folder / f"model.{name}"
    EXPORTERS[name](graph, path, expose=visible)
    with Child(path) as child:
        values, runtime = _values(graph, child, image), child.runtime
    for operator in tqdm(graph.operators, desc=f"layers of {name}", unit="layer", delay=1):
        exact = simulate_operator(graph, operator, [values[tensor] for tensor in operator.inputs])
        within, largest = _difference(graph, operator, exact, values[operator.output])
        yield LayerParity(operator.name, operator.op, runtime, within, largest)


def _values(graph: QuantizedGraph, child: Child, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the graph as a runtime computes it, int8 NCHW (float32 where it has no scale)."""
    values = {graph.input: (image.transpose(2, 0, 1)[None].astype(np.int16) - 128).astype(np.int8)}
    for name, value in child.outputs(image).items():
        if value.dtype == np.uint8:
            value = (value.astype(np.int16) - 128).astype(np.int8)
        tensor = name if name in graph.tensors else graph.output
        values[tensor] = value if child.input.layout == "NCHW" else value.transpose(0, 3, 1, 2)
    return values


def _difference(
    graph: QuantizedGraph, operator: QuantizedOperator, exact: np.ndarray, computed: np.ndarray
) -> tuple[float, int]:
    spec = graph.tensors[operator.output]
    apart = np.abs(exact.astype(np.float64) - computed)
    if spec.scale is None:
        apart = np.floor(apart / (1e-4 * max(1.0, float(np.abs(exact).max()))))
    return float(np.mean(apart <= 1)), int(apart.max())


def _ends(graph: QuantizedGraph, paths: dict[str, Path], images: np.ndarray, multilabel: bool) -> list[EndParity]:
    """Every pair of torch's simulation and the files."""
    answers: dict[str, list[np.ndarray]] = {"torch": [], **{name: [] for name in paths}}
    scale, zero_point = graph.tensors[graph.output].scale, graph.tensors[graph.output].zero_point
    with ExitStack() as stack:
        children = {name: stack.enter_context(Child(path)) for name, path in paths.items()}
        for image in tqdm(images, desc="end to end", unit="image", delay=1):
            simulated = simulate(graph, image.transpose(2, 0, 1)[None])[graph.output][0]
            answers["torch"].append(
                simulated if scale is None else (simulated.astype(np.float32) - zero_point) * np.float32(scale)
            )
            for name, child in children.items():
                answers[name].append(_answer(child, image, paths[name], simulated.shape))
    names = list(answers)
    masks = {name: [class_ids(one, multilabel=multilabel) for one in given] for name, given in answers.items()}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [_end(f"{a} and {b}", (answers[a], answers[b]), (masks[a], masks[b])) for a, b in pairs]


def _answer(child: Child, image: np.ndarray, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    answer = child.probabilities(image)
    if answer.shape != shape:
        raise MeasureError(f"{path}: its map is {list(answer.shape)}, the graph's {list(shape)}; export it again")
    return answer


def _end(pair: str, maps: Sequence[Sequence[np.ndarray]], masks: Sequence[Sequence[np.ndarray]]) -> EndParity:
    """Of two ways: the maps and the masks of all images by one, and by the other."""
    apart = np.abs(np.stack(maps[0]) - np.stack(maps[1])) * 256
    agreement = np.mean([np.mean(x == y) for x, y in zip(*masks)])
    nearly = np.mean([np.mean(is_near(x, y) & is_near(y, x)) for x, y in zip(*masks)])
    largest = round(float(apart.max()))
    return EndParity(pair, len(apart), float(apart.mean()), largest, float(agreement), float(nearly))


def describe_parity(parity: Parity) -> str:
    """Lines for the terminal."""
    lines = list(parity.stored)
    if parity.equal:
        lines.append(
            f"{' and '.join(parity.equal)}: every operator, attribute and connection, every integer, scale and zero "
            "point of weights, biases and activations: equal to the graph's"
        )
    lines += [f"{name}: cannot be read back; compared is what it computes" for name in parity.unread]
    lines += parity.not_run
    for runtime in dict.fromkeys(layer.runtime for layer in parity.layers):
        layers = [layer for layer in parity.layers if layer.runtime == runtime]
        worst = min(layers, key=lambda layer: layer.within_one)
        lines.append(
            f"{runtime}: {sum(layer.passed for layer in layers)} of {len(layers)} layers within 1 LSB on "
            f"{WITHIN_ONE:.1%} of values; worst {worst.layer}: {worst.within_one:.3%}, largest {worst.largest_lsb} LSB"
        )
    for end in parity.ends:
        lines.append(
            f"{end.pair}, {end.images} images: mean {end.mean_lsb:.3f} LSB, largest {end.largest_lsb}, "
            f"masks agree on {end.masks:.3%}"
            + (f", up to a pixel at edges on {end.nearly:.3%}" if end.nearly is not None else "")
        )
    parting = parity.first_parting()
    if parting:
        lines.append(f"they part first at {parting.layer} ({parting.op}) in {parting.runtime}")
    lines.append(f"verdict: {_verdict(parity)}")
    return "\n".join(lines)


def _verdict(parity: Parity) -> str:
    if not parity.passed:
        return "the files differ"
    return "the files are one network" + (", as far as they could be compared here" if parity.not_run else "")
