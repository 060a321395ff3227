"""What a heavy file answers is computed once for the same file, images and masks."""

from dataclasses import replace

import numpy as np
import pytest

from compress.measure.evaluate import LabelledImages, measure
from compress.measure.known import Known


def pictures(*columns):
    images = np.zeros((len(columns), 8, 8, 3), np.uint8)
    for image, count in zip(images, columns, strict=True):
        image[:, :count] = 255
    return images


def asked(artifact, images, masks, cache, monkeypatch) -> tuple[object, int]:
    """What is measured, and how many times the file was asked for images."""
    from compress.runtime.local import Child

    count, real = [], Child.probabilities

    def counted(self, *arguments):
        count.append(self)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Child, "probabilities", counted)
        given = masks and (lambda: iter(masks))
        labelled = LabelledImages(("background", "object"), lambda size, channels: images, given)
        known = {"teacher": Known(cache)}
        found = measure({"teacher": artifact}, labelled, against="teacher", threads=1, seconds=0.01, known=known)
    return found["teacher"], len(count)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_second_measurement_asks_for_nothing_and_says_the_same(brightness, labelled, tmp_path, monkeypatch):
    images = pictures(4, 6)
    masks = [pictures(count)[0, ..., 0] // 255 for count in (4, 7)] if labelled else None
    first, looked = asked(brightness, images, masks, tmp_path, monkeypatch)
    again, looked_again = asked(brightness, images, masks, tmp_path, monkeypatch)
    assert (looked, looked_again) == (2 + 2 * 3, 0)
    assert replace(again.measurement, latency=None) == replace(first.measurement, latency=None)
    assert again.measurement.latency != first.measurement.latency
    assert again.evaluation.small_found == first.evaluation.small_found
    for name in ("predictions", "intersections", "unions"):
        np.testing.assert_array_equal(getattr(again.evaluation, name), getattr(first.evaluation, name))


def test_another_file_another_image_and_another_mask_are_asked_anew(brightness, tmp_path, monkeypatch):
    images, masks = pictures(4), [pictures(4)[0, ..., 0] // 255]
    asked(brightness, images, masks, tmp_path, monkeypatch)
    blind = replace(brightness, input=replace(brightness.input, std=(2550.0,) * 3))
    assert asked(blind, images, masks, tmp_path, monkeypatch)[1] == 4
    assert asked(brightness, pictures(5), masks, tmp_path, monkeypatch)[1] == 4
    assert (
        asked(brightness, images, [pictures(5)[0, ..., 0] // 255], tmp_path, monkeypatch)[1] == 1
    )  # not the stability
