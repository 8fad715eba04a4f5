// The lines that do what is on the screen, to be pasted into a terminal or a program.

import { announce, el, icon } from "./dom.js";
import { isObject } from "./schema.js";

/** `{thresholds: {mask: 0.4}}` as `thresholds.mask=0.4`, the way form fields are written. */
function fieldsOf(params, path = "") {
  return Object.entries(params).flatMap(([name, value]) => {
    const key = path ? `${path}.${name}` : name;
    if (isObject(value) && key !== "metadata") return fieldsOf(value, key);
    return [[key, typeof value === "object" ? JSON.stringify(value) : String(value)]];
  });
}

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** What is fetched from the service first: the files of a sample. */
const filesOf = ({ clip, sound }) => [clip, sound].filter((one) => one.url)
  .map((one) => ({ address: window.location.origin + one.url, fileName: one.fileName }));

function curlOf({ clip, sound, strategy, params, key }) {
  const origin = window.location.origin;
  const files = sound.own ? [`media=@${clip.fileName}`] : [`video=@${clip.fileName}`, `audio=@${sound.fileName}`];
  const got = filesOf({ clip, sound }).map(({ address }) => `curl -O ${address}`);
  const [first, ...rest] = [
    ...(key ? ['-H "Authorization: Bearer $EARSHOT_KEY"'] : []),
    ...files.map((file) => `-F ${quoted(file)}`),
    ...fieldsOf(params).map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`),
    `${origin}/v1/segment/${strategy}`,
  ];
  return [...got, [`curl ${first}`, ...rest].join(" \\\n  ")].join("\n");
}

function pythonOf({ clip, sound, strategy, params, key }) {
  const given = Object.entries(params).map(([name, value]) => `        ${name}=${literal(value)},`);
  const audio = sound.own ? [] : [`        audio=${literal(sound.fileName)},`];
  const got = filesOf({ clip, sound }).map(({ address, fileName }) => `urlretrieve(${literal(address)}, ${literal(fileName)})`);
  const imports = [...(key ? ["import os"] : []), ...(got.length ? ["from urllib.request import urlretrieve"] : [])];
  return [
    "# In the folder of Earshot's repository, where this client is.",
    ...imports,
    ...(imports.length ? [""] : []),
    "from service.client import Client",
    "",
    ...got,
    `with Client(${literal(window.location.origin)}${key ? ', api_key=os.environ["EARSHOT_KEY"]' : ""}) as client:`,
    "    result = client.segment(",
    `        ${literal(clip.fileName)},`,
    `        ${literal(strategy)},`,
    ...audio,
    ...given,
    "    )",
    "    for frame in result.frames:",
    "        print(frame.timestamp, [one.label for one in frame.instances], frame.mask.pixels().mean())",
    '    result.overlay("overlay.mp4")',
  ].join("\n");
}

/** A JSON value as Python writes it. */
function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (isObject(value)) return `{${Object.entries(value).map(([name, one]) => `${literal(name)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** Two tabs of code, each with a button that copies it. */
export class Snippets {
  constructor(place) {
    this.chosen = "curl";
    this.order = null;
    this.code = el("code");
    this.tabs = ["curl", "Python"].map((name) => el("button", {
      type: "button", class: "tab", role: "tab", "aria-controls": "code", id: `tab-${name}`, onclick: () => this.choose(name),
    }, name));
    const copy = el("button", { type: "button", class: "chip copy", onclick: () => this.copy(copy) }, icon("copy"), "Copy");
    const panel = el("pre", { id: "code", role: "tabpanel", tabIndex: 0 }, this.code);
    place.append(el("div", { class: "tabs" }, el("div", { role: "tablist", "aria-label": "Language" }, this.tabs), copy), panel);
    this.tabs[0].parentElement.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      this.choose(this.chosen === "curl" ? "Python" : "curl");
      this.tabs.find((tab) => tab.textContent === this.chosen).focus();
    });
    this.choose("curl");
  }

  choose(name) {
    this.chosen = name;
    this.tabs.forEach((tab) => {
      const mine = tab.textContent === name;
      tab.setAttribute("aria-selected", String(mine));
      tab.tabIndex = mine ? 0 : -1;
    });
    this.show(this.order);
  }

  show(order) {
    this.order = order;
    if (order) this.code.textContent = this.chosen === "curl" ? curlOf(order) : pythonOf(order);
  }

  async copy(button) {
    try {
      await navigator.clipboard.writeText(this.code.textContent);
      button.lastChild.textContent = "Copied";
      announce("Copied.");
    } catch {
      getSelection().selectAllChildren(this.code); // no permission: selected, so that Ctrl-C does it
      button.lastChild.textContent = "Press Ctrl-C";
    }
    setTimeout(() => {
      button.lastChild.textContent = "Copy";
    }, 1600);
  }
}
