"""Are the exported files one and the same int8 network, and the one that was trained?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from compress.data.folders import open_unlabelled
from compress.data.images import read_image
from compress.formats.npz import read_graph
from compress.formats.stored import differences
from compress.graph.quantized import QuantizedGraph, QuantizedOperator
from compress.measure.masks import class_ids
from compress.measure.parity import WITHIN_ONE, EndParity, LayerParity, Parity
from compress.quantize.simulate import simulate, simulate_operator
from compress.release.export import EXPORTERS
from compress.release.golden import read_golden
from compress.release.manifest import changed_files, read_manifest
from compress.runtime.session import Session, open_model, saturates
from compress.terminal.progress import tqdm

GRAPH = Path("checkpoints") / "graph.npz"
IMAGES = 50


def images_of(run: Path, folder: Path | None) -> np.ndarray | None:
    """Up to 50 images below `folder` at the size of the run's network, uint8 [N, H, W, 3]; None without a folder."""
    if folder is None:
        return None
    samples = open_unlabelled(folder, ("", ""), seed=0)
    paths = [sample.image for sample in (*samples.val, *samples.unlabelled)][:IMAGES]
    graph = read_graph(run / GRAPH)
    _, _, height, width = graph.tensors[graph.input].shape
    return np.stack([read_image(path, (height, width)) for path in paths])


def verify_folder(folder: Path, images: np.ndarray | None = None) -> tuple[list[str], Parity | None]:
    """Check a run's output: the sums of its manifest, then `compare` on `images` (default: the golden image).

    Returns the files that the manifest does not describe any more, one line each, and the parity, which is None
    where there are such. Raises ExportError for a folder that is no run's output, or of another schema.
    """
    manifest = read_manifest(folder)
    paths = {entry["format"]: folder / entry["file"] for entry in manifest["files"]}
    changed = changed_files(folder, manifest)
    if changed:
        return changed, None
    if images is None:
        images = read_golden(folder)[None]
    return [], compare(read_graph(folder / GRAPH), paths, images)


def compare(graph: QuantizedGraph, paths: dict[str, Path], images: np.ndarray) -> Parity:
    """The files against the graph: what they store; layer by layer on the first image; end to end on all.

    `images` are uint8 [N, H, W, 3] at the network's size.
    """
    stored = tuple(line for path in paths.values() for line in differences(graph, path))
    not_run = tuple(
        f"{path.name}: its integers are compared but it is not run: onnxruntime saturates on a processor without VNNI"
        for path in paths.values()
        if saturates(path)
    )
    paths = {name: path for name, path in paths.items() if not saturates(path)}
    with TemporaryDirectory(prefix="compress-") as folder:
        layers = [layer for name in paths for layer in _layers(graph, name, Path(folder), images[0])]
    order = {operator.name: index for index, operator in enumerate(graph.operators)}
    layers.sort(key=lambda layer: order[layer.layer])
    return Parity(stored, tuple(layers), tuple(_ends(graph, paths, images)), not_run)


def _layers(graph: QuantizedGraph, name: str, folder: Path, image: np.ndarray) -> Iterator[LayerParity]:
    """Each operator of the file that `name` exports, with every tensor in between made visible."""
    visible = [operator.output for operator in graph.operators if operator.output != graph.output]
    path = folder / f"model.{name}"
    EXPORTERS[name](graph, path, expose=visible)
    session = open_model(path)
    values = _values(graph, session, image)
    for operator in tqdm(graph.operators, desc=f"layers of {name}", unit="layer", delay=1):
        exact = simulate_operator(graph, operator, [values[tensor] for tensor in operator.inputs])
        within, largest = _difference(graph, operator, exact, values[operator.output])
        yield LayerParity(operator.name, operator.op, session.runtime, within, largest)


def _values(graph: QuantizedGraph, session: Session, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the graph as a runtime computes it, int8 NCHW (float32 where it has no scale)."""
    values = {graph.input: (image.transpose(2, 0, 1)[None].astype(np.int16) - 128).astype(np.int8)}
    for name, value in session.run_all(session.prepare(image)).items():
        if value.dtype == np.uint8:
            value = (value.astype(np.int16) - 128).astype(np.int8)
        tensor = name if name in graph.tensors else graph.output
        values[tensor] = value if session.input.layout == "NCHW" else value.transpose(0, 3, 1, 2)
    return values


def _difference(
    graph: QuantizedGraph, operator: QuantizedOperator, exact: np.ndarray, computed: np.ndarray
) -> tuple[float, int]:
    spec = graph.tensors[operator.output]
    apart = np.abs(exact.astype(np.float64) - computed)
    if spec.scale is None:
        apart = np.floor(apart / (1e-4 * max(1.0, float(np.abs(exact).max()))))
    return float(np.mean(apart <= 1)), int(apart.max())


def _ends(graph: QuantizedGraph, paths: dict[str, Path], images: np.ndarray) -> list[EndParity]:
    """Every pair of torch's simulation and the files."""
    sessions = {name: open_model(path) for name, path in paths.items()}
    answers: dict[str, list[np.ndarray]] = {"torch": [], **{name: [] for name in sessions}}
    scale, zero_point = graph.tensors[graph.output].scale, graph.tensors[graph.output].zero_point
    for image in tqdm(images, desc="end to end", unit="image", delay=1):
        simulated = simulate(graph, image.transpose(2, 0, 1)[None])[graph.output][0]
        answers["torch"].append(
            simulated if scale is None else (simulated.astype(np.float32) - zero_point) * np.float32(scale)
        )
        for name, session in sessions.items():
            answers[name].append(session.probabilities(image))
    names = list(answers)
    return [_end(a, b, answers[a], answers[b]) for i, a in enumerate(names) for b in names[i + 1 :]]


def _end(a: str, b: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> EndParity:
    apart = np.abs(np.stack(ours) - np.stack(theirs)) * 256
    masks = np.mean([np.mean(class_ids(x) == class_ids(y)) for x, y in zip(ours, theirs)])
    return EndParity(f"{a} and {b}", len(ours), float(apart.mean()), round(float(apart.max())), float(masks))


def describe_parity(parity: Parity) -> str:
    """Lines for the terminal."""
    lines = list(parity.stored) or ["weights, biases, scales and zero points: equal to the graph's in every file"]
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
        )
    parting = parity.first_parting()
    if parting:
        lines.append(f"they part first at {parting.layer} ({parting.op}) in {parting.runtime}")
    lines.append(f"verdict: {'the files are one network' if parity.passed else 'the files differ'}")
    return "\n".join(lines)
