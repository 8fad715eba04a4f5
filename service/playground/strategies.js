// The methods as cards: one line each, and why one cannot run.

import { coded, el } from "./dom.js";

const FIRST = ["ac-fpn", "tpavi", "box-prompt", "heatmap-box-prompt", "point-prompt", "no-prompt"]; // baselines come last

export function inOrder(strategies) {
  const rank = ({ name }) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return [...strategies].sort((one, other) => rank(one) - rank(other));
}

/** The most telling method that is ready. */
export function favourite(strategies) {
  return inOrder(strategies).find((one) => one.ready) || inOrder(strategies)[0];
}

export function strategyCards(strategies, chosen, choose) {
  return inOrder(strategies).map((strategy) => {
    const input = el("input", { type: "radio", name: "strategy", value: strategy.name, checked: strategy.name === chosen });
    input.addEventListener("change", () => choose(strategy.name));
    return el("label", { class: `strategy ${strategy.ready ? "ready" : "missing"}` }, input,
      el("span", { class: "strategy-body" },
        el("span", { class: "strategy-name" }, strategy.name, strategy.ready ? null : el("em", {}, "not ready")),
        el("span", { class: "strategy-line" }, strategy.summary),
        strategy.ready ? null : el("span", { class: "strategy-why" }, ...coded(strategy.reason || ""))));
  });
}
