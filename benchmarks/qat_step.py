"""What a fake-quantized training step costs beside a float step of the same student.

    python benchmarks/qat_step.py [RUN] [--size 192] [--batch 8] [--steps 10] [--bf16]

RUN is the output folder of `compress run`; without it a U²-Net with random weights is cut to 4 MB. The two networks
take turns, a step each: forward, the loss of distillation, backward, Adam. `--bf16` runs both under autocast.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from int8_speed import float_student
from tqdm import tqdm

from compress.graph.channels import find_groups
from compress.graph.network import Network
from compress.load.trace import fold_normalisation, trace
from compress.measure.statistics import bootstrap_mean
from compress.prune.cut import cut
from compress.prune.importance import GroupDamage
from compress.prune.widths import choose
from compress.quantize.calibration import calibrate
from compress.quantize.training import QuantizedNetwork
from compress.train.loop import map_loss

MODELS = Path(__file__).resolve().parent.parent / "models"


def student_of(run: Path | None) -> Network:
    if run:
        return float_student(run)
    sys.path.insert(0, str(MODELS))
    from u2net import MEAN, STD, U2Net

    net = fold_normalisation(trace(U2Net().eval(), (320, 320), 0, 2, MEAN, STD)[0])
    channels = find_groups(net)
    damage = {
        group.name: GroupDamage(tuple(range(group.width)), tuple(float(n) for n in range(group.width, -1, -1)))
        for group in channels.prunable()
    }
    return cut(net, channels, choose(net, channels, damage, 4_000_000, 0.115).kept)


def step(
    net: Network, optimizer: torch.optim.Optimizer, image: torch.Tensor, target: torch.Tensor, bf16: bool
) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    last = net.by_name[net.output]
    sums = [node.name for node in net.nodes if node.op == "add"]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        values = net.run(image, keep={last.inputs[0], *sums})
    certain = torch.ones_like(target[:, :1])
    loss = map_loss(values[last.inputs[0]].float(), values[net.output].float(), target, certain, last.op)
    loss = loss + sum(values[name].float().square().mean() for name in sums)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def main(run: Path | None, size: int, batch: int, steps: int, bf16: bool) -> None:
    torch.manual_seed(0)
    student = student_of(run)
    image = student.real(torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8))
    quantized = QuantizedNetwork(student, calibrate(student, [image[:1]]))
    target = torch.rand_like(student(image[:1])).expand(batch, -1, -1, -1)
    nets = {"float": student, "fake-quantized": quantized}
    optimizers = {name: torch.optim.Adam(net.parameters(), 1e-5) for name, net in nets.items()}
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    for turn in tqdm(range(steps + 1), desc="steps", unit="turn", delay=1):
        for name, net in nets.items():
            taken = step(net, optimizers[name], image, target, bf16)
            if turn:  # the first one warms up
                seconds[name].append(taken)
    for name, taken in seconds.items():
        print(f"{name}: {sorted(taken)[len(taken) // 2]:.3f} s a step (median of {steps})")
    ratio = bootstrap_mean([q / f for f, q in zip(*seconds.values())])
    print(f"a fake-quantized step takes {ratio.mean:.2f} times a float step [{ratio.low:.2f}, {ratio.high:.2f}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    for flag, default in (("--size", 192), ("--batch", 8), ("--steps", 10)):
        parser.add_argument(flag, type=int, default=default)
    parser.add_argument("--bf16", action="store_true")
    main(**vars(parser.parse_args()))
