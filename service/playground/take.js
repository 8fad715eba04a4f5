// One run: a clip, a sound, a strategy and its options, from upload to masks.

import { FINAL, Problem } from "./api.js";
import { unpackPng } from "./rle.js";

/** Tells its listeners ("change") whenever something about it is new. */
export class Take extends EventTarget {
  constructor(api, { clip, sound, strategy, params }) {
    super();
    Object.assign(this, { api, clip, sound, strategy, params });
    this.status = "uploading"; // then the job's own: queued, running, succeeded, failed, canceled, expired
    this.job = null;
    this.frames = [];
    this.total = 0;
    this.position = null;
    this.problem = null;
    this.seconds = 0;
    this.stop = new AbortController();
  }

  get over() {
    return this.problem !== null || FINAL.has(this.status);
  }

  /** Whether the service went away in the middle: its job goes on, and can be taken up again. */
  get lost() {
    return this.job !== null && this.problem !== null && this.problem.code === "unreachable";
  }

  run() {
    return this.lead(async () => {
      const job = await this.order();
      this.job = job.id;
      this.take(job);
      await this.follow();
    });
  }

  resume() {
    this.problem = null;
    return this.lead(() => this.follow());
  }

  async lead(doing) {
    const began = performance.now();
    try {
      await doing();
    } catch (problem) {
      if (problem.name === "AbortError") this.status = "canceled";
      else this.problem = problem instanceof Problem ? problem : broken(problem);
    }
    this.seconds += (performance.now() - began) / 1000;
    this.changed();
  }

  async follow() {
    for await (const event of this.api.events(this.job, this.stop.signal)) {
      this.status = event.data.status || this.status;
      this.total = event.data.frames_total || this.total;
      if (event.data.frames_done > this.frames.length) await this.fetchFrames();
      this.changed();
    }
    await this.finish();
  }

  /** Makes the job. An upload that the service has meanwhile forgotten is sent again, once. */
  async order(again = true) {
    const upload = await this.clip.upload(this.api, this.sound, this.stop.signal);
    const document = { ...this.params, upload_id: upload.upload_id, strategy: this.strategy };
    try {
      return await this.api.json("POST", "/v1/jobs", document, { signal: this.stop.signal });
    } catch (problem) {
      if (problem.status !== 404 || !again || !problem.detail.includes("upload")) throw problem;
      this.clip.forget(this.sound);
      return this.order(false);
    }
  }

  async finish() {
    const job = await this.api.json("GET", `/v1/jobs/${this.job}`);
    this.take(job);
    if (job.error) this.problem = new Problem(job.error);
    else if (job.status === "succeeded") await this.fetchFrames();
  }

  async fetchFrames() {
    const came = await this.api.frames(this.job, this.frames.length, this.stop.signal);
    const masks = came.flatMap((frame) => [frame.mask, ...(frame.instances || []).map((one) => one.mask)]);
    await Promise.all(masks.filter((mask) => mask.format === "png").map(unpackPng));
    this.frames.push(...came);
  }

  take(job) {
    this.status = job.status;
    this.total = job.progress.frames_total || this.total;
    this.position = job.queue_position;
    this.changed();
  }

  /** Stops the job at the service too: nobody waits for it any more. */
  async cancel() {
    if (this.over) return;
    const { job } = this;
    if (job) await this.api.json("POST", `/v1/jobs/${job}/cancel`).catch(() => null);
    this.stop.abort();
    this.status = "canceled";
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** The frame whose mask is on the picture at a moment: each holds until the next, the last for as long as they lie apart. */
  at(moment) {
    const { frames } = this;
    let low = 0;
    let high = frames.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (frames[middle].timestamp <= moment + 0.001) low = middle + 1;
      else high = middle;
    }
    const frame = frames[low - 1];
    return frame && moment < this.until(low - 1) ? frame : null;
  }

  /** When the mask of a frame leaves the picture. */
  until(index) {
    const { frames } = this;
    if (index + 1 < frames.length) return frames[index + 1].timestamp;
    const gap = index > 0 ? frames[index].timestamp - frames[index - 1].timestamp : 1;
    return frames[index].timestamp + Math.max(gap, 0.04);
  }
}

/** What tells a take from the other one: its method, and its sound where the sounds differ. */
export function namesOf(takes) {
  const one = takes.every((take) => take.sound === takes[0].sound);
  return takes.map((take) => [take.strategy, one ? "" : take.sound.own ? "its own sound" : take.sound.title]);
}

function broken(error) {
  console.error(error);
  const title = "The page stumbled";
  return new Problem({ status: 0, code: "page", title, detail: String(error.message || error), retryable: true });
}

/** The objects of a frame; where a strategy names none, its whole mask is one. */
export function objectsOf(frame) {
  if (frame.instances && frame.instances.length) return frame.instances;
  return frame.sounding ? [{ id: 0, label: "sounding", score: null, audio_score: null, bbox: null, mask: frame.mask }] : [];
}
