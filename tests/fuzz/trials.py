"""What is tried: a command on a copy of something good in which one thing is not. A trial is made from its name."""

import hashlib
import json
import os
import random
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import damage
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from damage import Damage
from odd import change

from compress.release.manifest import entries


def always() -> bool:
    return True


def never() -> bool:
    return False


@dataclass(frozen=True)
class Trial:
    """`said`: what was damaged. `may_pass`: whether exit code 0 is right."""

    argv: list[str]
    said: str
    may_pass: Callable[[], bool] = always


class Room:
    """A folder of its own for one trial, with copies of what it damages."""

    def __init__(self, corpus: Path, folder: Path):
        self.corpus, self.folder = corpus, folder
        self.out = folder / "out"

    def take(self, name: str) -> Path:
        source, copy = self.corpus / name, self.folder / Path(name).name
        return Path(shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy))


Make = Callable[[random.Random, Room], Trial]


@dataclass(frozen=True)
class Group:
    """Trials of one kind: so many of them are quick enough to be tried each time, so many in all."""

    name: str
    make: Make
    quick: int
    all: int

    @property
    def names(self) -> list[str]:
        return [f"{self.name}-{number}" for number in range(self.all)]


@dataclass(frozen=True)
class Good:
    """A trial of its kind in which nothing is damaged, and how it ends: otherwise the others would show nothing."""

    name: str
    make: Make
    code: int = 0
    words: str = ""


def trial(name: str, room: Room) -> Trial:
    """The trial of a name such as "gate-report-17"."""
    makes = {group.name: group.make for group in GROUPS} | {good.name: good.make for good in GOOD}
    return makes[name.rpartition("-")[0]](random.Random(zlib.crc32(name.encode())), room)


# --- oracles


def in_a_child(what: Callable[[], bool]) -> bool:
    """Whether it is true, found out in a process of its own, which may crash or run for ever."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os._exit(0 if what() else 1)
    except BaseException:
        os._exit(1)
    raise AssertionError


def _answers(path: Path) -> list[np.ndarray]:
    """What a file that reads pixels gives for two images of noise, without anything of the product."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 3)).astype(np.uint8)
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        found = []
        for image in pixels:
            interpreter.set_tensor(given["index"], image)
            interpreter.invoke()
            found.append(interpreter.get_tensor(made["index"]))
        return found
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: image.transpose(0, 3, 1, 2)})[0] for image in pixels]


def runs(path: Path) -> Callable[[], bool]:
    """Whether its runtime runs the file at all."""
    return lambda: in_a_child(lambda: bool(_answers(path)))


def parses(path: Path) -> Callable[[], bool]:
    """Whether the file is one of its format from end to end."""

    def whole() -> bool:
        if path.suffix == ".tflite":
            model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
            return bool(model.subgraphs and model.subgraphs[0].operators)
        return bool(onnx.load_model_from_string(path.read_bytes()).graph.node)

    return lambda: in_a_child(whole)


def answers_as(path: Path, original: Path) -> Callable[[], bool]:
    """Whether the file gives bit for bit what the original gives."""
    return lambda: in_a_child(lambda: all(map(np.array_equal, _answers(path), _answers(original))))


def unchanged(path: Path, original: Path) -> Callable[[], bool]:
    return lambda: path.is_file() and path.read_bytes() == original.read_bytes()


