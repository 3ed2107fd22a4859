"use strict";
// The tables are complete without this. With it their columns sort, and rows of a table can be
// filtered by what they carry as data.
(() => {
  const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

  // The number that a cell begins with, as the page writes it: "−1,234.5", "3.0 × 10⁻¹⁵",
  // "[0.1, 0.2]" by its low end; NaN for anything else.
  function number(text) {
    const plain = text.trim().replace(/^\[/, "").replaceAll("−", "-").replace(/(\d),(?=\d{3})/g, "$1");
    const found = plain.match(/^×?\s*([+-]?\d+(?:\.\d+)?)(?: × 10(⁻?)([⁰¹²³⁴⁵⁶⁷⁸⁹]+))?/);
    if (!found) return NaN;
    const power = [...(found[3] ?? "")].map((c) => SUPERSCRIPTS.indexOf(c)).join("");
    return Number(`${found[1]}e${found[2] ? "-" : ""}${power || 0}`);
  }

  // Numbers before words, and empty cells last whatever the direction.
  function order(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) {
      const words = Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b, "en", { numeric: true });
      return sign * words;
    }
    return sign * (x - y);
  }

  function sort(table, column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.forEach((row, index) => { row.dataset.index ??= index; });
      const recorded = (a, b) => a.dataset.index - b.dataset.index;
      const text = (row) => row.cells[column].textContent.trim();
      const keys = new Map(rows.map((row) => [row, text(row)]));
      rows.sort(direction
        ? (a, b) => order(keys.get(a), keys.get(b), sign) || recorded(a, b)
        : recorded);
      body.append(...rows);
    }
  }

  // Up, down, and as recorded; the state stands in aria-sort, where it is read out.
  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if ("unsorted" in head.dataset) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: null }[head.ariaSort];
        const direction = next === undefined ? "ascending" : next;
        for (const other of heads) other.removeAttribute("aria-sort");
        if (direction) head.setAttribute("aria-sort", direction);
        sort(table, column, direction);
      });
    });
  }

  function makeFilter(form) {
    const rows = [...document.getElementById(form.dataset.filters).querySelectorAll("tr[data-verdict]")];
    const told = form.querySelector("output");
    const all = told.textContent;

    function apply() {
      const wanted = new FormData(form);
      const names = [...new Set(wanted.keys())];
      for (const row of rows) {
        row.hidden = !names.every((name) => wanted.getAll(name).includes(row.dataset[name]));
      }
      for (const body of new Set(rows.map((row) => row.parentElement))) {
        body.hidden = ![...body.querySelectorAll("tr[data-verdict]")].some((row) => !row.hidden);
      }
      const shown = rows.filter((row) => !row.hidden).length;
      told.textContent = names.length ? `${shown} of ${rows.length} claims` : all;
      form.querySelector("button").hidden = !names.length;
    }

    form.addEventListener("change", apply);
    form.addEventListener("reset", () => setTimeout(apply));
    // A link to a row that is filtered out shows it.
    addEventListener("hashchange", () => {
      const target = document.getElementById(location.hash.slice(1));
      if (!rows.includes(target) || !target.hidden) return;
      form.reset();
      setTimeout(() => target.scrollIntoView());
    });
    form.hidden = false;
    apply(); // a page that is reloaded keeps its ticks
  }

  document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
  document.querySelectorAll("form[data-filters]").forEach(makeFilter);
})();
