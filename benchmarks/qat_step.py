"""What a fake-quantized training step costs beside a float step of the same student.

    python benchmarks/qat_step.py [RUN] [--size 192] [--batch 8] [--steps 10]

RUN is the output folder of `compress run`; without it a U²-Net with random weights is cut to 4 MB. The two networks
take turns, a step each, which is that of the product: forward, the loss of distillation, backward, the clipping, the
optimizer and the average, in the arithmetic that the machine is fast in. Images and the teacher's maps are noise.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from int8_speed import float_student
from throughput import noise
from tqdm import tqdm

from compress.graph.channels import find_groups
from compress.graph.network import Network
from compress.load.trace import fold_normalisation, trace
from compress.machine import prepare_process
from compress.measure.statistics import bootstrap_mean
from compress.prune.cut import cut
from compress.prune.importance import GroupDamage
from compress.prune.widths import choose
from compress.quantize.calibration import calibrate
from compress.quantize.training import QuantizedNetwork
from compress.recipe import Schedule, Training
from compress.train.loop import Progress

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


def main(run: Path | None, size: int, batch: int, steps: int) -> None:
    prepare_process()
    torch.manual_seed(0)
    student = student_of(run)
    image = student.real(torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8))
    nets = {"float": student, "fake-quantized": QuantizedNetwork(student, calibrate(student, [image]))}
    training = Training(Schedule(steps=steps), batch, 1e-5, (size, size))
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    with TemporaryDirectory(prefix="compress-") as folder:
        examples, teacher = noise((size, size), student.shapes()[student.output][1], Path(folder))
        trainings = {name: Progress(net, examples, teacher, training) for name, net in nets.items()}
        for one in trainings.values():
            one.begin()
        for turn in tqdm(range(steps + 1), desc="steps", unit="turn", delay=1):
            for name, one in trainings.items():
                start = time.perf_counter()
                one.step(0.5)
                if turn:  # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        print(f"{name}: {sorted(taken)[len(taken) // 2]:.3f} s a step (median of {steps})")
    ratio = bootstrap_mean([q / f for f, q in zip(*seconds.values())])
    print(f"a fake-quantized step takes {ratio.mean:.2f} times a float step [{ratio.low:.2f}, {ratio.high:.2f}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    for flag, default in (("--size", 192), ("--batch", 8), ("--steps", 10)):
        parser.add_argument(flag, type=int, default=default)
    main(**vars(parser.parse_args()))
