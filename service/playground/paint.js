// Masks as pictures: per frame a tint, an outline and a veil over everything that is silent, each made once.

import { blobOf, paintRuns } from "./rle.js";
import { objectsOf } from "./take.js";

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

/** The layers of a frame for a stage of this size. */
export function layersOf(frame, colours, wide, high) {
  const known = layers.get(frame);
  if (known && known.wide === wide && known.high === high) return known;
  const painted = { wide, high, ...paint(frame, colours, wide, high) };
  layers.set(frame, painted);
  return painted;
}

/** Masks are enlarged as pictures, so that their edges are smooth at any size. */
function paint(frame, colours, wide, high) {
  const stamps = stampsOf(frame, colours);
  const tint = blank(wide, high);
  const edge = blank(wide, high);
  const veil = blank(wide, high);
  const reach = Math.max(1.5, wide / 320);
  veil.context.fillRect(0, 0, wide, high);
  veil.context.globalCompositeOperation = "destination-out";
  for (const stamp of stamps) {
    tint.context.drawImage(stamp, 0, 0, wide, high);
    edge.context.drawImage(outline(stamp, wide, high, reach), 0, 0);
    veil.context.drawImage(stamp, 0, 0, wide, high);
  }
  return { tint: tint.canvas, edge: edge.canvas, veil: veil.canvas };
}

/** Each object of a frame in its colour, as large as its mask; the smaller ones come last, on top. */
function stampsOf(frame, colours) {
  const [height, width] = frame.mask.size;
  const stamps = objectsOf(frame).map((object) => {
    const pixels = new Uint32Array(width * height);
    const [red, green, blue] = channels(colours.of(object.label));
    const colour = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // bytes in memory are R, G, B, A
    if (object.mask.pixels) object.mask.pixels.forEach((set, i) => { if (set) pixels[i] = colour; });
    else paintRuns(object.mask, pixels, colour);
    const { canvas, context } = blank(width, height);
    context.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
    return { canvas, area: pixels.reduce((sum, one) => sum + (one ? 1 : 0), 0) };
  });
  return stamps.sort((one, other) => other.area - one.area).map((one) => one.canvas);
}

/** A line around a stamp: the stamp moved a little in every direction, less the stamp. */
function outline(stamp, wide, high, reach) {
  const { canvas, context } = blank(wide, high);
  for (let turn = 0; turn < 16; turn += 1) {
    const angle = (turn * Math.PI) / 8;
    context.drawImage(stamp, reach * Math.cos(angle), reach * Math.sin(angle), wide, high);
  }
  context.globalCompositeOperation = "destination-out";
  context.drawImage(stamp, 0, 0, wide, high);
  return canvas;
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  return { canvas, context: canvas.getContext("2d") };
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
