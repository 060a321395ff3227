"""What a heavy file answers, kept in the cache: it is the same each time, and takes minutes."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from compress.files import cached, identity
from compress.formats.artifact import Artifact
from compress.measure.evaluate import Evaluation
from compress.measure.stability import Stability

_VERSION = 2  # raised whenever the same file is measured otherwise on the same images


@dataclass(frozen=True)
class Known:
    """What was measured of the same file on the same images before, in the folder `cache`. Images are uint8
    [N, H, W, C]. Every method raises DataError where the folder cannot be written."""

    cache: Path

    def evaluation(
        self,
        artifact: Artifact,
        images: np.ndarray,
        masks: Callable[[], Iterable[np.ndarray]] | None,
        classes: int,
        make: Callable[[], Evaluation],
        multilabel: bool = False,
    ) -> Evaluation:
        """What `make` gives, where it is not known."""
        against = None if masks is None else [_digest(mask) for mask in masks()]
        key = _key(_kind("evaluation", multilabel), artifact, images, masks=against, classes=classes)
        with np.load(self._kept(key, lambda: _arrays(make())), allow_pickle=False) as kept:
            return Evaluation(
                tuple(kept["iou"].tolist()),
                kept["predictions"],
                tuple(kept["boundary_iou"].tolist()),
                kept["intersections"],
                kept["unions"],
                tuple(map(tuple, json.loads(kept["small_found"].tobytes()))),
                kept["confusion"],
            )

    def stability(
        self, artifact: Artifact, images: np.ndarray, make: Callable[[], Stability], multilabel: bool = False
    ) -> Stability:
        """What `make` gives, where it is not known."""

        def arrays() -> dict[str, Any]:
            made = make()
            return {"shift": np.array(made.shift), "jpeg": np.array(made.jpeg)}

        key = _key(_kind("stability", multilabel), artifact, images)
        with np.load(self._kept(key, arrays), allow_pickle=False) as kept:
            return Stability(tuple(kept["shift"].tolist()), tuple(kept["jpeg"].tolist()))

    def _kept(self, key: str, arrays: Callable[[], dict[str, Any]]) -> Path:
        def write(partial: Path) -> None:
            with partial.open("wb") as file:  # a name would be given the ending .npz
                np.savez_compressed(file, **arrays())

        return cached(self.cache / f"answers-{key}.npz", write)


def _arrays(evaluation: Evaluation) -> dict[str, Any]:
    ragged = json.dumps([[bool(found) for found in each] for each in evaluation.small_found]).encode()
    return {
        "iou": np.array(evaluation.iou),
        "predictions": evaluation.predictions,
        "boundary_iou": np.array(evaluation.boundary_iou),
        "intersections": evaluation.intersections,
        "unions": evaluation.unions,
        "small_found": np.frombuffer(ragged, np.uint8),
        "confusion": evaluation.confusion,
    }


def _kind(what: str, multilabel: bool) -> str:
    return f"{what} of labels" if multilabel else what


def _key(kind: str, artifact: Artifact, images: np.ndarray, **more: object) -> str:
    return identity(
        kind,
        _VERSION,
        file=artifact.sha256,
        reads=[artifact.input.mean, artifact.input.std],
        activation=artifact.output.activation,
        images=_digest(images),
        runtime=version("onnxruntime"),
        **more,
    )


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
