// The playground: what is chosen, what runs, and what is on the screen follows from that.

import { Api, Problem } from "./api.js";
import { Clip, Sound, bundled, silent } from "./clip.js";
import { clipStrip, takeDrops } from "./clips.js";
import { Options } from "./controls.js";
import { $, announce, el, icon, redraw } from "./dom.js";
import { downloadButtons } from "./downloads.js";
import { Go } from "./go.js";
import { Jobs } from "./jobs.js";
import { askKey } from "./key.js";
import { soundButtons, verdictOf } from "./listening.js";
import { Colours } from "./paint.js";
import { Player } from "./player.js";
import { problemCard } from "./problems.js";
import { Snippets } from "./snippets.js";
import { favourite, inOrder, strategyCards } from "./strategies.js";
import { Take } from "./take.js";
import { Timeline } from "./timeline.js";

const QUICK = 10; // seconds: a run no longer than this is repeated by itself when an option changes
const SETTLED = 450; // milliseconds after the last change
const LOOK = 3000; // milliseconds between looks at a service that is away, and at its readiness

class Playground {
  constructor() {
    this.api = new Api(() => this.askKey());
    this.strategies = [];
    this.clips = [];
    this.clip = null;
    this.sound = null; // what the listening test puts under the clip
    this.rival = null; // the other strategy of a comparison
    this.takes = [null, null];
    this.options = new Map(); // strategy name -> Options
    this.problem = null;
    this.player = new Player(new Colours());
    this.timeline = new Timeline(this.player);
    this.snippets = new Snippets($("snippets"));
    this.jobs = new Jobs(this.api);
    this.over = el("div", { class: "stage-over" });
    $("stage").append(this.over);
    this.go = new Go({ run: () => this.run(), stop: () => this.stop(), compare: (name) => this.compareWith(name) });
    $("open-jobs").addEventListener("click", () => this.jobs.open());
    $("open-key").addEventListener("click", () => this.askKey());
    this.player.addEventListener("heat", () => this.askHeat());
    this.player.addEventListener("hear", () => this.timeline.hear(this.clip, this.player.takes[this.player.heard].sound));
    takeDrops((file) => this.pickClip(file));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  async start() {
    this.player.show([]);
    await Promise.all([this.loadStrategies(), this.loadClips()]);
    this.watch();
  }

  async loadClips() {
    try {
      this.clips = await bundled();
    } catch (problem) {
      this.fail(problem);
      return;
    }
    await this.chooseClip(this.clips[0]);
  }

  async loadStrategies() {
    try {
      const { data } = await this.api.json("GET", "/v1/strategies");
      this.strategies = data;
      this.chosen = this.chosen || favourite(data).name;
      this.health(data.some((one) => one.ready) ? "ready" : "no worker", data.some((one) => one.ready));
      this.drawMethod();
    } catch (problem) {
      this.health(problem.status === 401 ? "key needed" : "no answer", false);
      if (problem.status !== 401) this.fail(problem);
    }
  }

  /** Looks now and then whether the service is there, and whether a method became ready. */
  async watch() {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, this.away ? LOOK / 3 : LOOK * 2));
      if (document.hidden) continue;
      try {
        const { data } = await this.api.json("GET", "/v1/strategies");
        const before = JSON.stringify(this.strategies.map((one) => [one.name, one.ready]));
        const now = JSON.stringify(data.map((one) => [one.name, one.ready]));
        this.strategies = data;
        this.health(data.some((one) => one.ready) ? "ready" : "no worker", data.some((one) => one.ready));
        if (before !== now) this.drawMethod();
        if (this.problem && this.problem.code === "unreachable") this.fail(null);
        this.away = false;
        if (!this.clips.length) await this.loadClips();
      } catch (problem) {
        this.away = problem.status === 0;
        this.health(problem.status === 401 ? "key needed" : "no answer", false);
      }
    }
  }

  health(text, good) {
    const pill = $("health");
    if (pill.textContent !== text) pill.textContent = text;
    pill.dataset.good = String(good);
  }

  get strategy() {
    return this.strategies.find((one) => one.name === this.chosen);
  }

  optionsOf(name) {
    const strategy = this.strategies.find((one) => one.name === name);
    if (!this.options.has(name)) {
      this.options.set(name, new Options(strategy, this.strategies, {
        suggestions: this.suggestions(),
        onchange: () => this.changed(),
      }));
    }
    return this.options.get(name);
  }

  suggestions() {
    return { labels: this.clip ? this.clip.labels : [] };
  }

  // What the visitor chooses.

  async chooseClip(clip) {
    const again = clip.sample && this.takes[0] && this.takes[0].status === "succeeded";
    this.stop();
    this.clip = clip;
    this.sound = clip.own;
    this.rival = null;
    this.takes = [null, null];
    this.options.forEach((one) => one.suggest(this.suggestions()));
    this.fail(null);
    this.draw();
    try {
      await this.player.load(clip);
    } catch (problem) {
      this.fail(problem);
      return;
    }
    this.timeline.hear(clip, clip.own);
    if (again && this.clip === clip) this.run();
  }

  /** One's own clip: sent at once, so that what is wrong with it is said at once. */
  async pickClip(file) {
    const name = file.name.replace(/\.[^.]*$/, "") || "clip";
    const clip = new Clip({ name, title: file.name, blob: file, fileName: file.name, sounds: this.borrowed() });
    this.clips = [...this.clips.filter((one) => one.sample), clip];
    this.checking = true;
    await this.chooseClip(clip);
    try {
      const upload = await clip.upload(this.api, clip.own);
      clip.silent = !upload.has_audio;
      if (this.clip === clip) this.player.draw();
    } catch (problem) {
      if (this.clip === clip) this.fail(problem);
    }
    this.checking = false;
    this.draw();
  }

  /** Sounds of the samples, for a clip of one's own. */
  borrowed() {
    const others = this.clips.filter((one) => one.sample).slice(0, 2)
      .map((one) => one.sounds.find((sound) => !sound.own && sound.id !== "silence"));
    const fresh = others.filter(Boolean).map((one) => new Sound(one.id, one.title, { url: one.url, fileName: one.fileName }));
    return [silent("silence.wav"), ...fresh];
  }

  chooseStrategy(name) {
    this.chosen = name;
    if (this.rival === name) this.rival = null;
    this.drawMethod();
    this.changed();
  }

  async chooseSound(sound) {
    this.rival = null;
    this.sound = sound;
    if (sound.own) {
      this.takes[1]?.cancel();
      this.takes[1] = null;
    }
    this.draw();
    this.timeline.hear(this.clip, sound);
    if (!sound.own) await this.runBoth();
  }

  pickSound(file) {
    const sound = new Sound(`file-${file.name}-${file.size}`, file.name, { blob: file, fileName: file.name });
    this.clip.sounds.push(sound);
    this.chooseSound(sound);
  }

  async compareWith(name) {
    this.sound = this.clip.own;
    this.rival = name || null;
    this.takes[1]?.cancel();
    this.takes[1] = null;
    this.draw();
    if (this.rival) await this.runBoth();
  }

  /** Heat maps are sent when they are asked for: the options say so, and the next run brings them. */
  askHeat() {
    const options = this.strategy && this.optionsOf(this.chosen);
    if (!options || options.value.outputs?.heatmap !== false) return;
    options.set(["outputs", "heatmap"], true);
    options.render();
    if (this.takes[0] && !this.running) this.run();
  }

  changed() {
    this.draw();
    if (!this.quick || !this.takes[0] || !this.takes[0].over) return;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.run(), SETTLED);
  }

  // What runs.

  order(strategy, sound) {
    return { clip: this.clip, sound, strategy, params: this.optionsOf(strategy).changes() };
  }

  get running() {
    return this.takes.some((take) => take && !take.over);
  }

  stop() {
    clearTimeout(this.settling);
    this.takes.forEach((take) => take && take.cancel());
  }

  /** Runs what is chosen: the clip's own sound, and beside it the swapped sound or the other strategy. */
  async run() {
    this.stop();
    this.fail(null);
    this.takes = [this.begin(this.order(this.chosen, this.clip.own), 0), null];
    await this.second();
    await this.settle();
  }

  /** Adds the second take; the first is run only when it is not there as it should be. */
  async runBoth() {
    const wanted = JSON.stringify([this.chosen, this.optionsOf(this.chosen).changes()]);
    const [first] = this.takes;
    const there = first && !first.problem && first.status !== "canceled" && wanted === JSON.stringify([first.strategy, first.params]);
    if (!there) {
      await this.run();
      return;
    }
    this.fail(null);
    await this.second();
    await this.settle();
  }

  async second() {
    this.takes[1]?.cancel();
    if (!this.sound.own) this.takes[1] = this.begin(this.order(this.chosen, this.sound), 1);
    else if (this.rival) this.takes[1] = this.begin(this.order(this.rival, this.clip.own), 1);
    this.draw();
  }

  begin(order, number) {
    const take = new Take(this.api, order);
    take.addEventListener("change", () => this.takes[number] === take && this.progressed(take));
    take.done = take.run();
    return take;
  }

  async settle() {
    const mine = [...this.takes];
    this.draw();
    await Promise.all(mine.filter(Boolean).map((take) => take.done));
    if (mine.some((take, number) => take !== this.takes[number])) return;
    const broken = mine.find((take) => take && take.problem);
    if (broken) this.fail(broken.problem);
    else if (mine.every((take) => !take || take.status === "succeeded")) {
      this.quick = Math.max(...mine.filter(Boolean).map((take) => take.seconds)) < QUICK;
      announce("Done. The masks are on the picture.");
      this.player.seek(0);
      this.player.video.play().catch(() => {});
    }
    this.draw();
  }

  progressed(take) {
    const frames = this.shown.reduce((sum, one) => sum + one.frames.length, 0);
    if (take.frames.length && this.shownFrames !== frames) {
      this.shownFrames = frames;
      this.timeline.show(this.shown);
      this.player.draw();
    }
    this.drawGo();
    this.drawOver();
  }

  fail(problem) {
    this.problem = problem;
    if (problem && !(problem instanceof Problem)) throw problem;
    if (problem) this.player.video.pause();
    this.draw();
  }

  // What is on the screen.

  get shown() {
    return this.takes.filter(Boolean);
  }

  draw() {
    if (!this.clip) {
      this.drawOver();
      return;
    }
    const { clip, clips, sound, takes } = this;
    redraw($("clips"), [clips.map((one) => one.title), clips.indexOf(clip)], () => clipStrip(clips, clip, {
      choose: (one) => this.chooseClip(one), pick: (file) => this.pickClip(file),
    }));
    redraw($("sounds"), [clip.title, clip.sounds.map((one) => one.id), sound.id], () => soundButtons(clip, sound, {
      choose: (one) => this.chooseSound(one), pick: (file) => this.pickSound(file),
    }));
    if (this.shown.some((take, number) => take !== this.player.takes[number]) || this.shown.length !== this.player.takes.length) {
      this.player.show(this.shown);
    }
    this.timeline.show(this.shown);
    redraw($("verdict"), takes.map((take) => take && [take.job, take.status]), () => (takes[0] && takes[1] && verdictOf(...takes)) || []);
    const last = this.shown[this.shown.length - 1];
    redraw($("downloads"), last ? [last.job, last.status] : null, () => downloadButtons(this.api, last, (problem) => this.fail(problem)));
    this.drawSnippets();
    this.drawGo();
    this.drawOver();
  }

  drawSnippets() {
    if (!this.strategy || !this.clip) return;
    const strategy = this.rival || this.chosen;
    this.snippets.show({ ...this.order(strategy, this.sound), key: Boolean(this.api.key) });
  }

  drawMethod() {
    const focused = document.activeElement && document.activeElement.name === "strategy";
    $("strategies").replaceChildren(...strategyCards(this.strategies, this.chosen, (name) => this.chooseStrategy(name)));
    if (focused) $("strategies").querySelector("input:checked").focus();
    $("options").replaceChildren(this.optionsOf(this.chosen).element);
    this.drawSnippets();
    this.drawGo();
    this.drawOver();
  }

  drawGo() {
    const { strategy, running, clip, rival } = this;
    const usable = clip && strategy && strategy.ready && !this.checking;
    const first = this.checking ? "Looking at the clip…" : this.takes[0] && this.takes[0].over ? "Run again" : "Run";
    this.go.draw({ running, usable, first, takes: this.shown });
    const others = clip ? inOrder(this.strategies).filter((one) => one.ready && one.name !== this.chosen) : [];
    this.go.drawRivals(others.map((one) => one.name), rival);
    $("stage").dataset.state = this.problem ? "problem" : running ? "running" : this.takes[0] ? "done" : "empty";
  }

  /** What lies over the pictures: a problem, a note, or the first button. */
  drawOver() {
    const { problem, clip, strategy } = this;
    if (problem) {
      redraw(this.over, ["problem", problem.code, problem.detail, problem.request_id], () => {
        const again = problem.retryable || ["expired", "not_found"].includes(problem.code);
        return [problemCard(problem, { retry: clip && again ? () => this.run() : null, dismiss: () => this.fail(null) })];
      });
      return;
    }
    const note = (text, kind = "note") => redraw(this.over, [text], () => [el("p", { class: kind }, text)]);
    if (this.running && !this.shown.some((take) => take.frames.length)) note("Listening…", "note working");
    else if (this.takes[0] && this.takes[0].status === "canceled") note("Stopped. Run it again whenever you like.");
    else if (clip && clip.silent && !this.takes[0]) note("This clip has no sound, so nothing will be lit. Put a sound under it below.");
    else if (clip && strategy && !this.takes[0]) {
      redraw(this.over, ["first", strategy.ready, Boolean(this.checking)], () => [el("button", {
        type: "button", class: "primary big", onclick: () => this.run(), disabled: !strategy.ready || Boolean(this.checking),
      }, icon("play"), "Find what sounds")]);
    } else redraw(this.over, null, () => []);
  }

  // The rest.

  askKey() {
    $("open-key").hidden = false;
    askKey(this.api, () => {
      this.fail(null);
      this.loadStrategies();
    });
  }

  key(event) {
    const typing = event.target.closest("input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select, button, summary, dialog, a");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") this.player.toggle();
    else if (event.key === "r" && !this.running && this.strategy && this.strategy.ready) this.run();
    else if (event.key === "ArrowRight" && event.target === document.body) this.player.seek(this.player.time + 0.5);
    else if (event.key === "ArrowLeft" && event.target === document.body) this.player.seek(this.player.time - 0.5);
    else return;
    event.preventDefault();
  }
}

new Playground().start();
