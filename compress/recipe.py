"""The recipe: TOML beside the model plus flags, parsed once into typed values."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compress.errors import RecipeError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """What the file holds. `architecture` is "file.py:Name", the file lying beside the recipe;
    Name() must return the torch module that the weights fit."""

    architecture: str = Field(pattern=r"^[\w./-]+\.py:\w+$")
    output: int = Field(0, ge=0)
    classes: list[str] = Field(min_length=2)
    input_size: tuple[int, int] = (320, 320)


class PreprocessSection(_Section):
    """What the model was trained on: (pixel / 255 - mean) / std per RGB channel."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class TrainSection(_Section):
    """Training after the repair. `minutes` is the time for distillation and quantization-aware
    training together."""

    minutes: float = Field(6.0, ge=0)
    batch: int = Field(8, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    size: tuple[int, int] = (192, 192)
    qat_share: float = Field(0.35, ge=0, le=1)


class RepairSection(_Section):
    images: int = Field(200, ge=1)
    size: tuple[int, int] = (192, 192)


class Recipe(_Section):
    """Everything that decides a run, but for the machine."""

    name: str = Field(pattern=r"^[\w.-]+$")
    version: str = "1.0.0"
    description: str = ""
    licence: str = ""
    model: ModelSection
    preprocess: PreprocessSection = PreprocessSection()
    repair: RepairSection = RepairSection()
    train: TrainSection = TrainSection()
    budget: list[str] = []
    formats: list[Literal["onnx", "tflite"]] = ["onnx", "tflite"]
    seed: int = 0

    @model_validator(mode="after")
    def _sizes(self) -> "Recipe":
        for size in (self.model.input_size, self.train.size, self.repair.size):
            if min(size) < 1:
                raise ValueError(f"a size of {size} has no pixels")
        return self


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises RecipeError with the line and column of malformed TOML, or with the key that is missing,
    unknown or out of range.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; write one beside the model or name it with --recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: {where or 'recipe'}: {first['msg'].lower()}") from None
