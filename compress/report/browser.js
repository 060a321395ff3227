// The picture browser: one picture at a time, with a line between two masks that a drag or the arrow keys move.
const browser = document.getElementById("browser");
const cards = [...browser.querySelectorAll(".cards button")].sort((a, b) => a.dataset.rank - b.dataset.rank);
const figure = browser.querySelector("figure");
const compare = browser.querySelector(".compare");
const slider = compare.querySelector("input");
const title = browser.querySelector(".title");
const stored = (part, rank) => document.getElementById(`${part}-${rank}`);
let current = 0;

function layer(part, side, alt) {
  const image = new Image();
  image.src = stored(part, current).getAttribute("href");
  image.alt = alt;
  image.className = side;
  image.draggable = false;
  return image;
}

function tag(words, side) {
  const span = document.createElement("span");
  span.className = "tag " + side;
  span.textContent = words;
  return span;
}

function draw() {
  const { name, iou, sides } = cards[current].dataset;
  const chosen = browser.querySelector("input[name=left]:checked").value;
  const left = chosen === "photo" || sides.split(" ").includes(chosen) ? chosen : sides.split(" ")[0];
  const parts = [layer("photo", "photo", name)];
  if (left !== "photo") parts.push(layer(left, "left", "Mask of the " + left));
  parts.push(layer("student", "right", "Mask of the student"));
  const bar = document.createElement("span");
  bar.className = "bar";
  compare.replaceChildren(...parts, bar, tag(left, "l"), tag("student", "r"), slider);
  const photo = stored("photo", current);
  const shape = photo.getAttribute("width") / photo.getAttribute("height");
  compare.style.aspectRatio = shape;
  compare.style.maxWidth = `min(100%, ${70 * shape}vh, 48rem)`;
  title.textContent = `${name}, ${iou}: number ${current + 1} of ${cards.length} from the worst`;
  cards.forEach((card, index) => card.setAttribute("aria-pressed", index === current));
}

function show(index) {
  current = Math.min(Math.max(index, 0), cards.length - 1);
  draw();
}

function move() {
  compare.style.setProperty("--at", slider.value + "%");
  slider.setAttribute("aria-valuetext", `${slider.value} % left, the student right`);
}

slider.addEventListener("input", move);
cards.forEach((card, index) => card.addEventListener("click", () => {
  show(index);
  figure.scrollIntoView({ block: "nearest" });
}));
browser.querySelectorAll("[data-step]").forEach((button) =>
  button.addEventListener("click", () => show(current + Number(button.dataset.step))));
browser.querySelectorAll("input[name=left]").forEach((radio) => radio.addEventListener("change", draw));
figure.hidden = false;
move();
show(Number(browser.dataset.first));
