// Controls for any strategy, made from its JSON schema: a new option needs no line here.

import { coded, el, icon } from "./dom.js";
import { commonNames, defaultsOf, difference, isObject, overlaid, resolved } from "./schema.js";

const FEW = 3; // choices that stand side by side; more become a list
const SHORT = new Set(["fps", "nms"]); // names that are initials
let unique = 0;

/** The options of one strategy. `changes()` is what differs from the defaults, and so what is sent. */
export class Options {
  constructor(strategy, strategies, { changes = {}, suggestions = {}, onchange }) {
    Object.assign(this, { strategy, suggestions, onchange });
    this.common = commonNames(strategies);
    this.element = el("div", { class: "option-groups" });
    this.reset(changes);
    this.suggest(suggestions);
  }

  /** Names of what is in view stand in for a vocabulary, unless the visitor has named some. */
  suggest(suggestions) {
    const before = this.suggestions.labels || [];
    this.suggestions = suggestions;
    const { labels } = this.value;
    if (labels && (!labels.length || String(labels) === String(before))) this.value = { ...this.value, labels: suggestions.labels };
    this.render();
  }

  reset(changes = {}) {
    this.preset = changes.preset || "best";
    this.defaults = defaultsOf(this.strategy, this.preset);
    this.value = overlaid(this.defaults, changes);
    this.render();
  }

  changes() {
    const changed = difference(this.value, this.defaults) || {};
    return this.preset === "best" ? changed : { preset: this.preset, ...changed };
  }

  set(path, value) {
    if (path.length === 1 && path[0] === "preset") {
      this.reset({ ...this.shared(), preset: value }); // another preset is another set of defaults
      this.suggest(this.suggestions);
    } else {
      const nested = path.reduceRight((inner, name) => ({ [name]: inner }), value);
      this.value = path.length === 1 ? { ...this.value, ...nested } : overlaid(this.value, nested);
    }
    this.count();
    this.onchange();
  }

  shared() {
    const changed = this.changes();
    return Object.fromEntries(Object.entries(changed).filter(([name]) => this.common.has(name)));
  }

  render() {
    const open = [...this.element.querySelectorAll("details")].map((one) => one.open);
    const names = Object.keys(this.strategy.params.properties);
    const groups = [
      ["Method", names.filter((name) => !this.common.has(name)), true],
      ["Sampling and output", names.filter((name) => this.common.has(name)), false],
    ].filter(([, members]) => members.length);
    this.element.replaceChildren(...groups.map(([title, members, first], number) => {
      const body = members.map((name) => this.control(this.strategy.params.properties[name], [name]));
      const badge = el("span", { class: "badge" });
      const group = el("details", { open: open[number] ?? false, "data-names": members.join(" ") },
        el("summary", {}, title === "Method" ? "Options of the method" : title, badge), el("div", { class: "fields" }, body));
      group.firstChild.addEventListener("click", () => setTimeout(() => group.open && group.scrollIntoView({ block: "nearest" })));
      return group;
    }));
    this.count();
  }

  /** How many options of a group differ from the defaults. */
  count() {
    const changed = new Set(Object.keys(this.changes()));
    for (const group of this.element.querySelectorAll("details[data-names]")) {
      const number = group.dataset.names.split(" ").filter((name) => changed.has(name)).length;
      const badge = group.querySelector(".badge");
      badge.textContent = number ? `${number} changed` : "";
    }
  }

  read(path) {
    return path.reduce((value, name) => (isObject(value) ? value[name] : undefined), this.value);
  }

  control(node, path) {
    const full = resolved(this.strategy.params, node);
    if (full.properties) return this.group(full, path);
    const set = (value) => this.set(path, value);
    const id = `field-${(unique += 1)}`;
    const field = { id, value: this.read(path), set, full, suggest: this.suggestions[path.join(".")] };
    const make = full.enum ? choice : { boolean: toggle, number, integer: number, array: list, object: json }[full.type] || words;
    const [label, ...rest] = full.nullable && (make === number || make === choice) ? nullable(field, make) : make(field);
    const help = full.description ? el("p", { class: "help", id: `${field.id}-help` }, ...coded(full.description)) : null;
    rest.flatMap((part) => [part, ...part.querySelectorAll("input, select, textarea")])
      .forEach((part) => help && part.matches("input, select, textarea") && part.setAttribute("aria-describedby", help.id));
    return el("div", { class: "field", "data-path": path.join(".") },
      el("div", { class: "field-head" }, label(nameOf(path[path.length - 1]))), ...rest, help);
  }

  group(full, path) {
    const members = Object.entries(full.properties).map(([name, node]) => this.control(node, [...path, name]));
    return el("fieldset", { class: "group" }, el("legend", {}, nameOf(path[path.length - 1])), ...members);
  }
}

/** `top_k` as people would write it. */
function nameOf(name) {
  const words = name.replaceAll("_", " ");
  return SHORT.has(name) ? name.toUpperCase() : words[0].toUpperCase() + words.slice(1);
}

// Each kind of control: how its label is written, then its elements.

const labelFor = (id) => (text) => el("label", { htmlFor: id }, text);
const caption = (id) => (text) => el("span", { id }, text);

function toggle({ id, value, set }) {
  const input = el("input", { type: "checkbox", id, checked: value === true, role: "switch", class: "switch" });
  input.addEventListener("change", () => set(input.checked));
  return [(text) => el("span", { class: "switched" }, el("label", { htmlFor: id }, text), input)];
}

