"""The formats that a graph can be written in."""

from compress.formats.onnx import to_onnx
from compress.formats.ort import to_ort
from compress.formats.tflite import to_tflite

EXPORTERS = {"onnx": to_onnx, "ort": to_ort, "tflite": to_tflite}
