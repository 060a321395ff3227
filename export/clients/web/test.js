// Opens the page in headless Chromium as a person would, on the output folder of `compress run`: node test.js RUN [PHOTO]
// Prints what it found as JSON; exit code 1 when the page failed. CHROMIUM names another browser, SCREENSHOT a file.

import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const [run, photo] = process.argv.slice(2);
const types = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  const file = path.startsWith("/run/") ? join(run, path.slice(5)) : join(here, path);
  if (!existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" });
  createReadStream(file).pipe(response);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

const browser = await chromium.launch({
  timeout: 0, // a busy machine is no failure
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    ...["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
    ...["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
  ],
});

async function opened(host) {
  const page = await browser.newPage();
  page.setDefaultTimeout(0);
  page.on("console", (message) => console.error(message.text()));
  await page.goto(`http://${host}:${server.address().port}/index.html?run=run`);
  return [page, await page.evaluate(() => window.finished)];
}

/** What lies on the canvas: its size, and how many colours the edge of the mask has. */
const shown = (page, count) =>
  page.waitForFunction((least) => Number(document.querySelector("#shown").dataset.shown ?? 0) >= least, count).then(() =>
    page.evaluate(() => {
      const { width, height } = document.querySelector("#shown");
      const { data } = document.querySelector("#shown").getContext("2d").getImageData(0, 0, width, height);
      const colours = new Set();
      for (let i = 0; i < data.length; i += 4) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
      return { width, height, colours: colours.size };
    }),
  );

/** The photograph in every file, one after the other, then the camera. */
async function used(page) {
  await page.setInputFiles("#photo", photo);
  const files = {};
  for (const [place, format] of (await page.locator("#format option").evaluateAll((all) => all.map((each) => each.value))).entries()) {
    if (place) await page.selectOption("#format", format);
    files[format] = { ...(await shown(page, place + 1)), mask: await page.evaluate(() => [...window.mask]) };
  }
  const second = await page.evaluate(async () => {
    const { fetchChecked, openTflite } = await import("./segment.js");
    const entry = (await (await fetch("run/manifest.json")).json()).files.find((each) => each.format === "tflite");
    return entry ? typeof (await openTflite(await fetchChecked("run", entry), entry, "elsewhere/")) : null;
  });
  await page.click("#camera");
  const camera = await shown(page, Object.keys(files).length + 2);
  await page.click("#stop");
  return { files, second, camera };
}

try {
  const [page, outcome] = await opened("127.0.0.1");
  if (photo && !outcome.error) Object.assign(outcome, await used(page));
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
  const [plain] = photo ? await opened("plain.test") : [];
  if (plain) outcome.plain = await plain.textContent("#lines");
  console.log(JSON.stringify(outcome));
  process.exitCode = outcome.error ? 1 : 0;
} finally {
  await browser.close();
  server.close();
}
