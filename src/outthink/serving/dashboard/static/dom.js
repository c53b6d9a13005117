// Elements. Text only ever becomes text: nothing here reads markup, so no answer or name can be one.

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const at = (id) => document.getElementById(id);

// A table whose columns say how a row is shown: {title, cell(row), number, head, kind}.
export function table(caption, columns, rows, footer = null) {
  const cell = (column, row, scope) =>
    el(scope ? "th" : "td", { scope, class: column.number ? "number" : column.kind }, column.cell(row));
  const line = (row) => el("tr", {}, columns.map((column) => cell(column, row, column.head ? "row" : null)));
  const heads = columns.map((column) => el("th", { scope: "col", class: column.number ? "number" : null }, column.title));
  return el(
    "table",
    {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, heads)),
    el("tbody", {}, rows.map(line)),
    footer ? el("tfoot", {}, line(footer)) : null,
  );
}

// A bar beside a number; decoration, since the number is there.
export function bar(share, kind = "") {
  const inner = el("span", { class: `fill ${kind}` });
  inner.style.inlineSize = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return el("span", { class: "track", "aria-hidden": "true" }, inner);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
