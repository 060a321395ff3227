#!/usr/bin/env node
// Fetches a published model by name, version and sha256, without Python and without a package:
//
//     node fetch-model.mjs u2net-4mb@1.1.0 --from https://models.example.com --sha256 9f... --out public/model
//
// The sha256 is that of the model's manifest.json: `compress publish` says it, NAME/index.json has it. Every file is
// checked before any of them has its final name; what is there already, and right, is not fetched again.
//
//     "scripts": {"model": "node fetch-model.mjs u2net-4mb@1.1.0 --from ... --sha256 ... --out public/model"}
//
//     --format onnx   which file (default: tflite)      --with golden,card   more of what lies beside it than the labels
//     --aipack DIR    a Play AI pack instead: DIR/build.gradle.kts and the files in DIR/src/main/assets/NAME

import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";

const MANIFEST_BYTES = 16 * 1024 * 1024;
const STALLED_MS = 60_000;

class FetchError extends Error {}

function refuse(message) {
  throw new FetchError(message);
}

/** Name, version, sha256 and format are what they may be, or one line says what is wrong. */
function parsed(argv) {
  const options = {
    from: { type: "string" },
    sha256: { type: "string" },
    format: { type: "string", default: "tflite" },
    with: { type: "string", default: "" },
    out: { type: "string" },
    aipack: { type: "string" },
  };
  let found;
  try {
    found = parseArgs({ args: argv, options, allowPositionals: true });
  } catch (error) {
    refuse(`${error.message.split(".")[0]}; --from, --sha256, --format, --with, --out and --aipack are known`);
  }
  const { positionals, values } = found;
  const [name, version] = (positionals[0] ?? "").split("@");
  if (positionals.length !== 1 || !/^[a-z0-9][a-z0-9._-]{0,99}$/.test(name)) refuse("name one model, as in u2net-4mb@1.1.0");
  if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/.test(version ?? "")) refuse(`${name}: give a version, as in ${name}@1.1.0`);
  if (!/^https?:\/\//.test(values.from ?? "")) refuse("--from: an http or https URL of a registry is expected");
  if (!/^[0-9a-f]{64}$/.test(values.sha256 ?? "")) refuse("--sha256: the 64 digits of the manifest's sha256 are expected");
  if (!values.out === !values.aipack) refuse("give --out DIR or --aipack DIR");
  return { ...values, name, version, roles: ["labels", ...values.with.split(",").filter(Boolean)] };
}

/** A response's body, chunk by chunk; an error where it says no, or nothing for a minute. */
async function* chunks(url) {
  const abort = new AbortController();
  let timer;
  const waiting = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), STALLED_MS);
  };
  try {
    waiting();
    const response = await fetch(url, { signal: abort.signal });
    if (!response.ok) refuse(`${url}: ${response.status} ${response.statusText}; is the version published there?`);
    for await (const chunk of response.body) {
      waiting();
      yield chunk;
    }
  } catch (error) {
    if (error instanceof FetchError) throw error;
    refuse(`${url}: ${abort.signal.aborted ? "says nothing for a minute" : (error.cause?.message ?? error.message)}`);
  } finally {
    clearTimeout(timer);
  }
}

async function manifestOf(url, sha256) {
  const parts = [];
  let size = 0;
  for await (const chunk of chunks(url)) {
    size += chunk.length;
    if (size > MANIFEST_BYTES) refuse(`${url}: has more than ${MANIFEST_BYTES} bytes, which is no manifest`);
    parts.push(chunk);
  }
  const bytes = Buffer.concat(parts);
  if (createHash("sha256").update(bytes).digest("hex") !== sha256) refuse(`${url}: is not the manifest with this sha256`);
  try {
    return { bytes, manifest: JSON.parse(bytes) };
  } catch {
    return refuse(`${url}: is no JSON`);
  }
}

