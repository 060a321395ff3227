"""What runs of one model have in common besides its teacher's maps, computed once and kept in the cache."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.files import cached, identity
from compress.graph.channels import find_groups
from compress.load.model import Segmenter
from compress.prune.branches import Branch, measure_branches
from compress.prune.importance import GroupDamage, measure_damage

_DAMAGE = 1  # raised whenever the same network gives another damage on the same images
_BRANCHES = 1


def known_damage(heavy: Segmenter, pixels: Tensor, multilabel: bool, cache: Path) -> dict[str, GroupDamage]:
    """What `measure_damage` says of the whole network on these images, uint8 [N, H, W, channels]: it knows nothing of a
    budget. Raises DataError where the folder `cache` cannot be written."""

    def measure(images: list[Tensor]) -> Any:
        found = measure_damage(heavy.network, find_groups(heavy.network), images, multilabel)
        return {name: asdict(each) for name, each in found.items()}

    kept = _known("damage", _DAMAGE, heavy, pixels, multilabel, cache, measure)
    return {name: GroupDamage(tuple(each["order"]), tuple(each["damage"])) for name, each in kept.items()}


def known_branches(heavy: Segmenter, pixels: Tensor, multilabel: bool, cache: Path) -> dict[Branch, float]:
    """The same of `measure_branches`."""

    def measure(images: list[Tensor]) -> Any:
        return [(*branch, each) for branch, each in measure_branches(heavy.network, images, multilabel).items()]

    kept = _known("branches", _BRANCHES, heavy, pixels, multilabel, cache, measure)
    return {Branch(at, gone): each for at, gone, each in kept}


def _known(
    kind: str,
    made_by: int,
    heavy: Segmenter,
    pixels: Tensor,
    multilabel: bool,
    cache: Path,
    measure: Callable[[list[Tensor]], Any],
) -> Any:
    """What is measured on these images, as JSON holds it."""
    images = hashlib.sha256(repr(pixels.shape).encode() + pixels.numpy().tobytes()).hexdigest()
    key = identity(kind, made_by, network=heavy.identity, images=images, labels=multilabel, torch=version("torch"))

    def write(partial: Path) -> None:
        partial.write_text(json.dumps(measure([heavy.network.real(one[None]) for one in pixels])))

    return json.loads(cached(cache / f"{kind}-{key}.json", write).read_text())
