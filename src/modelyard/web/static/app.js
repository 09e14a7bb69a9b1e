// The little that pages need beyond htmx: keys, copying, ages, and saying when the server is gone.
"use strict";

(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => root.querySelectorAll(selector);

  // `/` goes to the filter of the page, Escape leaves it.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    const filter = one("[data-filter] input[type=search]");
    if (event.key === "/" && filter && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      filter.focus();
      filter.select();
    } else if (event.key === "Escape" && typing === filter && filter) {
      filter.blur();
    }
  });

  // Copy a command.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });

  // Ages grow while a page is open.
  const units = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [86400 * 45, 86400, "d"]];
  const age = () => {
    const now = Date.now() / 1000;
    for (const time of all("time[data-at]")) {
      const past = now - Number(time.dataset.at);
      const unit = units.find(([below]) => past < below);
      if (past < 5) time.textContent = "just now";
      else if (unit) time.textContent = `${Math.floor(past / unit[1])} ${unit[2]} ago`;
    }
  };
  setInterval(age, 15000);

  // A page that follows a run says when it cannot.
  const away = (gone) => {
    const note = one("#offline");
    if (note) note.hidden = !gone;
  };
  document.addEventListener("htmx:error", () => away(true));
  document.addEventListener("htmx:after:swap", () => {
    away(false);
    ready();
  });

  // What a fresh piece of a page needs: buttons that work only with a script, and what scrolls turned to what matters.
  const turn = (box, item, across) => {
    const [outer, inner] = [box.getBoundingClientRect(), item.getBoundingClientRect()];
    if (across) box.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
    box.scrollTop += inner.top + inner.height / 2 - outer.top - outer.height / 2;
  };
  let turned = false;
  const ready = () => {
    for (const button of all("[data-copy]")) button.hidden = false;
    const graph = one("[data-graph]");
    if (!graph || turned) return;
    turned = true;
    const here = one('[data-status="failed"], [data-status="running"]', graph);
    const node = here ?? one("[data-status]", graph);
    if (node) turn(graph, node, here !== null);
  };
  const current = one(".menu [aria-current]");
  if (current) turn(current.parentElement, current, true);
  ready();
})();
