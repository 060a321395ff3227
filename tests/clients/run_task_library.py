"""Runs in an environment of its own: TensorFlow Lite Task Library on one image. MODEL PIXELS.npy MASK.npy"""

import json
import sys

import numpy as np
from tflite_support.task import core, processor, vision

model, pixels, out = sys.argv[1:4]
options = vision.ImageSegmenterOptions(
    base_options=core.BaseOptions(file_name=model),
    segmentation_options=processor.SegmentationOptions(output_type=processor.OutputType.CATEGORY_MASK),
)
segmenter = vision.ImageSegmenter.create_from_options(options)
found = segmenter.segment(vision.TensorImage.create_from_array(np.load(pixels))).segmentations[0]
np.save(out, np.array(found.category_mask, np.uint8))
print(json.dumps([label.category_name for label in found.colored_labels]))
