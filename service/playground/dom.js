// Elements without templates: what a page of this size needs instead of a framework.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `on…` properties are listeners, `class` and `aria-…` attributes, the rest properties. */
export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && !key.startsWith("aria-") && key !== "list" && key !== "role") node[key] = value;
    else node.setAttribute(key === "class" ? "class" : key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A sentence of the service: its words in backticks as code. */
export function coded(text) {
  return text.replace(/\s+/g, " ").split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));
}

/** One of the icons in index.html; decoration, so that names stand in the button. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

const drawn = new WeakMap();

/**
 * Fills a place anew, but only when `key` says that something is different: a button that is replaced between
 * press and release loses its click, and the keyboard its place.
 */
export function redraw(place, key, make) {
  const text = JSON.stringify(key);
  if (drawn.get(place) === text) return;
  drawn.set(place, text);
  const reachable = () => [...place.querySelectorAll("button, input, select")];
  const focused = reachable().indexOf(document.activeElement);
  place.replaceChildren(...make());
  if (focused >= 0) reachable()[focused]?.focus();
}

export const $ = (id) => document.getElementById(id);

/** Says something to screen readers that the eye sees by itself. */
export function announce(text) {
  $("announce").textContent = text;
}

/** Seconds as people read them: 4.2 s, 1:05. */
export function clock(seconds) {
  if (!Number.isFinite(seconds)) return "0.0 s";
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

export function percent(share) {
  return share > 0 && share < 0.01 ? "under 1 %" : `${Math.round(share * 100)} %`;
}
