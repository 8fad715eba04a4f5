// COCO's compressed run lengths: five bits a character, lowest first, runs down the columns, zeros first.

/** Run lengths of `counts`; from the fourth on, a number is the difference to the run two before. */
function runsOf(counts) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let number = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const bits = counts.charCodeAt(at) - 48;
      number += (bits & 31) * 2 ** shift; // not <<: a long run of a large picture passes 31 bits of shift
      more = (bits & 32) !== 0;
      at += 1;
      shift += 5;
      if (!more && bits & 16) number -= 2 ** shift;
    }
    runs.push(runs.length > 2 ? number + runs[runs.length - 2] : number);
  }
  return runs;
}

/** Writes `value` where the mask is set into `target`, which is row-major [height * width]. */
export function paintRuns(mask, target, value) {
  const [height, width] = mask.size;
  let at = 0;
  let inside = false;
  for (const run of runsOf(mask.counts)) {
    if (inside) {
      for (let i = at; i < at + run; i += 1) target[(i % height) * width + Math.floor(i / height)] = value;
    }
    at += run;
    inside = !inside;
  }
}

/** The mask as bytes of 0 and 1, row-major. */
export function pixelsOf(mask) {
  if (mask.pixels) return mask.pixels; // a PNG, decoded when it came
  const target = new Uint8Array(mask.size[0] * mask.size[1]);
  paintRuns(mask, target, 1);
  return target;
}

/** Pixels set in both, and in either. */
export function overlap(one, other) {
  const first = pixelsOf(one);
  const second = pixelsOf(other);
  if (first.length !== second.length) return { both: 0, either: 0 };
  let both = 0;
  let either = 0;
  for (let i = 0; i < first.length; i += 1) {
    both += first[i] & second[i];
    either += first[i] | second[i];
  }
  return { both, either };
}

/** A PNG mask (base64) becomes pixels as soon as it arrives, because browsers decode pictures in their own time. */
export async function unpackPng(mask) {
  const image = await createImageBitmap(blobOf(mask.data));
  const [height, width] = mask.size;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  mask.pixels = Uint8Array.from({ length: width * height }, (_, i) => (data[4 * i] > 127 ? 1 : 0));
}

export function blobOf(base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}