function choice({ id, value, set, full }) {
  if (full.enum.length > FEW) {
    const select = el("select", { id }, full.enum.map((one) => el("option", { value: one, selected: one === value }, one)));
    select.addEventListener("change", () => set(select.value));
    return [labelFor(id), select];
  }
  const buttons = full.enum.map((one) => {
    const input = el("input", { type: "radio", name: id, value: one, checked: one === value });
    input.addEventListener("change", () => set(one));
    return el("label", {}, input, el("span", {}, one));
  });
  return [caption(`${id}-name`), el("div", { class: "segments", role: "radiogroup", "aria-labelledby": `${id}-name` }, buttons)];
}

function number({ id, value, set, full }) {
  const low = full.minimum ?? full.exclusiveMinimum;
  const high = full.maximum ?? full.exclusiveMaximum;
  const whole = full.type === "integer";
  const ranged = low !== undefined && high !== undefined && high - low <= 128;
  const step = whole ? 1 : ranged && high - low <= 4 ? 0.01 : "any";
  const box = el("input", { type: "number", id, min: low, max: high, step, value: value ?? "", inputMode: "decimal", class: "number" });
  const take = (text) => {
    const one = Number(text);
    if (text === "" || Number.isNaN(one)) return;
    set(whole ? Math.round(one) : one);
  };
  box.addEventListener("change", () => take(box.value));
  const head = (text) => el("span", { class: "numbered" }, el("label", { htmlFor: id }, text), box);
  if (!ranged) return [head];
  const range = el("input", { type: "range", min: low, max: high, step: step === "any" ? 1 : step, value: value ?? low });
  range.addEventListener("input", () => {
    box.value = range.value;
  });
  range.addEventListener("change", () => take(range.value));
  box.addEventListener("input", () => {
    range.value = box.value;
  });
  return [(text) => {
    range.setAttribute("aria-label", text);
    return head(text);
  }, range];
}

/** "Automatic", or a value of one's own. */
function nullable(field, make) {
  const { id, value, set, full } = field;
  const start = full.enum ? full.enum[0] : full.type === "integer" ? full.minimum ?? 1 : middle(full);
  let kept = value ?? start;
  const [label, ...rest] = make({ ...field, value: kept, set: (one) => {
    kept = one;
    set(one);
  } });
  const own = el("input", { type: "checkbox", class: "switch", role: "switch", id: `${id}-own`, checked: value !== null });
  const body = el("div", { class: "nullable" });
  const state = el("small");
  const show = () => {
    body.hidden = !own.checked;
    state.textContent = own.checked ? " set by you" : " automatic";
  };
  own.addEventListener("change", () => {
    show();
    set(own.checked ? kept : null);
  });
  return [(text) => {
    body.append(label(`${text}, value`), ...rest);
    show();
    return el("span", { class: "switched" }, el("label", { htmlFor: own.id }, text, state), own);
  }, body];
}

function middle({ minimum: low = 0, maximum: high }) {
  return high === undefined ? low + 1 : Math.round((50 * (low + high))) / 100;
}

/** Names, each a chip; Enter or a comma ends one. */
function list({ id, value, set, suggest }) {
  let names = [...(value || [])];
  const input = el("input", { type: "text", id, placeholder: "type a name, press Enter", autocomplete: "off" });
  const chips = el("ul", { class: "chips" });
  const offered = suggest && suggest.length
    ? el("button", { type: "button", class: "link", onclick: () => change([...names, ...suggest]) }, `Use the names of this clip: ${suggest.join(", ")}`)
    : null;
  const show = () => {
    if (offered) offered.hidden = suggest.every((name) => names.includes(name));
    chips.replaceChildren(...names.map((name) => el("li", {}, name,
      el("button", {
        type: "button", class: "bare", "aria-label": `Remove ${name}`, onclick: () => change(names.filter((one) => one !== name)),
      }, icon("close")))));
  };
  const change = (changed) => {
    names = [...new Set(changed)];
    show();
    set(names);
  };
  const add = () => {
    const typed = input.value.split(",").map((one) => one.trim()).filter(Boolean);
    input.value = "";
    if (typed.length) change([...names, ...typed]);
  };
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== ",") return;
    event.preventDefault();
    add();
  });
  input.addEventListener("change", add);
  show();
  return [labelFor(id), ...[chips, input, offered].filter(Boolean)];
}

function words({ id, value, set, full }) {
  const input = el("input", {
    type: "text", id, value: value ?? "", maxLength: full.maxLength, placeholder: full.nullable ? "none" : "", autocomplete: "off",
  });
  input.addEventListener("change", () => set(input.value === "" && full.nullable ? null : input.value));
  return [labelFor(id), input];
}

function json({ id, value, set }) {
  const written = value && Object.keys(value).length ? JSON.stringify(value) : "";
  const area = el("textarea", { id, rows: 2, spellcheck: false, value: written, placeholder: "{}" });
  area.addEventListener("change", () => {
    try {
      const read = area.value.trim() ? JSON.parse(area.value) : {};
      if (!isObject(read)) throw new Error("no object");
      area.setCustomValidity("");
      set(read);
    } catch {
      area.setCustomValidity('This is no JSON object, such as {"ref": "abc"}.');
      area.reportValidity();
    }
  });
  return [labelFor(id), area];
}
