// The queue and the jobs, read again every two seconds while they are looked at.

import { FINAL } from "./api.js";
import { $, announce, el, icon } from "./dom.js";
import { saveResult } from "./downloads.js";

const EVERY = 2000;
const PAGE = 40; // jobs at a time

export class Jobs {
  constructor(api) {
    this.api = api;
    this.dialog = $("jobs");
    this.body = el("div", { class: "drawer-body" });
    this.dialog.append(
      el("header", { class: "drawer-head" }, el("h2", { id: "jobs-title" }, "Jobs"),
        el("button", { type: "button", class: "bare", "aria-label": "Close", onclick: () => this.dialog.close() }, icon("close"))),
      this.body,
    );
    this.dialog.addEventListener("close", () => clearTimeout(this.timer));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  async open() {
    this.wanted = PAGE;
    this.dialog.showModal();
    await this.refresh();
  }

  async refresh() {
    clearTimeout(this.timer);
    try {
      this.show(...await this.newest(this.wanted));
    } catch (problem) {
      this.body.replaceChildren(el("p", { class: "empty" }, problem.message));
    }
    if (this.dialog.open) this.timer = setTimeout(() => this.refresh(), EVERY);
  }

  /** The newest jobs, page by page, and whether there are older ones. */
  async newest(count) {
    const jobs = [];
    let cursor = null;
    do {
      const page = await this.api.json("GET", `/v1/jobs?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
      jobs.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor !== null && jobs.length < count);
    return [jobs, cursor !== null];
  }

  show(jobs, older) {
    const waiting = jobs.filter((job) => job.status === "queued").length;
    const running = jobs.filter((job) => job.status === "running").length;
    const focus = document.activeElement && document.activeElement.dataset.act;
    this.body.replaceChildren(
      el("p", { class: "tally" }, el("b", {}, String(running)), " running", el("b", {}, String(waiting)), " waiting",
        el("b", {}, `${jobs.length - running - waiting}${older ? "+" : ""}`), " finished"),
      jobs.length ? el("ul", { class: "job-list" }, jobs.map((job) => this.row(job)))
        : el("p", { class: "empty" }, "No jobs yet. What you run, here or with curl, appears in this list."),
      older ? el("button", { type: "button", class: "ghost wide", "data-act": "older", onclick: () => this.more() }, "Show older jobs") : "",
    );
    const again = focus && this.body.querySelector(`[data-act="${CSS.escape(focus)}"]`);
    if (again) again.focus();
  }

  more() {
    this.wanted += PAGE;
    this.refresh();
  }

  row(job) {
    const done = job.progress.frames_total ? job.progress.frames_done / job.progress.frames_total : 0;
    const bar = el("i", { class: "job-bar" });
    bar.style.setProperty("--done", `${Math.round(100 * done)}%`);
    const act = (name, doing) => el("button", {
      type: "button", class: "chip", "data-act": `${name}-${job.id}`, "aria-label": `${name} of job ${job.id.slice(0, 8)}`,
      onclick: async () => {
        await doing().catch((problem) => announce(problem.message));
        this.refresh();
      },
    }, name);
    const acts = FINAL.has(job.status)
      ? [act("Delete", () => this.api.json("DELETE", `/v1/jobs/${job.id}`))]
      : [act("Cancel", () => this.api.json("POST", `/v1/jobs/${job.id}/cancel`))];
    if (job.status === "succeeded") {
      acts.unshift(act("Overlay", () => saveResult(this.api, job.id, "mp4", `${job.strategy}-${job.id.slice(0, 8)}.mp4`)));
    }
    return el("li", { class: `job ${job.status}` },
      el("span", { class: "job-name" }, el("i", { class: "job-dot" }), el("b", {}, job.strategy), el("span", { class: "job-status" }, job.status)),
      el("span", { class: "job-facts" }, `${placeOf(job)} · ${ago(job.created_at)}`, el("span", { class: "job-id" }, ` · ${job.id.slice(0, 8)}`)),
      el("span", { class: "job-acts" }, acts),
      job.error ? el("p", { class: "job-error" }, job.error.detail) : null,
      job.status === "running" ? bar : null);
  }
}

function placeOf(job) {
  if (job.status === "queued" && job.queue_position !== null) return `place ${job.queue_position} in the queue`;
  return `${job.progress.frames_done} of ${job.progress.frames_total} frames`;
}

function ago(moment) {
  const seconds = Math.max(0, (Date.now() - Date.parse(moment)) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}
