// Loads a compressed segmenter, checks that it is the file of the manifest, and runs it on RGB pixels.
// Both files take uint8 pixels, 0 to 255, and give a uint8 probability for each class; an ONNX file whose manifest
// says float32 reads the pixels with its mean and std.

import { unzipSync } from "fflate";
import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";
import * as ort from "onnxruntime-web";

const PLAIN_HTTP = "This page was opened by plain http, where browsers give neither sha256 nor the camera: open it by https, or on localhost.";

/** Throws, in a sentence for people, where the page was opened by plain http. */
export function checkSecure() {
  if (!globalThis.isSecureContext) throw new Error(PLAIN_HTTP);
}

/** The bytes of one file of a run, `base` being the run's folder. Throws where the sha256 is not the manifest's. */
export async function fetchChecked(base, entry) {
  checkSecure();
  const name = entry.file.split(/[/\\]/).pop();
  const bytes = new Uint8Array(await (await fetch(`${base}/${name}`)).arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== entry.sha256) throw new Error(`${name}: is not the file that the manifest describes`);
  return bytes;
}

let liteRt;

/** LiteRT is loaded once in a page, whatever the number of models, and again only where that failed. */
function loadedLiteRt(wasm) {
  liteRt ??= loadLiteRt(wasm).catch((error) => {
    liteRt = undefined;
    throw error;
  });
  return liteRt;
}

/** A function from pixels, Uint8Array [height * width * 3], to probabilities in the file's own layout. */
export async function openTflite(bytes, entry, wasm) {
  await loadedLiteRt(wasm);
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

/** [height, width] of what a file reads. */
export const sizeOf = (entry) => (entry.input.layout === "NHWC" ? entry.input.shape.slice(1, 3) : entry.input.shape.slice(2));

/** RGB pixels of a photograph, a canvas or a video: the whole of it, at the size that the file reads. */
export function pixelsOf(source, entry) {
  const [height, width] = sizeOf(entry);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: 3 * height * width }, (_, i) => data[4 * Math.floor(i / 3) + (i % 3)]);
}

/** The probability of one class, 0 to 1, for each pixel. */
export function probability(values, entry, channel) {
  const last = entry.output.layout === "NHWC";
  const classes = entry.output.shape[last ? 3 : 1];
  const count = values.length / classes;
  const { scale, zero_point } = entry.output.scale === null ? { scale: 1, zero_point: 0 } : entry.output;
  const at = (i) => values[last ? i * classes + channel : channel * count + i];
  return Float32Array.from({ length: count }, (_, i) => (at(i) - zero_point) * scale);
}

/** Lays every class that has a colour over a canvas, as opaque as it is probable: drawn larger, that is a soft edge. */
export function layOver(canvas, values, entry, colours) {
  const [height, width] = sizeOf(entry);
  const context = canvas.getContext("2d");
  for (const [channel, colour] of colours.entries()) {
    if (!colour) continue;
    const layer = new ImageData(width, height);
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    probability(values, entry, channel).forEach((p, i) => layer.data.set([red, green, blue, 160 * p], 4 * i));
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(layer, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
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
