/* A click on a heading sorts the rows of its table by that column, a second click the other way. */
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  const value = (row) => row.cells[head.cellIndex].dataset.value;
  const order = (a, b) => a - b || a.localeCompare(b, "en", { numeric: true });
  const rows = [...body.rows].sort((a, b) => order(value(a), value(b)));
  head.parentElement.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...(down ? rows.reverse() : rows));
}));
