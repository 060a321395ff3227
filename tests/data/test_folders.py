import os

import numpy as np
import pytest
from PIL import Image

from compress.data.coding import CLASS_IDS, OBJECT_255
from compress.data.folders import mask_layout, open_dataset, open_images, open_labelled, open_unlabelled
from compress.data.images import read_mask
from compress.data.packed import pack_masks
from compress.errors import DataError

TWO = ("background", "object")
THREE = ("background", "road", "sky")


def add_image(path, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 10, 10)).save(path)


def add_mask(path, ids=(0, 1), size=(4, 3)):
    """`ids` in turn over the pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.array(ids, np.uint8), size[::-1])).save(path)


def add_pair(part, stem, ids=(0, 1)):
    add_image(part / "images" / f"{stem}.jpg")
    add_mask(part / "masks" / f"{stem}.png", ids)


@pytest.fixture
def folder(tmp_path):
    """Two train pairs, one val pair, classes 0 and 1."""
    add_pair(tmp_path / "set/train", "a")
    add_pair(tmp_path / "set/train", "b")
    add_pair(tmp_path / "set/val", "c")
    return tmp_path / "set"


def names(samples):
    return [sample.image.name for sample in samples]


def test_pairs_images_with_masks_by_stem(folder):
    dataset = open_dataset(folder, TWO)
    assert [(s.image.name, s.mask.name) for s in dataset.train] == [("a.jpg", "a.png"), ("b.jpg", "b.png")]
    assert [(s.image.name, s.mask.name) for s in dataset.val] == [("c.jpg", "c.png")]
    assert dataset.unlabelled == dataset.warnings == ()
    assert (dataset.classes, dataset.reference, dataset.coding) == (TWO, "labels", CLASS_IDS)


def test_takes_every_image_suffix_and_says_which_files_it_leaves(folder):
    for name in ("d.jpeg", "e.PNG", "f.webp", "g.TIF", "h.bmp", "i.gif"):
        add_image(folder / "unlabelled" / name)
    for name in ("j.txt", "k.heic", "l.HEIC", ".hidden.jpg", "m"):
        (folder / "unlabelled" / name).write_text("")
    dataset = open_dataset(folder, TWO)
    assert names(dataset.unlabelled) == ["d.jpeg", "e.PNG", "f.webp", "g.TIF", "h.bmp", "i.gif"]
    (line,) = dataset.warnings
    assert line.startswith(f"{folder / 'unlabelled'}: left out: .heic (2), ")
    assert {".txt (1)", "hidden (1)", "no suffix (1)"} <= set(line.partition(";")[0].split(": ")[2].split(", "))


def test_what_is_no_file_is_left_out_and_said(folder):
    odd = folder / "train/images"
    (odd / "folder.png").mkdir()
    os.mkfifo(odd / "pipe.png")
    (odd / "endless.png").symlink_to("/dev/zero")
    (odd / "gone.png").symlink_to("nowhere")
    dataset = open_dataset(folder, TWO)
    assert names(dataset.train) == ["a.jpg", "b.jpg"]
    assert "left out: no regular files (3), folders (1)" in dataset.warnings[0]


def test_linked_folders_are_read_once_and_a_circle_ends(tmp_path):
    add_image(tmp_path / "elsewhere/deep/a.jpg")
    add_image(tmp_path / "photos/b.jpg")
    for name, to in {"one": "elsewhere", "two": "elsewhere", "circle": "photos"}.items():
        (tmp_path / "photos" / name).symlink_to(tmp_path / to)
    images, warnings = open_images(tmp_path / "photos")
    assert (sorted(path.name for path in images), warnings) == (["a.jpg", "b.jpg"], [])


def test_a_linked_folder_of_images_holds_what_it_points_to(folder, tmp_path):
    (folder / "train/images").rename(tmp_path / "elsewhere")
    (folder / "train/images").symlink_to(tmp_path / "elsewhere")
    assert names(open_dataset(folder, TWO).train) == ["a.jpg", "b.jpg"]


def test_unlabelled_images_may_lie_at_any_depth_but_masks_are_none(folder):
    add_image(folder / "unlabelled/images/deep/d.jpg")
    add_image(folder / "unlabelled/e.jpg")
    add_mask(folder / "unlabelled/masks/e.png")
    assert names(open_dataset(folder, TWO).unlabelled) == ["e.jpg", "d.jpg"]


def test_adds_the_images_of_another_folder_but_never_those_of_val(folder, tmp_path):
    add_image(tmp_path / "more/x.jpg")
    assert names(open_dataset(folder, TWO, unlabelled=tmp_path / "more").unlabelled) == ["x.jpg"]
    assert names(open_dataset(folder, TWO, unlabelled=tmp_path).unlabelled) == ["x.jpg"]


def test_train_without_masks_is_unlabelled(folder):
    for mask in (folder / "train/masks").iterdir():
        mask.unlink()
    dataset = open_dataset(folder, TWO)
    assert (dataset.train, names(dataset.unlabelled), dataset.warnings) == ((), ["a.jpg", "b.jpg"], ())


def test_some_train_images_without_masks_are_told(folder):
    (folder / "train/masks/a.png").unlink()
    dataset = open_dataset(folder, TWO)
    assert (names(dataset.train), names(dataset.unlabelled)) == (["b.jpg"], ["a.jpg"])
    assert "1 of 2 images have no mask" in dataset.warnings[0]


@pytest.mark.parametrize(
    ("classes", "train_ids", "val_ids", "coding"),
    [
        (TWO, (0, 255), (0, 255), OBJECT_255),
        (TWO, (0,), (0, 255), OBJECT_255),
        (TWO, (0, 255), (0, 1, 255), CLASS_IDS),  # 1 occurs somewhere: 255 is void
        (TWO, (0, 1), (0, 1), CLASS_IDS),
        (THREE, (0, 1, 255), (0, 2, 255), CLASS_IDS),
    ],
)
def test_what_255_means_is_decided_for_the_whole_set(tmp_path, classes, train_ids, val_ids, coding):
    add_pair(tmp_path / "train", "a", train_ids)
    add_pair(tmp_path / "val", "b", val_ids)
    assert open_dataset(tmp_path, classes).coding == coding


def test_class_id_outside_the_classes_is_an_error(folder):
    add_pair(folder / "train", "d", (0, 2))
    with pytest.raises(DataError, match=r"train/masks/d\.png: class id 2 in 6 pixels, but there are 2 classes"):
        open_dataset(folder, TWO)
    assert len(open_dataset(folder, THREE).train) == 3


@pytest.mark.parametrize(
    ("classes", "ids", "advice"),
    [
        (TWO, (1, 2), "write them from 0, not from 1"),
        (THREE, (1, 2, 3), "write them from 0, not from 1"),
        (TWO, (0, 128), r"the masks hold 0, 1, 128: write ids from 0 to 1, or 255"),
        (TWO, tuple(range(0, 255, 25)), "smoothed"),
    ],
)
def test_ids_outside_the_classes_are_listed_with_what_to_do(tmp_path, classes, ids, advice):
    if ids[0] == 0:
        add_pair(tmp_path / "train", "a")
    add_pair(tmp_path / "val", "b", ids)
    with pytest.raises(DataError, match=advice):
        open_dataset(tmp_path, classes)


@pytest.mark.parametrize("opened", [open_dataset, open_labelled])
@pytest.mark.parametrize("ids", [(0, 255), (0,), (255,)])
def test_masks_to_measure_on_without_any_class_are_an_error_that_lists_their_values(tmp_path, opened, ids):
    add_pair(tmp_path / "train", "a", (0, 1, 2))
    add_pair(tmp_path / "val", "b", ids)
    values = ", ".join(map(str, ids))
    with pytest.raises(DataError, match=rf"val/masks: no pixel of a class but background; the masks hold {values}, "):
        opened(tmp_path, THREE)


def test_masks_to_learn_from_that_look_mis_coded_are_said(tmp_path):
    for stem in "abc":
        add_pair(tmp_path / "train", stem, (0, 255))
    add_pair(tmp_path / "val", "d", (0, 1, 2))
    (line,) = open_dataset(tmp_path, THREE).warnings
    assert "train/masks: no pixel of a class but background; the masks hold 0, 255, " in line


def test_classes_that_no_mask_has_are_named(folder):
    train, val = open_dataset(folder, THREE).warnings
    assert (train, val) == tuple(f"{folder / part / 'masks'}: no pixel of sky" for part in ("train", "val"))
    add_pair(folder / "val", "c", (1, 2))
    assert "no pixel of background: are ids written from 1" in open_labelled(folder, THREE).warnings[0]


def test_an_object_written_as_1_in_some_masks_and_as_255_in_others_is_said(folder):
    add_pair(folder / "train", "d", (0, 255))
    assert "1 of 3 masks hold 255 and no 1, which counts for nothing" in open_dataset(folder, TWO).warnings[0]


@pytest.mark.parametrize("white", [1, 255])
def test_masks_that_look_inverted_are_said(tmp_path, white):
    """The object is all but a spot in the middle; the other way round nothing is said."""
    spot = np.zeros((20, 20), np.uint8)
    spot[8:12, 8:12] = white
    for part in ("train", "val"):
        add_image(tmp_path / part / "images/a.jpg", (20, 20))
        (tmp_path / part / "masks").mkdir()
        Image.fromarray(white - spot).save(tmp_path / part / "masks/a.png")
    said = open_labelled(tmp_path, TWO).warnings
    assert "object is 96% of the pixels and 100% of those at the edges" in said[0]
    Image.fromarray(spot).save(tmp_path / "val/masks/a.png")
    assert open_labelled(tmp_path, TWO).warnings == ()


@pytest.mark.parametrize("name", ["a.PNG", "a.bmp", "a.tif", "a.gif", "A.png"])
def test_a_mask_is_found_whatever_its_suffix_and_the_case_of_its_name(folder, name):
    (folder / "train/masks/a.png").unlink()
    add_mask(folder / "train/masks" / name)
    dataset = open_dataset(folder, TWO)
    assert [sample.mask.name for sample in dataset.train] == [name, "b.png"]
    assert dataset.warnings == ()


def test_a_mask_is_found_in_another_unicode_form(tmp_path):
    for part in ("train", "val"):
        add_image(tmp_path / part / "images" / "caf\u00e9.jpg")
        add_mask(tmp_path / part / "masks" / "cafe\u0301.png")
    assert len(open_dataset(tmp_path, TWO).train) == 1


def test_names_that_differ_in_case_alone_keep_their_own_masks(folder):
    add_pair(folder / "train", "A", (0, 1))
    assert [(s.image.stem, s.mask.stem) for s in open_dataset(folder, TWO).train][0] == ("A", "A")


def test_two_masks_for_one_image_are_an_error(folder):
    add_mask(folder / "train/masks/a.bmp")
    with pytest.raises(DataError, match=r"a\.png: has the same stem as a\.bmp, so two masks for one image"):
        open_dataset(folder, TWO)


def test_lossy_masks_of_two_classes_are_black_and_white_and_said(tmp_path):
    for part in ("train", "val"):
        add_image(tmp_path / part / "images/a.jpg", (32, 32))
        (tmp_path / part / "masks").mkdir()
        half = np.zeros((32, 32), np.uint8)
        half[:, 16:] = 255
        Image.fromarray(half).save(tmp_path / part / "masks/a.jpg")
    dataset = open_dataset(tmp_path, TWO)
    assert (len(dataset.train), dataset.coding) == (1, CLASS_IDS)
    assert "1 of 1 masks are JPEG or WebP" in dataset.warnings[0]
    with pytest.raises(DataError, match=r"train/masks/a\.jpg: JPEG and WebP do not keep class ids"):
        open_dataset(tmp_path, THREE)


def test_labels_of_other_formats_are_said(folder):
    (folder / "train/masks/a.png").rename(folder / "train/masks/a.npy")
    (folder / "train/masks/b.png").rename(folder / "train/masks/b.npy")
    assert "train/masks: left out: .npy (2)" in open_dataset(folder, TWO).warnings[0]


def test_a_layout_of_other_names_is_described(folder):
    for part in ("train", "val"):
        (folder / part / "masks").rename(folder / part / "truth")
    with pytest.raises(DataError, match=r"no mask c\.png in .*val/masks; add it; .*val: left out: truth/; "):
        open_dataset(folder, TWO)
    (folder / "val/truth").rename(folder / "val/masks")
    assert "train: left out: truth/; images lie in images/" in open_dataset(folder, TWO).warnings[0]


def test_an_error_is_one_line_whatever_a_file_is_called(folder):
    (folder / "val/masks/c.png").rename(folder / "val/masks/two\nlines\x1b.png")
    with pytest.raises(DataError, match=r"masks/two\\nlines\\x1b\.png: no image of that name"):
        open_dataset(folder, TWO)


def test_mask_without_image_is_an_error(folder):
    add_mask(folder / "val/masks/lonely.png")
    with pytest.raises(DataError, match=r"val/masks/lonely\.png: no image of that name"):
        open_dataset(folder, TWO)


def test_val_image_without_mask_is_an_error(folder):
    add_image(folder / "val/images/lonely.jpg")
    with pytest.raises(DataError, match=r"val/images/lonely\.jpg: no mask lonely\.png"):
        open_dataset(folder, TWO)


def test_mask_of_another_size_is_an_error(folder):
    add_mask(folder / "train/masks/a.png", size=(4, 2))
    with pytest.raises(DataError, match=r"train/masks/a\.png: 4x2 pixels, its image 4x3"):
        open_dataset(folder, TWO)


def test_mask_fits_the_image_as_it_is_shown(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 4)).save(folder / "train/images/a.jpg", exif=exif)  # stored lying, shown 4x3
    assert len(open_dataset(folder, TWO).train) == 2


def test_one_mask_for_two_images_is_an_error(folder):
    add_image(folder / "train/images/a.png")
    with pytest.raises(DataError, match=r"a\.png: has the same stem as a\.jpg"):
        open_dataset(folder, TWO)


def test_empty_or_missing_val_is_an_error(folder, tmp_path):
    add_pair(tmp_path / "no_val/train", "a")
    (tmp_path / "no_val/val/images").mkdir(parents=True)
    with pytest.raises(DataError, match="val: no images to measure on"):
        open_dataset(tmp_path / "no_val", TWO)
    with pytest.raises(DataError, match="val: no images to measure on.*train holds images/, masks/"):
        open_dataset(folder / "train", TWO)


def test_missing_folders_are_errors(folder, tmp_path):
    with pytest.raises(DataError, match="gone: no such folder"):
        open_dataset(tmp_path / "gone", TWO)
    with pytest.raises(DataError, match="gone: no such folder"):
        open_dataset(folder, TWO, unlabelled=tmp_path / "gone")
    with pytest.raises(DataError, match="gone: no such folder"):
        open_unlabelled(tmp_path / "gone", TWO, seed=0)


def test_val_alone_is_nothing_to_learn_from(tmp_path):
    add_pair(tmp_path / "val", "a")
    with pytest.raises(DataError, match="too few images to learn from"):
        open_dataset(tmp_path, TWO)


@pytest.mark.parametrize("broken", ["train/images/b.jpg", "train/masks/b.png", "val/images/c.jpg", "unlabelled/0.png"])
def test_unreadable_file_is_skipped_below_one_percent_and_an_error_from_there(folder, broken):
    for number in range(97):
        add_image(folder / f"unlabelled/{number}.png")
    add_pair(folder / "val", "d")
    content = (folder / broken).read_bytes()
    (folder / broken).write_bytes(content[: len(content) // 2])
    add_pair(folder / "train", "e")
    dataset = open_dataset(folder, TWO)  # 1 of 102
    assert len(dataset.warnings) == 1
    assert f"skipped {folder / broken}" in dataset.warnings[0]
    kept = dataset.train + dataset.val + dataset.unlabelled
    assert len(kept) == 101
    assert all(folder / broken not in (sample.image, sample.mask) for sample in kept)

    for stem in ("1", "2"):
        (folder / f"unlabelled/{stem}.png").unlink()
    with pytest.raises(DataError, match="1 of 100 images are unreadable") as error:
        open_dataset(folder, TWO)
    assert str(folder / broken) in str(error.value)


def test_images_alone_are_split_by_seed(tmp_path):
    for number in range(20):
        add_image(tmp_path / f"holiday/{number}.jpg")
    dataset = open_unlabelled(tmp_path, TWO, seed=1)
    assert (len(dataset.val), len(dataset.unlabelled), dataset.train, dataset.reference) == (3, 17, (), "teacher")
    assert not set(dataset.val) & set(dataset.unlabelled)
    assert open_unlabelled(tmp_path, TWO, seed=1) == dataset
    assert open_unlabelled(tmp_path, TWO, seed=2).val != dataset.val


def test_images_alone_give_at_least_one_and_at_most_a_hundred_to_val(tmp_path):
    for number in range(2):
        add_image(tmp_path / f"few/{number}.png", size=(1, 1))
    for number in range(700):
        add_image(tmp_path / f"many/{number}.png", size=(1, 1))
    assert len(open_unlabelled(tmp_path / "few", TWO, seed=0).val) == 1
    assert len(open_unlabelled(tmp_path / "many", TWO, seed=0).val) == 100


@pytest.mark.parametrize("count", [0, 1])
def test_images_alone_must_be_two_at_least(tmp_path, count):
    for number in range(count):
        add_image(tmp_path / f"{number}.jpg")
    with pytest.raises(DataError, match="too few images"):
        open_unlabelled(tmp_path, TWO, seed=0)


def add_photo(path, seed, size=(64, 48)):
    """Smooth coloured noise, the same for one seed at any size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)