def signed(run: Path, original: Path) -> None:
    """Manifest and report state the sums of the files that are there, as whoever damaged them could write them."""
    stating = {"report.json": lambda document: document["artifacts"], "manifest.json": entries}
    for name, found in stating.items():
        document = json.loads((run / name).read_text())
        for entry in found(document):
            path = run / Path(entry.get("file") or entry["path"]).name
            entry |= {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
        (run / name).write_text(json.dumps(document))
    vouched(run, original)


def vouched(run: Path, original: Path) -> None:
    """The manifest states the sum of the report that is there, where it states any."""
    text = (run / "manifest.json").read_text()
    text = text.replace(sha256_of(original / "report.json"), sha256_of(run / "report.json"))
    (run / "manifest.json").write_text(text)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- inspect, run


def _model(harm: Damage, suffix: str, *command: str, needed: bool = False) -> Make:
    """A command on a model, of which the file with this suffix is damaged."""

    def make(rng: random.Random, room: Room) -> Trial:
        folder = room.take("model")
        said = harm(rng, folder / f"tiny{suffix}")
        odd = any(word in said for word in ("= nan", "= inf", "= -inf", "= 1e+308", f"= {2**64}", "= 1000000"))
        return Trial([command[0], str(folder / "tiny.pt"), *command[1:]], said, never if odd and needed else always)

    return make


def run_on(harm: Damage, place: str) -> Make:
    """A run on a folder of images in which a file or folder below `place` is damaged."""

    def make(rng: random.Random, room: Room) -> Trial:
        model, data = room.take("model"), room.take("data")
        said = harm(rng, _below(rng, data, place))
        return Trial(_run(room, model, data), said)

    return make


def _run(room: Room, model: Path, data: Path) -> list[str]:
    """A run that ends when all that it is given has been read, since it cannot note how it began."""
    (room.out / "checkpoints" / "run.json").mkdir(parents=True)
    return ["run", str(model / "tiny.pt"), "--budget", "20KB", "--data", str(data), "--out", str(room.out)]


def _below(rng: random.Random, folder: Path, place: str) -> Path:
    """A file or folder that `place` names: "*/images/*" is any image."""
    return rng.choice(sorted(folder.glob(place)))


def run_recipe(rng: random.Random, room: Room) -> Trial:
    model, data = room.take("model"), room.take("data")
    said = damage.toml(rng, model / "tiny.toml")
    return Trial(_run(room, model, data), said)


def door(harm: Damage, name: str) -> Make:
    """A look at one of the other kinds of file that hold a model."""

    def make(rng: random.Random, room: Room) -> Trial:
        folder = room.take("door")
        said = harm(rng, folder / name)
        return Trial(["inspect", str(folder / name)], said)

    return make


# --- run --resume


def resume(harm: Damage, place: str) -> Make:
    """Going on with a run whose next file cannot be written, so that it ends when all that was kept has been read."""

    def make(rng: random.Random, room: Room) -> Trial:
        run = _stopped(room)
        said = harm(rng, _below(rng, run, place))
        return Trial(["run", "--resume", str(run), "--trust-code"], said)

    return make


def _stopped(room: Room) -> Path:
    run = room.take("run")
    (run / "model.onnx").unlink()
    (run / "model.onnx").mkdir()
    return run


def resume_code(rng: random.Random, room: Room) -> Trial:
    """The run folder of somebody else, which brings an architecture along."""
    run = _stopped(room)
    code = run / "checkpoints" / "tiny.py" if rng.random() < 0.5 else run / "tiny.py"
    mark = room.folder / damage.MARK
    code.write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n" + (room.corpus / "model/tiny.py").read_text()
    )
    record = run / "checkpoints" / "run.json"
    document = json.loads(record.read_text())
    document["recipe_folder"] = rng.choice([str(code.parent), str(code.parent.parent), str(room.corpus / "model")])
    relative = os.path.relpath(code, document["recipe_folder"])
    document["recipe"]["model"]["architecture"] = f"{rng.choice([relative, str(code)])}:TinyNet"
    record.write_text(json.dumps(document))
    return Trial(["run", "--resume", str(run)], f"run.json names the architecture {code.relative_to(room.folder)}")


# --- files: verify, gate, bench, mine


def verify_file(harm: Damage, suffix: str) -> Make:
    def make(rng: random.Random, room: Room) -> Trial:
        run = room.take("run")
        path, original = run / f"model.{suffix}", room.corpus / "run" / f"model.{suffix}"
        said = harm(rng, path)
        if rng.random() < 0.15:  # as a disk damages it
            return Trial(["verify", str(run)], said, unchanged(path, original))
        signed(run, original.parent)
        return Trial(["verify", str(run)], f"{said}; the sums are right", answers_as(path, original))

    return make


def verify_other(harm: Damage, place: str) -> Make:
    """Any other file of a run; the exported ones are as they were, and so may pass."""

    def make(rng: random.Random, room: Room) -> Trial:
        run = room.take("run")
        said = harm(rng, _below(rng, run, place))
        files = [run / "model.onnx", run / "model.tflite"]
        whole = [unchanged(path, room.corpus / "run" / path.name) for path in files]
        return Trial(["verify", str(run)], said, lambda: all(each() for each in whole))

    return make


