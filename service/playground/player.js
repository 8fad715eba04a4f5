// The stage: one video, drawn into a canvas for each take, so that two takes can never run apart.

import { $, clock, el, icon } from "./dom.js";
import { heatOf, layersOf } from "./paint.js";
import { objectsOf } from "./take.js";

const DRIFT = 0.08; // seconds that a swapped sound may be off before it is put right

export class Player extends EventTarget {
  constructor(colours) {
    super();
    this.colours = colours;
    this.video = el("video", { playsInline: true, preload: "auto", class: "unseen", tabIndex: -1, "aria-hidden": "true" });
    this.video.loop = true;
    this.audio = el("audio", { preload: "auto" });
    this.clip = null;
    this.takes = [];
    this.heard = 0; // which take is listened to
    this.silenced = false;
    this.view = { spot: true, edge: true, labels: true, heat: false, tint: 0.2 };
    this.panes = [];
    this.stage = $("stage");
    this.film = el("div", { class: "film" });
    this.glow = el("canvas", { class: "glow", width: 6, height: 6, "aria-hidden": "true" });
    this.stage.append(this.video, this.glow, this.film);
    this.transport();
    for (const event of ["play", "pause", "seeked", "loadeddata"]) {
      this.video.addEventListener(event, () => this.follow());
    }
    this.video.addEventListener("error", () => this.unplayable());
    const draw = () => {
      if (!this.video.paused) this.draw();
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
    new ResizeObserver(() => this.draw()).observe(this.film);
  }

  get time() {
    return this.video.currentTime || 0;
  }

  /** Seconds of the clip; what the service says counts where the browser cannot play it. */
  get duration() {
    const { duration } = this.video;
    if (Number.isFinite(duration) && duration > 0) return duration;
    const known = this.clip && [...this.clip.uploads.values()][0];
    return known ? known.duration : 0;
  }

  async load(clip) {
    this.clip = clip;
    this.playable = true;
    this.video.pause();
    const address = await clip.address();
    if (this.clip !== clip) return;
    this.video.src = address;
    this.video.load(); // the first picture is wanted before anybody presses play
  }

  unplayable() {
    this.playable = false;
    this.draw();
  }

  /** Which takes are on the stage, one or two. */
  show(takes) {
    this.takes = takes;
    this.heard = takes.length > 1 && !takes[1].sound.own ? 1 : 0;
    this.panes = takes.length ? takes.map((take, number) => new Pane(this, take, number)) : [new Pane(this, null, 0)];
    this.film.replaceChildren(...this.panes.map((pane) => pane.element));
    this.film.dataset.panes = this.panes.length;
    this.hear(this.heard);
    this.draw();
  }

  /** Listen to one of the takes: the video's own sound, or the one that was put under it. */
  async hear(number) {
    this.heard = number;
    const take = this.takes[number];
    const own = !take || take.sound.own;
    this.video.muted = this.silenced || !own;
    if (own) {
      this.audio.pause();
      this.audio.removeAttribute("src");
    } else {
      const { sound } = take;
      sound.address ||= URL.createObjectURL(await sound.data());
      if (this.takes[this.heard] !== take) return;
      if (this.audio.src !== sound.address) this.audio.src = sound.address;
      this.audio.muted = this.silenced;
    }
    this.follow();
    this.panes.forEach((pane) => pane.listening(number));
  }

  /** Keeps the swapped sound with the pictures. */
  follow() {
    const swapped = this.audio.hasAttribute("src");
    if (swapped) {
      const past = this.audio.duration && this.time > this.audio.duration;
      if (!past && Math.abs(this.audio.currentTime - this.time) > DRIFT) this.audio.currentTime = this.time;
      if (this.video.paused || past) this.audio.pause();
      else this.audio.play().catch(() => {});
    }
    this.button.replaceChildren(icon(this.video.paused ? "play" : "pause"));
    this.button.setAttribute("aria-label", this.video.paused ? "Play" : "Pause");
    this.draw();
  }

  toggle() {
    if (this.video.paused) this.video.play().catch(() => {});
    else this.video.pause();
  }

  seek(seconds) {
    this.video.currentTime = Math.min(Math.max(0, seconds), Math.max(0, this.duration - 0.01));
    this.draw();
  }

  draw() {
    this.panes.forEach((pane) => pane.draw(this.time));
    if (this.video.videoWidth) this.glow.getContext("2d").drawImage(this.video, 0, 0, 6, 6);
    this.reading.textContent = `${clock(this.time)} / ${clock(this.duration)}`;
    this.dispatchEvent(new Event("moment"));
  }

  transport() {
    this.button = el("button", { type: "button", class: "round", "aria-label": "Play", onclick: () => this.toggle() }, icon("play"));
    this.reading = el("span", { class: "reading" }, "0.0 s");
    this.speaker = el("button", {
      type: "button", class: "bare", "aria-label": "Sound of the player", "aria-pressed": "true",
      onclick: () => this.silence(!this.silenced),
    }, icon("sound"));
    const toggle = (name, text, title) => {
      const button = el("button", { type: "button", class: "chip", title, "aria-pressed": String(this.view[name]) }, text);
      button.addEventListener("click", () => {
        this.view[name] = !this.view[name];
        button.setAttribute("aria-pressed", String(this.view[name]));
        this.draw();
      });
      return button;
    };
    const heat = toggle("heat", "Heat map", "Where the method looks for the sound");
    heat.addEventListener("click", () => this.view.heat && this.dispatchEvent(new Event("heat")));
    const tint = el("input", { type: "range", min: 0, max: 1, step: 0.05, value: this.view.tint, "aria-label": "Opacity of the tint" });
    tint.addEventListener("input", () => {
      this.view.tint = Number(tint.value);
      this.draw();
    });
    $("transport").append(
      this.button, this.speaker, this.reading,
      el("div", { class: "views", role: "group", "aria-label": "View" },
        toggle("spot", "Spotlight", "Darken what is silent"),
        toggle("edge", "Outline", "Draw the edges of the masks"),
        toggle("labels", "Labels", "Name what sounds"),
        heat,
        el("label", { class: "tint" }, "Tint", tint)),
    );
  }

  silence(silenced) {
    this.silenced = silenced;
    this.speaker.replaceChildren(icon(silenced ? "mute" : "sound"));
    this.speaker.setAttribute("aria-pressed", String(!silenced));
    this.hear(this.heard);
  }
}

/** One take on the stage: its caption, its canvas, and what sounds just now. */
class Pane {
  constructor(player, take, number) {
    Object.assign(this, { player, take, number });
    this.canvas = el("canvas", { role: "img", "aria-label": "The clip, with what sounds lit up" });
    this.canvas.addEventListener("click", () => player.toggle());
    this.context = this.canvas.getContext("2d");
    this.now = el("ul", { class: "now" });
    this.ear = el("button", { type: "button", class: "chip ear", "aria-pressed": "false", onclick: () => player.hear(number) }, icon("sound"), "Hear");
    this.caption = el("figcaption", {}, el("span", { class: "who" }), this.ear);
    this.element = el("figure", { class: "pane" }, this.caption, el("div", { class: "picture" }, this.canvas, this.now));
    this.shown = undefined;
    this.name();
  }

