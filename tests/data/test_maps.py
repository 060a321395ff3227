"""Folders of maps: what pictures in them mean, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from compress.data.folders import Dataset, Sample
from compress.data.maps import maps_of, maps_to_measure, open_maps
from compress.errors import DataError, ModelError

TWO, THREE = ("background", "object"), ("background", "disc", "square")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)


def dataset(folder, names, classes=TWO, size=(4, 6), val=(), labelled=()):
    """Images of these names, unlabelled but for those in `labelled`, whose mask is class 1 everywhere."""

    def sample(name):
        image, mask = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
        save(image, np.zeros((*size, 3), np.uint8))
        if name in labelled:
            save(mask, np.ones(size, np.uint8))
        return Sample(image, mask if name in labelled else None)

    train = tuple(sample(name) for name in names if name in labelled)
    others = tuple(sample(name) for name in names if name not in labelled)
    return Dataset(train, tuple(map(sample, val)), others, tuple(classes), "labels")


def probabilities(folder, data, classes=TWO, multilabel=False, called=None):
    maps = maps_of(open_maps(folder, classes, multilabel, called or {}), data)
    return [maps.probabilities(file) for file in maps.files]


@pytest.mark.parametrize(
    ("dtype", "written", "second"),
    [
        (np.uint8, (0, 51, 255), (0, 0.2, 1)),
        (np.uint16, (0, 13107, 65535), (0, 0.2, 1)),
        (np.uint8, (0, 0, 1), (0, 0, 1)),
        (np.uint8, (0, 0, 255), (0, 0, 1)),
    ],
)
def test_one_channel_is_the_probability_of_the_second_class_or_its_mask(dtype, written, second, tmp_path):
    save(tmp_path / "maps/a.png", np.repeat(np.array([written], dtype), 2, 0))
    (found,) = probabilities(tmp_path / "maps", dataset(tmp_path, ["a"], size=(2, 3)))
    np.testing.assert_allclose(found[1, 0], second, atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)


def test_a_1_among_maps_of_255_is_next_to_nothing(tmp_path):
    save(tmp_path / "maps/a.png", np.array([[0, 1], [0, 1]], np.uint8))
    save(tmp_path / "maps/b.png", np.array([[0, 1], [0, 255]], np.uint8))
    found = probabilities(tmp_path / "maps", dataset(tmp_path, ["a", "b"], size=(2, 2)))
    assert found[0].max(axis=(1, 2))[1] == pytest.approx(1 / 255)


def test_several_classes_are_ids_of_which_255_is_not_known(tmp_path):
    save(tmp_path / "maps/a.png", np.array([[0, 1], [2, 255]], np.uint8))
    (found,) = probabilities(tmp_path / "maps", dataset(tmp_path, ["a"], THREE, (2, 2)), THREE)
    np.testing.assert_allclose(found[:, 0, 1], [0, 1, 0])
    np.testing.assert_allclose(found[:, 1, 1], [1 / 3] * 3)


def test_a_folder_for_each_class_holds_probabilities_and_the_first_is_what_they_leave(tmp_path):
    for name, value in (("disc", 51), ("Quadrat", 102)):
        save(tmp_path / "maps" / name / "a.png", np.array([[value, 255], [0, 255]], np.uint8))
    data = dataset(tmp_path, ["a"], THREE, (2, 2))
    (found,) = probabilities(tmp_path / "maps", data, THREE, called={"Quadrat": "square"})
    np.testing.assert_allclose(found[:, 0, 0], [0.4, 0.2, 0.4], atol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1], [0, 0.5, 0.5], atol=1e-6)
    with pytest.raises(ModelError, match="Quadrat/ is none of its classes; square missing"):
        open_maps(tmp_path / "maps", THREE, False, {})


def test_labels_are_each_their_own_and_what_has_no_file_is_nowhere(tmp_path):
    save(tmp_path / "maps/hair/a.png", np.array([[51, 255]], np.uint8))
    save(tmp_path / "maps/skin/b.png", np.array([[0, 255]], np.uint8))
    data = dataset(tmp_path, ["a", "b"], ("hair", "skin"), (1, 2))
    first, second = probabilities(tmp_path / "maps", data, ("hair", "skin"), multilabel=True)
    np.testing.assert_allclose(first, [[[0.2, 1]], [[0, 0]]], atol=1e-6)
    np.testing.assert_allclose(second, [[[0, 0]], [[0, 1]]], atol=1e-6)


def test_an_image_without_a_map_is_taught_by_its_label_and_without_either_is_named(tmp_path):
    save(tmp_path / "maps/a.png", np.array([[0, 255]], np.uint8))
    data = dataset(tmp_path, ["a", "b"], size=(1, 2), labelled=["b"])
    folder = open_maps(tmp_path / "maps", TWO, False, {})
    maps = maps_of(folder, data)
    np.testing.assert_array_equal(maps.probabilities(maps.files[0]), [[[0, 0]], [[1, 1]]])  # train comes first
    assert "no map for 1 of the images that have a label" in maps.warnings[0]
    with pytest.raises(DataError, match=r"no map for 2 of the 3 images to learn from \(c.png, d.png\)"):
        maps_of(folder, dataset(tmp_path, ["a", "c", "d"], size=(1, 2)))


def test_maps_to_measure_are_there_only_where_all_are(tmp_path):
    for name in "ab":
        save(tmp_path / f"maps/{name}.png", np.array([[0, 255]], np.uint8))
    folder = open_maps(tmp_path / "maps", TWO, False, {})
    for val, there in ((["b"], True), (["b", "c"], False)):
        data = dataset(tmp_path, ["a"], size=(1, 2), val=val)
        assert (maps_to_measure(folder, maps_of(folder, data), data) is not None) == there


def test_a_map_is_of_the_image_to_learn_from_where_one_of_val_has_its_name_too(tmp_path):
    save(tmp_path / "maps/a.png", np.array([[0, 255]], np.uint8))
    folder = open_maps(tmp_path / "maps", TWO, False, {})
    data = dataset(tmp_path, ["a"], size=(1, 2), val=["a"])
    maps = maps_of(folder, data)
    assert maps_to_measure(folder, maps, data) is None
    assert "1 images of val are named as others to learn from" in maps.warnings[0]


def refused(tmp_path, data, classes=TWO):
    with pytest.raises(DataError) as error:
        probabilities(tmp_path / "maps", data, classes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_maps_of_val_alone_teach_nothing(tmp_path):
    save(tmp_path / "maps/v.png", np.array([[0, 255]], np.uint8))
    assert "maps of 1 of the 1 images of val and of none to learn from" in refused(
        tmp_path, dataset(tmp_path, ["a"], size=(1, 2), val=["v"])
    )
    assert "no map of any image to learn from; that of a.png is a.png" in refused(
        tmp_path, dataset(tmp_path, ["a"], size=(1, 2))
    )


def test_a_map_has_the_proportions_of_its_image(tmp_path):
    save(tmp_path / "maps/a.png", np.eye(20, dtype=np.uint8))
    assert "a.png: is 20x20, and a.png 40x60 pixels" in refused(tmp_path, dataset(tmp_path, ["a"], size=(40, 60)))
    save(tmp_path / "maps/a.png", np.eye(14, 20, dtype=np.uint8))  # 13 1/3 rows, rounded up
    assert probabilities(tmp_path / "maps", dataset(tmp_path, ["a"], size=(40, 60)))[0].shape == (2, 14, 20)


def test_maps_that_tell_nothing_or_are_written_wrongly_are_refused(tmp_path):
    data = dataset(tmp_path, ["a"], size=(1, 2))
    save(tmp_path / "maps/a.png", np.array([[7, 7]], np.uint8))
    assert "every pixel of its 1 maps is 7" in refused(tmp_path, data)
    save(tmp_path / "maps/a.png", np.array([[0, 255]], np.uint16))
    assert "16 bits, and no value above 255" in refused(tmp_path, data)
    (tmp_path / "maps/a.png").write_bytes(b"")
    assert "a.png: zero bytes" in refused(tmp_path, data)
    save(tmp_path / "maps/a.png", np.array([[0, 5]], np.uint8))
    assert "holds 5, and there are 3 classes" in refused(tmp_path, dataset(tmp_path, ["a"], THREE, (1, 2)), THREE)
    save(tmp_path / "maps/A.png", np.array([[0, 255]], np.uint8))
    assert "are maps of one image" in refused(tmp_path, data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no maps, which are pictures named as the images; it holds nothing of use"):
        open_maps(tmp_path / "empty", TWO, False, {})


def test_two_images_of_one_name_cannot_share_a_map(tmp_path):
    save(tmp_path / "maps/a.png", np.array([[0, 255]], np.uint8))
    one, other = dataset(tmp_path / "one", ["a"], size=(1, 2)), dataset(tmp_path / "other", ["a"], size=(1, 2))
    both = Dataset((), (), one.unlabelled + other.unlabelled, TWO, "labels")
    assert "have one map; rename one" in refused(tmp_path, both)
