// The image browser: one image at a time, with a line between two masks that a drag or the arrow keys move.
const browser = document.getElementById("browser");
const thumbs = [...browser.querySelectorAll(".strip button")];
const figure = browser.querySelector("figure");
const compare = browser.querySelector(".compare");
const slider = compare.querySelector("input");
const title = browser.querySelector(".title");
let current = 0;

function layer(source, part, alt) {
  const image = new Image();
  image.src = source;
  image.alt = alt;
  image.className = part;
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
  const thumb = thumbs[current];
  const chosen = browser.querySelector("input[name=left]:checked").value;
  const left = chosen in thumb.dataset ? chosen : chosen === "photo" ? "photo" : "teacher";
  const [photo, student] = [...thumb.querySelectorAll("img")].map((image) => image.src);
  const parts = [layer(photo, "photo", thumb.dataset.name)];
  if (left !== "photo") parts.push(layer(thumb.dataset[left], "left", "Mask of the " + left));
  parts.push(layer(student, "right", "Mask of the student"));
  const bar = document.createElement("span");
  bar.className = "bar";
  compare.replaceChildren(...parts, bar, tag(left, "l"), tag("student", "r"), slider);
  const shape = thumb.dataset.width / thumb.dataset.height;
  compare.style.aspectRatio = shape;
  compare.style.maxWidth = `min(100%, ${70 * shape}vh, 48rem)`;
  title.textContent = `${current + 1} of ${thumbs.length}: ${thumb.dataset.name}, ${thumb.dataset.iou}`;
  thumbs.forEach((other, index) => other.setAttribute("aria-pressed", index === current));
}

function show(index) {
  current = Math.min(Math.max(index, 0), thumbs.length - 1);
  draw();
  const strip = thumbs[current].closest(".strip");
  strip.scrollLeft = thumbs[current].parentElement.offsetLeft - strip.clientWidth / 2 + thumbs[current].offsetWidth / 2;
}

function move() {
  compare.style.setProperty("--at", slider.value + "%");
  slider.setAttribute("aria-valuetext", `${slider.value} % left, the student right`);
}

slider.addEventListener("input", move);
thumbs.forEach((thumb, index) => thumb.addEventListener("click", () => show(index)));
browser.querySelectorAll("[data-step]").forEach((button) =>
  button.addEventListener("click", () => show(current + Number(button.dataset.step))));
browser.querySelectorAll("input[name=left]").forEach((radio) => radio.addEventListener("change", draw));
figure.hidden = false;
move();
show(0);
