// A finished take in each of its forms. Fetched by script, because a plain link cannot carry a key.

import { announce, el, icon } from "./dom.js";

const FORMS = [
  ["mp4", "Overlay", "overlay.mp4"],
  ["sheet", "Contact sheet", "sheet.png"],
  ["zip", "PNG masks", "masks.zip"],
  ["json", "RLE JSON", "result.json"],
  ["coco", "COCO", "coco.json"],
];

export function downloadButtons(api, take, fail) {
  const ready = take && take.status === "succeeded";
  return FORMS.map(([format, title, fileName]) => {
    const button = el("button", { type: "button", class: "chip", disabled: !ready }, icon("down"), title);
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.lastChild.textContent = format === "mp4" || format === "sheet" ? "Making it…" : "Fetching…";
      try {
        await saveResult(api, take.job, format, `${take.clip.name}-${take.strategy}-${fileName}`);
        announce(`${title} saved.`);
      } catch (problem) {
        fail(problem);
      }
      button.lastChild.textContent = title;
      button.disabled = false;
    });
    return button;
  });
}

export async function saveResult(api, job, format, fileName) {
  const address = URL.createObjectURL(await api.result(job, format));
  el("a", { href: address, download: fileName }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
