// The only script of reports: which chart is shown, hidden strategies, tooltips and sorting.
// The charts and the table are already in the page; without this script the first chart stays.
"use strict";
(() => {
  const rows = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tip = document.getElementById("tip");
  const shown = { metric: document.querySelector(".chart").dataset.metric, scale: "log" };
  const off = new Set();

  function refresh() {
    for (const chart of all(".chart")) {
      chart.hidden = chart.dataset.metric !== shown.metric || chart.dataset.scale !== shown.scale;
    }
    for (const button of all(".bar button")) {
      const { metric, scale } = button.dataset;
      button.setAttribute("aria-pressed", String(metric ? metric === shown.metric : scale === shown.scale));
    }
    for (const item of all("[data-strategy]")) item.classList.toggle("off", off.has(item.dataset.strategy));
    for (const key of all(".key")) key.setAttribute("aria-pressed", String(!off.has(key.dataset.key)));
    hideTip();
  }

  for (const button of all(".bar button")) {
    button.addEventListener("click", () => {
      Object.assign(shown, button.dataset);
      refresh();
    });
  }

  for (const key of all(".key")) {
    if (!key.hasAttribute("aria-hidden")) {
      key.setAttribute("role", "button");
      key.setAttribute("tabindex", "0");
      key.setAttribute("aria-label", `show ${key.dataset.key}`);
    }
    const toggle = () => {
      const name = key.dataset.key;
      if (!off.delete(name)) off.add(name);
      refresh();
    };
    key.addEventListener("click", toggle);
    key.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle();
    });
  }

  const number = (value, digits = 0) =>
    value === null ? "unknown" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const range = (low, high) => (low === null || high === null ? "" : ` [${number(100 * low, 1)}, ${number(100 * high, 1)}]`);

  // Of these a row has those that its table has.
  const amounts = [
    ["tokens", "tokens", (value) => number(value)],
    ["prompt tokens", "prompt_tokens", (value) => number(value)],
    ["cancelled tokens", "cancelled_tokens", (value) => number(value)],
    ["FLOPs", "flops", (value) => (value === null ? "unknown" : value.toExponential(2))],
    ["seconds", "seconds", (value) => number(value, 1)],
    ["samples", "samples", (value) => number(value, 1)],
    ["GPUs", "gpus_exact", (value) => number(value, 2)],
    ["dollars an answer", "usd_per_answer", (value) => (value === null ? "unknown" : value.toPrecision(3))],
    ["watts, modelled", "watts", (value) => number(value)],
  ];

  function facts(row) {
    const lines = [["accuracy", `${number(100 * row.accuracy, 1)} %${range(row.accuracy_low, row.accuracy_high)}`]];
    for (const [name, key, write] of amounts) if (key in row) lines.push([name, write(row[key])]);
    if (row.difference != null && row.strategy !== "self-consistency") {
      lines.push(["vs self-consistency", `${number(100 * row.difference, 1)}${range(row.difference_low, row.difference_high)} points`]);
    }
    return lines;
  }

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  function showTip(point) {
    const row = rows[point.dataset.row];
    tip.replaceChildren(element("b", `${row.strategy}, n = ${row.n}`));
    for (const [name, value] of facts(row)) {
      const line = document.createElement("div");
      line.append(element("span", name), element("em", value));
      line.lastChild.style.fontStyle = "normal";
      tip.append(line);
    }
    tip.hidden = false;
    const box = point.lastElementChild.getBoundingClientRect();
    const left = box.right + 12 + tip.offsetWidth > innerWidth ? box.left - 12 - tip.offsetWidth : box.right + 12;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, Math.min(box.top - 20, innerHeight - tip.offsetHeight - 4))}px`;
    light(point.dataset.row);
  }

  function hideTip() {
    tip.hidden = true;
    light(null);
  }

  function light(place) {
    for (const line of all("tr[data-row]")) line.classList.toggle("lit", line.dataset.row === place);
  }

  for (const point of all(".point")) {
    point.addEventListener("mouseenter", () => showTip(point));
    point.addEventListener("focus", () => showTip(point));
    point.addEventListener("mouseleave", hideTip);
    point.addEventListener("blur", hideTip);
  }
  addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
  addEventListener("scroll", hideTip, { passive: true });

  for (const button of all("th button")) {
    button.addEventListener("click", () => {
      const header = button.parentElement;
      const column = Number(button.dataset.column);
      const text = header.classList.contains("text");
      const descending = header.hasAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : !text;
      const table = header.closest("table");
      for (const other of all("th", table)) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (line) => line.cells[column].dataset.value;
      const body = table.tBodies[0];
      const sorted = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // unknown stays last either way
        const order = text ? x.localeCompare(y) : x - y;
        return descending ? -order : order;
      });
      body.append(...sorted);
    });
  }

  refresh();
})();
