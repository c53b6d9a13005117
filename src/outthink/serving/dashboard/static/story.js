// One request's story: what it was, its votes, the tree of its calls, and why it stopped.

import { get, keys, named } from "./api.js";
import { at, bar, el, facts, table } from "./dom.js";
import { stop } from "./live.js";
import { ballot, strip, summary } from "./votes.js";
import { count, joules, missing, moment, plural, seconds, short, usd } from "./words.js";

let shown = { id: null, state: "" };

// True while the request runs, so that it is worth asking again.
export async function story(id) {
  const body = at("story-body");
  if (shown.id !== id) {
    shown = { id, state: "" };
    at("story-title").textContent = "Request";
    body.replaceChildren(el("p", { class: "hint" }, "Reading…"));
  }
  let told;
  try {
    [told] = await Promise.all([get(`requests/${encodeURIComponent(id)}`), keys()]);
  } catch (error) {
    if (error.status !== 404) throw error;
    body.replaceChildren(el("p", { class: "empty" }, `No request has the id ${id}. It may be older than what is kept.`));
    return false;
  }
  const state = JSON.stringify(told);
  if (shown.id === id && state !== shown.state) {
    shown.state = state;
    body.replaceChildren(...(told.done ? ended(told) : soFar(told.remembered)).filter(Boolean));
  }
  return !told.done;
}

function soFar(work) {
  at("story-title").textContent = work.strategy;
  return [
    el("p", { class: "id" }, work.id),
    el("p", { class: "why" }, "It is running."),
    facts([["model", work.model], ["key", named(work.key)], ["began", moment(work.started)]]),
    votes(work),
  ];
}

function ended(told) {
  const record = told.record;
  at("story-title").textContent = record.strategy;
  return [
    el("p", { class: "id" }, record.id),
    el("p", { class: "why" }, stop(record.stopped), " ", told.reason ?? ""),
    record.error ? el("p", { class: "wrong" }, record.error) : null,
    missing(told.answer) ? null : section("Answer", el("p", { class: "said" }, told.answer)),
    facts([
      ["model", record.model],
      ["drawn from", record.backend_model === record.model ? null : record.backend_model],
      ["key", named(record.key)],
      ["endpoint", record.endpoint],
      ["status", `${record.status}${record.stream ? ", streamed" : ""}`],
      ["began", moment(record.started)],
      ["took", seconds(record.seconds)],
      ["samples", count(record.samples)],
    ]),
    section("Spent", spent(record)),
    told.remembered ? votes(told.remembered) : null,
    told.tree.length ? section("Calls", ...told.tree.map(group)) : section("Calls", el("p", { class: "hint" }, alone(record))),
    told.notes.length ? section("Notes", el("ul", {}, told.notes.map((note) => el("li", {}, note)))) : null,
    told.tree.length && !told.remembered ? el("p", { class: "hint" }, "Samples and votes are kept in memory for the latest requests only.") : null,
    text("Request as it was sent", told.sent),
    text("Reply", told.reply),
    text("Receipt as JSON", JSON.stringify(record, null, 2)),
  ];
}

const alone = (record) => (record.strategy === "pass-through" ? "One call, passed through as it came." : "No call was made.");
const section = (title, ...children) => el("section", {}, el("h2", {}, title), ...children);

function spent(record) {
  const flops = missing(record.flops) ? null : short(record.flops);
  return facts([
    ["tokens", count(record.tokens)],
    ["prompt", count(record.prompt_tokens)],
    ["generated", count(record.completion_tokens)],
    ["cancelled", count(record.cancelled_tokens)],
    ["tokens at most", missing(record.tokens) && !missing(record.at_most_tokens) ? count(record.at_most_tokens) : null],
    ["dollars", usd(record.usd)],
    ["joules", joules(record.joules)],
    ["FLOPs", flops],
    ["estimated", record.estimated ? "in part, at its upper bound" : null],
  ]);
}

function votes(work) {
  if (!work.samples.length) return null;
  return section("Samples and votes", strip(work), ballot(work), el("p", { class: "hint" }, summary(work)));
}

function group(part) {
  const counts = Object.entries(part.counts).map(([status, number]) => `${number} ${status}`);
  const longest = Math.max(...part.calls.map((call) => call.seconds ?? 0), 1e-9);
  const columns = [
    { title: "Call", head: true, number: true, cell: (call) => `${call.number}` },
    { title: "Status", cell: (call) => el("span", { class: `status ${call.status}` }, call.status) },
    { title: "Prompt", number: true, cell: (call) => count(call.prompt_tokens) },
    { title: "Generated", number: true, cell: (call) => count(call.completion_tokens) },
    { title: "Cancelled", number: true, cell: (call) => count(call.cancelled_tokens) },
    { title: "Dollars", number: true, cell: (call) => usd(call.usd) },
    { title: "Took", number: true, cell: (call) => seconds(call.seconds) },
    { title: "", cell: (call) => bar((call.seconds ?? 0) / longest, call.status) },
    { title: "Ended by", kind: "wrap", cell: (call) => call.error ?? (call.cached ? "the cache" : call.finish_reason ?? "") },
  ];
  const tokens = missing(part.tokens) ? "tokens unknown" : plural(part.tokens, "token");
  return el(
    "details",
    { class: "group", open: true },
    el("summary", {}, el("b", {}, part.role), ` ${part.purpose} · ${part.model} · ${plural(part.calls.length, "call")}: ${counts.join(", ")} · ${tokens}`),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Calls of ${part.role}` }, table(`Calls of ${part.role}, ${part.model}`, columns, part.calls)),
  );
}

function text(title, content) {
  if (missing(content)) return null;
  return el("details", { class: "raw" }, el("summary", {}, title), el("pre", { tabindex: "0", "aria-label": title }, el("code", {}, content)));
}
