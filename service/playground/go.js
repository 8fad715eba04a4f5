// What starts and stops a run, how far it is, and which other method stands beside it.

import { $, el, icon, redraw } from "./dom.js";

export class Go {
  constructor({ run, stop, compare }) {
    this.compare = compare;
    this.button = el("button", { type: "button", class: "primary wide run", disabled: true, onclick: run }, "Run");
    this.bar = el("progress", { max: 1, "aria-label": "Frames done" });
    this.state = el("span");
    this.rivals = el("div", { class: "compare", hidden: true });
    this.idle = el("div", { class: "go-part" }, this.button, this.rivals);
    const cancel = el("button", { type: "button", class: "ghost wide cancel", onclick: stop }, "Cancel");
    this.busy = el("div", { class: "go-part", hidden: true }, el("div", { class: "progress" }, this.bar, this.state), cancel);
    $("go").append(this.idle, this.busy);
  }

  /** The button that was pressed is hidden while it works: the focus goes to the one that takes its place. */
  draw({ running, usable, text, takes }) {
    const focused = $("go").contains(document.activeElement);
    this.idle.hidden = running;
    this.busy.hidden = !running;
    this.button.disabled = !usable;
    this.button.textContent = text;
    if (running) this.progress(takes);
    if (focused && document.activeElement.closest("[hidden]")) (running ? this.busy : this.idle).querySelector("button").focus();
  }

  progress(takes) {
    const total = takes.reduce((sum, take) => sum + take.total, 0);
    const done = takes.reduce((sum, take) => sum + take.frames.length, 0);
    this.bar.max = total || 1;
    if (total) this.bar.value = done;
    else this.bar.removeAttribute("value");
    this.state.textContent = stateOf(takes, done, total);
  }

  drawRivals(names, rival) {
    this.rivals.hidden = !names.length;
    redraw(this.rivals, [names, rival], () => {
      const select = el("select", { id: "rival", "aria-label": "Compare with another method" },
        el("option", { value: "" }, "Compare with…"),
        names.map((name) => el("option", { value: name, selected: name === rival }, name)));
      select.addEventListener("change", () => this.compare(select.value));
      return [icon("split"), select];
    });
  }
}

function stateOf(takes, done, total) {
  const open = takes.filter((take) => !take.over);
  if (open.some((take) => take.status === "uploading")) return "Sending the clip…";
  const waiting = open.find((take) => take.status === "queued" && take.position);
  if (waiting) return `Waiting: place ${waiting.position} in the queue`;
  return total ? `${done} of ${total} frames` : "Starting…";
}
