"""In an environment of its own: TensorFlow's or tflite-runtime's interpreter. MODEL PIXELS.npy OUTPUT.npy KERNELS"""

import sys

import numpy as np

model, pixels, out, kernels = sys.argv[1:5]
options = {}
try:
    import tensorflow as tf

    Interpreter, resolvers = tf.lite.Interpreter, tf.lite.experimental.OpResolverType
    options["experimental_op_resolver_type"] = {
        "xnnpack": resolvers.AUTO,
        "builtin": resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "reference": resolvers.BUILTIN_REF,
    }[kernels]
except ImportError:
    from tflite_runtime.interpreter import Interpreter

interpreter = Interpreter(model_path=model, **options)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load(pixels)[None])
interpreter.invoke()
np.save(out, interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
