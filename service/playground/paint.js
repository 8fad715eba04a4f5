// Masks as pictures: per frame a tint, an outline and a veil over everything that is silent, each made once.

import { blobOf, paintRuns, pixelsOf } from "./rle.js";
import { objectsOf } from "./take.js";

const WIDEST = 960; // pixels of a layer; finer than that nobody sees on a stage
const PALETTE = ["#ff5a36", "#19c3b2", "#ffc233", "#8f7bff", "#4aa8ff", "#ff5fb0", "#7bd651", "#d99a5b"];

/** A colour for each label, in the order in which labels are first met; two takes share them. */
export class Colours {
  constructor() {
    this.known = new Map();
  }

  of(label) {
    if (!this.known.has(label)) this.known.set(label, PALETTE[this.known.size % PALETTE.length]);
    return this.known.get(label);
  }
}

const layers = new WeakMap();
const heats = new WeakMap();

/** The layers of a frame: canvases in the aspect of the frame. */
export function layersOf(frame, colours) {
  if (!layers.has(frame)) layers.set(frame, painted(frame, colours));
  return layers.get(frame);
}

function painted(frame, colours) {
  const [height, width] = frame.mask.size;
  const objects = objectsOf(frame).map((object) => ({ object, colour: channels(colours.of(object.label)) }));
  const owner = ownersOf(objects.map(({ object }) => object.mask), height, width);
  const step = Math.max(1, Math.ceil(width / WIDEST));
  const columns = Math.ceil(width / step);
  const rows = Math.ceil(height / step);
  const [tint, edge, veil] = [0, 1, 2].map(() => new ImageData(columns, rows));
  const reach = Math.max(1, Math.round(columns / 320));
  const at = (row, column) =>
    row < 0 || column < 0 || row >= rows || column >= columns ? 0 : owner[row * step * width + column * step];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const here = at(row, column);
      const place = 4 * (row * columns + column);
      if (!here) {
        veil.data[place + 3] = 255;
        continue;
      }
      const { colour } = objects[here - 1];
      put(tint.data, place, colour);
      const inner = at(row - reach, column) === here && at(row + reach, column) === here
        && at(row, column - reach) === here && at(row, column + reach) === here;
      if (!inner) put(edge.data, place, colour);
    }
  }
  return { tint: canvasOf(tint), edge: canvasOf(edge), veil: canvasOf(veil) };
}

/** Who owns each pixel, as 1 + the number of an object; the smaller object lies on top. */
function ownersOf(masks, height, width) {
  const owner = new Uint8Array(height * width);
  const sized = masks.map((mask, number) => ({ mask, number, area: pixelsOf(mask).reduce((sum, one) => sum + one, 0) }));
  sized.sort((one, other) => other.area - one.area);
  for (const { mask, number } of sized) {
    if (mask.pixels) mask.pixels.forEach((set, i) => { if (set) owner[i] = number + 1; });
    else paintRuns(mask, owner, number + 1);
  }
  return owner;
}

function put(data, place, [red, green, blue]) {
  data[place] = red;
  data[place + 1] = green;
  data[place + 2] = blue;
  data[place + 3] = 255;
}

function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

function canvasOf(pixels) {
  const canvas = document.createElement("canvas");
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/** The heat map of a frame as a canvas, or null; `ready` is called when one that was asked for has come. */
export function heatOf(frame, ready) {
  if (!frame.heatmap) return null;
  if (!heats.has(frame)) {
    heats.set(frame, null);
    createImageBitmap(blobOf(frame.heatmap.data)).then((image) => {
      heats.set(frame, glowing(image));
      ready();
    });
  }
  return heats.get(frame);
}

// Dark violet to yellow through red; grey levels in between are mixed.
const GLOW = [[18, 8, 60], [110, 20, 110], [220, 50, 80], [250, 140, 40], [252, 240, 140]];

function glowing(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const level = (pixels.data[i] / 255) * (GLOW.length - 1);
    const below = Math.min(Math.floor(level), GLOW.length - 2);
    const mixed = GLOW[below].map((value, c) => value + (GLOW[below + 1][c] - value) * (level - below));
    put(pixels.data, i, mixed);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
