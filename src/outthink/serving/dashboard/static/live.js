// What runs now, asked for once a second while this view is open, visible and not paused.

import { get, key, keys, named } from "./api.js";
import { at, el, table } from "./dom.js";
import { ballot, strip, summary } from "./votes.js";
import { capacity } from "./capacity.js";
import { count, duration, moment, plural, seconds } from "./words.js";

const cards = new Map();
let paused = false;
let said = { text: "", at: 0 };

export async function live() {
  if (paused || document.hidden) return;
  const [told] = await Promise.all([get("live"), keys()]);
  figures(told);
  capacity(told.capacity);
  running(told);
  ended(told.finished);
  backends(told.backends);
  announce(told);
  at("health").textContent = told.backends.some((backend) => !backend.healthy) ? "a backend is down" : "";
  at("problem").hidden = !told.problem;
  at("problem").textContent = told.problem ? `Ledger: ${told.problem}` : "";
}

function example() {
  return [
    `curl ${new URL("v1/chat/completions", document.baseURI)} \\`,
    `  -H 'content-type: application/json' \\`,
    ...(key.get() ? [`  -H 'authorization: Bearer KEY' \\`] : []),
    `  -d '{"model": "outthink/self-consistency@8",`,
    `       "messages": [{"role": "user", "content": "What is 17 times 23?"}]}'`,
  ].join("\n");
}

export function begin() {
  const button = at("pause");
  button.onclick = () => {
    paused = !paused;
    button.setAttribute("aria-pressed", `${paused}`);
  };
}

function figures(told) {
  const pairs = [["running", told.count], ["calls in flight", told.calls], ["ended", told.total]];
  at("live-figures").replaceChildren(...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, count(value)))));
}

// Cards stay where they are, so that a focused link keeps its focus; only what changes is replaced.
function running(told) {
  const seen = new Set(told.running.map((row) => row.id));
  for (const [id, card] of cards) {
    if (!seen.has(id)) {
      card.node.remove();
      cards.delete(id);
    }
  }
  const box = at("live-running");
  [...told.running].reverse().forEach((row, place) => {
    const card = cards.get(row.id) ?? made(row);
    cards.set(row.id, card);
    update(card, row, told.now);
    if (box.children[place] !== card.node) box.insertBefore(card.node, box.children[place] ?? null);
  });
  const idle = at("live-idle");
  if (idle.hidden === !told.running.length) {
    at("live-example").textContent = example();
    idle.hidden = told.running.length > 0;
  }
}

function made(row) {
  const link = el("a", { href: `#/requests/${row.id}` });
  const [meta, work, note] = [el("p", { class: "meta" }), el("div", { class: "work" }), el("p", { class: "hint" })];
  return { node: el("article", { class: "card" }, el("h3", {}, link), meta, work, note), link, meta, work, note, state: "" };
}

function update(card, row, now) {
  card.link.textContent = row.strategy;
  card.meta.textContent = [row.model, `key ${named(row.key)}`, row.stream ? "streamed" : "whole", duration(Math.max(0, now - row.started))].join(" · ");
  const state = JSON.stringify([row.samples, row.votes, row.counts]);
  if (state === card.state) return;
  card.state = state;
  card.work.replaceChildren(...(row.samples.length ? [strip(row), ballot(row)].filter(Boolean) : []));
  card.note.textContent = row.samples.length ? summary(row) : row.strategy === "pass-through" ? "passed through as it is" : "no samples yet";
}

function ended(rows) {
  const columns = [
    { title: "Ended", cell: (row) => moment(row.started + row.seconds) },
    { title: "Request", head: true, cell: (row) => el("a", { href: `#/requests/${row.id}` }, row.strategy) },
    { title: "Model", cell: (row) => row.model },
    { title: "Key", cell: (row) => named(row.key_id) },
    { title: "Stopped", cell: (row) => stop(row.stopped) },
    { title: "Samples", number: true, cell: (row) => count(row.samples) },
    { title: "Tokens", number: true, cell: (row) => count(row.tokens) },
    { title: "Took", number: true, cell: (row) => seconds(row.seconds) },
  ];
  const box = at("live-ended");
  const state = JSON.stringify(rows.map((row) => row.id));
  if (box.dataset.state === state || box.contains(document.activeElement?.closest("a"))) return;
  box.dataset.state = state;
  box.replaceChildren(rows.length ? table("The last requests to end", columns, rows) : el("p", { class: "empty" }, "None since the proxy began."));
}

export function stop(word) {
  const kind = word === "error" ? "bad" : word === "interrupted" || word.startsWith("budget:") ? "warn" : "fine";
  return el("span", { class: `stop ${kind}` }, word);
}

function backends(rows) {
  at("live-backends").replaceChildren(
    ...rows.map((row) => el("li", { class: row.healthy ? "up" : "down" }, `${row.url} ${row.healthy ? "is well" : "is down"}`)),
  );
}

// For screen readers: now and then a sentence, not every vote.
function announce(told) {
  const text = told.count ? `${plural(told.count, "request")} running, ${plural(told.calls, "call")} in flight` : "Nothing is running";
  if (text !== said.text && Date.now() - said.at > 8000) {
    said = { text, at: Date.now() };
    at("live-said").textContent = text;
  }
}
