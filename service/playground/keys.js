// Keys for the whole page: space plays, R runs, the arrows step; a control that has the focus keeps its own.

const CONTROLS = "input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select, button, summary, dialog, a";
const STEP = 0.5; // seconds

export function shortcuts({ toggle, run, step }) {
  document.addEventListener("keydown", (event) => {
    if (event.target.closest(CONTROLS) || event.ctrlKey || event.metaKey || event.altKey) return;
    const anywhere = { " ": toggle, r: run }[event.key];
    const onThePage = { ArrowRight: () => step(STEP), ArrowLeft: () => step(-STEP) }[event.key];
    const act = anywhere || (event.target === document.body && onThePage);
    if (!act) return;
    act();
    event.preventDefault();
  });
}
