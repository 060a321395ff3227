"""What a run would do, said without doing it."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from compress.budget import Budget
from compress.data.images import read_image
from compress.errors import one_line
from compress.files import check_writable
from compress.graph.channels import Channels, find_groups
from compress.graph.network import Network
from compress.load.model import Segmenter
from compress.machine import prepare_process
from compress.pipeline.forecast import Forecast
from compress.pipeline.plan import planned
from compress.pipeline.run import Loaded, budget_of, loaded
from compress.pipeline.student import StudentSettings
from compress.pipeline.trial import Candidate, copied
from compress.prune.cost import Workload, macs_of, predicted_bytes
from compress.prune.importance import GroupDamage, measure_damage
from compress.prune.widths import held_bytes
from compress.recipe import Recipe
from compress.train.views import shrink


def dry_run(recipe: Recipe, model: Path, out: Path, trust_pickle: bool = False) -> str:
    """Minutes by stage, the plan on as many images as the recipe says, and what stays whole, in text. Raises a
    CompressError where `run` would before its first stage."""
    prepare_process()
    budget = budget_of(recipe)
    check_writable(out)
    given = loaded(recipe, budget, model, trust_pickle)
    students = [line for one in given.candidates for line in _student(given, one, budget)]
    return "\n".join(
        [
            f"{model.name}, within {' '.join(limit.text for limit in budget.limits)}, to {out}: nothing was written",
            "",
            *_stages(given.foretold()),
            "",
            *students,
            *(["latency is planned for in the run, which times files"] if budget.latency_ms else []),
        ]
    )


def _student(loaded: Loaded, one: Candidate, budget: Budget) -> Iterator[str]:
    """The plan of a narrower copy and what of it stays whole; of another network what it is."""
    yield f"{one.name}:"
    if one.given:
        work = macs_of(one.given.model.folded)
        yield f"{one.size_bytes:,} bytes; {work / 1e6:,.1f} M multiply-accumulates; {one.given.describe()}"
        yield ""
        return
    assert budget.size_bytes is not None
    copy, settings = copied(loaded.source, one.size), one.settings
    net, channels, damage = copy.folded, copy.channels, _damage(loaded, copy, settings)
    share = settings.plan.macs_share
    plan = planned(net, channels, damage, settings.planning, budget.size_bytes, share, most_macs=budget.macs)
    yield from _planned(net, channels, {name: len(kept) for name, kept in plan.kept.items()})
    yield ""
    yield from _held(net, channels)


def _damage(given: Loaded, copy: Segmenter, settings: StudentSettings) -> dict[str, GroupDamage]:
    """Of images that the run may learn from, at the size that it plans at."""
    plan, net = settings.plan, copy.network
    if plan.method != "damage":
        return {}
    paths = [sample.image for sample in (*given.dataset.train, *given.dataset.unlabelled)]
    picked = random.Random(settings.seed + 1).sample(paths, min(plan.images, len(paths)))
    images = (read_image(path, net.traced_size, given.dataset.reading) for path in picked)
    whole = (torch.from_numpy(image[None].copy()) for image in images)
    shrunk = [net.real(shrink(pixels, plan.size)) for pixels in whole]
    return measure_damage(net, find_groups(net), shrunk, given.source.multilabel)


def _stages(foretold: Forecast) -> Iterator[str]:
    yield f"{foretold.total}; minutes:"
    for name, minutes in foretold.minutes.items():
        yield f"  {minutes:>7.1f}  {name}"


def _planned(net: Network, channels: Channels, widths: dict[str, int]) -> Iterator[str]:
    full = channels.widths()
    workload = Workload(net, channels)
    least, most = (predicted_bytes(net, channels, each) for each in (widths, full))
    few, many = (workload.macs(each) / 1e6 for each in (widths, full))
    yield f"about {least:,} bytes, of {most:,} as int8 alone; {few:,.1f} M multiply-accumulates, of {many:,.1f} M"
    yield "channels:"
    for group in channels.prunable():
        yield f"  {group.width:>5} -> {widths[group.name]:<5}  {one_line(group.name)}"


def _held(net: Network, channels: Channels) -> Iterator[str]:
    held = held_bytes(net, channels)
    yield "what stays whole, by bytes:" if held else "nothing but the input and the class map stays whole"
    for reason, size in held.items():
        yield f"  {size:>12,}  {one_line(reason)}"
