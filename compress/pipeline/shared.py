"""What runs of one model have in common besides its teacher's maps, computed once and kept in the cache."""

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from compress.files import cached, identity
from compress.graph.channels import find_groups
from compress.load.model import Segmenter
from compress.prune.importance import GroupDamage, measure_damage

_DAMAGE = 1  # raised whenever the same network gives another damage on the same images


def known_damage(heavy: Segmenter, pixels: Tensor, multilabel: bool, cache: Path) -> dict[str, GroupDamage]:
    """What `measure_damage` says of the whole network on these images, uint8 [N, H, W, channels]: it knows nothing of a
    budget. Raises DataError where the folder `cache` cannot be written."""
    images = hashlib.sha256(repr(pixels.shape).encode() + pixels.numpy().tobytes()).hexdigest()
    key = identity("damage", _DAMAGE, network=heavy.identity, images=images, labels=multilabel, torch=version("torch"))

    def write(partial: Path) -> None:
        net = heavy.network
        found = measure_damage(net, find_groups(net), [net.real(one[None]) for one in pixels], multilabel)
        partial.write_text(json.dumps({name: asdict(each) for name, each in found.items()}))

    kept = json.loads(cached(cache / f"damage-{key}.json", write).read_text())
    return {name: GroupDamage(tuple(each["order"]), tuple(each["damage"])) for name, each in kept.items()}