def verify_images(rng: random.Random, room: Room) -> Trial:
    run, data = room.take("run"), room.take("data")
    harm, place = rng.choice([(damage.picture, "unlabelled/*"), (damage.folder, "unlabelled/*"), (damage.folder, "*")])
    said = harm(rng, _below(rng, data, place))
    return Trial(["verify", str(run), "--images", str(data / "unlabelled")], said)


def gate_file(harm: Damage, suffix: str) -> Make:
    def make(rng: random.Random, room: Room) -> Trial:
        run = room.take("run")
        path, original = run / f"model.{suffix}", room.corpus / "run"
        said = harm(rng, path)
        whole = unchanged(path, original / path.name)
        how = rng.choice(["file", "file", "signed", "signed", "folder", "data"])
        more = ["--budget", "1MB"]
        if how in ("signed", "data"):
            signed(run, original)
        if how == "data":
            more = ["--budget", "iou>=0.01", "--data", str(room.corpus / "data")]
        target = path if how == "file" else run
        may_pass = {"folder": whole, "data": runs(path)}.get(how, parses(path))
        return Trial(["gate", str(target), *more], f"{said}; {how}", may_pass)

    return make


def gate_record(rng: random.Random, room: Room) -> Trial:
    """No single edit of a record makes files keep to a limit that they do not keep to."""
    run = room.take("run")
    path = run / "report.json"
    document = json.loads(path.read_text())
    said = change(rng, document, only=rng.choice([".measurements", ".measurements", ".measurements", ".artifacts", ""]))
    path.write_text(json.dumps(document))
    if rng.random() < 0.8:
        vouched(run, room.corpus / "run")
    target = rng.choice([run, run, run / "model.tflite"])
    return Trial(["gate", str(target), "--budget", "iou>=0.9999"], said, never)


def gate_manifest(rng: random.Random, room: Room) -> Trial:
    """Nor does any edit of a manifest: a file is over the size, or has another sum."""
    run = room.take("run")
    said = rng.choice([damage.json_, damage.json_, damage.json_, damage.bytes_])(rng, run / "manifest.json")
    largest = max(path.stat().st_size for path in run.glob("model.*"))
    return Trial(["gate", str(run), "--budget", f"{largest - 1}B"], said, never)


def gate_toml(rng: random.Random, room: Room) -> Trial:
    run = room.take("run")
    path = run / "compress.toml"
    path.write_text(
        '[budget]\nlimits = ["1B", "iou>=0.5", "latency<=1000x model.onnx"]\n'
        "[preprocess]\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
    )
    said = rng.choice([damage.toml, damage.toml, damage.toml, damage.bytes_])(rng, path)
    return Trial(["gate", str(run), "--seconds", "0.02"], said)


def gate_base(rng: random.Random, room: Room) -> Trial:
    run, base = room.take("run"), room.folder / "base.json"
    shutil.copy(run / "report.json", base)
    harm = rng.choice([damage.json_, damage.json_, damage.bytes_, damage.folder])
    return Trial(["gate", str(run), "--budget", "1MB", "--base", str(base)], harm(rng, base))


def gate_folder(rng: random.Random, room: Room) -> Trial:
    """One of the files that ship is not there, or is no file."""
    run = room.take("run")
    path = rng.choice([*sorted(run.glob("model.*")), run / "manifest.json"])
    said = damage.folder(rng, path)
    whole = unchanged(path, room.corpus / "run" / path.name)
    target = run if rng.random() < 0.6 else path
    return Trial(["gate", str(target), "--budget", "1MB"], f"{said}; {target.name}", whole)


def gate_data(rng: random.Random, room: Room) -> Trial:
    run, data = room.take("run"), room.take("data")
    said = _images_damage(rng, data)
    return Trial(["gate", str(run / "model.tflite"), "--budget", "iou>=0.1", "--data", str(data)], said)


def _images_damage(rng: random.Random, data: Path) -> str:
    harm, place = rng.choice(
        [
            (damage.picture, "val/images/*"),
            (damage.png_chunks, "val/*/*"),
            (damage.mask, "val/masks/*"),
            (damage.mask, "val/masks/*"),
            (damage.bytes_, "val/*/*"),
            (damage.folder, "val/*/*"),
            (damage.folder, "val/*"),
            (damage.folder, "val"),
            (damage.stranger, "val/*"),
        ]
    )
    return harm(rng, _below(rng, data, place))


_TINY_BENCH = ["--seconds", "0.005", "--threads", "1"]


