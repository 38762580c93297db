/** Pictures to pixel_values, as preprocessor_config.json says and Pillow computes. */

/** Pixels of an ImageBitmap on white: {width, height, data}, RGBA. */
export function readPixels(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/**
 * The centred square, resized and normalised: Float32Array (1, C, size, size).
 * Throws an Error for settings other than those that pcae export writes.
 */
export function pixelValues(pixels, config) {
  const size = config.crop_size.height;
  if (config.resample !== 3 || size !== config.crop_size.width || size !== config.size.shortest_edge) {
    throw new Error("preprocessor_config.json asks for other than a bicubic, centred square");
  }
  const planes = config.image_mean.length === 1 ? [greys(pixels)] : [0, 1, 2].map((channel) => plane(pixels, channel));
  const { width, height } = pixels;
  const side = Math.min(width, height);
  const across = weights(width, (width - side) / 2, side, size);
  const down = weights(height, (height - side) / 2, side, size);
  const values = new Float32Array(planes.length * size * size);
  planes.forEach((source, channel) => {
    const squeezed = resizeRows(source, width, height, across);
    const square = transpose(resizeRows(transpose(squeezed, size, height), height, size, down), size, size);
    square.forEach((value, i) => {
      const scaled = value * config.rescale_factor;
      values[channel * size * size + i] = (scaled - config.image_mean[channel]) / config.image_std[channel];
    });
  });
  return values;
}

function plane({ width, height, data }, channel) {
  const values = new Uint8ClampedArray(width * height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i + channel];
  return values;
}

/** ITU-R 601-2 luma in Pillow's fixed-point arithmetic. */
function greys({ width, height, data }) {
  const values = new Uint8ClampedArray(width * height);
  for (let i = 0; i < values.length; i++) {
    const at = 4 * i;
    values[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
  }
  return values;
}

function cubic(x) {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/** For each of `count` places along `length` samples: the first sample and the weights from there on. */
function weights(length, start, span, count) {
  const scale = span / count;
  const widening = Math.max(scale, 1); // a filter as wide as the step keeps fine detail from aliasing
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * widening + 0.5));
    const end = Math.min(length, Math.trunc(centre + 2 * widening + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) => cubic((first + k - centre + 0.5) / widening));
    const sum = raw.reduce((total, weight) => total + weight, 0);
    return { first, values: raw.map((weight) => weight / sum) };
  });
}

/** Each row of (height, width) to the places of `filters`: Uint8ClampedArray (height, filters.length). */
function resizeRows(source, width, height, filters) {
  const resized = new Uint8ClampedArray(height * filters.length);
  for (let y = 0; y < height; y++) {
    filters.forEach(({ first, values }, x) => {
      let sum = 0;
      for (let k = 0; k < values.length; k++) sum += values[k] * source[y * width + first + k];
      resized[y * filters.length + x] = Math.floor(sum + 0.5);
    });
  }
  return resized;
}

function transpose(source, width, height) {
  const turned = new Uint8ClampedArray(source.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) turned[x * height + y] = source[y * width + x];
  }
  return turned;
}
