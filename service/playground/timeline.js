// What sounds when: the waveform, and under it a lane for each label of each take.

import { $, clock, el } from "./dom.js";
import { namesOf, objectsOf } from "./take.js";

const NOTHING = "nothing lit"; // its reason is the title of the stretch

export class Timeline {
  constructor(player) {
    this.player = player;
    this.wave = el("canvas", { class: "wave", "aria-hidden": "true" });
    this.lanes = el("div", { class: "lanes" });
    this.summary = el("ul", { class: "unseen" });
    this.head = el("div", { class: "playhead" });
    this.seek = el("input", { type: "range", class: "seek", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Position in the clip" });
    this.seek.addEventListener("input", () => player.seek(Number(this.seek.value)));
    $("timeline").append(
      el("div", { class: "lane wave-lane" }, el("span", { class: "lane-name" }, "sound"), el("div", { class: "track" }, this.wave)),
      this.lanes, el("div", { class: "over-tracks" }, this.head, this.seek), this.summary,
    );
    this.peaks = null;
    player.addEventListener("moment", () => this.move());
    player.video.addEventListener("loadedmetadata", () => this.show(this.takes || []));
    new ResizeObserver(() => this.drawWave()).observe(this.wave);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawWave());
  }

  move() {
    const { duration, time } = this.player;
    this.seek.max = duration || 1;
    if (document.activeElement !== this.seek || !this.player.video.paused) this.seek.value = time;
    this.seek.setAttribute("aria-valuetext", `${clock(time)} of ${clock(duration)}`);
    this.head.style.setProperty("left", `${duration ? (100 * time) / duration : 0}%`);
  }

  async hear(clip, sound) {
    this.peaks = null;
    this.drawWave();
    const peaks = await clip.peaks(sound);
    if (this.player.clip !== clip) return;
    this.peaks = peaks;
    this.shareOfSound = sound.seconds && this.player.duration ? Math.min(1, sound.seconds / this.player.duration) : 1;
    this.drawWave();
  }

  drawWave() {
    const { width, height } = this.wave.getBoundingClientRect();
    if (!width) return;
    const scale = Math.min(2, devicePixelRatio);
    Object.assign(this.wave, { width: width * scale, height: height * scale });
    const context = this.wave.getContext("2d");
    const style = getComputedStyle(this.wave);
    context.fillStyle = style.color;
    const middle = this.wave.height / 2;
    const bar = 3 * scale;
    const bars = Math.floor(this.wave.width / bar);
    const loudest = this.peaks ? Math.max(0.05, ...this.peaks) : 1;
    for (let i = 0; i < bars; i += 1) {
      const share = i / bars / (this.shareOfSound || 1);
      const level = this.peaks && share < 1 ? this.peaks[Math.floor(share * this.peaks.length)] / loudest : 0;
      const half = Math.max(scale / 2, level * middle * 0.94);
      context.fillRect(i * bar, middle - half, bar - scale, 2 * half);
    }
  }

  /** Lanes for what the takes have found so far. */
  show(takes) {
    this.takes = takes;
    const rows = [];
    const told = [];
    const names = namesOf(takes);
    takes.forEach((take, number) => {
      const found = spansOf(take);
      const title = takes.length > 1 ? names[number].filter(Boolean).join(", ") : null;
      if (title) rows.push(el("p", { class: "lane-title" }, title));
      for (const [label, spans] of found) {
        rows.push(this.lane(label, spans, label ? "track" : "track silent"));
        const times = spans.map(([from, to, why]) => `${clock(from)} to ${clock(to)}${why ? ` (${why})` : ""}`).join(", ");
        told.push(el("li", {}, `${title ? `${title}: ` : ""}${label || "nothing sounds"}: ${times}`));
      }
      if (takes[number + 1]?.sound !== take.sound) rows.push(...this.truth(take)); // once for two methods on one sound
    });
    this.lanes.replaceChildren(...rows);
    this.summary.replaceChildren(...told);
    this.move();
  }

  lane(label, spans, kind) {
    const { duration } = this.player;
    const track = el("div", { class: kind });
    for (const [from, to, why] of spans) {
      const span = el("i", { class: "span", title: why });
      span.style.setProperty("left", `${(100 * from) / (duration || 1)}%`);
      span.style.setProperty("width", `${(100 * (Math.min(to, duration || to) - from)) / (duration || 1)}%`);
      if (label) span.style.setProperty("--colour", this.player.colours.of(label));
      track.append(span);
    }
    return el("div", { class: "lane" }, el("span", { class: "lane-name", title: label || NOTHING }, label || NOTHING), track);
  }

  /** Of a sample it is known what really sounds: thin lanes, to compare with. */
  truth(take) {
    const { truth } = take.sound;
    if (!truth || !take.frames.length) return [];
    const lanes = Object.entries(truth).map(([label, spans]) => this.lane(label, spans, "track thin"));
    return [el("p", { class: "lane-title soft" }, lanes.length ? "what really sounds" : "nothing really sounds"), ...lanes];
  }
}

/** Stretches of time by label, in the order in which labels come; "" is where nothing sounds, with the reason. */
function spansOf(take) {
  const found = new Map();
  take.frames.forEach((frame, index) => {
    const labels = frame.sounding ? new Set(objectsOf(frame).map((object) => object.label)) : new Set([""]);
    for (const label of labels) {
      if (!found.has(label)) found.set(label, []);
      const spans = found.get(label);
      const last = spans[spans.length - 1];
      const why = label ? undefined : frame.reason;
      if (last && Math.abs(last[1] - frame.timestamp) < 0.001 && last[2] === why) last[1] = take.until(index);
      else spans.push([frame.timestamp, take.until(index), why]);
    }
  });
  const silent = found.get("");
  found.delete("");
  if (silent) found.set("", silent);
  return found;
}
