"""The training loop, with a clock of its own."""

import numpy as np
import pytest
import torch
from tiny import TinyNet, picture
from torch.nn import functional as F

from compress.errors import TrainError
from compress.load.trace import fold_normalisation, trace
from compress.train.loop import Lesson, fit, map_loss


@pytest.fixture
def net():
    torch.manual_seed(0)
    return fold_normalisation(trace(TinyNet().eval(), (32, 32), 0, 3, (0.5,) * 3, (0.25,) * 3)[0])


@pytest.fixture
def lesson():
    rng = np.random.default_rng(0)
    images, masks = map(np.stack, zip(*(picture(rng, 32) for _ in range(12))))
    maps = np.stack([(masks == 1) * 255, (masks == 2) * 255], 1).astype(np.uint8)
    return Lesson(images, maps, masks[:2], None, (0, 1), (32, 32), 3)


def ticking(step_seconds=1.0):
    now = iter(np.arange(0, 1e6, step_seconds))
    return lambda: float(next(now))


def trained(net, lesson, on_check=lambda *_: None, **changes):
    settings = {"minutes": 0.5, "batch": 4, "learning_rate": 3e-3, "seed": 0, "desc": "test", "clock": ticking()}
    return fit(net, lesson, on_check=on_check, **{**settings, **changes})


def test_a_loss_that_is_not_finite_stops_with_a_line_that_says_what_to_try(net, lesson):
    with torch.no_grad():
        net.bias("merge")[0] = float("nan")
    with pytest.raises(TrainError, match="learning_rate"):
        trained(net, lesson)


def test_training_lowers_the_loss_and_ends_with_the_time(net, lesson):
    losses = []
    trained(net, lesson, lambda best, minutes, iou, loss: losses.append((minutes, loss)))
    assert losses[-1][1] < losses[0][1]
    assert losses[-1][0] == pytest.approx(0.5, rel=0.1)


def test_one_seed_gives_one_result(lesson):
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        net = fold_normalisation(trace(TinyNet().eval(), (32, 32), 0, 3, (0.5,) * 3, (0.25,) * 3)[0])
        results.append(trained(net, lesson)[0].weight("merge"))
    assert torch.equal(*results)


def test_the_best_checkpoint_is_kept_when_training_gets_worse(net, lesson):
    seen = []
    _, iou = trained(net, lesson, lambda best, minutes, iou, loss: seen.append(iou), learning_rate=3.0)
    assert iou == max(seen)
    assert seen == sorted(seen)  # what is reported is the best so far


def test_held_out_images_are_never_drawn(net, lesson):
    drawn = []
    original = Lesson.target

    def spy(self, indices):
        drawn.extend(indices.tolist())
        return original(self, indices)

    Lesson.target = spy
    try:
        trained(net, lesson, on_check=lambda *_: drawn.append(None))
    finally:
        Lesson.target = original
    batches = [index for index in drawn if index is not None]
    assert set(batches) == set(range(2, 12))


def test_targets_average_the_teacher_and_the_label_and_leave_void_to_the_teacher(lesson):
    labels = np.full((1, 32, 32), 2, np.uint8)
    labels[0, 0, 0] = 255
    maps = np.zeros((1, 2, 32, 32), np.uint8)
    maps[0, 0] = 255  # the teacher is certain of class 1
    target = Lesson(lesson.pixels[:1], maps, labels, None, (), (32, 32), 3).target(torch.tensor([0]))[0]
    assert target[:, 5, 5].tolist() == [0.0, 0.5, 0.5]
    assert target[:, 0, 0].tolist() == [0.0, 1.0, 0.0]


def test_map_loss_by_hand():
    """One pixel of logit 0 against certainty: log 2; soft IoU with the one that keeps empty maps defined."""
    logits = torch.zeros(1, 2, 1, 1)
    target = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    expected = np.log(2) + 1.0 * (1 - (0.5 + 1) / (1 + 1))
    assert map_loss(logits, torch.sigmoid(logits), target, "sigmoid").item() == pytest.approx(expected)
    assert map_loss(logits, F.softmax(logits, 1), target, "softmax").item() == pytest.approx(expected)
