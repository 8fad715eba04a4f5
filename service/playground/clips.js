// The strip of clips: the samples, and a place to drop one's own.

import { el, icon } from "./dom.js";

export function clipStrip(clips, chosen, { choose, pick }) {
  const input = el("input", { type: "file", accept: "video/*", class: "unseen", id: "file", tabIndex: -1, "aria-label": "Your clip" });
  input.addEventListener("change", () => input.files[0] && pick(input.files[0]));
  const tiles = clips.map((clip) => el("button", {
    type: "button", class: "clip", title: clip.title, "aria-pressed": String(clip === chosen), onclick: () => choose(clip),
  },
  clip.sample ? el("img", { src: clip.sample.poster, alt: "", width: 56, height: 56 }) : el("span", { class: "clip-mark" }, icon("play")),
  el("span", { class: "clip-text" }, el("b", {}, clip.title), el("small", {}, clip.sample ? clip.sample.heard : "your clip"))));
  const another = clips.some((clip) => !clip.sample); // one's own has a tile already: room for a plus is enough
  const drop = el("button", {
    type: "button", class: `clip dashed ${another ? "small-tile" : ""}`, onclick: () => input.click(),
    "aria-label": another ? "Another clip of yours" : undefined,
  },
  el("span", { class: "clip-mark" }, icon("plus")),
  another ? null : el("span", { class: "clip-text" }, el("b", {}, "Your clip"), el("small", {}, "drop a video")));
  return [...tiles, drop, input];
}

/** Files may be dropped anywhere on the page. */
export function takeDrops(pick) {
  const root = document.documentElement;
  let depth = 0;
  const over = (change) => {
    depth = Math.max(0, depth + change);
    root.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", () => over(1));
  addEventListener("dragleave", () => over(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    const [file] = event.dataTransfer.files;
    if (file) pick(file);
  });
}
