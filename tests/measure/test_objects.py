import numpy as np
import pytest
from scipy import ndimage

from compress.measure.objects import components, small_objects_found


@pytest.mark.parametrize("density", [0.1, 0.4, 0.6, 0.95])
def test_components_are_those_of_scipy(density):
    rng = np.random.default_rng(0)
    for region in (rng.random((37, 53)) < density, ndimage.gaussian_filter(rng.random((90, 70)), 2) < density):
        labels, count = ndimage.label(region, np.ones((3, 3)))
        wanted = {frozenset(zip(*(axis.tolist() for axis in np.nonzero(labels == id)))) for id in range(1, count + 1)}
        assert {frozenset(zip(rows.tolist(), columns.tolist())) for rows, columns in components(region)} == wanted


def test_a_small_object_is_found_where_half_of_it_is_predicted():
    mask = np.zeros((100, 100), np.uint8)
    mask[10:14, 10:20] = 1  # 40 pixels of 10,000
    mask[50:54, 10:20] = 1
    mask[80:84, 10:20] = 2
    prediction = np.zeros_like(mask)
    prediction[10:12, 10:20] = 1  # a half
    prediction[50:52, 10:19] = 1  # a bit less
    prediction[80:84, 10:20] = 1  # as another class
    assert small_objects_found(prediction, mask, classes=3) == (True, False, False)


def test_large_objects_specks_and_void_are_not_asked_for():
    mask = np.zeros((100, 100), np.uint8)
    mask[:50, :50] = 1
    mask[70:73, 70:75] = 1  # 15 pixels
    mask[90:96, 90:96] = 255
    assert small_objects_found(mask, mask, classes=2) == ()
