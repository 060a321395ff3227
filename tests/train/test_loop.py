"""The training loop, with a clock of its own."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TinyNet, picture
from torch.nn import functional as F

from compress.errors import TrainError
from compress.files import Sealed
from compress.graph.channels import find_groups
from compress.load.trace import fold_normalisation, trace
from compress.recipe import Schedule, Training
from compress.train.batches import Batches, sizes_between
from compress.train.device import best_device, placed
from compress.train.examples import Examples, balanced, blended, held_out_iou, hopeless, references_of
from compress.train.loop import TOLERANCE, WARM_UP, Progress, fit
from compress.train.loss import batch_aims, batch_loss, edges, feature_loss, map_losses, pixel_weights
from compress.train.teacher import LiveTeacher, StoredTeacher

CPU = torch.device("cpu")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return fold_normalisation(trace(TinyNet().eval(), (32, 32), 0, 3, (0.5,) * 3, (0.25,) * 3)[0])


@pytest.fixture
def given(examples, teacher):
    return examples, teacher


@pytest.fixture
def teacher():
    _, masks = pictures()
    maps = np.stack([(masks == 1) * 255, (masks == 2) * 255], 1).astype(np.uint8)
    return StoredTeacher(maps, np.zeros(masks.shape, np.uint8))


@pytest.fixture
def examples(teacher):
    images, masks = pictures()
    return Examples(images, masks[:2], 3, (0, 1), references_of((0, 1), masks[:2], teacher))


def pictures():
    rng = np.random.default_rng(0)
    return map(np.stack, zip(*(picture(rng, 32) for _ in range(12))))


def training(schedule=None, batch=4, learning_rate=1e-2, size=(32, 32), **more):
    return Training(schedule or Schedule(0.5), batch, learning_rate, size, **more)


def losses_of(net, examples, teacher, times, device=CPU, **settings):
    """The losses of that many batches."""
    settings = training(**settings)
    batches = Batches(
        examples, teacher, settings.batch, sizes_between(net, settings.size), net.traced_size, settings.seed
    )
    drawn = [batches.next(device) for _ in range(times)]
    aims = [batch_aims(teacher, settings.label_weight, None, *batch) for batch in drawn]
    return [batch_loss(net, teacher, torch.ones(()), one[0], *each) for one, each in zip(drawn, aims, strict=True)]


def map_loss(before, probabilities, target, certainty, last, class_weights=None, multilabel=False):
    weight = pixel_weights(target, certainty, class_weights, multilabel)
    entropy, overlap = map_losses(before, probabilities, target, weight, last, multilabel)
    return entropy / weight.sum() + overlap


def ticking(step_seconds=1.0):
    now = iter(np.arange(0, 1e6, step_seconds))
    return lambda: float(next(now))


def trained(net, given, on_check=lambda *_: None, clock=None, state=None, **changes):
    """`given`: the examples and the teacher."""
    settings, kept = training(**changes), state and Sealed(state, "test")
    return fit(net, *given, settings, desc="test", on_check=on_check, state=kept, clock=clock or ticking())


def test_a_loss_that_is_not_finite_stops_with_a_line_that_says_what_to_try(net, given):
    with torch.no_grad():
        net.bias("merge")[0] = float("nan")
    with pytest.raises(TrainError, match="learning_rate"):
        trained(net, given)


def test_training_lowers_the_loss_and_ends_with_the_time(net, given):
    losses = []
    trained(net, given, lambda minutes, iou, loss: losses.append((minutes, loss)), schedule=Schedule(2.0))
    assert losses[-1][1] == min(loss for _, loss in losses)  # also after step 100, when moments are taken anew
    assert losses[-1][0] == pytest.approx(2.0, rel=0.1)


def test_one_seed_gives_one_result(given):
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        net = fold_normalisation(trace(TinyNet().eval(), (32, 32), 0, 3, (0.5,) * 3, (0.25,) * 3)[0])
        results.append(trained(net, given).weight("merge"))
    assert torch.equal(*results)


def test_a_kill_between_two_checks_costs_two_minutes_and_no_bit(net, given, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.train.loop.MEASURED_AT", (3,))
    monkeypatch.setattr("compress.train.loop.CHECKS", 1)
    settings = {"schedule": Schedule(steps=30), "state": tmp_path / "state"}
    whole = trained(net, given, **{**settings, "state": None})

    def killed(self, done):
        if self.steps == 20:
            raise KeyboardInterrupt
        return step(self, done)

    step = Progress.step
    monkeypatch.setattr(Progress, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(net, given, **settings, clock=ticking(10))  # a step takes ten seconds
    assert torch.load(tmp_path / "state", weights_only=True)["steps"] == 12
    monkeypatch.setattr(Progress, "step", step)
    rest = trained(net, given, **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rest.parameters(), strict=True))


def test_a_longer_schedule_goes_on_with_its_own_checks(net, given, tmp_path):
    trained(net, given, schedule=Schedule(steps=10), state=tmp_path / "state")
    checks = []
    trained(net, given, lambda *checked: checks.append(checked), schedule=Schedule(steps=20), state=tmp_path / "state")
    assert len(checks) == 10 + 5  # at 12, 14, 16, 18 and 20 steps
    assert torch.load(tmp_path / "state", weights_only=True)["steps"] == 20


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 11), (30.0, 2)])
def test_of_a_few_minutes_most_is_spent_on_training(net, given, monkeypatch, seconds, most):
    now, steps, checks = [0.0], [], []

    def step(self, done):
        now[0] += 1
        steps.append(done)
        return 1.0

    def judge(self, net):
        now[0] += seconds
        return True

    monkeypatch.setattr(Progress, "step", step)
    monkeypatch.setattr(Progress, "judge", judge)
    monkeypatch.setattr(Progress, "measure", lambda self: None)
    trained(net, given, lambda *checked: checks.append(checked), schedule=Schedule(1.0), clock=lambda: now[0])
    assert len(checks) <= most
    assert len(steps) >= 30  # of 60 seconds


def test_the_learning_rate_falls_to_its_half_by_half_time_and_stays_there(net, given):
    progress = Progress(net, *given, training())
    progress.begin()
    progress.steps = WARM_UP
    rates = []
    for done in (0.0, 0.25, 0.5, 0.75, 0.999):
        progress.step(done)
        rates.append(float(progress.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([1e-2, 1e-2 * (0.5 + 0.5**0.5 / 2), 5e-3, 5e-3, 5e-3])


def test_a_step_counts_by_its_number_in_the_average(net, given):
    progress = Progress(net, *given, training())
    progress.begin()
    seen = [net.weight("merge").detach().clone()]
    for _ in range(4):
        progress.step(0.0)
        seen.append(progress.net.weight("merge").detach().clone())
    expected = sum(count * weight for count, weight in zip((1, 2, 3, 4, 5), seen, strict=True)) / 15
    assert torch.allclose(progress.averaged.weight("merge"), expected, atol=1e-6)
    assert not torch.allclose(expected, seen[-1], atol=1e-4)


def test_what_got_worse_is_not_kept(net, given):
    seen = []
    kept = trained(net, given, lambda minutes, iou, loss: seen.append(iou), learning_rate=3.0)
    assert held_out_iou(kept, given[0]) == seen[-1]  # what is reported is what is kept
    assert seen[-1] >= max(held_out_iou(net, given[0]), *seen) - TOLERANCE


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ([0.81, 0.69, 0.80, 0.70], True),  # as good on average
        ([0.79, 0.71, 0.78, 0.71], True),  # 0.0025 lower, with a standard error of 0.0075
        ([0.797, 0.697, 0.797, 0.697], False),  # 0.003 lower, and surely so
        ([0.90, 0.50, 0.80, 0.74], False),  # 0.015 lower: more than anybody overlooks, sure or not
    ],
)
def test_a_later_copy_is_kept_unless_the_held_out_images_speak_against_it(net, given, monkeypatch, after, kept):
    progress = Progress(net, *given, training())
    answers = iter([[0.8, 0.7, 0.8, 0.7], after])
    monkeypatch.setattr("compress.train.loop.held_out_ious", lambda *_: next(answers))
    assert progress.judge(net)
    assert progress.judge(net) is kept
    assert progress.iou == pytest.approx(np.mean(after) if kept else 0.75)


def test_held_out_images_are_never_drawn(net, given, monkeypatch):
    drawn = []
    original = StoredTeacher.predicted

    def spy(self, indices):
        drawn.extend(indices.tolist())
        return original(self, indices)

    monkeypatch.setattr(StoredTeacher, "predicted", spy)
    trained(net, given)
    assert set(drawn) == set(range(2, 12))


def test_an_image_with_a_label_is_drawn_four_times_for_one_without(net, examples, teacher, monkeypatch):
    examples = replace(examples, held_out=(0,))  # 1 is labelled, 2 to 11 are not: one round is 4 + 10 draws
    drawn = []
    predicted = StoredTeacher.predicted
    monkeypatch.setattr(
        StoredTeacher, "predicted", lambda self, rows: drawn.extend(rows.tolist()) or predicted(self, rows)
    )
    losses_of(net, examples, teacher, 4, batch=7)
    assert sorted(drawn) == sorted(2 * [1, 1, 1, *range(1, 12)])


def test_a_random_part_of_an_image_is_learned_with_the_same_part_of_its_map(net, examples, monkeypatch):
    smooth = np.linspace(0, 255, 32)
    ramp = np.round((smooth[:, None] + 2 * smooth[None]) / 3).astype(np.uint8)  # every part is another
    pixels = np.broadcast_to(ramp[None, :, :, None], (12, 32, 32, 3)).copy()
    maps = np.stack([np.broadcast_to(ramp, (12, 32, 32)), np.zeros((12, 32, 32))], 1).astype(np.uint8)
    examples = replace(examples, pixels=pixels, labels=examples.labels[:0])
    images, targets = [], []
    run = type(net).run
    monkeypatch.setattr(type(net), "run", lambda self, *a, **k: images.append(a[0][:, 0] + 0.5) or run(self, *a, **k))
    monkeypatch.setattr("compress.train.loss.map_losses", lambda *a: targets.append(a[2][:, 1]) or map_losses(*a))
    losses_of(net, examples, StoredTeacher(maps, np.zeros((12, 32, 32), np.uint8)), 8, size=(16, 16))
    for image, target in zip(images, targets, strict=True):
        assert (image - target).abs().max() < 0.01
    corners = {(round(float(target[0, 0, 0]), 1), round(float(target[0, 0, -1]), 1)) for target in targets}
    assert len(corners) >= 5
    assert len({left < right for left, right in corners}) == 2  # mirrored and not


def test_targets_average_the_teacher_and_the_label_and_leave_void_to_the_teacher(examples):
    labels = np.full((1, 32, 32), 2, np.uint8)
    labels[0, 0, 0] = 255
    maps = np.zeros((1, 2, 32, 32), np.uint8)
    maps[0, 0] = 255  # the teacher is certain of class 1
    uncertainty = np.full((1, 32, 32), 51, np.uint8)
    one, teacher = replace(examples, pixels=examples.pixels[:1], labels=labels), StoredTeacher(maps, uncertainty)
    predicted, _ = teacher.targets(torch.zeros(1, 32, 32, 3), teacher.predicted(torch.tensor([0])))
    target = blended(predicted, one.label(0), 0.5)[0]
    assert target[:3, 5, 5].tolist() == [0.0, 0.5, 0.5]
    assert target[:3, 0, 0].tolist() == [0.0, 1.0, 0.0]
    assert target[3, 5, 5] == 1.0  # how sure: labelled
    assert target[3, 0, 0] == pytest.approx(0.8)  # the teacher's alone: 51 of 255 is uncertain
    alone = blended(predicted, torch.zeros(1, 4, 32, 32), 0.5)[0]
    assert torch.equal(alone[:3, 5, 5], torch.tensor([0.0, 1.0, 0.0]))


def test_held_out_images_are_judged_by_their_labels_and_else_by_the_teacher(teacher):
    labels = np.full((1, 32, 32), 2, np.uint8)
    references = references_of((0, 5), labels, teacher)
    assert (references[0] == 2).all()
    assert np.array_equal(references[1] == 1, teacher.maps[5, 0] > 0)
    assert np.array_equal(references[1] == 2, teacher.maps[5, 1] > 0)


@pytest.mark.parametrize("with_features", [False, True])
def test_a_live_teacher_answers_for_the_part_of_the_image_that_is_in_view(examples, monkeypatch, with_features):
    """The student is the teacher with its normalisation folded: it reads other values of the same pixels, and has the
    same features and the same output."""
    teacher = trace(TinyNet().eval(), (32, 32), 0, 3, (0.5,) * 3, (0.25,) * 3)[0]
    net = fold_normalisation(teacher)
    assert net.input.attrs.zero_point != teacher.input.attrs.zero_point
    unlabelled, live = replace(examples, labels=examples.labels[:0]), LiveTeacher.of([teacher])
    if with_features:
        channels = find_groups(net)
        kept = {group.name: tuple(range(group.width)) for group in channels.groups.values()}
        live = live.with_features(teacher, channels, kept, torch.from_numpy(examples.pixels))
    losses, certain, features = [], [], []
    monkeypatch.setattr("compress.train.loss.map_losses", lambda *a: losses.append(a) or map_losses(*a))
    monkeypatch.setattr("compress.train.loss.pixel_weights", lambda *a: certain.append(a[1]) or pixel_weights(*a))
    monkeypatch.setattr(
        "compress.train.loss.feature_loss", lambda *a: features.append(feature_loss(*a)) or features[-1]
    )
    losses_of(placed(net), unlabelled, live, 3, best_device())
    for (_, probabilities, target, *_), sure in zip(losses, certain, strict=True):
        torch.testing.assert_close(target, probabilities, atol=0.02, rtol=0.0)
        torch.testing.assert_close(sure, 1 - 1.5 * (1 - target.amax(1, keepdim=True)), atol=0.02, rtol=0.0)
    assert len(features) == (3 if with_features else 0)
    assert all(one.item() < 1e-3 for one in features)


def test_a_label_counts_beside_a_live_teacher(net, examples, monkeypatch):
    """Labels of which half the image is known; the teacher knows nothing."""
    labels = np.full((12, 32, 32), 255, np.uint8)
    labels[:, :16] = 2
    unsure = net.rewritten({name: (w, torch.zeros_like(b)) for name, (w, b) in net.weights().items()})
    with torch.no_grad():
        unsure.weight(unsure.by_name[unsure.output].inputs[0]).zero_()
    targets = []
    monkeypatch.setattr("compress.train.loss.pixel_weights", lambda *a: targets.append(a[:2]) or pixel_weights(*a))
    losses_of(placed(net), replace(examples, labels=labels), LiveTeacher.of([unsure]), 3, best_device())
    for target, sure in targets:
        third = torch.tensor([1 / 3, 1 / 3, 1 / 3])
        torch.testing.assert_close(target[0, :, -1, 5], third, atol=1e-2, rtol=0.0)
        torch.testing.assert_close(target[0, :, 0, 5], 0.5 * third + torch.tensor([0, 0, 0.5]), atol=1e-2, rtol=0.0)
        assert sure[0, 0, 0, 5] == 1.0
        assert sure[0, 0, -1, 5] < 0.02


def test_map_loss_by_hand():
    """One pixel of logit 0 against certainty: log 2; soft IoU with the one that keeps empty maps defined."""
    logits = torch.zeros(1, 2, 1, 1)
    target = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    sure = torch.ones(1, 1, 1, 1)
    expected = np.log(2) + 1.0 * (1 - (0.5 + 1) / (1 + 1))
    assert map_loss(logits, torch.sigmoid(logits), target, sure, "sigmoid").item() == pytest.approx(expected)
    assert map_loss(logits, F.softmax(logits, 1), target, sure, "softmax").item() == pytest.approx(expected)
    unread = torch.full_like(logits, 7.0)  # what a resize of probabilities read are no logits
    assert map_loss(unread, torch.sigmoid(logits), target, sure, "resize").item() == pytest.approx(expected)


def test_pixels_weigh_as_their_class_does():
    """Of two images without an edge, against torch's own weighted cross entropy."""
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 3, 4, 4)
    target[0, 1] = target[1, 2] = 1.0
    weights = torch.tensor([1.0, 0.5, 4.0])
    probabilities, sure = F.softmax(logits, 1), torch.ones(2, 1, 4, 4)
    plain = map_loss(logits, probabilities, target, sure, "softmax")
    weighed = map_loss(logits, probabilities, target, sure, "softmax", weights[:, None, None])
    ids = target.argmax(1)
    difference = F.cross_entropy(logits, ids, weight=weights) - F.cross_entropy(logits, ids)
    assert (weighed - plain).item() == pytest.approx(difference.item(), abs=1e-6)
    alike = map_loss(logits, probabilities, target, sure, "softmax", torch.ones(3, 1, 1))
    torch.testing.assert_close(alike, plain)


