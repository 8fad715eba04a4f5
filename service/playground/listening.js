// The listening test: the same pictures with another sound, and how much of the masks stays.

import { el, icon, percent } from "./dom.js";
import { overlap } from "./rle.js";

/** Buttons for the sounds that may go under a clip, and a picker for one's own. */
export function soundButtons(clip, chosen, { choose, pick }) {
  const buttons = clip.sounds.map((sound) => el("button", {
    type: "button", class: "sound", "aria-pressed": String(sound === chosen), onclick: () => choose(sound),
  }, icon(sound.id === "silence" ? "mute" : "sound"), el("span", {}, el("b", {}, titleOf(sound)), el("small", {}, detailOf(clip, sound)))));
  const input = el("input", {
    type: "file", id: "sound-file", accept: "audio/*,video/*", class: "unseen", tabIndex: -1, "aria-label": "Your sound",
  });
  input.addEventListener("change", () => input.files[0] && pick(input.files[0]));
  const own = el("button", { type: "button", class: "sound dashed", onclick: () => input.click() },
    icon("plus"), el("span", {}, el("b", {}, "Your sound"), el("small", {}, "an audio file")));
  return [...buttons, own, input];
}

function titleOf(sound) {
  if (sound.own) return "Its own sound";
  return sound.id === "silence" ? "Mute" : "Swap";
}

function detailOf(clip, sound) {
  if (sound.own) return clip.sample ? clip.sample.heard : "as recorded";
  return sound.id === "silence" ? "no sound at all" : sound.title;
}

/** The share of the first take's masks that the second keeps, their IoU over all frames, and how many pixels the
 * first and the second lit; null until both are done. */
function agreement(one, other) {
  if (one.status !== "succeeded" || other.status !== "succeeded") return null;
  let both = 0;
  let either = 0;
  let first = 0;
  let second = 0;
  one.frames.forEach((frame, index) => {
    const match = other.frames[index];
    if (!match || frame.mask.size.join() !== match.mask.size.join()) return;
    first += frame.area;
    second += match.area;
    if (!frame.area && !match.area) return;
    const counted = overlap(frame.mask, match.mask);
    both += counted.both;
    either += counted.either;
  });
  return { kept: first ? both / first : 0, iou: either ? both / either : 1, first, second };
}

/** What the numbers say, in a sentence. */
export function verdictOf(one, other) {
  const found = agreement(one, other);
  if (!found) return null;
  if (one.strategy !== other.strategy) {
    return line(percent(found.iou), "overlap (IoU)", `between ${one.strategy} and ${other.strategy} on the same clip.`);
  }
  if (!found.first) return line("—", "nothing to keep", "Nothing was lit up with the clip's own sound.");
  const name = other.sound.id === "silence" ? "without any sound" : `with ${other.sound.title}`;
  if (!found.second && other.sound.id !== "silence") return line("—", "nothing to compare", `Nothing was lit up ${name}.`);
  const judged = found.kept > 0.8 ? "It hardly listens here: the masks stay where they were."
    : found.kept > 0.35 ? "It listens a little: a part of the masks moved."
      : other.sound.id === "silence" ? "It listens: without sound, little or nothing stays lit." : "It listens: the masks follow the sound.";
  return line(percent(found.kept), `of the masks stay ${name}`, judged);
}

function line(number, text, judged) {
  return [el("strong", {}, number), el("span", {}, el("b", {}, text), el("small", {}, judged))];
}
