// Sums by key, model, strategy or day. An unknown part makes a sum unknown; what is known of it stands beside.

import { get, keys, named } from "./api.js";
import { at, bar, el, table } from "./dom.js";
import { count, joules, plural, unknown, usd } from "./words.js";

const DAY = 86400;
const MANY = { key: "keys", model: "models", strategy: "strategies", day: "days" };

export async function spend() {
  const form = at("spend-form");
  const by = form.elements.by.value;
  const days = form.elements.days.value;
  const today = Math.floor(Date.now() / 1000 / DAY) * DAY;
  const [told] = await Promise.all([get("spend", { by, since: days === "" ? null : today - days * DAY }), keys()]);
  const box = at("spend-rows");
  if (told.by !== form.elements.by.value) return;
  box.replaceChildren(told.rows.length ? shown(by, told.rows) : el("p", { class: "empty" }, "Nothing was spent in this period. The Live view shows how to send a request."));
  at("spend-said").textContent = plural(told.rows.length, by, MANY[by]);
}

function shown(by, rows) {
  const most = Math.max(...rows.map((row) => row.known_tokens), 1);
  const columns = [
    { title: by[0].toUpperCase() + by.slice(1), head: true, cell: (row) => (row.total ? "all" : by === "key" ? named(row.group) : row.group) },
    { title: "Requests", number: true, cell: (row) => count(row.requests) },
    { title: "Tokens", number: true, cell: (row) => sum(row, "tokens", count) },
    { title: "", cell: (row) => (row.total ? "" : bar(row.known_tokens / most)) },
    { title: "Dollars", number: true, cell: (row) => sum(row, "usd", usd) },
    { title: "Joules", number: true, cell: (row) => sum(row, "joules", joules) },
    { title: "Estimated", number: true, cell: (row) => count(row.estimated) },
  ];
  return table(`Spend by ${by}`, columns, rows, rows.length > 1 ? total(rows) : null);
}

function sum(row, currency, words) {
  if (row[currency] !== null) return words(row[currency]);
  const silent = row[`unknown_${currency}`];
  if (silent >= row.requests || row[`known_${currency}`] === 0) return unknown();
  const part = el("span", { class: "unknown" }, `${silent} of ${row.requests} unknown`);
  return el("span", {}, "at least ", words(row[`known_${currency}`]), el("br"), part);
}

function total(rows) {
  const add = (name) => rows.reduce((whole, row) => whole + row[name], 0);
  const all = { total: true, requests: add("requests"), estimated: add("estimated") };
  for (const currency of ["tokens", "usd", "joules"]) {
    all[`known_${currency}`] = add(`known_${currency}`);
    all[`unknown_${currency}`] = add(`unknown_${currency}`);
    all[currency] = all[`unknown_${currency}`] ? null : all[`known_${currency}`];
  }
  return all;
}

export function begin(again) {
  at("spend-form").addEventListener("change", again);
  at("spend-form").addEventListener("submit", (event) => event.preventDefault());
}
