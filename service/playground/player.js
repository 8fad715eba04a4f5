// The stage: one video, drawn into a canvas for each take, so that two takes can never run apart.

import { $, clock, el, icon } from "./dom.js";
import { Pane } from "./pane.js";

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
    this.video.pause();
    const address = await clip.address();
    if (this.clip !== clip) return;
    this.video.src = address;
    this.video.load(); // the first picture is wanted before anybody presses play
  }

  /** The service may read what this browser does not. */
  unplayable() {
    this.clip.unplayable = true;
    this.draw(); // else the clip before would stay on the stage
    this.dispatchEvent(new Event("unplayable"));
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
    if (take) this.dispatchEvent(new Event("hear"));
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
    this.film.dataset.shape = this.video.videoWidth > 1.2 * this.video.videoHeight ? "wide" : "tall";
    this.panes.forEach((pane) => pane.draw(this.time));
    const glow = this.glow.getContext("2d");
    glow.clearRect(0, 0, 6, 6);
    if (this.video.videoWidth) glow.drawImage(this.video, 0, 0, 6, 6);
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
