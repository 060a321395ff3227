"""The recipe: TOML beside the model plus flags, parsed once into typed values."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compress.errors import RecipeError
from compress.flags import RUN_FLAGS


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=_Section)
Stage = Literal["tune", "between", "distil", "qat"]
"""A kind of training."""
Colours = tuple[float, float, float]
"""Of red, green and blue."""


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


class ModelSection(_Section):
    """What the file holds. `architecture` is "file.py:Name", the file lying beside the recipe;
    Name() must return the torch module that the weights fit."""

    architecture: str = Field(pattern=r"^[\w./-]+\.py:\w+$")
    output: int = Field(0, ge=0)
    classes: list[Annotated[str, Field(pattern=r"^\S[^\n\r]*$")]] = Field(min_length=2)
    input_size: tuple[int, int] = (320, 320)


class PreprocessSection(_Section):
    """What the model was trained on: (pixel / 255 - mean) / std per RGB channel."""

    mean: Colours = (0.0, 0.0, 0.0)
    std: Colours = (1.0, 1.0, 1.0)

    def of_pixels(self) -> tuple[Colours, Colours]:
        """The same as mean and std of 0..255 values: (pixel - mean) / std."""
        (a, b, c), (d, e, f) = self.mean, self.std
        return (255 * a, 255 * b, 255 * c), (255 * d, 255 * e, 255 * f)


class DataSection(_Section):
    """Folders as `compress.data` expects them. `folder` has train/ and val/; `unlabelled` holds images alone.
    Without `folder`, a part of `unlabelled` is measured on, against the teacher's masks."""

    folder: Path | None = None
    unlabelled: Path | None = None


class TeacherSection(_Section):
    """Who teaches: the model itself, or the files in `models`, each with a recipe beside it, whose logits are averaged.
    `tta`: what each of them also looks at, the mirrored image and a smaller one."""

    models: list[Path] = []
    tta: list[Literal["flip", "scale"]] = []


class TuneSection(_Section):
    """Training of the model itself on the labels that there are, before it is cut and teaches: a large network learns
    more of few labels than a small one does. For `minutes` or a number of `steps`; without either it is left out."""

    minutes: float = Field(0.0, ge=0)
    steps: int | None = Field(None, ge=0)
    batch: int = Field(8, ge=1)
    learning_rate: float = Field(1e-3, gt=0)


class PlanSection(_Section):
    """`method`: "damage" weighs what each channel is worth; "uniform", "magnitude" and "random" are there to compare
    with. `macs_share`: multiply-accumulates of the student, as a share of the heavy model's. `cuts`: how many steps
    lead to the budget, each repaired; `between`: share of the distillation that is spent between two of them."""

    method: Literal["damage", "uniform", "magnitude", "random"] = "damage"
    images: int = Field(32, ge=1)
    size: tuple[int, int] = (192, 192)
    macs_share: float = Field(0.115, gt=0, le=1)
    cuts: int = Field(1, ge=1, le=20)
    between: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _leaves_some(self) -> "PlanSection":
        if self.between * (self.cuts - 1) >= 1:
            raise ValueError(f"{self.cuts - 1} times {self.between} of the distillation between cuts leaves none after")
        return self


class TrainSection(_Section):
    """Training after the repair: `minutes` for distillation and quantization-aware training together, or a number of
    `steps`, which gives the same result whatever the machine's speed. `qat_share` of either is quantization-aware. A
    learning rate is about the share of its standard deviation by which a step moves an output of a layer. `features`:
    views of which the heavy model's are computed once. With `live_teacher` it looks at every view itself instead,
    features included unless `features` is 0: where there is a GPU."""

    minutes: float = Field(6.0, ge=0)
    steps: int | None = Field(None, ge=0)
    batch: int = Field(8, ge=1)
    learning_rate: float = Field(6e-3, gt=0)
    size: tuple[int, int] = (192, 192)
    features: int = Field(800, ge=0)
    live_teacher: bool = False
    qat_share: float = Field(0.4, ge=0, le=1)
    qat_learning_rate: float = Field(2e-3, gt=0)


class RepairSection(_Section):
    """`images`: as many as fit into memory are used; 0 leaves the repair out."""

    images: int = Field(200, ge=0)
    size: tuple[int, int] = (192, 192)


class ControlsSection(_Section):
    """`run`: whether a student pruned at random, and the network `small` ("file.py:Name", as `model.architecture` is),
    are trained for the same minutes too, for the report. `small` begins from `small_weights`, a file beside the recipe,
    or else from random weights at `learning_rate`."""

    run: bool = False
    small: str | None = Field(None, pattern=r"^[\w./-]+\.py:\w+$")
    small_weights: str | None = None
    learning_rate: float = Field(2e-2, gt=0)


