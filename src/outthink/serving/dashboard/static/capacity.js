// How much of the configured GPUs the last hour's requests use. Figures change once a minute.

import { at, bar, el, facts } from "./dom.js";
import { digits, moment, percent, plural } from "./words.js";

const BINDING = { memory: "memory of the cache", sequences: "requests inside at once", compute: "tokens that a step computes" };
let state = "";

export function capacity(told) {
  const text = JSON.stringify(told);
  if (text === state) return;
  state = text;
  const box = at("live-capacity");
  box.hidden = !told;
  box.replaceChildren(...(told ? shown(told) : []));
}

function shown(told) {
  const gpus = told.gpu ? `${told.gpus} × ${told.gpu}` : plural(told.gpus, "GPU");
  const title = el("h2", {}, `Capacity of ${gpus}`);
  const time = el("p", { class: "hint" }, told.requests ? span(told) : "Looked at", " at ", moment(told.at));
  if (told.problem) return [title, el("p", { class: "wrong" }, `It cannot be planned: ${told.problem}`), time];
  if (!told.requests) return [title, el("p", { class: "empty" }, `${nothing(told)} in the last hour.`), time];
  const level = told.used > 1 ? "over" : told.used > told.utilisation ? "near" : "";
  return [
    title,
    el("div", { class: `level ${level}` }, bar(told.used), el("strong", {}, percent(told.used)), "used"),
    facts([
      ["requests/s", `${digits.format(told.rate)} of ${digits.format(told.limit)}`],
      [`GPUs needed, ${Math.round(100 * told.utilisation)} % of them used`, `${told.needed}`],
      ["limited by", BINDING[told.binding]],
    ]),
    time,
  ];
}

function nothing(told) {
  return told.unknown ? "No request whose tokens are known" : "No request";
}

function span(told) {
  const unknown = told.unknown ? `, ${plural(told.unknown, "other")} without known tokens left out` : "";
  const minutes = Math.max(1, Math.round(told.seconds / 60));
  const time = minutes === 60 ? "hour" : minutes === 1 ? "minute" : `${minutes} minutes`;
  return `${plural(told.requests, "request")} in the last ${time}${unknown},`;
}
