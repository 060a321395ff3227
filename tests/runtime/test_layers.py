import pytest

from compress.errors import MeasureError
from compress.runtime.layers import LayerTime, layer_times, summarize


def node(name: str, kernel: str, microseconds: int) -> dict:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": {"op_name": kernel}}


END = {"cat": "Session", "name": "model_run", "dur": 0, "args": {}}


def test_a_layer_takes_the_median_of_its_runs_after_the_warm_up():
    events = [event for us in (9000, 100, 300, 200) for event in (node("stem", "QLinearConv", us), END)]
    assert summarize(events, warm_up=1) == (LayerTime("stem", "QLinearConv", 0.2),)


def test_names_lose_what_the_runtime_added_and_nodes_without_one_are_summed():
    run = [
        node("QuantizeLinear_38", "QuantizeLinear", 10),
        node("block.depthwise_token_8", "QLinearConv", 50),
        node("QuantizeLinear_33", "QuantizeLinear", 5),
        END,
    ]
    assert summarize(run, warm_up=0) == (
        LayerTime("QuantizeLinear", "QuantizeLinear", 0.015),
        LayerTime("block.depthwise", "QLinearConv", 0.05),
    )


def test_the_layers_of_a_real_file(brightness):
    times = layer_times(brightness.path, threads=1, runs=3)
    assert [each.kernel for each in times if "Conv" in each.kernel or each.kernel == "Softmax"] == ["Conv", "Softmax"]
    assert all(each.ms >= 0 for each in times)


def test_a_file_that_is_no_model_is_one_line(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(MeasureError, match=r"broken\.onnx: onnxruntime cannot profile it: .*export it again") as error:
        layer_times(path)
    assert "\n" not in str(error.value)