def test_balanced_weights_are_the_median_frequency_over_each_class_own():
    """Class 0 is 5 of 7 pixels in the images that show it, class 1 one of 4, class 2 one of 3; no label shows 3."""
    labels = np.array([[[0, 0], [0, 1]], [[0, 0], [255, 2]]], np.uint8)
    assert balanced(labels, 4) == pytest.approx((7 / 15, 4 / 3, 1, 1))


def test_training_hears_the_weights_of_the_classes(net, examples, teacher):
    def first_loss(*weights):
        progress = Progress(net, replace(examples, weights=weights), teacher, training())
        progress.begin()
        return progress.step(0.0)

    assert first_loss(1.0, 1.0, 1.0) == pytest.approx(first_loss())
    assert first_loss(1.0, 1.0, 20.0) != pytest.approx(first_loss(), rel=1e-3)


def test_map_loss_of_labels_by_hand():
    """Two labels of logit 0, one of which is there: log 2 of each; soft IoU of both."""
    logits, target = torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    expected = np.log(2) + 1 - ((0.5 + 1) / (1 + 1) + 1 / (0.5 + 1)) / 2
    loss = map_loss(logits, torch.sigmoid(logits), target, torch.ones(1, 1, 1, 1), "sigmoid", multilabel=True)
    assert loss.item() == pytest.approx(expected)


