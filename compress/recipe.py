"""The recipe: TOML beside the model plus flags, parsed once into typed values."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compress.errors import ModelError, RecipeError
from compress.flags import MODEL_FLAGS, RUN_FLAGS
from compress.settings import (
    Batch,
    Beside,
    Channels,
    Classes,
    ClassWeights,
    Code,
    Colour,
    Colours,
    Images,
    Line,
    MaskValues,
    Mean,
    Minutes,
    Once,
    Output,
    Place,
    Range,
    Rate,
    Real,
    Section,
    Seed,
    Share,
    Size,
    Std,
    Steps,
    Switch,
    Whole,
    check_names,
    number_of,
    read_toml,
    validated,
)

Stage = Literal["tune", "between", "distil", "qat"]
"""A kind of training."""


@dataclass(frozen=True)
class Schedule:
    """How long to train: a number of steps, which gives the same result again, or else minutes of wall-clock."""

    minutes: float = 0.0
    steps: int | None = None

    def __bool__(self) -> bool:
        return bool(self.minutes if self.steps is None else self.steps)

    def done(self, minutes: float, steps: int) -> float:
        """The share of it that is over."""
        return minutes / self.minutes if self.steps is None else steps / self.steps


@dataclass(frozen=True)
class Training:
    """One training. `size`: the smaller height and width to train at. `learning_rate`: about the share of its standard
    deviation by which a step moves an output of a layer. `label_weight`: of what a label says, beside what the teacher
    says of the same pixel."""

    schedule: Schedule
    batch: int
    learning_rate: float
    size: tuple[int, int]
    seed: int = 0
    label_weight: float = 0.5


class ModelSection(Section):
    """What the file holds. `architecture` is "file.py:Name", the file lying beside the recipe, or, by --arch alone,
    "package.module:Name"; Name(), or Name(key=value) as it is written there, must return the torch module that the
    weights fit. Files that carry their graph need none. `drop`: weights whose names begin so are left out, such as
    those of heads that are for training alone. `output`: the one to deploy, by its name in what the module returns or
    by its place; without it the first map. `multilabel`: whether a pixel can have several of `classes` at once, each a
    sigmoid of its own; without it as the masks are laid out, or else as the model ends. `channels`: of the images, in
    the order of the files'."""

    architecture: Code | None = None
    drop: list[Line] = Field([], max_length=100)
    output: Output = None
    classes: Classes
    multilabel: Switch | None = None
    input_size: Size = (320, 320)
    channels: Channels = Field(3, exclude_if=lambda channels: channels == 3)


class PreprocessSection(Section):
    """What the model was trained on: (pixel / 255 - mean) / std per channel; one that is not given is 0, or 1, of every
    channel. `range`: the values in 16-bit files and in fractions that become pixels 0 and 255; none: 0 and 65535, or 0
    and 1."""

    mean: Mean = (0.0, 0.0, 0.0)
    std: Std = (1.0, 1.0, 1.0)
    range: Range | None = Field(None, exclude_if=lambda ends: ends is None)

    def of_pixels(self) -> tuple[Colours, Colours]:
        """The same as mean and std of 0..255 values: (pixel - mean) / std."""
        return tuple(255 * value for value in self.mean), tuple(255 * value for value in self.std)

    def of_channels(self, channels: int) -> "PreprocessSection":
        """The same, with as many means and deviations as channels where they are not given."""
        plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
        return self.model_copy(
            update={name: values for name, values in plain.items() if name not in self.model_fields_set}
        )


