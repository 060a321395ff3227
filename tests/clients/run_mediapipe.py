"""Runs in an environment of its own: MediaPipe's ImageSegmenter on one image. MODEL PIXELS.npy MASK.npy"""

import json
import sys

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

model, pixels, out = sys.argv[1:4]
options = vision.ImageSegmenterOptions(base_options=BaseOptions(model_asset_path=model), output_category_mask=True)
with vision.ImageSegmenter.create_from_options(options) as segmenter:
    image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.load(pixels))
    np.save(out, np.array(segmenter.segment(image).category_mask.numpy_view(), np.uint8).squeeze())
    print(json.dumps(list(segmenter.labels)))