def bench_file(harm: Damage, suffix: str) -> Make:
    def make(rng: random.Random, room: Room) -> Trial:
        path = room.take(f"files/model.{suffix}")
        said = harm(rng, path)
        more = ["--data", str(room.corpus / "data")] if rng.random() < 0.3 else []
        return Trial(["bench", str(path), *_TINY_BENCH, *more], said)

    return make


def bench_data(rng: random.Random, room: Room) -> Trial:
    data = room.take("data")
    said = _images_damage(rng, data)
    return Trial(["bench", str(room.corpus / "files/model.tflite"), *_TINY_BENCH, "--data", str(data)], said)


def bench_beside(rng: random.Random, room: Room) -> Trial:
    """A recipe, labels or a file to compare with, which are damaged."""
    run, model = room.take("run"), room.take("model")
    files = {"recipe": model / "tiny.toml", "labels": run / "labels.txt", "against": run / "model.onnx"}
    what = rng.choice(sorted(files))
    harm = {"recipe": rng.choice([damage.toml, damage.bytes_]), "labels": damage.bytes_, "against": damage.folder}[what]
    said = harm(rng, files[what])
    more = {"recipe": ["--recipe", str(files["recipe"])], "against": ["--against", str(files["against"])]}.get(what, [])
    data = ["--data", str(room.corpus / "data")]
    return Trial(["bench", str(run / "model.tflite"), *_TINY_BENCH, *more, *data], said)


def mine_file(harm: Damage, suffix: str) -> Make:
    def make(rng: random.Random, room: Room) -> Trial:
        path, data = room.take(f"files/model.{suffix}"), room.corpus / "data" / "unlabelled"
        said = harm(rng, path)
        models = ["--student", str(path), "--teacher", str(room.corpus / "files/float.onnx")]
        if rng.random() < 0.3:
            models = ["--teacher", str(path), "--student", str(room.corpus / "files/model.tflite")]
        return Trial(["mine", *models, "--unlabelled", str(data), "--out", str(room.out)], said)

    return make


def mine_images(rng: random.Random, room: Room) -> Trial:
    data = room.take("data")
    harm, place = rng.choice(
        [(damage.picture, "unlabelled/*"), (damage.png_chunks, "unlabelled/*"), (damage.bytes_, "unlabelled/*")]
        + [(damage.folder, "unlabelled/*"), (damage.folder, "unlabelled"), (damage.stranger, "unlabelled")]
    )
    said = harm(rng, _below(rng, data, place))
    files = room.corpus / "files"
    models = ["--student", str(files / "model.tflite"), "--teacher", str(files / "model.onnx")]
    return Trial(["mine", *models, "--unlabelled", str(data / "unlabelled"), "--out", str(room.out)], said)


# --- report


def report(harm: Damage, name: str) -> Make:
    def make(rng: random.Random, room: Room) -> Trial:
        run = room.take("run")
        said = harm(rng, run / name)
        return Trial(["report", str(run)], said)

    return make


def report_beside(rng: random.Random, room: Room) -> Trial:
    """A comparison, of which one record is damaged."""
    run, page = room.take("run"), room.folder / "out.html"
    said = rng.choice([damage.json_, damage.json_, damage.json_, damage.bytes_])(rng, run / "report.json")
    folders = [str(run), str(room.corpus / "run")]
    rng.shuffle(folders)
    return Trial(["report", *folders, "--out", str(page)], said)


# --- options

_TEXTS = ["", " ", "nan", "inf", "-1", "0", "1e300", str(2**64), "x" * 5000, "\x1b[2J", "a\nb", "--", "4MB", "é\udcff"]
_LIMITS = [
    "iou>0.5",
    "iou>=2",
    "iou>=nan",
    "latency<=0x model.onnx",
    "latency<=1x",
    "1e400MB",
    "macs<=0",
    "macs<=1.5GB",
    "iou>=0.5 iou>=0.6",
    "-1B",
]
_PLACES = ["there/not/at/all", "there", "there/pipe", "there/file", "there/file/inside", "there/loop"]
_PLACES += [f"there/{'x' * 300}", "there/a\nb"]
"""Below the room, where a command may write whatever it likes."""


