"use strict";
// Tables are sorted by a click on a heading; the gallery is filtered by class and by error. Without this script the
// page shows everything in its first order.
(() => {
  const missing = "\u2014";
  const number = (text) => {
    const found = text.replace("\u2212", "-").match(/^[-+]?\d[\d.]*(e[-+]?\d+)?/);
    return found === null ? NaN : parseFloat(found[0]);
  };
  const sort = (table, column, falling) => {
    const body = table.tBodies[0], rows = [...body.rows];
    const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const known = rows.filter((row) => texts.get(row) !== missing && texts.get(row) !== "");
    const numeric = known.every((row) => !Number.isNaN(number(texts.get(row))));
    known.sort((one, other) => {
      const [a, b] = [texts.get(one), texts.get(other)];
      return (falling ? -1 : 1) * (numeric ? number(a) - number(b) : a.localeCompare(b, "en", {numeric: true}));
    });
    body.append(...known, ...rows.filter((row) => !known.includes(row)));
  };
  for (const table of document.querySelectorAll(".wide table")) {
    if (table.tBodies[0].rows.length < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        sort(table, column, falling);
      });
    });
  }
  const filters = document.querySelector(".filters");
  if (filters !== null) {
    const rows = [...document.querySelectorAll("article[data-classes]")];
    const shown = filters.querySelector("output");
    const apply = () => {
      const of = (name) => filters.elements[name].value;
      for (const row of rows) {
        const classes = row.dataset.classes.split(" ");
        row.hidden = !((of("class") === "" || classes.includes(of("class")))
          && (of("error") === "" || row.dataset.kind === of("error") || row.dataset.right === of("error")));
      }
      shown.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    filters.addEventListener("change", apply);
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.hidden = false;
    apply();
  }
})();
