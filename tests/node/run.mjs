/** node run.mjs MODEL JOBS.json: an exported model in onnxruntime-node; prints what each job gives as JSON. */

import { readFileSync } from "node:fs";

import ort from "onnxruntime-node";

const [model, jobs] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
const found = [];
for (const { pixels, shape, keep } of JSON.parse(readFileSync(jobs, "utf8"))) {
  const outputs = await session.run({
    pixel_values: new ort.Tensor("float32", Float32Array.from(pixels), shape),
    keep: new ort.Tensor("float32", [keep], []),
  });
  found.push({
    keptIds: Array.from(outputs.kept_ids.data, Number),
    hidden: Array.from(outputs.last_hidden_state.data),
  });
}
console.log(JSON.stringify(found));
