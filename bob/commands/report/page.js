"use strict";
// Rows become pictures only near the visible part of the page, so that a page of ten thousand opens quickly.
const data = JSON.parse(document.getElementById("data").textContent);
const thumbnails = document.getElementById("thumbnails").textContent.split("\n");
const CHUNK = 240; // pictures added at a time
const OPTIONS = 500; // most suggestions of a text field
const $ = (id) => document.getElementById(id);
const [grid, filters, detail] = [$("grid"), $("filters"), $("detail")];

const images = data.images.map((row, index) => {
  const [set, classId, name, prompt, negative, background, pose, how, label, seed, sources, width, height] = row;
  const text = (number) => data.texts[number];
  const { dataset, method, setting, checkpoint, classes, split } = data.sets[set];
  return {
    index, set, dataset, method, setting, checkpoint, split, seed, width, height,
    class: text(classes[classId]), name: text(name), prompt: text(prompt), negative: text(negative),
    background: text(background), pose: text(pose), how: text(how), label: text(label), sources: sources.map(text),
  };
});
const real = new Map(); // a shot's split and id -> its picture
for (const image of images) if (!image.how) real.set(image.split + "\n" + image.name, image);

const EXACT = ["dataset", "method", "setting", "checkpoint", "class"];
const PART = ["background", "pose", "prompt"];
const folded = images.map((image) => PART.map((name) => image[name].toLowerCase()));

let shown = images; // images that pass the filters
let built = 0; // number of shown images on the page
let current = 0; // index in `shown` of the focused or open image

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function picture(image, alt) {
  const source = "data:image/webp;base64," + thumbnails[image.index];
  return element("img", { src: source, alt, className: Math.max(image.width, image.height) <= data.tiny ? "tiny" : "" });
}

function option(value, text = value) {
  return element("option", { value, textContent: text });
}

function distinct(name) {
  const counts = new Map();
  for (const image of images) if (image[name]) counts.set(image[name], (counts.get(image[name]) ?? 0) + 1);
  return counts;
}

function fillFilters() {
  for (const name of EXACT) {
    const values = [...distinct(name).keys()];
    const select = filters.elements[name];
    select.append(option("", "all"), ...values.map((value, place) => option(String(place + 1), value)));
    select.parentElement.hidden = values.length < 2;
  }
  for (const name of PART) {
    const values = [...distinct(name)].sort((one, other) => other[1] - one[1]);
    filters.elements[name].parentElement.hidden = !values.length;
    if (name !== "prompt") filters.elements[name].list.append(...values.slice(0, OPTIONS).map(([value]) => option(value)));
  }
}

function apply() {
  const exact = EXACT.map((name) => filters.elements[name])
    .filter((select) => select.value)
    .map((select) => [select.name, select.selectedOptions[0].textContent]);
  const parts = PART.map((name) => filters.elements[name].value.trim().toLowerCase());
  shown = images.filter((image) =>
    exact.every(([name, value]) => image[name] === value) &&
    parts.every((part, place) => !part || folded[image.index][place].includes(part)));
  built = 0;
  current = 0;
  grid.replaceChildren();
  extend(CHUNK);
  watch();
  const count = (number) => number.toLocaleString("en");
  $("count").textContent = shown.length
    ? `${count(shown.length)} of ${count(images.length)} pictures.`
    : images.length ? "No picture fits these filters." : "No pictures yet.";
}

function extend(count) {
  const fragment = document.createDocumentFragment();
  for (; built < Math.min(count, shown.length); built++) {
    const [before, image] = [shown[built - 1], shown[built]];
    const otherClass = before?.class !== image.class || before.dataset !== image.dataset;
    if (otherClass) fragment.append(element("h3", { textContent: image.class }));
    if (otherClass || before.set !== image.set) {
      const dataset = filters.elements.dataset.parentElement.hidden ? "" : image.dataset;
      const parts = [image.method, image.setting, image.checkpoint, dataset].filter(Boolean);
      fragment.append(element("h4", { textContent: parts.join(", ") }));
    }
    const words = [image.class, image.method, image.prompt || image.background, image.name].filter(Boolean);
    const button = element("button", { type: "button", tabIndex: built === current ? 0 : -1 }, picture(image, ""));
    button.setAttribute("aria-label", words.join(", "));
    button.dataset.place = built;
    fragment.append(button);
  }
  grid.append(fragment);
}