def _options(command: list[str], texts: list[str], paths: list[str], lists: dict[str, list[str]]) -> Make:
    def make(rng: random.Random, room: Room) -> Trial:
        run, model = room.take("run"), room.take("model")
        there = room.folder / "there"
        there.mkdir()
        os.mkfifo(there / "pipe")
        (there / "file").write_text("a file")
        (there / "loop").symlink_to("loop")
        names = {"RUN": run, "MODEL": model / "tiny.pt", "FILE": run / "model.tflite", "DATA": room.corpus / "data"}
        argv = [str(names.get(word, word)) for word in command]
        choices = {**dict.fromkeys(texts, _TEXTS), **dict.fromkeys(paths, _PLACES), **lists}
        flags = [
            f"{flag}={rng.choice(choices[flag])}"
            for flag in rng.sample(sorted(choices), min(len(choices), rng.choice([1, 1, 2])))
        ]
        if command[0] == "run":
            (room.out / "checkpoints" / "run.json").mkdir(parents=True)
            argv += ["--budget", "20KB"]
        if "--out" not in " ".join(flags) and command[0] in ("mine", "run"):
            argv += ["--out", str(room.out)]
        return Trial([*argv, *flags], " ".join(flags)[:200])

    return make


_RUN_TEXTS = ["--seed", "--formats", "--keep-float", "--plan", "--tta", "--quantize", "--teacher", "--minutes"]

_BYTES_OF_FILES = [(suffix, damage.bytes_) for suffix in ("tflite", "onnx")]
_FIELDS = {"tflite": damage.tflite_fields, "onnx": damage.onnx_fields}

GROUPS = [
    Group("inspect-weights", _model(damage.pt, ".pt", "inspect"), 7, 90),
    Group("inspect-archive", _model(damage.pt_zip, ".pt", "inspect"), 3, 30),
    Group("inspect-bytes", _model(damage.bytes_, ".pt", "inspect"), 3, 30),
    Group("inspect-recipe", _model(damage.toml, ".toml", "inspect", needed=True), 8, 110),
    Group("inspect-text", _model(damage.bytes_, ".toml", "inspect"), 3, 20),
    Group("inspect-place", _model(damage.folder, ".pt", "inspect"), 2, 12),
    Group("inspect-recipe-place", _model(damage.folder, ".toml", "inspect"), 2, 12),
    Group("inspect-code", _model(damage.bytes_, ".py", "inspect"), 1, 15),
    Group("run-recipe", run_recipe, 2, 25),
    Group("run-image", run_on(damage.picture, "*/images/*"), 0, 12),
    Group("run-chunks", run_on(damage.png_chunks, "*/*/*"), 1, 15),
    Group("run-mask", run_on(damage.mask, "*/masks/*"), 1, 15),
    Group("run-place", run_on(damage.folder, "*/*"), 1, 15),
    Group("run-file", run_on(damage.folder, "*/*/*"), 0, 12),
    Group("run-stranger", run_on(damage.stranger, "*/*s"), 0, 12),
    Group(
        "run-options",
        _options(["run", "MODEL", "--data", "DATA"], _RUN_TEXTS, ["--data", "--out"], {"--budget": _TEXTS + _LIMITS}),
        3,
        40,
    ),
    Group("resume-record", resume(damage.json_, "checkpoints/run.json"), 4, 60),
    Group("resume-record-bytes", resume(damage.bytes_, "checkpoints/run.json"), 1, 12),
    Group("resume-stage", resume(damage.pt, "checkpoints/*.pt"), 1, 40),
    Group("resume-state", resume(damage.pt, "checkpoints/*.state"), 0, 10),
    Group("resume-bytes", resume(damage.bytes_, "checkpoints/*.*t*"), 1, 25),
    Group("resume-place", resume(damage.folder, "checkpoints/*"), 0, 14),
    Group("resume-code", resume_code, 1, 6),
    *[Group(f"verify-{kind}", verify_file(_FIELDS[kind], kind), 3, 50) for kind in _FIELDS],
    *[Group(f"verify-{kind}-bytes", verify_file(harm, kind), 1, 25) for kind, harm in _BYTES_OF_FILES],
    Group("verify-graph", verify_other(damage.npz, "checkpoints/graph.npz"), 1, 30),
    Group("verify-header", verify_other(damage.npz_header, "*/graph.npz"), 1, 8),
    Group("verify-golden", verify_other(damage.npz, "golden.npz"), 1, 15),
    Group("verify-manifest", verify_other(damage.json_, "manifest.json"), 2, 30),
    Group("verify-place", verify_other(damage.folder, "*"), 1, 20),
    Group("verify-images", verify_images, 1, 15),
    *[Group(f"gate-{kind}", gate_file(_FIELDS[kind], kind), 3, 30) for kind in _FIELDS],
    *[Group(f"gate-{kind}-bytes", gate_file(harm, kind), 4, 30) for kind, harm in _BYTES_OF_FILES],
    *[Group(f"gate-{kind}-foreign", gate_file(damage.foreign, kind), 5, 20) for kind in _FIELDS],
    Group("gate-record", gate_record, 10, 70),
    Group("gate-manifest", gate_manifest, 8, 45),
    Group("gate-toml", gate_toml, 6, 30),
    Group("gate-base", gate_base, 4, 20),
    Group("gate-place", gate_folder, 4, 20),
    Group("gate-data", gate_data, 1, 20),
    Group(
        "gate-options",
        _options(
            ["gate", "RUN"],
            ["--seconds", "--base"],
            ["--json", "--junit", "--markdown", "--data"],
            {"--budget": _TEXTS + _LIMITS},
        ),
        3,
        25,
    ),
    *[Group(f"bench-{kind}", bench_file(_FIELDS[kind], kind), 1, 30) for kind in _FIELDS],
    *[Group(f"bench-{kind}-bytes", bench_file(damage.bytes_, kind), 1, 15) for kind in ("tflite", "onnx", "ort")],
    Group("bench-endless", bench_file(damage.endless, "onnx"), 0, 1),
    Group("bench-data", bench_data, 1, 20),
    Group("bench-beside", bench_beside, 0, 15),
    Group(
        "bench-options",
        _options(
            ["bench", "FILE"], ["--threads", "--seconds", "--folds", "--mean", "--std"], ["--data", "--recipe"], {}
        ),
        3,
        20,
    ),
    *[Group(f"mine-{kind}", mine_file(_FIELDS[kind], kind), 1, 12) for kind in _FIELDS],
    Group("mine-images", mine_images, 1, 18),
    Group(
        "mine-options",
        _options(
            ["mine", "--student", "FILE", "--unlabelled", "DATA"], ["--top", "--teacher"], ["--out", "--unlabelled"], {}
        ),
        1,
        10,
    ),
    Group("report-record", report(damage.json_, "report.json"), 12, 85),
    Group("report-bytes", report(damage.bytes_, "report.json"), 3, 20),
    Group("report-pictures", report(damage.npz, "pictures.npz"), 4, 30),
    Group("report-pictures-bytes", report(damage.bytes_, "pictures.npz"), 2, 20),
    Group("report-place", report(damage.folder, "report.json"), 2, 10),
    Group("report-pictures-place", report(damage.folder, "pictures.npz"), 1, 10),
    Group("report-beside", report_beside, 3, 20),
    Group("report-options", _options(["report", "RUN"], [], ["--out"], {}), 1, 6),
]

