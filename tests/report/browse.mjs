// Opens a report in headless Chromium as a reader would, and prints what it did as JSON:
//     node browse.mjs PLAYWRIGHT PAGE [SCREENSHOTS]
// PLAYWRIGHT is a package.json beside whose node_modules playwright-core lies. CHROMIUM names another browser.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [playwright, path, shots] = process.argv.slice(2);
const { chromium } = createRequire(playwright)("playwright-core");
const browser = await chromium.launch({
  timeout: 0,
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
});
const found = { complaints: [], requests: [] };

async function open(options) {
  const context = await browser.newContext({ offline: true, ...options });
  context.setDefaultTimeout(0);
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && found.complaints.push(message.text()));
  page.on("pageerror", (error) => found.complaints.push(String(error)));
  page.on("request", (request) => /^(file|data):/.test(request.url()) || found.requests.push(request.url()));
  await page.goto(pathToFileURL(path).href);
  return page;
}

const shoot = (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
const boxes = (page, which) => page.evaluate((all) => [...document.querySelectorAll(all)].map((each) => {
  const { left, right, top, bottom } = each.getBoundingClientRect();
  return [left, right, top, bottom];
}), which);
const width = (page) => page.evaluate(() => document.documentElement.scrollWidth);

{
  const wide = await open({ viewport: { width: 1200, height: 900 }, colorScheme: "light" });
  found.wide = await width(wide);
  found.light = await background(wide);
  await shoot(wide, "light");
  const slider = wide.locator(".compare input");
  if (await slider.count()) {
    const line = () => wide.evaluate(() => document.querySelector(".compare .bar").getBoundingClientRect().left);
    await slider.scrollIntoViewIfNeeded();
    const box = await wide.locator(".compare").boundingBox();
    const share = async () => ((await line()) - box.x) / box.width;
    found.pressed = await wide.locator('.cards [aria-pressed="true"]').getAttribute("data-name");
    found.images = await wide.locator(".compare > img").evaluateAll((all) => all.map((each) => each.naturalWidth));
    found.middle = await share();
    await slider.focus();
    for (let press = 0; press < 20; press++) await wide.keyboard.press("ArrowRight");
    found.keys = await share();
    await wide.mouse.move(box.x + 0.7 * box.width, box.y + 0.5 * box.height);
    await wide.mouse.down();
    await wide.mouse.move(box.x + 0.2 * box.width, box.y + 0.5 * box.height, { steps: 5 });
    await wide.mouse.up();
    found.dragged = await share();
    found.first = await wide.locator(".browser .title").textContent();
    await wide.locator('[data-step="1"]').press("Enter");
    found.second = await wide.locator(".browser .title").textContent();
    found.lefts = [];
    for (const radio of await wide.locator("input[name=left]").all()) {
      await radio.check();
      found.lefts.push(await wide.locator(".compare .tag.l").textContent());
    }
  }
  const dark = await open({ viewport: { width: 1200, height: 900 }, colorScheme: "dark" });
  found.dark = await background(dark);
  await shoot(dark, "dark");
  const phone = await open({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  found.phone = await width(phone);
  found.labels = await boxes(phone, ".plot .label");
  found.first_screen = await phone.evaluate(() => document.querySelector("#result .typical")?.getBoundingClientRect().bottom);
  await shoot(phone, "phone");
  const plain = await open({ viewport: { width: 360, height: 740 }, javaScriptEnabled: false });
  found.without_scripts = await plain.locator(".masked").evaluateAll((all) => all.map((each) => each.getBoundingClientRect().width > 60));
}
process.stdout.write(JSON.stringify(found), () => process.exit()); // which ends the browser too
