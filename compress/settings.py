"""What users write: the values that a TOML section is made of, and one line for each mistake."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from compress.errors import RecipeError
from compress.flags import MOST_CHANNELS

_LONGEST = 1_000_000  # bytes of a TOML file
_LEAST_STD = 1e-5
_SHOWN = 60  # characters of a value in an error
_HEAVIEST = 1_000_000  # of weights of classes
_COLOUR = re.compile("#[0-9a-fA-F]{6}")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=Section)


def _findable(path: Path) -> Path:
    """A path that the system can look up, be there something or not."""
    if not str(path).isprintable() or any(len(part.encode()) > 255 for part in path.parts) or len(str(path)) > 4000:
        raise ValueError("no path: it is too long, or holds characters that cannot be printed")
    return path


def _beside(name: str) -> str:
    path = _findable(Path(name))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} lies elsewhere; name a file in the recipe's folder")
    return name


def _each_once(names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is named twice; name each once")
    return names


def _output(value: Any) -> Any:
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200:
        return value
    if value is not None and (type(value) is not int or not 0 <= value <= 1000):
        raise ValueError(f"an output is told by its name, or by its place from 0 on, not {_shown(value)}")
    return value


def _possible_mean(mean: Any) -> Any:
    if not all(0 <= value <= 1 for value in mean):
        raise ValueError(f"each must be from 0 to 1, as pixel / 255 is, not {mean}{_unit(mean)}")
    return mean


def _possible_std(std: Any) -> Any:
    if not all(_LEAST_STD <= value <= 1 for value in std):
        raise ValueError(
            f"each must be more than 0 (from {_LEAST_STD:.5f}) and at most 1, as of pixel / 255, not {std}{_unit(std)}"
        )
    return std


def _mask_values(given: Any) -> tuple[int | str, ...]:
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    for value in values:
        if not (_is_number(value) or isinstance(value, str) and _COLOUR.fullmatch(value)):
            raise ValueError(f"whole numbers, or colours such as #804080, not {_shown(value)}")
    return tuple(value.lower() if isinstance(value, str) else value for value in values)


def _is_number(value: Any) -> bool:
    return type(value) is int and -(2**31) <= value < 2**31


def _colour(given: Any) -> str:
    if not isinstance(given, str) or not _COLOUR.fullmatch(given):
        raise ValueError(f"a colour such as #804080, not {_shown(given)}")
    return given.lower()


def _class_weights(given: Any) -> Any:
    numbers = isinstance(given, list | tuple) and all(
        type(each) in (int, float) and 0 < each <= _HEAVIEST for each in given
    )
    if given is not None and given != "balanced" and not numbers:
        raise ValueError(
            f'"balanced", or a list of one number above 0 for each class, at most a million, not {_shown(given)}'
        )
    return tuple(map(float, given)) if numbers else given


def number_of(value: int | str) -> int:
    """A value of `MaskValues` as masks are compared with it: a colour as 0xRRGGBB."""
    return int(value[1:], 16) if isinstance(value, str) else value


def check_names(key: str, named: Iterable[str], classes: Sequence[str]) -> None:
    """Raises ValueError for one that is no class."""
    for name in named:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, 1)
            meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(classes)}"
            raise ValueError(f"{key}: {name!r:.60} is no class; {meant}")


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError(f"the lowest value, then a higher one, not {list(ends)}")
    return ends


def _unit(values: Any) -> str:
    return "; divide values of 0 to 255 by 255" if max(values) > 1 else ""


Switch = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Line = Annotated[str, Field(max_length=10_000)]
Place = Annotated[Path, AfterValidator(_findable)]
Beside = Annotated[str, AfterValidator(_beside)]
"""A file in the recipe's folder."""
Code = Annotated[Beside, Field(pattern=r"^[\w./-]+:\w+(\(.*\))?$", max_length=1000)]
""""file.py:Name" there, or "package.module:Name(key=value)"."""
Once = AfterValidator(_each_once)
Classes = Annotated[
    list[Annotated[str, Field(pattern=r"^\S[^\x00-\x1f\x7f]*$", max_length=200)]],
    Field(min_length=2, max_length=255),
    Once,
]
"""By id; 255 is void in a mask."""
Output = Annotated[int | str | None, PlainValidator(_output)]
"""Of a model: its place, from 0, or its name."""
MaskValues = Annotated[tuple[int | str, ...], BeforeValidator(_mask_values)]
"""One or several that a mask holds: numbers, or "#rrggbb"."""
ClassWeights = Annotated[Literal["balanced"] | tuple[float, ...] | None, BeforeValidator(_class_weights)]
"""By the frequency of each class, or one for each; None: 1."""
Colour = Annotated[str, BeforeValidator(_colour)]
""""#rrggbb"."""
Colours = tuple[float, ...]
"""Of each channel; of a photograph red, green and blue."""
Channels = Annotated[Whole, Field(ge=1, le=MOST_CHANNELS)]
_Reals = Annotated[tuple[Real, ...], Field(min_length=1, max_length=MOST_CHANNELS)]
Mean = Annotated[_Reals, AfterValidator(_possible_mean)]
Std = Annotated[_Reals, AfterValidator(_possible_std)]
"""What is divided by 255 has a mean and a standard deviation of 0 to 1."""
Range = Annotated[tuple[Real, Real], AfterValidator(_rising)]
"""Lowest and highest value."""
Side = Annotated[int, Field(strict=True, ge=16, le=4096)]
"""Pixels: networks halve an image several times, and phones hold no larger maps."""
Size = tuple[Side, Side]
"""Height and width."""
Minutes = Annotated[Real, Field(ge=0, le=100_000)]
"""Ten weeks at most."""
Steps = Annotated[Whole, Field(ge=0, le=100_000_000)]
Batch = Annotated[Whole, Field(ge=1, le=10_000)]
Images = Annotated[Whole, Field(ge=0, le=1_000_000)]
Rate = Annotated[Real, Field(gt=0, le=1)]
Share = Annotated[Real, Field(ge=0, le=1)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
"""What every generator of random numbers takes."""


def read_toml(path: Path, missing: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises RecipeError: `missing` says what to do where there is none."""
    text = ""
    try:
        if path.stat() and not path.is_file():
            raise RecipeError(f"{path}: not a file; {missing}")
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise RecipeError(f"{path}: more than {_LONGEST:,} bytes, which is no TOML that people write; {missing}")
        text = data.decode("utf-8-sig")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; {missing}") from None
    except RecursionError:
        raise RecipeError(f"{path}: nested too deeply; write tables of plain values") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start}); save it anew") from None
    except tomllib.TOMLDecodeError as error:
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
        end = f"(at line {line}, column {column}, the end)"
        raise RecipeError(f"{path}: {str(error).replace('(at end of document)', end)}") from None
    except ValueError:  # of a path with a zero byte, and of a number of thousands of digits
        raise RecipeError(f"{path}: a value that cannot be read, such as a number of thousands of digits") from None
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; {missing}") from None


def validated(kind: type[Kind], document: dict[str, Any], where: str, names: Mapping[str, str] | None = None) -> Kind:
    """The typed values of `document`, which is read `where`. `names`: what the user calls a key, as "--seed" is called
    "seed". Raises RecipeError with the first mistake."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False)
        first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
        path = [str(part) for part in first["loc"]]
        key = _named(".".join(path), names or {})
        raise RecipeError(f"{where}: {key or 'recipe'}: {_what(kind, first, path)}") from None


def _named(key: str, names: Mapping[str, str]) -> str:
    for name, said in names.items():
        if key == name or key.startswith(f"{name}."):
            return said + key.removeprefix(name)
    return key if key.isprintable() else repr(key)


def _what(kind: type[Section], mistake: Mapping[str, Any], path: list[str]) -> str:
    if mistake["type"] == "extra_forbidden":
        return f"unknown; {_meant(kind, path)}"
    if mistake["type"] == "missing":
        return "missing; write it"
    message = mistake["msg"].removeprefix("Value error, ")
    message = " ".join(f"{message[:1].lower()}{message[1:]}".split())
    return message if mistake["type"] == "value_error" else f"{message}, not {_shown(mistake['input'])}"


def _meant(kind: type[Section], path: list[str]) -> str:
    """What an unknown key may have been: one of its section, or of another."""
    keys = _keys(kind)
    section = ".".join(path[:-1])
    own = {name: key for key, name in keys.items() if key.rpartition(".")[0] == section}
    everywhere = {name: key for key, name in keys.items()}
    for known, likeness in ((own, 0.75), (everywhere, 0.75), (own, 0.6)):
        if close := difflib.get_close_matches(path[-1], known, 1, likeness):
            return f"did you mean {known[close[0]]}?"
    return f"there are {', '.join(own)}"


def _keys(kind: type[Section], section: str = "") -> dict[str, str]:
    """Every key, in full, with its last part."""
    found = {}
    for name, field in kind.model_fields.items():
        if field.exclude:
            continue
        found[f"{section}{name}"] = name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= _keys(field.annotation, f"{section}{name}.")
    return found


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a huge number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
