// Loads a compressed segmenter, checks that it is the file of the manifest, and runs it on RGB pixels.
// Both files take uint8 pixels, 0 to 255, and give a uint8 probability for each class; an ONNX file whose manifest
// says float32 reads the pixels with its mean and std.

import { unzipSync } from "fflate";
import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";
import * as ort from "onnxruntime-web";

/** The bytes of one file of a run, `base` being the run's folder. Throws where the sha256 is not the manifest's. */
export async function fetchChecked(base, entry) {
  const name = entry.file.split(/[/\\]/).pop();
  const bytes = new Uint8Array(await (await fetch(`${base}/${name}`)).arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== entry.sha256) throw new Error(`${name}: is not the file that the manifest describes`);
  return bytes;
}

/** A function from pixels, Uint8Array [height * width * 3], to probabilities in the file's own layout. */
export async function openTflite(bytes, entry, wasm) {
  await loadLiteRt(wasm);
  const model = await loadAndCompile(bytes, { accelerator: "wasm" });
  return async (pixels) => {
    const input = new Tensor(pixels, entry.input.shape);
    const [output] = await model.run(input);
    const values = Uint8Array.from(output.toTypedArray());
    input.delete();
    output.delete();
    return values;
  };
}

/** The same for the ONNX file, whose channels come first. */
export async function openOnnx(bytes, entry, wasm) {
  ort.env.wasm.wasmPaths = wasm;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(bytes);
  const { dtype, mean, std } = entry.input;
  const [, channels, height, width] = entry.input.shape;
  return async (pixels) => {
    const planes = dtype === "float32" ? new Float32Array(pixels.length) : new Uint8Array(pixels.length);
    for (let i = 0; i < height * width; i++)
      for (let c = 0; c < channels; c++) {
        const pixel = pixels[i * channels + c];
        planes[c * height * width + i] = dtype === "float32" ? (pixel - mean[c]) / std[c] : pixel;
      }
    const input = new ort.Tensor(dtype, planes, entry.input.shape);
    const outputs = await session.run({ [entry.input.name]: input });
    return outputs[entry.output.name].data;
  };
}

/** Class of each pixel: the likeliest channel of [height, width, classes], or of [classes, height, width]. */
export function mask(values, entry) {
  const last = entry.output.layout === "NHWC";
  const classes = entry.output.shape[last ? 3 : 1];
  const count = values.length / classes;
  return Uint8Array.from({ length: count }, (_, i) => {
    let best = 0;
    const at = (c) => (last ? values[i * classes + c] : values[c * count + i]);
    for (let c = 1; c < classes; c++) if (at(c) > at(best)) best = c;
    return best;
  });
}

/** golden.npz: uint8 arrays by name. */
export function readGolden(bytes) {
  const arrays = {};
  for (const [name, file] of Object.entries(unzipSync(bytes))) {
    const header = 10 + new DataView(file.buffer, file.byteOffset).getUint16(8, true);
    arrays[name.replace(/\.npy$/, "")] = file.slice(header);
  }
  return arrays;
}