def add_labelled_photo(part, stem, seed, size=(64, 48)):
    add_photo(part / "images" / f"{stem}.jpg", seed, size)
    add_mask(part / "masks" / f"{stem}.png", size=size)


def test_pictures_that_are_in_val_too_are_left_out_of_training_and_told(tmp_path):
    for seed in range(3):
        add_labelled_photo(tmp_path / "val", f"v{seed}", seed)
        add_labelled_photo(tmp_path / "train", f"t{seed}", seed + 10)
    add_labelled_photo(tmp_path / "train", "copy", 1, size=(160, 120))
    add_photo(tmp_path / "unlabelled/again.png", 2, size=(40, 30))
    dataset = open_dataset(tmp_path, TWO)
    assert names(dataset.train) == ["t0.jpg", "t1.jpg", "t2.jpg"]
    assert names(dataset.val) == ["v0.jpg", "v1.jpg", "v2.jpg"]
    assert dataset.unlabelled == ()
    (warning,) = dataset.warnings
    assert "val shows the same picture: 2 of 5 images" in warning
    assert f"{tmp_path / 'train/images/copy.jpg'} is v1.jpg" in warning
    assert f"{tmp_path / 'unlabelled/again.png'} is v2.jpg" in warning


def test_only_the_first_of_many_copies_are_named(tmp_path):
    for seed in range(5):
        add_labelled_photo(tmp_path / "val", f"v{seed}", seed)
        add_labelled_photo(tmp_path / "train", f"t{seed}", seed)
    add_labelled_photo(tmp_path / "train", "own", 20)
    dataset = open_dataset(tmp_path, TWO)
    assert names(dataset.train) == ["own.jpg"]
    assert "t2.jpg is v2.jpg and 2 more)" in dataset.warnings[0]