class MasksSection(Section):
    """What masks hold, where that is not the classes' own numbers: for each class by name, in `masks`, one value or
    several, all of them numbers or all "#rrggbb"; in `ignore` those that count for nothing, which of numbers 255 does
    unless it is named."""

    masks: dict[str, MaskValues] = Field({}, max_length=255)
    ignore: MaskValues = ()

    @property
    def of_colours(self) -> bool:
        return any(isinstance(value, str) for value in (*self.ignore, *chain(*self.masks.values())))

    def meanings(self, classes: Sequence[str]) -> dict[int, int | None]:
        """The class id of every value, None where it counts for nothing, colours as 0xRRGGBB; none where the recipe
        says nothing. Raises ValueError where it contradicts itself or does not fit the classes."""
        if not self.masks and not self.ignore:
            return {}
        check_names("data.masks", self.masks, classes)
        if self.masks and (missing := [name for name in classes if name not in self.masks]):
            raise ValueError(f"data.masks: {missing[0]} is missing; write what masks hold for it, [] for nothing")
        named = self.masks or {name: (id,) for id, name in enumerate(classes)}
        claims: list[tuple[int | str, int | None]] = [(value, None) for value in self.ignore]
        claims += [(value, id) for id, name in enumerate(classes) for value in named[name]]
        if len({type(value) for value, _ in claims}) > 1:
            raise ValueError("data.masks, data.ignore: both numbers and colours; write one kind for all")
        self._check_once(claims, classes)
        return ({} if self.of_colours else {255: None}) | {number_of(value): id for value, id in claims}

    def _check_once(self, claims: Sequence[tuple[int | str, int | None]], classes: Sequence[str]) -> None:
        owners: dict[int | str, str] = {}
        for value, id in claims:
            name = "ignore" if id is None else classes[id]
            if value in owners:
                numbered = "" if self.masks else "; classes are numbered from 0 unless masks says what each one is"
                raise ValueError(f"data: {value} is named for {owners[value]} and for {name}{numbered}")
            owners[value] = name


class DataSection(MasksSection):
    """Folders as `compress.data` expects them. `folder` has train/ and val/; `unlabelled` holds images alone.
    Without `folder`, a part of `unlabelled` is measured on, against the teacher's masks."""

    folder: Place | None = None
    unlabelled: Place | None = None


class TeacherSection(Section):
    """Who teaches: the model itself, or those in `models`, whose logits are averaged: files, each with a recipe beside
    it, and folders of maps. `tta`: what each of them also looks at, the mirrored image and a smaller one. `classes`:
    what a class of theirs is called here, where that is not its name."""

    models: list[Place] = Field([], max_length=16)
    classes: dict[str, str] = Field({}, max_length=255, exclude_if=lambda names: not names)
    tta: Annotated[list[Literal["flip", "scale"]], Once] = []


class StudentSection(Section):
    """What is trained and exported in place of a narrower copy of the model: the torch module that "file.py:Name"
    beside the recipe makes, or "light", one of ours; the model is its teacher then, and nothing is cut. It starts from
    `weights`, of which a part will do, layers without any from random ones. "auto": the better of "light" and of a
    narrower copy, after `trial_minutes` of each, or the share of the recipe's steps that is as long; the trials of
    several of [plan] input_sizes last as long."""

    network: Literal["light", "auto"] | Code | None = None
    weights: Place | None = None
    trial_minutes: Minutes = 3.0
    folder: Place | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "StudentSection":
        if self.weights and not self.network:
            raise ValueError("weights are of no student; name it with network, or --student")
        return self


class TuneSection(Section):
    """Training of the model itself on the labels that there are, before it is cut and teaches: a large network learns
    more of few labels than a small one does. For `minutes` or a number of `steps`; without either it is left out."""

    minutes: Minutes = 0.0
    steps: Steps | None = None
    batch: Batch = 8
    learning_rate: Rate = 1e-3