/** The file of a format and what lies beside it, each with a name in its own folder, a size and a sha256. */
function wanted(manifest, { name, version, format, roles }) {
  if (![1, 2].includes(manifest.schema)) refuse(`schema ${JSON.stringify(manifest.schema)}: 1 and 2 are known; take a newer fetch-model.mjs`);
  if (manifest.name !== name || manifest.version !== version) refuse(`the manifest is of ${manifest.name}@${manifest.version}`);
  const formats = manifest.files.map((each) => each.format);
  const model = manifest.files.find((each) => each.format === format);
  if (!model) refuse(`${name}@${version} has no ${format} file, but ${formats.join(", ")}`);
  const beside = (manifest.beside ?? []).filter((each) => roles.includes(each.role));
  const missing = roles.find((role) => role !== "labels" && !beside.some((each) => each.role === role));
  if (missing) refuse(`${name}@${version} has no ${missing} beside its files`);
  const entries = [model, ...beside];
  for (const { file, sha256, size_bytes } of entries) {
    const plain = typeof file === "string" && file === basename(file) && !/[\\\0:]/.test(file) && !["", ".", ".."].includes(file);
    if (!plain || file === "manifest.json") refuse(`${JSON.stringify(file)} is no file in its own folder`);
    if (!/^[0-9a-f]{64}$/.test(sha256) || !Number.isSafeInteger(size_bytes) || size_bytes < 0) refuse(`${file}: no sha256 or size`);
  }
  return entries;
}

async function sha256Of(path) {
  const digest = createHash("sha256");
  await pipeline(createReadStream(path), digest);
  return digest.digest("hex");
}

/** Writes to `partial` what the entry describes, and nothing that is longer or otherwise. */
async function download(url, entry, partial) {
  const digest = createHash("sha256");
  let size = 0;
  const checked = async function* () {
    for await (const chunk of chunks(url)) {
      size += chunk.length;
      if (size > entry.size_bytes) refuse(`${url}: is longer than the ${entry.size_bytes} bytes of the manifest`);
      digest.update(chunk);
      yield chunk;
    }
  };
  await pipeline(Readable.from(checked()), createWriteStream(partial));
  if (size !== entry.size_bytes || digest.digest("hex") !== entry.sha256) refuse(`${url}: is not the file of the manifest`);
}

const isThere = async (path, { size_bytes, sha256 }) =>
  existsSync(path) && statSync(path).size === size_bytes && (await sha256Of(path)) === sha256;

/** Brings the files into `folder`; returns how many had to be fetched. */
async function fetchInto(folder, base, entries, manifestBytes) {
  mkdirSync(folder, { recursive: true });
  const missing = [];
  for (const entry of entries) if (!(await isThere(join(folder, entry.file), entry))) missing.push(entry);
  const partial = (entry) => join(folder, `.${entry.file}.partial`);
  try {
    for (const entry of missing) await download(`${base}/${encodeURIComponent(entry.file)}`, entry, partial(entry));
    for (const entry of missing) renameSync(partial(entry), join(folder, entry.file));
  } finally {
    for (const entry of missing) rmSync(partial(entry), { force: true });
  }
  writeFileSync(join(folder, ".manifest.partial"), manifestBytes);
  renameSync(join(folder, ".manifest.partial"), join(folder, "manifest.json"));
  return missing.length;
}

/** What Gradle needs to make a Play AI pack of `folder`, whose name it has. */
function writeAiPack(folder) {
  const pack = basename(resolve(folder));
  if (!/^[A-Za-z][A-Za-z0-9_]*$/.test(pack)) refuse(`--aipack: ${pack}: a pack's name has letters, digits and _, a letter first`);
  mkdirSync(folder, { recursive: true });
  const delivery = 'dynamicDelivery { deliveryType = "fast-follow" }';
  const text = `plugins { id("com.android.ai-pack") }\n\naiPack {\n    packName = "${pack}"\n    ${delivery}\n}\n`;
  if (!existsSync(join(folder, "build.gradle.kts"))) writeFileSync(join(folder, "build.gradle.kts"), text);
}

async function main() {
  const options = parsed(process.argv.slice(2));
  const base = `${options.from.replace(/\/+$/, "")}/${options.name}/${options.version}`;
  const { bytes, manifest } = await manifestOf(`${base}/manifest.json`, options.sha256);
  const entries = wanted(manifest, options);
  if (options.aipack) writeAiPack(options.aipack);
  const folder = options.aipack ? join(options.aipack, "src/main/assets", options.name) : options.out;
  const count = await fetchInto(folder, base, entries, bytes);
  console.log(`${options.name}@${options.version}: ${count} of ${entries.length} files fetched into ${folder}`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof FetchError) && !error.code) throw error;
  console.error(`fetch-model: ${error.message}`);
  process.exitCode = 2;
}