def test_a_pixel_of_which_the_teacher_has_no_idea_does_not_count():
    logits = torch.tensor([[2.0, 0.0], [-1.0, 0.0]]).reshape(1, 2, 1, 2)
    target = torch.full((1, 2, 1, 2), 0.5)  # no edge
    sure = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    one = map_loss(logits, F.softmax(logits, 1), target, sure, "softmax")
    entropy = -(0.5 * F.log_softmax(logits, 1)).sum(1)[0, 0, 0]
    ours, theirs = F.softmax(logits, 1)[0, 1, 0], torch.full((2,), 0.5)
    overlap = ((ours * theirs).sum() + 1) / ((ours + theirs - ours * theirs).sum() + 1)
    assert one.item() == pytest.approx(float(entropy + 1 - overlap))


def test_edges_are_where_the_target_changes_within_two_pixels():
    target = torch.zeros(1, 2, 1, 9)
    target[:, 1, :, 5:] = 1.0
    target[:, 0, :, :5] = 1.0
    assert edges(target)[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
    noise = torch.rand(2, 1, 13, 17, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(edges(noise), F.max_pool2d(noise, 5, 1, 2) + F.max_pool2d(-noise, 5, 1, 2))


def test_images_on_which_the_teacher_is_hopeless_are_left_out_unless_they_are_labelled():
    maps = np.zeros((4, 1, 10, 10), np.uint8)
    uncertainty = np.zeros((4, 10, 10), np.uint8)
    maps[:2, 0], uncertainty[:2] = 128, 254  # half an object everywhere: no idea
    maps[2, 0, :5], uncertainty[2, 4:6] = 255, 100  # an object with an unsure edge
    uncertainty[3] = 2  # nothing there, and the teacher knows it
    assert hopeless(maps, uncertainty, labelled=1) == (1,)


def test_training_that_was_stopped_goes_on_to_the_same_bits(net, given, tmp_path):
    whole = trained(net, given, schedule=Schedule(steps=20))

    class Killed(Exception):
        pass

    seen = []

    def killed(*checked):
        seen.append(checked)
        if len(seen) == 4:
            raise Killed

    with pytest.raises(Killed):
        trained(net, given, killed, schedule=Schedule(steps=20), state=tmp_path / "a.state")
    again = []
    rest = trained(net, given, lambda *m: again.append(m), schedule=Schedule(steps=20), state=tmp_path / "a.state")
    assert [iou for _, iou, _ in again[:3]] == [iou for _, iou, _ in seen[:3]]
    assert len(again) == 10
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name])


