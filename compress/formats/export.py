"""The formats that a graph can be written in."""

from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite

EXPORTERS = {"onnx": to_onnx, "tflite": to_tflite}