class PlanSection(Section):
    """`method`: "damage" weighs what each channel is worth; "uniform", "magnitude" and "random" are there to compare
    with. `macs_share`: multiply-accumulates of the student, as a share of the heavy model's. `cuts`: how many steps
    lead to the budget, each repaired; `between`: share of the distillation that is spent between two of them.
    `input_sizes`: of the images that a student may read, at most as large as the model's, which it reads where none is
    given; of several a trial decides. `branches`: whether a plan by damage under a latency may leave out whole ones."""

    method: Literal["damage", "uniform", "magnitude", "random"] = "damage"
    images: Images = Field(32, ge=1)
    size: Size = (192, 192)
    macs_share: Real = Field(0.115, ge=1e-4, le=1)
    cuts: Whole = Field(1, ge=1, le=20)
    between: Real = Field(0.1, ge=0, lt=1)
    input_sizes: list[Size] = Field([], max_length=8)
    branches: Switch = Field(False, exclude_if=lambda may_go: not may_go)

    @model_validator(mode="after")
    def _leaves_some(self) -> "PlanSection":
        if self.between * (self.cuts - 1) >= 1:
            raise ValueError(f"{self.cuts - 1} times {self.between} of the distillation between cuts leaves none after")
        return self


class TrainSection(Section):
    """Training after the repair: `minutes` for distillation and quantization-aware training together, or a number of
    `steps`, which gives the same result whatever the machine's speed. `qat_share` of either is quantization-aware. A
    learning rate is about the share of its standard deviation by which a step moves an output of a layer. `features`:
    views of which the heavy model's are computed once. With `live_teacher` it looks at every view itself instead,
    features included unless `features` is 0: where there is a GPU. `class_weights`: how much a pixel of each class
    weighs in any training, that of [tune] too; "balanced" by the median of the classes' frequencies."""

    minutes: Minutes = 6.0
    steps: Steps | None = None
    batch: Batch = 8
    learning_rate: Rate = 6e-3
    size: Size = (192, 192)
    features: Images = 800
    live_teacher: Switch = False
    qat_share: Share = 0.4
    qat_learning_rate: Rate = 2e-3
    class_weights: ClassWeights = None


class RepairSection(Section):
    """`images`: as many as fit into memory are used; 0 leaves the repair out."""

    images: Images = 200
    size: Size = (192, 192)


class ControlsSection(Section):
    """`run`: whether a student pruned at random, and the network `small` ("file.py:Name", as `model.architecture` is),
    are trained for the same minutes too, for the report. `small` begins from `small_weights`, a file beside the recipe,
    or else from random weights at `learning_rate`."""

    run: Switch = False
    small: Code | None = None
    small_weights: Beside | None = None
    learning_rate: Rate = 2e-2


class MeasureSection(Section):
    """`seconds`: of counted inferences for each file, an hour at most. `margin`: a difference of IoU that nobody
    notices."""

    seconds: Real = Field(5.0, gt=0, le=3600)
    margin: Share = 0.01


class BudgetSection(Section):
    """`limits` as `--budget` has them; files that they compare with are named from the TOML file's folder."""

    limits: list[Line] = Field(min_length=1, max_length=100)


class GateFile(Section):
    """compress.toml. `registry`: where the releases are published, whose versions never change; `preprocess`: what a
    float32 file reads that no manifest describes; `data`: what masks hold."""

    budget: BudgetSection
    registry: Line | None = None
    preprocess: PreprocessSection | None = None
    data: MasksSection = MasksSection()


class ReportSection(Section):
    """`pictures`: a folder of photographs that the report and the golden input use instead of validation images, so
    that both can be published. `palette`: the colour of each class by name; others have that of `data.masks`, or one of
    the report's own."""

    pictures: Place | None = None
    palette: dict[str, Colour] = Field({}, max_length=255)


