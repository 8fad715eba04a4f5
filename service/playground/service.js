// The service as the page sees it: its methods, whether they are ready, and whether it answers at all.

import { pause } from "./api.js";
import { $ } from "./dom.js";

const LOOK = 6000; // milliseconds between looks at its methods
const LOOK_AWAY = 1000; // while it does not answer

/** Tells its listeners "change" when a method came or became ready, and "answer" whenever a look went well. */
export class Service extends EventTarget {
  constructor(api) {
    super();
    this.api = api;
    this.strategies = [];
    this.away = false;
  }

  named(name) {
    return this.strategies.find((one) => one.name === name);
  }

  async load() {
    try {
      const { data } = await this.api.json("GET", "/v1/strategies");
      const changed = readiness(data) !== readiness(this.strategies);
      const ready = data.some((one) => one.ready);
      this.strategies = data;
      this.away = false;
      tell(ready ? "ready" : "no worker", ready);
      if (changed) this.dispatchEvent(new Event("change"));
    } catch (problem) {
      this.away = problem.status === 0;
      tell(problem.status === 401 ? "key needed" : "no answer", false);
      throw problem;
    }
  }

  /** Looks again and again, for as long as the page is seen. */
  async watch() {
    for (;;) {
      await pause(this.away ? LOOK_AWAY : LOOK);
      if (!document.hidden) await this.load().then(() => this.dispatchEvent(new Event("answer")), () => null);
    }
  }
}

const readiness = (strategies) => JSON.stringify(strategies.map((one) => [one.name, one.ready]));

function tell(text, good) {
  const pill = $("health");
  if (pill.textContent !== text) pill.textContent = text; // screen readers say every change
  pill.dataset.good = String(good);
}
