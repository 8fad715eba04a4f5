// The playground: what is chosen, what runs, and what is on the screen follows from that.

import { Api, Problem } from "./api.js";
import { Clip, Sound, borrowed, bundled } from "./clip.js";
import { clipStrip, takeDrops } from "./clips.js";
import { Options } from "./controls.js";
import { $, announce, redraw } from "./dom.js";
import { downloadButtons } from "./downloads.js";
import { Go } from "./go.js";
import { Jobs } from "./jobs.js";
import { askKey } from "./key.js";
import { shortcuts } from "./keys.js";
import { soundButtons, verdictOf } from "./listening.js";
import { Over } from "./over.js";
import { Colours } from "./paint.js";
import { Player } from "./player.js";
import { Runs } from "./runs.js";
import { Service } from "./service.js";
import { Snippets } from "./snippets.js";
import { favourite, inOrder, strategyCards } from "./strategies.js";
import { Timeline } from "./timeline.js";

const QUICK = 10; // seconds: a run no longer than this is repeated by itself when an option changes
const SETTLED = 450; // milliseconds after the last change

class Playground {
  constructor() {
    this.api = new Api(() => this.askKey());
    this.service = new Service(this.api);
    this.runs = new Runs(this.api);
    this.clips = [];
    this.clip = null;
    this.sound = null; // what the listening test puts under the clip
    this.rival = null; // the other strategy of a comparison
    this.options = new Map(); // strategy name -> Options
    this.problem = null;
    this.player = new Player(new Colours());
    this.timeline = new Timeline(this.player);
    this.snippets = new Snippets($("snippets"));
    this.jobs = new Jobs(this.api);
    this.over = new Over({ run: () => this.run(), choose: (what) => $(what).click(), dismiss: () => this.fail(null) });
    this.go = new Go({ run: () => this.run(), stop: () => this.stop(), compare: (name) => this.compareWith(name) });
    this.listen();
  }

  listen() {
    $("open-jobs").addEventListener("click", () => this.jobs.open());
    $("open-key").addEventListener("click", () => this.askKey());
    this.service.addEventListener("change", () => this.drawMethod());
    this.service.addEventListener("answer", () => this.answered());
    this.runs.addEventListener("progress", () => this.progressed());
    this.player.addEventListener("heat", () => this.wantHeat() && this.runs.first && !this.runs.running && this.run());
    this.player.addEventListener("unplayable", () => this.draw());
    this.player.addEventListener("hear", () => this.timeline.hear(this.clip, this.player.takes[this.player.heard].sound));
    takeDrops((file) => this.pickClip(file));
    shortcuts({
      toggle: () => this.player.toggle(),
      run: () => this.usable && !this.runs.running && this.run(),
      step: (seconds) => this.player.seek(this.player.time + seconds),
    });
  }

  async start() {
    this.player.show([]);
    await Promise.all([this.loadStrategies(), this.loadClips()]);
    this.service.watch();
  }

