// A clip, and the sounds that may go under its pictures.

import { Problem } from "./api.js";

const PEAKS = 1200; // columns of the waveform

/** `blob` is null for the clip's own sound; `truth` says what really sounds when, where that is known. */
export class Sound {
  constructor(id, title, { blob = null, fileName = "", url = "", own = false, truth = null } = {}) {
    Object.assign(this, { id, title, blob, fileName, url, own, truth });
    this.peaks = null;
  }

  static of(file) {
    return new Sound(`file-${file.name}-${file.size}`, file.name, { blob: file, fileName: file.name });
  }

  async data() {
    if (!this.blob) this.blob = await fetched(this.url);
    return this.blob;
  }
}

/** One video, from the samples or from the visitor's disk. */
export class Clip {
  constructor({ name, title, blob = null, url = "", fileName, sounds = [], labels = [], sample = false }) {
    Object.assign(this, { name, title, blob, url, fileName, labels, sample });
    this.own = new Sound("own", "Its own sound", { own: true, truth: sample ? sample.truth : null });
    this.sounds = [this.own, ...sounds];
    this.uploads = new Map(); // sound id -> upload
    this.local = null; // an address for <video>
    this.silent = false; // known when the service has seen it
    this.unplayable = false; // known when the browser has tried
  }

  async data() {
    if (!this.blob) this.blob = await fetched(this.url);
    return this.blob;
  }

  static of(file, sounds) {
    const name = file.name.replace(/\.[^.]*$/, "") || "clip";
    return new Clip({ name, title: file.name, blob: file, fileName: file.name, sounds });
  }

  async address() {
    if (!this.local) this.local = URL.createObjectURL(await this.data());
    return this.local;
  }

  /** The upload of this clip with a sound; made once, and again when the service has forgotten it. */
  async upload(api, sound, signal) {
    const known = this.uploads.get(sound.id);
    if (known && Date.parse(known.expires_at) - Date.now() > 60_000) return known;
    const video = await this.data();
    const parts = sound.own
      ? [["media", video, this.fileName]]
      : [["video", video, this.fileName], ["audio", await sound.data(), sound.fileName]];
    const made = await api.upload(parts, signal);
    this.uploads.set(sound.id, made);
    return made;
  }

  forget(sound) {
    this.uploads.delete(sound.id);
  }

  /** The loudest sample of each column in [0, 1], or null where the browser cannot decode the sound. */
  async peaks(sound) {
    if (sound.peaks) return sound.peaks;
    try {
      const blob = sound.own ? await this.data() : await sound.data();
      const context = new OfflineAudioContext(1, 1, 22_050);
      const buffer = await context.decodeAudioData(await blob.arrayBuffer());
      sound.seconds = buffer.duration;
      sound.peaks = peaksOf(buffer.getChannelData(0));
    } catch {
      sound.peaks = null;
    }
    return sound.peaks;
  }
}

function peaksOf(samples) {
  const peaks = new Float32Array(PEAKS);
  const step = samples.length / PEAKS;
  for (let column = 0; column < PEAKS; column += 1) {
    const end = Math.min(samples.length, Math.ceil((column + 1) * step));
    for (let i = Math.floor(column * step); i < end; i += 1) {
      peaks[column] = Math.max(peaks[column], Math.abs(samples[i]));
    }
  }
  return peaks;
}

async function fetched(url) {
  const response = await fetch(url).catch(() => null);
  if (!response) throw Problem.silent();
  if (!response.ok) throw await Problem.of(response);
  return response.blob();
}

/** The clips that come with the service. */
export async function bundled() {
  const response = await fetch("/samples/samples.json");
  if (!response.ok) throw await Problem.of(response);
  const listed = await response.json();
  const silence = () => silent(listed.silence);
  return listed.data.map((one) => new Clip({
    name: one.name,
    title: one.caption,
    url: `/samples/${one.file}`,
    fileName: one.file,
    labels: one.labels,
    sample: { poster: `/samples/${one.poster}`, heard: one.heard, truth: one.truth },
    sounds: [silence(), ...one.sounds.map((sound) => swapped(sound))],
  }));
}

/** Silence, and a sound of each of two samples, for a clip of the visitor's own. */
export function borrowed(samples) {
  const others = samples.slice(0, 2).map((one) => one.sounds.find((sound) => !sound.own && sound.id !== "silence"));
  const fresh = others.map((one) => new Sound(one.id, one.title, { url: one.url, fileName: one.fileName }));
  return [silent("silence.wav"), ...fresh];
}

const silent = (file) => new Sound("silence", "muted", { url: `/samples/${file}`, fileName: file, truth: {} });

function swapped(sound) {
  return new Sound(sound.file, sound.heard, { url: `/samples/${sound.file}`, fileName: sound.file, truth: sound.truth });
}
