// What a refusal means for the person in front of the page, and what to do about it.

import { coded, el, icon } from "./dom.js";

const WHAT_TO_DO = {
  unreachable: "Start it again with make serve. This page goes on by itself as soon as it answers.",
  unauthorized: "Enter your key; it stays in this tab.",
  unsupported_media: "Choose a video that plays: MP4, WebM, MOV, MKV. A file is judged by its content, not by its name.",
  undecodable_media: "The file may be cut off or empty. Export or download it again, and try that.",
  media_too_large: "Cut the clip, or set start and end under Sampling and output.",
  weights_missing: "Run the command above where the service runs, or choose a method that is ready.",
  weights_invalid: "Run the command above where the service runs, or choose a method that is ready.",
  invalid_option: "Change the option that is named, and run again.",
  expired: "Results are kept for as long as the service is set to. Run it again.",
  not_found: "It was deleted, or the service has started anew. Run it again.",
  job_canceled: "It was stopped, perhaps in another window. Run it again.",
  deadline_passed: "Give it a longer deadline, or run it when the queue is shorter.",
  queue_full: "Many clips are waiting. Try again in a few seconds.",
  rate_limited: "Wait a moment, then run it again.",
  quota_exceeded: "Wait until your other jobs are done, or cancel some under Jobs.",
  not_ready: "The service is starting. Try again in a few seconds.",
  out_of_device_memory: "Take fewer frames for each second, or a smaller clip.",
  worker_lost: "Something in this clip stops the workers. Try another clip, and report this one.",
  malformed_request: "The file may be empty. Choose another one.",
};

const OF_THE_FILE = new Set(["unsupported_media", "undecodable_media", "malformed_request", "media_too_large", "worker_lost"]);

const ANOTHER = { file: "Choose another clip", "sound-file": "Choose another sound" };
const SOUND_HINT = "Choose a sound that plays: WAV, MP3, FLAC, AAC, or a video with sound.";

export function problemCard(problem, picker, { retry, choose, dismiss }) {
  const hint = hintOf(problem, picker);
  return el("div", { class: "problem", role: "alert" },
    icon("warn"),
    el("h3", {}, problem.title || "Something went wrong"),
    el("p", {}, ...coded(problem.detail || "")),
    el("p", { class: "hint" }, hint),
    el("div", { class: "row" },
      retry && el("button", { type: "button", class: "primary", onclick: retry }, "Try again"),
      OF_THE_FILE.has(problem.code) && el("button", { type: "button", class: "primary", onclick: () => choose(picker) }, ANOTHER[picker]),
      dismiss && el("button", { type: "button", class: "ghost", onclick: dismiss }, "Dismiss")),
    problem.request_id ? el("p", { class: "trace" }, `${problem.code} · request ${problem.request_id}`) : null,
  );
}

function hintOf({ code, retryable }, picker) {
  if (picker === "sound-file" && OF_THE_FILE.has(code)) return SOUND_HINT;
  return WHAT_TO_DO[code] || (retryable ? "Try again in a moment." : "Change what is named above, and run again.");
}
