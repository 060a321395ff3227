"""Checkpoints as training scripts save them, and files that hold something else."""

import logging
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.load.weights import check_finite, fit_weights, read_content, untrained_norms


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def state():
    """Weights that a fresh module does not have."""
    return {name: value + 1 for name, value in module().state_dict().items()}


def saved(folder, content):
    torch.save(content, folder / "net.pt")
    return folder / "net.pt"


def fitted(folder, content):
    path, net = saved(folder, content), module()
    fit_weights(read_content(path), net, path, "net.py:Net")
    check_finite(net, path)
    return net.state_dict()


def prefixed(before, weights=None):
    return {before + name: value for name, value in (weights or state()).items()}


COMPILED = {name.replace("0.", "0._orig_mod."): value for name, value in state().items()}
WAYS = {
    "plain": (lambda: state(), ""),
    "lightning": (lambda: {"epoch": 3, "state_dict": {**prefixed("model."), "loss.weight": torch.ones(2)}}, "model."),
    "wrapped": (lambda: {"epoch": 3, "model_state_dict": state(), "optimizer": {"state": {}}}, "model_state_dict"),
    "nested": (lambda: {"checkpoint": {"net": state()}}, "checkpoint.net"),
    "data-parallel": (lambda: prefixed("module."), "module."),
    "compiled and data-parallel": (lambda: prefixed("_orig_mod.module."), "module."),
    "compiled in part": (lambda: COMPILED, ""),
    "averaged model": (lambda: {"n_averaged": torch.tensor(7), **prefixed("module.")}, "module."),
    "average beside the last": (lambda: {"params": module().state_dict(), "params_ema": state()}, "params_ema"),
    "beside numbers": (lambda: {"epoch": 3, **state()}, ""),
    "before batches were counted": (lambda: {n: v for n, v in state().items() if "num_batches" not in n}, ""),
    "halved": (lambda: {name: value.half() for name, value in state().items()}, ""),
    "doubled": (lambda: {name: value.double() for name, value in state().items()}, ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_found_wherever_a_training_script_puts_them(way, tmp_path, caplog):
    content, named = WAYS[way]
    with caplog.at_level(logging.INFO, "compress"):
        found = fitted(tmp_path, content())
    for name, value in state().items():
        if "num_batches" not in name:
            torch.testing.assert_close(found[name], value, atol=2e-3, rtol=1e-3)
    assert named in caplog.text
    assert bool(caplog.text) == bool(named)


class Settings:
    """What a training script may keep beside the weights; it would leave a mark if it were made."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return touched, (self.mark,)


def touched(mark):
    Path(mark).touch()


def test_settings_of_a_training_script_are_skipped_and_never_made(tmp_path, caplog):
    mark = tmp_path / "mark"
    content = {"state_dict": state(), "hyper_parameters": {"root": PurePosixPath("/data"), "more": Settings(str(mark))}}
    with caplog.at_level(logging.INFO, "compress"):
        found = fitted(tmp_path, content)
    torch.testing.assert_close(found["2.bias"], state()["2.bias"])
    assert "pathlib.PurePosixPath, test_weights.touched beside the weights, skipped" in caplog.text
    assert not mark.exists()


def test_a_whole_module_is_refused_by_what_it_would_import(tmp_path):
    path = saved(tmp_path, {"epoch": 3, "model": module()})
    with pytest.raises(
        ModelError, match=r"it would import .*torch\.nn\.modules\.container\.Sequential.*--trust-pickle"
    ):
        read_content(path)


def test_heads_that_the_architecture_lacks_are_left_out_where_the_recipe_says_so(tmp_path):
    path, net = saved(tmp_path, {**state(), "aux.weight": torch.ones(1)}), module()
    fit_weights(read_content(path), net, path, "net.py:Net", ["aux."])
    torch.testing.assert_close(net.state_dict()["2.bias"], state()["2.bias"])


def without(name):
    return {key: value for key, value in state().items() if key != name}


MISFITS = {
    "a list": (lambda: [state()], "no weights by name but a list"),
    "a tensor": (lambda: torch.ones(3), "no weights by name but a Tensor"),
    "a string": (lambda: "weights", "no weights by name but a str"),
    "None": (lambda: None, "no weights by name but None"),
    "nothing": (lambda: {}, "no weights by name but an empty table"),
    "no tensors": (lambda: {"epoch": 3, 4: "x"}, "a table with the keys epoch, 4"),
    "a table within itself": (lambda: endless(), "a table with the keys inside"),
    "keys that are no names": (lambda: {1: torch.ones(2), None: torch.ones(2)}, "a table with the keys 1, None"),
    "one missing": (lambda: without("0.bias"), "it holds 8 tensors, without 0.bias$"),
    "one more": (lambda: {**state(), "aux.weight": torch.ones(1)}, r"with aux.weight, which the .*drop = \['aux.'\]"),
    "a line in a key": (lambda: {**state(), "a\nb": torch.ones(1)}, r"with 'a\\nb', which"),
    "other names": (lambda: {"ema": prefixed("net.x")}, "it holds 9 tensors under ema, without 0.weight, 0.bias, 1"),
    "most behind a prefix": (
        lambda: prefixed("net.", without("0.bias")),
        "of which most fit behind net., without net.0.bias$",
    ),
    "many others": (
        lambda: {f"{letter}.weight": torch.ones(1) for letter in "abcdefghijklm"},
        "with a.weight, b.weight, .*, j.weight and 3 more, which",
    ),
    "other classes": (
        lambda: {**state(), "2.weight": torch.ones(5, 4, 1, 1), "2.bias": torch.ones(5)},
        "in the file and 2 in the architecture; as it seems it was trained for 5 classes, and this is made for 2$",
    ),
    "two that fit": (lambda: {"a": state(), "b": module().state_dict()}, "fit under a and b"),
    "another shape": (lambda: {**state(), "2.weight": torch.ones(4, 1)}, "2.weight is 4x1 in the file and 2x4x1x1 in"),
    "empty": (lambda: {**state(), "2.bias": torch.ones(0)}, "2.bias is 0 in the file and 2 in the architecture"),
    "integers": (lambda: {**state(), "2.bias": torch.ones(2).char()}, "2.bias is int8; expected float weights"),
    "complex": (lambda: {**state(), "2.bias": torch.ones(2, dtype=torch.complex64)}, "2.bias is complex64"),
    "sparse": (lambda: {**state(), "2.bias": torch.ones(2).to_sparse()}, "2.bias is sparse"),
    "no values": (lambda: {**state(), "2.bias": torch.ones(2, device="meta")}, "2.bias is without values"),
    "NaN": (lambda: {**state(), "2.bias": torch.tensor([1, torch.nan])}, "net.pt: 2.bias holds NaN"),
    "infinite": (lambda: {**state(), "1.weight": torch.full((4,), torch.inf)}, "net.pt: 1.weight holds infinite"),
    "too large for float32": (
        lambda: {**state(), "2.bias": torch.full((2,), 1e300, dtype=torch.float64)},
        "2.bias holds",
    ),
}


def endless():
    table = {}
    table["inside"] = table
    return table


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_in_one_line_that_names_it(case, tmp_path):
    content, message = MISFITS[case]
    with pytest.raises(ModelError, match=message) as caught:
        fitted(tmp_path, content())
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "net.pt"))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def with_other_weights(path):
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("net/data/0").header_offset
    data = bytearray(path.read_bytes())
    place = data.index(state()["0.weight"].numpy().tobytes(), start)
    data[place] ^= 1
    path.write_bytes(data)


def without_its_pickle(path):
    parts = {}
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if not name.endswith("data.pkl")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def that_unpacks_to_much(path):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("net/data/99", "w") as part:
        for _ in range(200):
            part.write(bytes(1_000_000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut_short, "is no torch file, or only part of one"),
        (without_its_pickle, "cannot be read as a torch file"),
        (with_other_weights, "is damaged: net/data/0 is not what was stored; fetch it again"),
        (that_unpacks_to_much, r"unpacks to 200,\d\d\d,\d\d\d bytes"),
        (lambda path: path.write_bytes(b"\x80\x02garbage"), "cannot be read|holds pickled code"),
        (lambda path: path.write_bytes(b"version https://git-lfs"), "is no torch file"),
    ],
)
def test_a_damaged_file_is_said_to_be_one(change, message, tmp_path):
    path = saved(tmp_path, state())
    change(path)
    with pytest.raises(ModelError, match=message):
        read_content(path)


def test_a_file_without_sums_is_none_that_is_damaged(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, state())
    finally:
        torch.serialization.set_crc32_options(before)
    assert set(read_content(path)) == set(state())


def test_a_norm_that_never_saw_an_image_is_known():
    assert untrained_norms(module()) == ["1"]
    trained = module()
    trained[1].running_var[2] = 0.5
    assert untrained_norms(trained) == []
    assert untrained_norms(nn.BatchNorm2d(4, track_running_stats=False)) == []
