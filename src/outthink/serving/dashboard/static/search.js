// Requests by id, key, model, strategy, end and time; the terms stand in the address, so a search can be shared.

import { get, keys, named } from "./api.js";
import { at, el, table } from "./dom.js";
import { stop } from "./live.js";
import { count, joules, moment, plural, seconds, usd } from "./words.js";

const NAMES = ["text", "key", "model", "strategy", "stopped", "since", "until"];

export async function search(terms) {
  const form = at("search");
  const known = await keys();
  const select = at("search-key");
  const ids = [...known.rows.map((row) => row.id)];
  const extra = terms.get("key");
  if (extra && !ids.includes(extra)) ids.push(extra);
  select.replaceChildren(el("option", { value: "" }, "any"), ...ids.map((id) => el("option", { value: id }, named(id))));
  for (const name of NAMES) form.elements[name].value = terms.get(name) ?? "";
  suggest();
  const asked = Object.fromEntries(NAMES.map((name) => [name, terms.get(name) ?? ""]));
  for (const name of ["since", "until"]) if (asked[name]) asked[name] = new Date(asked[name]).getTime() / 1000;
  const told = await get("requests", { ...asked, before: terms.get("before") });
  const box = at("search-rows");
  box.replaceChildren(told.rows.length ? rows(told.rows) : nothing(terms));
  box.scrollLeft = 0;
  at("search-said").textContent = told.rows.length ? `${plural(told.rows.length, "request")}${told.more ? ", and older ones" : ""}` : "No request found";
  at("older").hidden = !told.more;
  at("newest").hidden = !terms.get("before");
  at("older").onclick = () => go(terms, told.rows.at(-1).id);
  at("newest").onclick = () => go(terms, null);
}

function rows(found) {
  return table(
    "Requests, newest first",
    [
      { title: "Began", cell: (row) => moment(row.started) },
      { title: "Request", head: true, cell: (row) => el("a", { href: `#/requests/${row.id}`, title: row.id }, row.strategy) },
      { title: "Model", cell: (row) => row.model },
      { title: "Key", cell: (row) => named(row.key_id) },
      { title: "Stopped", cell: (row) => stop(row.stopped) },
      { title: "Samples", number: true, cell: (row) => count(row.samples) },
      { title: "Tokens", number: true, cell: (row) => count(row.tokens) },
      { title: "Dollars", number: true, cell: (row) => usd(row.usd) },
      { title: "Joules", number: true, cell: (row) => joules(row.joules) },
      { title: "Took", number: true, cell: (row) => seconds(row.seconds) },
    ],
    found,
  );
}

function nothing(terms) {
  const narrowed = NAMES.some((name) => terms.get(name));
  const text = narrowed ? "Nothing fits. Take a term away, or widen the times." : "No requests yet. The Live view shows how to send one.";
  return el("p", { class: "empty" }, text);
}

// Models and strategies must be named in full, so those that were used are offered.
async function suggest() {
  for (const [by, list] of [["model", "models"], ["strategy", "strategies"]]) {
    if (at(list).children.length) continue;
    const told = await get("spend", { by }).catch(() => ({ rows: [] }));
    at(list).replaceChildren(...told.rows.slice(0, 100).map((row) => el("option", { value: row.group })));
  }
}

function go(terms, before) {
  const next = new URLSearchParams(terms);
  if (before) next.set("before", before);
  else next.delete("before");
  location.hash = `#/requests${next.size ? `?${next}` : ""}`;
}

export function begin() {
  const form = at("search");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const filled = NAMES.map((name) => [name, form.elements[name].value.trim()]).filter(([, value]) => value);
    go(new URLSearchParams(filled), null);
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    go(new URLSearchParams(), null);
  });
}