def test_nothing_but_copies_is_nothing_to_learn_from(tmp_path):
    add_labelled_photo(tmp_path / "val", "v", 0)
    add_labelled_photo(tmp_path / "train", "t", 0)
    with pytest.raises(DataError, match=r"too few images to learn from \(.*val shows the same picture"):
        open_dataset(tmp_path, TWO)


def test_copies_within_images_alone_do_not_reach_val_and_training(tmp_path):
    for seed in range(10):
        add_photo(tmp_path / f"{seed}.jpg", seed)
        add_photo(tmp_path / f"{seed}-large.jpg", seed, size=(128, 96))
    dataset = open_unlabelled(tmp_path, TWO, seed=0)
    seen = {name.split(".")[0].split("-")[0] for name in names(dataset.val)}
    assert len(dataset.val) == 3
    assert not seen & {name.split(".")[0].split("-")[0] for name in names(dataset.unlabelled)}
    assert "val shows the same picture" in dataset.warnings[0]


def test_images_are_opened_with_their_thumbnails(tmp_path):
    add_photo(tmp_path / "deep/a.jpg", 0)
    add_photo(tmp_path / "b.png", 1)
    add_mask(tmp_path / "masks/b.png")
    images, warnings = open_images(tmp_path)
    assert ([path.name for path in images], warnings) == (["b.png", "a.jpg"], [])
    assert all(thumbnail.shape == (32, 32, 3) for thumbnail in images.values())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images"):
        open_images(tmp_path / "empty")