DOOR = ("script.pt", "tiny.pt2", "tiny.onnx", "tiny.safetensors")
GROUPS += [
    *[Group(f"door-bytes-{name}", door(damage.bytes_, name), 1, 30) for name in DOOR],
    *[Group(f"door-disguise-{name}", door(damage.disguised, name), 1, 20) for name in DOOR],
    *[Group(f"door-archive-{name}", door(damage.pt_zip, name), 1, 25) for name in DOOR[:2]],
    Group("door-fields", door(damage.onnx_fields, "tiny.onnx"), 2, 35),
    Group("door-header", door(damage.safetensors, "tiny.safetensors"), 1, 25),
]

_UNWRITABLE = "cannot be written"
GOOD = [
    *[Good(f"good-door-{name}", door(damage.nothing, name)) for name in DOOR],
    Good("good-inspect", _model(damage.nothing, ".pt", "inspect")),
    Good("good-run", run_on(damage.nothing, "val"), 2, f"run.json: {_UNWRITABLE}"),
    Good("good-resume", resume(damage.nothing, "checkpoints"), 2, f"model.onnx: {_UNWRITABLE}"),
    Good("good-verify", verify_file(damage.nothing, "onnx")),
    Good("good-gate", gate_file(damage.nothing, "tflite")),
    Good("good-bench", bench_file(damage.nothing, "ort")),
    Good("good-mine", mine_file(damage.nothing, "onnx")),
    Good("good-report", report(damage.nothing, "report.json")),
]
