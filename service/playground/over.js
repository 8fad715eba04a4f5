// What lies over the pictures: a problem, a note, or the first button.

import { $, el, icon, redraw } from "./dom.js";
import { problemCard } from "./problems.js";

const STOPPED = "Stopped. Run it again whenever you like.";
const UNPLAYABLE = "Your browser cannot play this clip. Its masks are found all the same, and the overlay below plays.";
const WITHOUT_SOUND = "This clip has no sound, so nothing will be lit. Put a sound under it below.";

export class Over {
  constructor({ run, choose, dismiss }) {
    Object.assign(this, { run, choose, dismiss });
    this.place = el("div", { class: "stage-over" });
    $("stage").append(this.place);
  }

  /** A button that goes when it is pressed leaves the focus to the player's first. */
  draw(state) {
    const focused = this.place.contains(document.activeElement);
    this.fill(state);
    if (focused && !this.place.contains(document.activeElement)) $("transport").querySelector("button").focus({ preventScroll: true });
  }

  fill({ problem, picker, clip, strategy, usable, runs: { first, running, shown } }) {
    if (problem) this.problem(problem, picker, clip);
    else if (running && !shown.some((take) => take.frames.length)) this.note("Listening…", "note working");
    else if (first && first.status === "canceled") this.note(STOPPED);
    else if (clip && clip.unplayable) this.note(UNPLAYABLE);
    else if (clip && clip.silent && !first) this.note(WITHOUT_SOUND);
    else if (clip && strategy && !first) this.start(usable);
    else redraw(this.place, null, () => []);
  }

  problem(problem, picker, clip) {
    redraw(this.place, ["problem", problem.code, problem.detail, problem.request_id], () => {
      const again = clip && (problem.retryable || ["expired", "not_found"].includes(problem.code));
      return [problemCard(problem, picker, { retry: again ? this.run : null, choose: this.choose, dismiss: this.dismiss })];
    });
  }

  note(text, kind = "note") {
    redraw(this.place, [text], () => [el("p", { class: kind }, text)]);
  }

  start(usable) {
    redraw(this.place, ["start", usable], () => [
      el("button", { type: "button", class: "primary big", onclick: this.run, disabled: !usable }, icon("play"), "Find what sounds"),
    ]);
  }
}