@pytest.fixture
def by_label(tmp_path):
    """Two train images and one of val, of the labels hair and skin; the first shows no hair, the second has no mask."""
    folder = tmp_path / "labels"
    for part, stem in (("train", "a"), ("train", "b"), ("val", "c")):
        add_image(folder / part / "images" / f"{stem}.jpg")
    for part, stem in (("train", "a"), ("val", "c")):
        add_mask(folder / part / "masks/skin" / f"{stem}.png", (0, 255, 255))
    add_mask(folder / "train/masks/hair/x.png")
    (folder / "train/masks/hair/x.png").unlink()
    add_mask(folder / "val/masks/hair/c.png", (1, 0, 1))
    return folder


def test_masks_by_label_are_sets_of_labels(by_label, tmp_path):
    dataset = open_dataset(by_label, ("hair", "skin"))
    assert dataset.multilabel
    assert (names(dataset.train), names(dataset.unlabelled), names(dataset.val)) == (["a.jpg"], ["b.jpg"], ["c.jpg"])
    np.testing.assert_array_equal(read_mask(dataset.val[0].mask)[0], [1, 2, 3, 1])
    packed = pack_masks([dataset.train[0].mask], (3, 4), tmp_path).array
    np.testing.assert_array_equal(packed[0, 0], [0, 2, 2, 0])
    assert packed.dtype == np.int32
    assert any("train/masks: no pixel of hair" in line for line in dataset.warnings)
    assert mask_layout(by_label) == (True, ["hair", "skin"])
    assert open_labelled(by_label, ("skin", "hair")).multilabel


