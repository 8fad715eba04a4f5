// One take on the stage: its caption, its canvas, and what sounds just now.

import { el, icon, percent } from "./dom.js";
import { heatOf, layersOf } from "./paint.js";
import { namesOf, objectsOf } from "./take.js";

export class Pane {
  constructor(player, take, number) {
    Object.assign(this, { player, take, number });
    this.canvas = el("canvas", { role: "img", "aria-label": "The clip, with what sounds lit up" });
    this.canvas.addEventListener("click", () => player.toggle());
    this.context = this.canvas.getContext("2d");
    this.now = el("ul", { class: "now" });
    const hear = () => player.hear(number);
    this.ear = el("button", { type: "button", class: "chip ear", "aria-pressed": "false", onclick: hear }, icon("sound"), "Hear");
    this.caption = el("figcaption", {}, el("span", { class: "who" }), this.ear);
    this.element = el("figure", { class: "pane" }, this.caption, el("div", { class: "picture" }, this.canvas, this.now));
    this.shown = undefined;
    this.name();
  }

  name() {
    const { take } = this;
    this.caption.hidden = this.player.takes.length < 2;
    if (!take) return;
    const [strategy, sound] = namesOf(this.player.takes)[this.number];
    this.caption.firstChild.replaceChildren(el("b", {}, strategy), sound && ` ${sound}`);
    this.ear.setAttribute("aria-label", `Hear ${sound}`);
    this.ear.hidden = !sound;
  }

  listening(number) {
    this.ear.setAttribute("aria-pressed", String(number === this.number));
  }

  draw(time) {
    const { video, view, colours } = this.player;
    const frame = this.take && this.take.at(time);
    const [width, height] = this.size(frame);
    const box = this.canvas.getBoundingClientRect();
    const wide = Math.max(1, Math.min(1920, Math.round((box.width || width) * Math.min(2, devicePixelRatio))));
    const high = Math.max(1, Math.round((wide * height) / width));
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    this.canvas.parentElement.style.setProperty("--aspect", `${width} / ${height}`);
    this.canvas.parentElement.style.setProperty("--ratio", width / height);
    const { context } = this;
    context.globalAlpha = 1;
    context.fillStyle = "#0b0c0e";
    context.fillRect(0, 0, wide, high);
    if (video.videoWidth) context.drawImage(video, 0, 0, wide, high);
    if (frame) this.overlay(frame, wide, high, view, colours);
    this.tell(frame);
  }

  size(frame) {
    const { video } = this.player;
    if (video.videoWidth) return [video.videoWidth, video.videoHeight];
    return frame ? [frame.mask.size[1], frame.mask.size[0]] : [16, 9];
  }

  overlay(frame, wide, high, view, colours) {
    const { context } = this;
    const layers = layersOf(frame, colours, wide, high);
    const heat = view.heat && heatOf(frame, () => this.player.draw());
    const put = (canvas, alpha) => {
      context.globalAlpha = alpha;
      context.drawImage(canvas, 0, 0, wide, high);
    };
    if (heat) put(heat, 0.6);
    else if (view.spot) put(layers.veil, 0.68);
    if (view.tint) put(layers.tint, view.tint);
    if (view.edge) put(layers.edge, 1);
    context.globalAlpha = 1;
    if (view.labels) objectsOf(frame).forEach((object) => this.label(object, wide / frame.mask.size[1], colours));
  }

  label(object, scale, colours) {
    if (!object.bbox) return;
    const { context } = this;
    const size = Math.max(11, Math.round(12 * Math.min(2, devicePixelRatio)));
    const text = object.label;
    context.font = `600 ${size}px ${getComputedStyle(document.body).fontFamily}`;
    const width = context.measureText(text).width + size;
    const x = Math.min(Math.max(0, object.bbox[0] * scale), this.canvas.width - width);
    const y = Math.max(0, object.bbox[1] * scale - size * 1.7);
    context.fillStyle = colours.of(object.label);
    context.beginPath();
    context.roundRect(x, y, width, size * 1.6, size * 0.4);
    context.fill();
    context.fillStyle = "#101114";
    context.fillText(text, x + size / 2, y + size * 1.15);
  }

  /** What sounds just now, in words and numbers. */
  tell(frame) {
    const without = Boolean(this.player.view.heat && frame && !frame.heatmap && this.take.params.outputs?.heatmap);
    const key = frame || (this.take && this.take.status);
    if (key === this.shown && without === this.without) return;
    Object.assign(this, { shown: key, without });
    this.now.replaceChildren(...this.lines(frame));
    if (without) this.now.append(el("li", { class: "quiet-now" }, "This method makes no heat map."));
  }

  lines(frame) {
    if (!frame) return [];
    if (!frame.sounding) return [el("li", { class: "quiet-now" }, frame.reason || "Nothing in view sounds.")];
    const [height, width] = frame.mask.size;
    return objectsOf(frame).map((object) => {
      const dot = el("i", { class: "dot" });
      dot.style.setProperty("--colour", this.player.colours.of(object.label));
      const numbers = object.score === null
        ? `${percent(frame.area / (height * width))} of the picture`
        : `seen ${object.score.toFixed(2)}${object.audio_score === null ? "" : ` · heard ${object.audio_score.toFixed(2)}`}`;
      return el("li", {}, dot, el("b", {}, object.label), el("span", {}, numbers));
    });
  }
}