class Recipe(Section):
    """Everything that decides a run, but for the machine. `name` is also that of a folder. `onnx_input`: whether ONNX
    files read pixels, or what the heavy model reads, normalised by the app as `preprocess` says; TFLite files always
    read pixels."""

    name: str = Field(pattern=r"^\w[\w.-]*$", max_length=60)
    version: Line = "1.0.0"
    description: Line = ""
    author: Line = ""
    licence: Line = ""
    model: ModelSection
    preprocess: PreprocessSection = PreprocessSection()
    data: DataSection = DataSection()
    teacher: TeacherSection = TeacherSection()
    student: StudentSection = StudentSection()
    tune: TuneSection = TuneSection()
    plan: PlanSection = PlanSection()
    repair: RepairSection = RepairSection()
    train: TrainSection = TrainSection()
    controls: ControlsSection = ControlsSection()
    measure: MeasureSection = MeasureSection()
    report: ReportSection = ReportSection()
    budget: list[Line] = Field([], max_length=100)
    formats: Annotated[list[Literal["onnx", "tflite", "ort"]], Field(min_length=1), Once] = ["onnx", "tflite"]
    onnx_input: Literal["uint8", "float32"] = "uint8"
    quantize: Literal["qat", "ptq"] = "qat"
    keep_float: list[Line] = Field([], max_length=10_000)
    sensitivity: Switch = False
    seed: Seed = 0
    folder: Path = Field(Path("."), exclude=True)

    @model_validator(mode="after")
    def _of_the_classes(self) -> "Recipe":
        """What is said class by class fits the classes."""
        self.data.meanings(self.model.classes)
        check_names("teacher.classes", self.teacher.classes.values(), self.model.classes)
        check_names("report.palette", self.report.palette, self.model.classes)
        weights = self.train.class_weights
        if isinstance(weights, tuple) and len(weights) != len(self.model.classes):
            raise ValueError(
                f"train.class_weights: {len(weights)} for {len(self.model.classes)} classes; write one each"
            )
        return self

    @model_validator(mode="after")
    def _channels(self) -> "Recipe":
        """As many means and deviations as channels."""
        count = self.model.channels
        preprocess = self.preprocess.of_channels(count)
        for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
            if len(values) != count:
                raise ValueError(
                    f"[preprocess] {name}: {len(values)} given, and the model reads {count} channels; give as many, or "
                    "set [model] channels"
                )
        return self.model_copy(update={"preprocess": preprocess})

    @model_validator(mode="after")
    def _sizes(self) -> "Recipe":
        """Those that are not given are no larger than the image."""
        whole = self.model.input_size
        for size in self.plan.input_sizes:
            if size[0] > whole[0] or size[1] > whole[1]:
                raise ValueError(
                    f"[plan] input_sizes: {size[0]}x{size[1]} is larger than [model] input_size, {whole[0]}x{whole[1]}"
                )
        smaller: dict[str, Section] = {}
        for name in ("plan", "repair", "train"):
            section = getattr(self, name)
            size = section.size
            if "size" not in section.model_fields_set:
                size = (min(size[0], whole[0]), min(size[1], whole[1]))
                smaller[name] = section.model_copy(update={"size": size})
            if not 1 <= size[0] <= whole[0] or not 1 <= size[1] <= whole[1]:
                raise ValueError(
                    f"[{name}] size: {size[0]}x{size[1]} is empty or larger than [model] input_size, "
                    f"{whole[0]}x{whole[1]}"
                )
        return self.model_copy(update=smaller)

    def training(self, stage: Stage) -> Training:
        """One kind of training; "between" is one time between two cuts. Where the recipe states steps, those count. The
        model itself is tuned on the labels alone."""
        settings = self.tune if stage == "tune" else self.train
        return Training(
            self._schedule(stage),
            settings.batch,
            self.train.qat_learning_rate if stage == "qat" else settings.learning_rate,
            self.train.size,
            self.seed,
            label_weight=1.0 if stage == "tune" else Training.label_weight,
        )

    def _schedule(self, stage: Stage) -> Schedule:
        if stage == "tune":
            return Schedule(self.tune.minutes, self.tune.steps)
        qat = self.train.qat_share if self.quantize == "qat" else 0.0
        before = self.plan.between * (self.plan.cuts - 1)
        share = {"qat": qat, "between": (1 - qat) * self.plan.between, "distil": (1 - qat) * (1 - before)}[stage]
        steps = None if self.train.steps is None else round(share * self.train.steps)
        return Schedule(share * self.train.minutes, steps)

    def colours(self) -> dict[str, str]:
        """Those of classes that are named, for pictures: by the palette, or else by what masks hold."""
        held = {name: values[0] for name, values in self.data.masks.items() if values}
        return {name: value for name, value in held.items() if isinstance(value, str)} | self.report.palette

    def pruned_at_random(self) -> "Recipe":
        """The same with channels drawn by lot in one cut, and without a repair."""
        plan = self.plan.model_copy(update={"method": "random", "cuts": 1})
        return self.model_copy(update={"plan": plan, "repair": self.repair.model_copy(update={"images": 0})})

    def with_flags(self, **flags: Any) -> "Recipe":
        """A copy in which every flag of `compress run` that is not None replaces what the recipe says, each by its
        name: data, minutes (which replaces steps too), keep_float, ... Raises RecipeError."""
        given = {key: value for key, value in flags.items() if value is not None}
        names = {flag.setting: flag.name for flag in (*MODEL_FLAGS, *RUN_FLAGS) if flag.setting and flag.key in given}
        document = self.model_dump() | {"folder": self.folder}
        for flag in (*MODEL_FLAGS, *RUN_FLAGS):
            if flag.setting is not None and flag.key in given:
                _replace(document, flag.setting, given.pop(flag.key))
                if flag.instead_of is not None:
                    _replace(document, flag.instead_of, None)
        return validated(Recipe, document | given, "options", names)


