// The public API, and nothing else of the service: what this file can do, curl can do.

/** A refusal of the service (RFC 9457), or the service not answering at all, as one kind of error. */
export class Problem extends Error {
  constructor(document) {
    super(document.detail || document.title);
    Object.assign(this, document);
  }

  static async of(response) {
    const text = await response.text().catch(() => "");
    try {
      return new Problem({ status: response.status, ...JSON.parse(text) });
    } catch {
      const title = `The service answered ${response.status}`;
      return new Problem({ status: response.status, code: "unknown", title, detail: text.slice(0, 200) });
    }
  }

  static silent() {
    return new Problem({
      status: 0,
      code: "unreachable",
      title: "The service does not answer",
      detail: "It may have been stopped, or the network is down.",
      retryable: true,
    });
  }
}

const KEY = "earshot-key"; // in this tab only, until it is closed

export class Api {
  /** `unauthorized` is called when a key is missing or wrong. */
  constructor(unauthorized = () => {}) {
    this.unauthorized = unauthorized;
    this.key = sessionStorage.getItem(KEY) || "";
  }

  useKey(key) {
    this.key = key;
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  /** A response of 2xx; everything else is thrown as a Problem. */
  async send(method, path, { body, headers = {}, signal } = {}) {
    const all = { ...headers, ...(this.key ? { Authorization: `Bearer ${this.key}` } : {}) };
    let response;
    try {
      response = await fetch(path, { method, body, headers: all, signal, cache: "no-store" });
    } catch (error) {
      throw error.name === "AbortError" ? error : Problem.silent();
    }
    if (response.ok) return response;
    const problem = await Problem.of(response);
    if (problem.status === 401) this.unauthorized(problem);
    throw problem;
  }

  async json(method, path, document, options = {}) {
    const sent = document === undefined
      ? options
      : { ...options, body: JSON.stringify(document), headers: { "Content-Type": "application/json" } };
    const response = await this.send(method, path, sent);
    return response.status === 204 ? null : response.json();
  }

  /** Keeps a clip on the service, so that the next runs need not send it again. */
  async upload(parts, signal) {
    const body = new FormData();
    for (const [name, blob, fileName] of parts) body.append(name, blob, fileName);
    const response = await this.send("POST", "/v1/uploads", { body, signal });
    return response.json();
  }

  /** The frames from number `first` on, as far as they are finished. */
  async frames(job, first, signal) {
    const response = await this.send("GET", `/v1/jobs/${job}/frames?from=${first}`, { signal });
    const text = await response.text();
    return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  }

  /** A finished job in one of its forms; an overlay is made on demand, so that the answer may be "not yet". */
  async result(job, format, signal) {
    for (;;) {
      const path = `/v1/jobs/${job}/result?format=${format}`;
      const response = await this.send("GET", path, { signal, headers: { Prefer: "wait=20" } });
      if (response.status !== 202) return response.blob();
      await pause(500);
    }
  }

  /**
   * A job's events, until it ends. EventSource cannot send a key, so the stream is read by hand; a broken one is
   * taken up again after the last event seen, a few times.
   */
  async *events(job, signal) {
    let last = "";
    for (let broken = 0; broken < 6; broken += 1) {
      try {
        const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
        const response = await this.send("GET", `/v1/jobs/${job}/events`, { headers, signal });
        for await (const event of eventsOf(response.body)) {
          broken = 0;
          last = event.id || last;
          yield event;
          if (FINAL.has(event.data.status)) return;
        }
      } catch (problem) {
        if (problem.name === "AbortError" || (problem.status && problem.status !== 503)) throw problem;
      }
      await pause(400 * (broken + 1));
    }
    throw Problem.silent();
  }
}

export const FINAL = new Set(["succeeded", "failed", "canceled", "expired"]);

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(
        block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
      );
      if (fields.data) yield { id: fields.id, kind: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
