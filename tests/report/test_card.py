"""MODEL_CARD.md: its head as Hugging Face reads it, and its body as people and their programs do."""

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from integer_reference import GraphBuilder
from markdown_it import MarkdownIt
from operator_cases import u_shape
from PIL import Image
from test_report import artifact, bare_record, full_record, picture

from compress.formats.artifact import Artifact, IOSpec
from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite
from compress.measure.masks import class_ids
from compress.measure.values import ClassFigures, Interval
from compress.report.card import render_card
from compress.report.record import Data, RunRecord
from compress.runtime.local import describe_in_child
from compress.runtime.session import open_model

ROOT = Path(__file__).parent.parent.parent
HUB = ROOT / ".venv-zoo" / "bin" / "python"


def head(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def body(card: str) -> str:
    return card.split("---\n", 2)[2]


def html(card: str) -> str:
    return MarkdownIt().enable("table").render(body(card))


def licensed(licence: str) -> RunRecord:
    return replace(full_record(), recipe={"licence": licence})


def test_the_head_says_what_hugging_face_lists_a_model_by():
    found = head(render_card(replace(licensed("Apache-2.0"), name="saliency"), []))
    assert found["license"] == "apache-2.0"
    assert found["pipeline_tag"] == "image-segmentation"
    assert found["library_name"] == "litert"
    assert found["base_model"] == "u2net"
    assert found["tags"] == ["onnx", "tflite", "int8", "quantized", "pruned", "distilled", "on-device"]
    [index] = found["model-index"]
    [result] = index["results"]
    assert index["name"] == "saliency"
    assert result["dataset"]["name"] == "100 labelled images kept out of training"
    assert result["metrics"] == [
        {
            "type": "mean_iou",
            "name": "mean IoU over images",
            "value": 0.8142,
            "args": {"low": 0.789, "high": 0.837, "interval": 0.95, "file": "model.tflite"},
        }
    ]


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("", {"license": "unknown"}),
        ("MIT", {"license": "mit"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ('Ours: ask "legal"', {"license": "other", "license_name": 'Ours: ask "legal"'}),
    ],
)
def test_a_licence_that_hugging_face_has_no_name_for_is_other(licence, told):
    found = head(render_card(licensed(licence), []))
    assert {key: value for key, value in found.items() if key.startswith("license")} == told


def test_agreement_with_a_teacher_is_no_accuracy():
    card = render_card(replace(full_record(), data=Data(400, 100, reference="teacher")), [])
    assert "model-index" not in head(card)
    assert "IoU is agreement with the teacher's masks here, not accuracy" in card


def test_text_of_others_is_neither_a_sign_of_markdown_nor_of_yaml():
    record = replace(
        full_record(),
        name="a: *b*",
        recipe={"description": "See [here](http://x) | <script>", "licence": "x\n- y: \x07"},
        classes=("`a`", "<b>|</b>"),
        warnings=("<img src=x>",),
    )
    card = render_card(record, [picture("``.jpg", 0.25)])
    assert head(card)["model-index"][0]["name"] == "a: *b*"
    assert head(card)["license_name"] == "x - y:  "
    page = html(card)
    assert "<h1>a: *b* 1.0.0</h1>" in page
    assert "<a" not in page
    assert not re.search("<(script|b|img)", page)
    assert "<code>`a`</code>" in page
    assert "<code>``.jpg</code> 0.250" in page


def test_tables_have_a_cell_for_every_file():
    page = html(render_card(full_record(), []))
    rows = [re.findall("<t[hd]", row) for row in re.findall("<tr>.*?</tr>", page, re.DOTALL)]
    assert {len(row) for row in rows} == {4}
    assert len(rows) == 3 + 7  # the files under their titles; six figures under theirs
    assert "<td>0.814 [0.789, 0.837]</td>" in page


def test_what_it_is_bad_at_is_told_by_its_worst_images_and_classes():
    figures = tuple(
        ClassFigures(name, Interval(iou, iou, iou), 0.5, (("road", 0.25),))
        for name, iou in (("sky", 0.9), ("tree", 0.1))
    )
    measured = replace(
        full_record().measurements["tflite"],
        per_image_iou=(0.1, 0.4, 0.9),
        worst_decile_iou=Interval(0.1, 0.05, 0.2),
        by_class=figures,
    )
    record = replace(full_record(), classes=("sky", "tree"), measurements={"tflite": measured}, warnings=("mind",))
    card = render_card(record, [picture("b.jpg", 0.5), picture("a.jpg", 0.125)])
    part = card.split("## What it is bad at")[1].split("\n## ")[0]
    assert "On 2 of 3 images IoU is below 0.5." in part
    assert "IoU of the worst tenth of the images: 0.100 [0.050, 0.200]." in part
    assert "Worst classes: tree 0.100 (taken for road 25 %)" in part
    assert "by IoU with the teacher: `a.jpg` 0.125, `b.jpg` 0.500." in part
    assert "- mind" in part
    assert "| tree | 50 % | not measured | not measured | 0.100 [0.100, 0.100] |" in card


def test_a_run_without_figures_and_files_has_a_card_too():
    card = render_card(bare_record(), [])
    assert head(card)["license"] == "unknown"
    assert "No file was exported." in card
    assert "Nothing was measured." in card


def test_no_line_of_a_card_is_left_joined_to_another():
    record = replace(full_record(), recipe={"description": "It cuts out", "author": "A. U. Thor", "licence": "MIT"})
    for card in (render_card(record, [picture("a.jpg", 0.5)]), render_card(bare_record(), [])):
        text = re.sub("```.*?```|`.*?`", "CODE", body(card), flags=re.DOTALL)
        assert not re.search(r"\n{4,}| \n|[a-z][.:,][A-Z]|[a-z]CODE|CODE\\w", text)
        for heading in re.findall(r"(?m)^#+ .*$", body(card))[1:]:
            assert f"\n\n{heading}\n\n" in card


@pytest.mark.parametrize(
    ("output", "multilabel", "told"),
    [
        (IOSpec("m", (1, 8, 8, 2), "uint8", "NHWC", 1 / 256, 0, activation="softmax"), False, "maps.argmax(0)"),
        (IOSpec("m", (1, 8, 8, 1), "uint8", "NHWC", 1 / 256, 0, activation="sigmoid"), False, "maps[0] > 128.0"),
        (IOSpec("m", (1, 8, 8, 1), "float32", "NHWC", activation="logits"), False, "maps[0] > 0\n"),
        (IOSpec("m", (1, 8, 8, 2), "uint8", "NHWC", 1 / 256, 0, activation="sigmoid"), True, "maps > 128.0"),
    ],
)
def test_a_mask_is_decided_as_the_file_means_it(output, multilabel, told):
    file = replace(artifact("tflite", 10), output=output)
    assert f"mask = {told}" in render_card(replace(full_record(), artifacts=(file,), multilabel=multilabel), [])


def test_names_of_a_files_ends_stay_text_in_the_code():
    file = artifact("onnx", 10)
    odd = replace(file, input=replace(file.input, name='a.b"```'), output=replace(file.output, name="c/d:0"))
    card = render_card(replace(full_record(), artifacts=(odd,), measurements={}), [])
    assert r'session.run({ "a.b\"\u0060\u0060\u0060": new' in card
    assert 'outputs["c/d:0"].data' in card


@pytest.fixture(params=["tflite", "onnx", "onnx of float32"])
def exported(request, tmp_path) -> Artifact:
    builder = GraphBuilder((16, 24))
    u_shape(builder)
    file = tmp_path / f"model.{request.param.split()[0]}"
    if file.suffix == ".tflite":
        to_tflite(builder.graph(), file)
    else:
        to_onnx(builder.graph(), file, reads=((120.0,) * 3, (60.0,) * 3) if "float32" in request.param else None)
    return describe_in_child(file)


def test_the_python_of_a_card_gives_the_mask_that_is_measured(exported, monkeypatch, tmp_path):
    """On a photograph of another shape than the network's."""
    card = render_card(replace(full_record(), artifacts=(exported,), measurements={}), [])
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)).resize((70, 50)).save("photo.jpg")
    found: dict = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], found)
    small = Image.open("photo.jpg").resize((24, 16), Image.Resampling.BILINEAR)
    expected = class_ids(open_model(exported.path).probabilities(np.asarray(small)), (50, 70))
    assert found["mask"].shape == (50, 70)
    assert len(np.unique(expected)) > 1
    assert np.mean(found["mask"] == expected) > 0.999


def test_hugging_face_reads_the_head(tmp_path):
    if not HUB.exists():
        pytest.skip("huggingface_hub is not installed: run `make .venv-zoo/.installed`")
    (tmp_path / "card.md").write_text(render_card(licensed("Apache-2.0"), []))
    script = (
        "import sys, json; from huggingface_hub import ModelCard; card = ModelCard.load(sys.argv[1]); d = card.data;"
        "[e] = d.eval_results; print(json.dumps([d.license, d.pipeline_tag, d.library_name, d.base_model, d.model_name,"
        "e.task_type, e.metric_type, e.metric_value, e.dataset_name, e.metric_args['high']]))"
    )
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([HUB, "-c", script, tmp_path / "card.md"], capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [
        *("apache-2.0", "image-segmentation", "litert", "u2net", "u2net"),
        *("image-segmentation", "mean_iou", 0.8142, "100 labelled images kept out of training", 0.837),
    ]