def _replace(document: dict[str, Any], setting: str, value: Any) -> None:
    """Of a recipe's tables, the one value that is called "data.folder" or "seed"."""
    section, _, name = setting.rpartition(".")
    (document[section] if section else document)[name] = value


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises RecipeError with the line and column of malformed TOML, or with the key that is missing,
    unknown or out of range.
    """
    document = read_toml(path, "write one beside the model or name it with --recipe")
    if "folder" in document:
        raise RecipeError(f"{path}: folder: unknown; did you mean data.folder?")
    model = document.get("model")
    code = model.get("architecture") if isinstance(model, dict) else None
    if isinstance(code, str) and not code.partition(":")[0].endswith(".py"):
        raise RecipeError(
            f"{path}: model.architecture: {code} is no file.py:Name; what an installed package makes is named with "
            "--arch, where nobody but you chooses it"
        )
    for section, key in (
        ("data", "folder"),
        ("data", "unlabelled"),
        ("report", "pictures"),
        ("student", "weights"),
    ):
        if isinstance(document.get(section), dict) and isinstance(document[section].get(key), str):
            document[section][key] = path.parent / document[section][key]
    if isinstance(document.get("student"), dict) and "folder" in document["student"]:
        raise RecipeError(f"{path}: student.folder: unknown; code lies beside the recipe")
    teacher = document.get("teacher", {})
    if isinstance(teacher, dict) and isinstance(teacher.get("models"), list):
        teacher["models"] = [path.parent / name if isinstance(name, str) else name for name in teacher["models"]]
    return validated(Recipe, {**document, "folder": path.parent}, str(path))


def beside(model: Path) -> Path:
    """Where the recipe of a model's file, or of a folder of maps, lies: a folder may have no name, as "." has none."""
    return model.with_suffix(".toml") if model.name else model / ".toml"


def recipe_beside(model: Path) -> Recipe:
    """That of a model which the command has no --recipe for. Raises ModelError and RecipeError."""
    check_model(model)
    beside = model.with_suffix(".toml")
    if not beside.is_file():
        raise RecipeError(f"{beside}: no such file; write the model's recipe there")
    return read_recipe(beside)


def check_model(model: Path) -> None:
    """Raises ModelError where there is no such file."""
    if not model.is_file():
        what = "is no file" if model.exists() else "no such file"
        raise ModelError(f"{model}: {what}; name the model's file of weights")


def restored_recipe(document: dict[str, Any], folder: Path, where: str) -> Recipe:
    """The recipe that `Recipe.model_dump` wrote, of a file in `folder`. Raises RecipeError, naming `where` it is."""
    return validated(Recipe, {**document, "folder": folder}, where)