def test_labels_is_another_name_for_masks_by_label_too(by_label):
    val = by_label / "val"
    (val / "masks").rename(val / "labels")
    (sample,) = open_labelled(by_label, ("hair", "skin")).val
    assert sample.mask.files == (val / "labels/hair/c.png", val / "labels/skin/c.png")
    add_mask(val / "labels/skin/lost.png")
    with pytest.raises(DataError, match=r"skin/lost.png: no image of that name in .*val/images; add it or remove"):
        open_labelled(by_label, ("hair", "skin"))


@pytest.mark.parametrize(
    ("classes", "multilabel", "message"),
    [
        (("hair", "teeth"), None, r"holds folders for the labels hair, skin, but the model's are hair, teeth; name"),
        (("hair", "skin"), False, r"c.jpg: no mask c.png in .*masks; add it; .*masks: left out: folders \(2\)"),
    ],
)
def test_labels_that_are_not_the_models_are_refused(by_label, classes, multilabel, message):
    with pytest.raises(DataError, match=message):
        open_labelled(by_label, classes, multilabel=multilabel)


def test_masks_that_cannot_be_of_labels_are_refused(by_label, folder):
    with pytest.raises(DataError, match=r"a.png: is of one class a pixel, but the model tells several labels at once"):
        open_dataset(folder, TWO, multilabel=True)
    assert mask_layout(folder) == (False, [])
    add_mask(by_label / "val/masks/hair/c.png", (0, 7))
    with pytest.raises(DataError, match=r"hair/c.png: holds 7; the mask of a label is 0, and 1 or 255 where the label"):
        open_labelled(by_label, ("hair", "skin"))
    add_mask(by_label / "val/masks/hair/c.png", size=(8, 6))
    with pytest.raises(DataError, match=r"skin/c.png: is not as large as .*hair/c.png; save the masks of all labels"):
        open_labelled(by_label, ("hair", "skin"))
    for name in ("hair", "skin"):
        add_mask(by_label / f"val/masks/{name}/c.png", (0,))
    with pytest.raises(DataError, match=r"val/masks: no pixel of any label; write 1 or 255 where a label is"):
        open_labelled(by_label, ("hair", "skin"))
