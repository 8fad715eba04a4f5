// The API key, asked for where the service answers 401.

import { $, el } from "./dom.js";

export function askKey(api, done) {
  const dialog = $("key");
  if (dialog.open) return;
  const input = el("input", { type: "password", id: "key-field", autocomplete: "off", value: api.key, required: true });
  const form = el("form", { method: "dialog" },
    el("h2", { id: "key-title" }, "API key"),
    el("p", {}, "This service asks for a key. It stays in this tab and is forgotten when you close it."),
    el("label", { htmlFor: "key-field" }, "Key"), input,
    el("div", { class: "row" }, el("button", { class: "primary" }, "Use it"),
      el("button", { type: "button", class: "ghost", onclick: () => dialog.close() }, "Not now")));
  form.addEventListener("submit", () => {
    api.useKey(input.value.trim());
    done();
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}