  name() {
    const { take } = this;
    this.caption.hidden = this.player.takes.length < 2;
    if (!take) return;
    this.caption.firstChild.replaceChildren(el("b", {}, take.strategy), ` ${take.sound.own ? "its own sound" : take.sound.title}`);
    const [one, other] = this.player.takes;
    this.ear.hidden = !other || one.sound === other.sound;
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
    const key = frame || (this.take && this.take.status);
    if (key === this.shown) return;
    this.shown = key;
    this.now.replaceChildren(...this.lines(frame));
  }

  lines(frame) {
    if (!frame) return [];
    if (!frame.sounding) return [el("li", { class: "quiet-now" }, frame.reason || "Nothing in view sounds.")];
    const [height, width] = frame.mask.size;
    return objectsOf(frame).map((object) => {
      const dot = el("i", { class: "dot" });
      dot.style.setProperty("--colour", this.player.colours.of(object.label));
      const numbers = object.score === null
        ? `${Math.round((100 * frame.area) / (height * width))} % of the picture`
        : [`seen ${object.score.toFixed(2)}`, object.audio_score === null ? "" : `heard ${object.audio_score.toFixed(2)}`].filter(Boolean).join(" · ");
      return el("li", {}, dot, el("b", {}, object.label), el("span", {}, numbers));
    });
  }
}