  async loadStrategies() {
    try {
      await this.service.load();
    } catch (problem) {
      if (problem.status !== 401) this.fail(problem); // a key is asked for by itself
    }
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

  /** The service is there, perhaps again: what it left undone goes on. */
  async answered() {
    const resumed = this.runs.resume();
    if (this.problem && this.problem.code === "unreachable") this.fail(null);
    if (resumed) await this.settle();
    else if (!this.clips.length) await this.loadClips();
  }

  get strategy() {
    return this.service.named(this.chosen);
  }

  get usable() {
    return Boolean(this.clip && this.strategy && this.strategy.ready && !this.checking);
  }

  optionsOf(name) {
    if (!this.options.has(name)) {
      const { strategies } = this.service;
      this.options.set(name, new Options(this.service.named(name), strategies, {
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
    const again = clip.sample && this.runs.first && this.runs.first.status === "succeeded";
    this.stop();
    this.runs.clear();
    this.clip = clip;
    this.sound = clip.own;
    this.rival = null;
    this.options.forEach((one) => one.suggest(this.suggestions()));
    this.fail(null);
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
    const samples = this.clips.filter((one) => one.sample);
    const clip = Clip.of(file, borrowed(samples));
    this.clips = [...samples, clip];
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

  chooseStrategy(name) {
    this.chosen = name;
    if (this.rival === name) this.rival = null;
    this.drawMethod();
    if (this.player.view.heat) this.wantHeat();
    this.changed();
  }

  async chooseSound(sound) {
    this.rival = null;
    this.sound = sound;
    this.runs.drop(1);
    this.draw();
    this.timeline.hear(this.clip, sound);
    if (!sound.own) await this.runSecond();
  }

  pickSound(file) {
    const sound = Sound.of(file);
    this.clip.sounds.push(sound);
    this.chooseSound(sound);
  }

  async compareWith(name) {
    this.sound = this.clip.own;
    this.rival = name || null;
    this.runs.drop(1);
    this.draw();
    if (this.rival) await this.runSecond();
  }

  /** Heat maps are sent when the options ask for them; whether the next run brings what the last one did not. */
  wantHeat() {
    const options = this.strategy && this.optionsOf(this.chosen);
    if (!options || options.value.outputs?.heatmap !== false) return false;
    options.set(["outputs", "heatmap"], true);
    options.render();
    return true;
  }

  /** An option is different: what ran quickly runs again by itself. */
  changed() {
    this.draw();
    if (!this.quick || !this.runs.first || this.runs.running) return;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.run(), SETTLED);
  }

  // What runs.

  order(strategy, sound) {
    return { clip: this.clip, sound, strategy, params: this.optionsOf(strategy).changes() };
  }

  stop() {
    clearTimeout(this.settling);
    this.runs.stop();
  }

  /** Runs what is chosen: the clip's own sound, and beside it the swapped sound or the other strategy. */
  async run() {
    this.stop();
    this.runs.clear();
    this.runs.begin(0, this.order(this.chosen, this.clip.own));
    await this.runSecond();
  }

  /** Runs what stands beside the first take, and that one too when it is not what is chosen now. */
  async runSecond() {
    const first = this.order(this.chosen, this.clip.own);
    if (!this.runs.holds(first)) this.runs.begin(0, first);
    if (!this.sound.own) this.runs.begin(1, this.order(this.chosen, this.sound));
    else if (this.rival) this.runs.begin(1, this.order(this.rival, this.clip.own));
    this.fail(null);
    await this.settle();
  }

  async settle() {
    const takes = await this.runs.settled();
    if (!takes) return;
    const broken = takes.find((take) => take.problem);
    if (broken) this.fail(broken.problem, broken.sound.own ? "file" : "sound-file");
    else if (takes.every((take) => take.status === "succeeded")) {
      this.quick = Math.max(...takes.map((take) => take.seconds)) < QUICK;
      announce("Done. The masks are on the picture.");
      this.player.seek(0);
      this.player.video.play().catch(() => {});
    }
    this.draw();
  }

  progressed() {
    const { shown } = this.runs;
    const frames = shown.reduce((sum, one) => sum + one.frames.length, 0);
    if (frames && this.shownFrames !== frames) {
      this.shownFrames = frames;
      this.timeline.show(shown);
      this.player.draw();
    }
    this.drawState();
  }

  /**
   * Shows a problem, or takes the last one away; what is no refusal is a defect of the page, and thrown on.
   * `picker` is the field that takes another file in place of the one that was refused.
   */
  fail(problem, picker = "file") {
    this.problem = problem;
    this.picker = picker;
    if (problem && !(problem instanceof Problem)) throw problem;
    this.draw();
    if (!problem) return;
    this.player.video.pause();
    $("stage").scrollIntoView({ block: "nearest" }); // where it is said; a sound is picked far below
  }

  // What is on the screen.

  draw() {
    if (this.clip) {
      this.drawClip();
      this.drawTakes();
      this.drawSnippets();
    }
    this.drawState();
  }

  drawClip() {
    const { clip, clips, sound } = this;
    redraw($("clips"), [clips.map((one) => one.title), clips.indexOf(clip)], () => clipStrip(clips, clip, {
      choose: (one) => this.chooseClip(one), pick: (file) => this.pickClip(file),
    }));
    redraw($("sounds"), [clip.title, clip.sounds.map((one) => one.id), sound.id], () => soundButtons(clip, sound, {
      choose: (one) => this.chooseSound(one), pick: (file) => this.pickSound(file),
    }));
  }

  drawTakes() {
    const { shown } = this.runs;
    const onStage = this.player.takes;
    if (shown.length !== onStage.length || shown.some((take, place) => take !== onStage[place])) this.player.show(shown);
    this.timeline.show(shown);
    redraw($("verdict"), shown.map((take) => [take.job, take.status]), () => (shown.length > 1 && verdictOf(...shown)) || []);
    const last = shown[shown.length - 1];
    redraw($("downloads"), last ? [last.job, last.status] : null, () => downloadButtons(this.api, last, (problem) => this.fail(problem)));
  }

  drawSnippets() {
    if (!this.strategy || !this.clip) return;
    this.snippets.show({ ...this.order(this.rival || this.chosen, this.sound), key: Boolean(this.api.key) });
  }

  drawMethod() {
    const { strategies } = this.service;
    this.chosen ||= favourite(strategies).name;
    const focused = document.activeElement && document.activeElement.name === "strategy";
    $("strategies").replaceChildren(...strategyCards(strategies, this.chosen, (name) => this.chooseStrategy(name)));
    if (focused) $("strategies").querySelector("input:checked").focus();
    $("options").replaceChildren(this.optionsOf(this.chosen).element);
    this.drawSnippets();
    this.drawState();
  }

  /** How far things are: the buttons, and what lies over the pictures. */
  drawState() {
    const { problem, picker, clip, strategy, usable, runs, rival } = this;
    const { first, running, shown } = runs;
    const text = this.checking ? "Looking at the clip…" : first && first.over ? "Run again" : "Run";
    this.go.draw({ running, usable, text, takes: shown });
    const others = clip ? inOrder(this.service.strategies).filter((one) => one.ready && one.name !== this.chosen) : [];
    this.go.drawRivals(others.map((one) => one.name), rival);
    this.over.draw({ problem, picker, clip, strategy, usable, runs });
    $("stage").dataset.state = problem ? "problem" : running ? "running" : first ? "done" : "empty";
  }

  askKey() {
    $("open-key").hidden = false;
    askKey(this.api, () => {
      this.fail(null);
      this.loadStrategies();
    });
  }
}

new Playground().start();
