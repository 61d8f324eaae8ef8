"use strict";
// What works without script, works better with it: live parts, the palette, sorting, copying. No library.
const all = (chosen, within = document) => [...within.querySelectorAll(chosen)];
const cookie = (name, value) => { document.cookie = `${name}=${value}; path=/console; max-age=31536000; samesite=strict`; };

// The viewer's zone, in which the server writes times from the next page on.
cookie("zone", Intl.DateTimeFormat().resolvedOptions().timeZone);

// -- copying: also in parts that come later
const prepare = (within) => { for (const button of all("[data-copy]", within)) button.hidden = !navigator.clipboard; };
prepare(document);
addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1200);
});

// -- sorting a page of a table by a column
const valueOf = (row, place) => {
  const cell = row.cells[place];
  const text = cell.querySelector("time")?.dateTime ?? cell.textContent.trim();
  const number = Number(text.replaceAll(",", ""));
  return text === "–" ? null : Number.isNaN(number) ? text : number;
};
for (const table of all("table[data-sort]")) {
  all("thead th", table).forEach((head, place) => {
    if (place === table.tHead.rows[0].cells.length - 1 && table.querySelector("td.actions")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, place), row]);
      rows.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null);
        const order = typeof one === typeof other ? (one < other ? -1 : one > other ? 1 : 0) : String(one).localeCompare(String(other));
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

// -- menus: one open at a time, closed by Escape and by a click elsewhere
addEventListener("click", (event) => {
  for (const menu of all("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const menu of all("details.menu[open]")) { menu.open = false; menu.firstElementChild.focus(); }
});

// -- the palette
const palette = document.querySelector(".palette");
if (palette) {
  const asked = palette.querySelector("input");
  const links = all("a", palette);
  const opener = document.querySelector("[data-palette]");
  const shown = () => links.filter((link) => !link.parentElement.hidden);
  const open = () => { palette.showModal(); asked.select(); filter(); };
  const filter = () => {
    const text = asked.value.trim().toLowerCase();
    for (const link of links) link.parentElement.hidden = !link.textContent.toLowerCase().includes(text);
  };
  opener.hidden = false;
  if (!/Mac|iPhone|iPad/.test(navigator.platform)) opener.querySelector("kbd").textContent = "Ctrl K";
  opener.addEventListener("click", open);
  asked.addEventListener("input", filter);
  palette.addEventListener("click", (event) => { if (event.target === palette) palette.close(); });
  palette.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && event.target === asked && asked.value && shown().length) { event.preventDefault(); shown()[0].click(); }
    if (!step) return;
    event.preventDefault();
    const places = [asked, ...shown()];
    places[(places.indexOf(document.activeElement) + step + places.length) % places.length].focus();
  });
  addEventListener("keydown", (event) => {
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") { event.preventDefault(); palette.open ? palette.close() : open(); }
    const writes = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !writes && !palette.open) { event.preventDefault(); open(); }
  });
}

// -- live parts: the server sends their HTML, each for the element with its id
const source = document.querySelector("[data-stream]");
if (source) {
  const events = new EventSource(source.dataset.stream);
  events.addEventListener("part", (event) => {
    const { id, html } = JSON.parse(event.data);
    const part = document.getElementById(id);
    if (!part || part.contains(document.activeElement) || part.querySelector("details[open]")) return;
    const made = new DOMParser().parseFromString(html, "text/html").body;
    part.replaceChildren(...made.childNodes);
    prepare(part);
  });
  events.addEventListener("over", () => { events.close(); location.reload(); });
}
