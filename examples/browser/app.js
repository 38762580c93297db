/** The page: a picture, a slider, and what the model makes of them. */

import { Model } from "./model.js";
import { readPixels } from "./preprocess.js";

const SAMPLE = "sample.jpg";
const CLASSES = 3;
const DIMMED = "rgb(18 18 22 / 82%)";

const element = (id) => document.getElementById(id);
const controls = ["file", "sample", "keep"].map(element);

let model;
let picture; // {bitmap, values, baseline}: as chosen, as the model takes it, milliseconds at keep 1
let busy = false;

/** The latest result and the pixels it is of, for tests and for the curious. */
globalThis.pcae = { result: null, values: null };

function say(state, text) {
  document.documentElement.dataset.state = state;
  element("status").textContent = text;
}

function fail(error) {
  say("error", error.message ?? String(error));
}

async function show(blob, name) {
  say("busy", `Reading ${name} ...`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is not a picture that this browser can read`);
  }
  const values = model.prepare(readPixels(bitmap));
  await model.run(values, 1); // the first run also sets up memory
  const baseline = (await model.run(values, 1)).milliseconds;
  picture = { bitmap, values, baseline, name };
  await update();
}

/** Run at the slider's ratio; while that lasts the slider may move on, and then only its last place counts. */
async function update() {
  if (busy || !picture) return;
  busy = true;
  try {
    let keep;
    do {
      keep = element("keep").valueAsNumber;
      await new Promise(requestAnimationFrame);
      const { values, name } = picture;
      const result = await model.run(values, keep);
      if (keep === 1) picture.baseline = result.milliseconds;
      draw(result, picture.baseline);
      globalThis.pcae = { result, values };
      say("ready", `${name}, ${model.grid} x ${model.grid} patches`);
    } while (element("keep").valueAsNumber !== keep);
  } finally {
    busy = false;
  }
}

function draw({ keptIds, milliseconds, logits }, baseline) {
  drawPicture(keptIds);
  const total = model.grid ** 2;
  element("kept").textContent = `${keptIds.length} of ${total}`;
  element("time").textContent = `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
  element("speedup").textContent = `${(baseline / milliseconds).toFixed(2)}×`;
  element("classes").hidden = logits === null;
  if (logits) element("classes").replaceChildren(...best(logits).map(line));
}

function drawPicture(keptIds) {
  const canvas = element("picture");
  const context = canvas.getContext("2d");
  const { width, height } = picture.bitmap;
  const side = Math.min(width, height);
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const corner = [(width - side) / 2, (height - side) / 2];
  context.drawImage(picture.bitmap, ...corner, side, side, 0, 0, canvas.width, canvas.height);
  const edge = (i) => Math.round((i * canvas.width) / model.grid); // whole pixels: no seams
  const kept = new Set(keptIds);
  context.fillStyle = DIMMED;
  for (let id = 0; id < model.grid ** 2; id++) {
    const [row, column] = [Math.floor(id / model.grid), id % model.grid];
    const [x, y] = [edge(column), edge(row)];
    if (!kept.has(id)) context.fillRect(x, y, edge(column + 1) - x, edge(row + 1) - y);
  }
}

function best(logits) {
  const top = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - top));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  const names = model.config.id2label ?? {};
  return exponentials
    .map((value, i) => ({ name: names[i] ?? `class ${i}`, probability: value / sum }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, CLASSES);
}

function line({ name, probability }) {
  const item = document.createElement("li");
  item.textContent = `${name}: ${(100 * probability).toFixed(1)}%`;
  return item;
}

async function showSample() {
  const answer = await fetch(SAMPLE);
  await show(await answer.blob(), "Sample picture");
}

element("keep").addEventListener("input", () => {
  element("keep-value").textContent = element("keep").valueAsNumber.toFixed(2);
  document.documentElement.dataset.state = "busy";
  update().catch(fail);
});
element("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) show(file, file.name).catch(fail);
});
element("sample").addEventListener("click", () => showSample().catch(fail));

try {
  model = await Model.load("model");
  controls.forEach((control) => (control.disabled = false));
  await showSample();
} catch (error) {
  fail(error);
}