const observer = new IntersectionObserver((seen) => {
  if (!seen.some((entry) => entry.isIntersecting) || built >= shown.length) return;
  extend(built + CHUNK);
  watch();
}, { rootMargin: "1200px" });

// Observes again: the observer reports changes only, and the end of the pictures may still be near.
function watch() {
  observer.unobserve($("more"));
  observer.observe($("more"));
}

function button(place) {
  if (place >= built) extend(place + CHUNK);
  return grid.querySelector(`button[data-place="${place}"]`);
}

function choose(place) {
  button(current).tabIndex = -1;
  current = place;
  const chosen = button(place);
  chosen.tabIndex = 0;
  chosen.focus();
}

// Returns the nearest picture in the next line; lines differ in length and headings lie between them.
function below(place, step) {
  const from = button(place);
  let best = -1;
  let line = null;
  for (let k = place + step; k >= 0 && k < shown.length; k += step) {
    const candidate = button(k);
    if (candidate.offsetTop === from.offsetTop) continue;
    line ??= candidate.offsetTop;
    if (candidate.offsetTop !== line) break;
    const distance = (other) => Math.abs(other.offsetLeft - from.offsetLeft);
    if (best < 0 || distance(candidate) < distance(button(best))) best = k;
  }
  return best < 0 ? place : best;
}

function moved(key, place) {
  switch (key) {
    case "ArrowLeft": return Math.max(0, place - 1);
    case "ArrowRight": return Math.min(shown.length - 1, place + 1);
    case "ArrowUp": return below(place, -1);
    case "ArrowDown": return below(place, 1);
    case "Home": return 0;
    case "End": return shown.length - 1;
    default: return null;
  }
}

function sourcePictures(image) {
  return image.sources.map((name) => {
    const source = real.get(image.split + "\n" + name);
    return element("div", {}, ...(source ? [picture(source, "Real image that the drawn image starts from")] : []), name);
  });
}

function open(place) {
  current = place;
  const image = shown[place];
  $("detail-title").textContent = `${image.class}, ${image.method}`;
  const large = picture(image, image.prompt || image.class);
  large.id = "detail-image";
  $("detail-image").replaceWith(large);
  const facts = [
    ["Prompt", image.prompt], ["Negative prompt", image.negative],
    ["Background", image.background], ["Pose", image.pose],
    ["Source", image.sources.length ? sourcePictures(image) : ""],
    ["Seed", image.seed], ["Drawn by", image.how], ["Label", image.label],
    ["Data set", image.dataset], ["Setting", image.setting], ["Checkpoint", image.checkpoint],
    ["Image", image.name], ["Size", `${image.width} × ${image.height} px`],
  ];
  $("detail-text").replaceChildren(...facts.filter(([, value]) => value.length).flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", {}, ...[value].flat())]));
  for (const step of detail.querySelectorAll("[data-step]")) {
    step.disabled = !shown[place + Number(step.dataset.step)];
  }
  if (!detail.open) detail.showModal();
}

grid.addEventListener("click", (event) => {
  const clicked = event.target.closest("button");
  if (!clicked) return;
  choose(Number(clicked.dataset.place));
  open(current);
});
grid.addEventListener("keydown", (event) => {
  const place = moved(event.key, current);
  if (place === null || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  choose(place);
});
document.addEventListener("keydown", (event) => { // on the document, because a disabled button loses the focus
  if (!detail.open) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && shown[current + step]) open(current + step);
});
detail.addEventListener("click", (event) => {
  const step = event.target.closest("[data-step]");
  if (step) open(current + Number(step.dataset.step));
  if (event.target === detail) detail.close(); // the backdrop
});
$("close").addEventListener("click", () => detail.close());
detail.addEventListener("close", () => {
  for (const other of grid.querySelectorAll('button[tabindex="0"]')) other.tabIndex = -1;
  choose(current);
});
filters.addEventListener("input", apply);
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("reset", () => setTimeout(apply)); // the fields are empty only after this event

const dark = matchMedia("(prefers-color-scheme: dark)");
function isDark() {
  return (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
}
function nameTheme() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
}
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
dark.addEventListener("change", nameTheme);

nameTheme();
fillFilters();
apply();