class MeasureSection(_Section):
    """`seconds`: of counted inferences for each file. `margin`: a difference of IoU that nobody notices."""

    seconds: float = Field(5.0, gt=0)
    margin: float = Field(0.01, ge=0, le=1)


class BudgetSection(_Section):
    """`limits` as `--budget` has them; files that they compare with are named from the TOML file's folder."""

    limits: list[str] = Field(min_length=1)


class GateFile(_Section):
    """compress.toml. `preprocess`: what a float32 file reads that no manifest describes."""

    budget: BudgetSection
    preprocess: PreprocessSection | None = None


class ReportSection(_Section):
    """`pictures`: a folder of photographs that the report and the golden input use instead of validation images, so
    that both can be published."""

    pictures: Path | None = None


class Recipe(_Section):
    """Everything that decides a run, but for the machine. `onnx_input`: whether ONNX files read pixels, or what the
    heavy model reads, normalised by the app as `preprocess` says; TFLite files always read pixels."""

    name: str = Field(pattern=r"^[\w.-]+$")
    version: str = "1.0.0"
    description: str = ""
    author: str = ""
    licence: str = ""
    model: ModelSection
    preprocess: PreprocessSection = PreprocessSection()
    data: DataSection = DataSection()
    teacher: TeacherSection = TeacherSection()
    tune: TuneSection = TuneSection()
    plan: PlanSection = PlanSection()
    repair: RepairSection = RepairSection()
    train: TrainSection = TrainSection()
    controls: ControlsSection = ControlsSection()
    measure: MeasureSection = MeasureSection()
    report: ReportSection = ReportSection()
    budget: list[str] = []
    formats: list[Literal["onnx", "tflite", "ort"]] = ["onnx", "tflite"]
    onnx_input: Literal["uint8", "float32"] = "uint8"
    quantize: Literal["qat", "ptq"] = "qat"
    keep_float: list[str] = []
    sensitivity: bool = False
    seed: int = 0
    folder: Path = Field(Path("."), exclude=True)

    @model_validator(mode="after")
    def _sizes(self) -> "Recipe":
        """Those that are not given are no larger than the image."""
        whole = self.model.input_size
        smaller: dict[str, _Section] = {}
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

    def pruned_at_random(self) -> "Recipe":
        """The same with channels drawn by lot in one cut, and without a repair."""
        plan = self.plan.model_copy(update={"method": "random", "cuts": 1})
        return self.model_copy(update={"plan": plan, "repair": self.repair.model_copy(update={"images": 0})})

    def with_flags(self, **flags: Any) -> "Recipe":
        """A copy in which every flag of `compress run` that is not None replaces what the recipe says, each by its
        name: data, minutes (which replaces steps too), keep_float, ... Raises RecipeError."""
        given = {key: value for key, value in flags.items() if value is not None}
        document = self.model_dump() | {"folder": self.folder}
        for flag in RUN_FLAGS:
            if flag.setting is not None and flag.key in given:
                _replace(document, flag.setting, given.pop(flag.key))
                if flag.instead_of is not None:
                    _replace(document, flag.instead_of, None)
        return validated(Recipe, document | given, "options")


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
    for section, key in (("data", "folder"), ("data", "unlabelled"), ("report", "pictures")):
        if isinstance(document.get(section), dict) and isinstance(document[section].get(key), str):
            document[section][key] = path.parent / document[section][key]
    teacher = document.get("teacher", {})
    if isinstance(teacher, dict) and isinstance(teacher.get("models"), list):
        teacher["models"] = [path.parent / name if isinstance(name, str) else name for name in teacher["models"]]
    return validated(Recipe, {**document, "folder": path.parent}, str(path))


def restored_recipe(document: dict[str, Any], folder: Path) -> Recipe:
    """The recipe that `Recipe.model_dump` wrote, of a file in `folder`. Raises RecipeError."""
    return validated(Recipe, {**document, "folder": folder}, "checkpoints")


def read_toml(path: Path, missing: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises RecipeError: `missing` says what to do where there is none."""
    text = ""
    try:
        text = path.read_text()
        return tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; {missing}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
        end = f"(at line {line}, column {column}, the end)"
        raise RecipeError(f"{path}: {str(error).replace('(at end of document)', end)}") from None
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None


def validated(kind: type[Kind], document: dict[str, Any], where: str) -> Kind:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{where}: {key or 'recipe'}: {message[:1].lower()}{message[1:]}") from None
