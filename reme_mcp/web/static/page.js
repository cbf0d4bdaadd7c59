// What the page does beyond links and forms. Without it everything works, with more loading.
"use strict";

// The server says when the pool has changed; lists that listen fetch themselves anew.
const events = document.body.dataset.events;
if (events && window.EventSource) {
  const stream = new EventSource(events);
  stream.addEventListener("changed", () => {
    const busy = document.activeElement && document.activeElement.matches("textarea, input[type=range]");
    if (!busy && window.htmx) window.htmx.trigger(document.body, "pool-changed");
  });
  window.addEventListener("pagehide", () => stream.close());
}

// Of the filters in one group, one holds; choosing it again lets go of it.
document.addEventListener("change", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || box.type !== "checkbox" || !box.checked) return;
  for (const other of box.form.querySelectorAll(`input[type=checkbox][name=${box.name}]`)) {
    if (other !== box) other.checked = false;
  }
}, true);

// A slider says its number while it moves.
document.addEventListener("input", (event) => {
  const slider = event.target;
  if (!(slider instanceof HTMLInputElement) || slider.type !== "range") return;
  slider.closest("label").querySelector("output").textContent = slider.value;
});

let current = -1;
document.addEventListener("keydown", (event) => {
  const inText = event.target.closest && event.target.closest("input, textarea, select");
  if (inText) {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey) && inText.form) inText.form.requestSubmit();
    return;
  }
  if (event.metaKey || event.ctrlKey || event.altKey) return;
  const search = document.getElementById("q");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
    return;
  }
  const held = [...document.querySelectorAll(".held")];
  if (!held.length) return;
  if (event.key === "j" || event.key === "k") {
    current = Math.min(Math.max(current + (event.key === "j" ? 1 : -1), 0), held.length - 1);
    held[current].focus();
    held[current].scrollIntoView({ block: "nearest" });
    return;
  }
  // Only what a person has gone to is decided by a key.
  const one = document.activeElement.closest(".held");
  const button = one && one.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
  if (button) button.click();
});

// The menu of workspaces closes where a click goes elsewhere.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.ws[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
