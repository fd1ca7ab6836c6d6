"use strict";
// Sorts tables by their headings, filters slices by metric, and opens folded parts for printing.

const number = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

function keyOf(row, column) {
  const cell = row.cells[column];
  if (!cell) return "";
  if ("sort" in cell.dataset) return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
  return cell.textContent.trim();
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return number.compare(String(a), String(b));
}

function sort(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [keyOf(row, column), row]);
  const missing = (key) => key === null || key === "";
  rows.sort(([a], [b]) => missing(a) || missing(b) ? missing(a) - missing(b) : ascending ? compare(a, b) : compare(b, a));
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const first = table.tBodies[0].rows[0];
    const numeric = first && first.cells[column] && first.cells[column].classList.contains("n");
    if (numeric) heading.classList.add("n");
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

for (const choice of document.querySelectorAll("[data-filters]")) {
  const select = choice.querySelector("select");
  const filtered = document.getElementById(choice.dataset.filters).querySelectorAll("[data-metric]");
  const filter = () => filtered.forEach((item) => {
    item.hidden = select.value !== "" && item.dataset.metric !== select.value;
  });
  select.addEventListener("change", filter);
  filter();
}

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watched = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-10% 0px -80% 0px" });
document.querySelectorAll("main > section").forEach((section) => watched.observe(section));

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((item) => { item.open = true; });
});
addEventListener("afterprint", () => folded.forEach((item) => { item.open = false; }));