@pytest.mark.parametrize("damage", ["emptied", "cut", "one byte", "another network's"])
def test_training_begins_anew_where_its_checkpoint_is_damaged(net, given, tmp_path, damage, caplog):
    state = tmp_path / "a.state"
    whole = trained(net, given, schedule=Schedule(steps=2), state=state)
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 255
    damaged = {"emptied": b"", "cut": content[: len(content) // 2], "one byte": content}
    if damage in damaged:
        state.write_bytes(damaged[damage])
    else:
        buffer = io.BytesIO()
        torch.save({"net": {}, "steps": "many"}, buffer)
        Sealed(state, "test").write(buffer.getvalue())
    rest = trained(net, given, schedule=Schedule(steps=2), state=state)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rest.parameters(), strict=True))
    assert "a.state" in caplog.text
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_a_schedule_of_steps_does_not_look_at_the_clock(net, given):
    seen = []
    trained(net, given, lambda *checked: seen.append(checked), schedule=Schedule(minutes=99, steps=3))
    assert len(seen) == 3


def test_a_loss_that_explodes_names_the_last_good_checkpoint(net, given, tmp_path, monkeypatch):
    state = tmp_path / "good.state"
    trained(net, given, schedule=Schedule(steps=2), state=state)
    original = StoredTeacher.predicted
    monkeypatch.setattr(StoredTeacher, "predicted", lambda self, indices: original(self, indices) * float("nan"))
    with pytest.raises(TrainError, match=r"last good checkpoint is .*good.state"):
        trained(net, given, schedule=Schedule(steps=9), state=state)


@pytest.mark.parametrize("labelled", [0, 5])
def test_a_handful_of_images_is_enough_to_train(net, examples, teacher, labelled):
    few = replace(
        examples,
        pixels=examples.pixels[:5],
        labels=teacher.maps.argmax(1)[:labelled].astype(np.uint8),
        held_out=(0,),
        references=examples.references[:1],
    )
    fewer = StoredTeacher(teacher.maps[:5], teacher.uncertainty[:5])
    assert trained(net, (few, fewer), schedule=Schedule(steps=2)) is not None
