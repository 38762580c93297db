/** An exported model on ONNX Runtime Web. */

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

import { pixelValues } from "./preprocess.js";

ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send

const RUNS = 5;
const LONG_ENOUGH_MS = 300;

async function read(url) {
  const answer = await fetch(url, { cache: "no-cache" }); // a new export under the old name is to be seen
  if (!answer.ok) throw new Error(`${url} is missing; export a model first, as README.md says`);
  return answer;
}

export class Model {
  /** From a folder that pcae export --dynamic-keep has written. */
  static async load(folder) {
    const [file, config, preprocessing] = await Promise.all([
      read(`${folder}/model.onnx`).then((answer) => answer.arrayBuffer()),
      read(`${folder}/config.json`).then((answer) => answer.json()),
      read(`${folder}/preprocessor_config.json`).then((answer) => answer.json()),
    ]);
    const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
    if (!session.inputNames.includes("keep")) {
      throw new Error("the model has no keep ratio to set; export with --dynamic-keep, and without --keep-default");
    }
    return new Model(session, config, preprocessing);
  }

  constructor(session, config, preprocessing) {
    this.session = session;
    this.config = config;
    this.shape = config.pcae.model;
    this.preprocessing = preprocessing;
    this.grid = this.shape.image_size / this.shape.patch_size; // patches in a row
  }

  /** pixel_values of a picture that `readPixels` has read. */
  prepare(pixels) {
    return pixelValues(pixels, this.preprocessing);
  }

  /**
   * One picture at one keep ratio, timed.
   * Resolves to {keep, keptIds, logits, hidden, milliseconds}: the median of a few runs; logits is null without a head.
   */
  async run(values, keep) {
    const { in_chans: channels, image_size: size } = this.shape;
    const feeds = {
      pixel_values: new ort.Tensor("float32", values, [1, channels, size, size]),
      keep: new ort.Tensor("float32", [keep], []),
    };
    const times = [];
    let outputs;
    do {
      const start = performance.now();
      outputs = await this.session.run(feeds);
      times.push(performance.now() - start);
    } while (times.length < RUNS && times.reduce((sum, time) => sum + time, 0) < LONG_ENOUGH_MS);
    return {
      keep,
      keptIds: Array.from(outputs.kept_ids.data, Number),
      logits: outputs.logits ? Array.from(outputs.logits.data) : null,
      hidden: Array.from(outputs.last_hidden_state.data),
      milliseconds: times.sort((a, b) => a - b)[times.length >> 1],
    };
  }
}
