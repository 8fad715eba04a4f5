// What runs: one take, or two side by side.

import { Take } from "./take.js";

/** Tells its listeners "progress" whenever one of its takes has something new. */
export class Runs extends EventTarget {
  constructor(api) {
    super();
    this.api = api;
    this.takes = [null, null];
  }

  get first() {
    return this.takes[0];
  }

  get shown() {
    return this.takes.filter(Boolean);
  }

  get running() {
    return this.shown.some((take) => !take.over);
  }

  /** Puts a take in a place, 0 or 1; what ran there is stopped. */
  begin(place, order) {
    this.drop(place);
    const take = new Take(this.api, order);
    this.takes[place] = take;
    take.addEventListener("change", () => this.takes[place] === take && this.dispatchEvent(new Event("progress")));
    take.done = take.run();
  }

  drop(place) {
    this.takes[place]?.cancel();
    this.takes[place] = null;
  }

  stop() {
    this.shown.forEach((take) => take.cancel());
  }

  clear() {
    this.drop(0);
    this.drop(1);
  }

  /** Takes up again what the service lost; whether there was anything. */
  resume() {
    const lost = this.shown.filter((take) => take.lost);
    lost.forEach((take) => {
      take.done = take.resume();
    });
    return lost.length > 0;
  }

  /** Whether the first take is this very order, running or done well. */
  holds({ strategy, params }) {
    const { first } = this;
    return Boolean(first) && !first.problem && first.status !== "canceled"
      && JSON.stringify([first.strategy, first.params]) === JSON.stringify([strategy, params]);
  }

  /** The takes when all have ended; null when others have taken their place meanwhile. */
  async settled() {
    const mine = [...this.takes];
    await Promise.all(this.shown.map((take) => take.done));
    return mine.every((take, place) => take === this.takes[place]) ? this.shown : null;
  }
}
