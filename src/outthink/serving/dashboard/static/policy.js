// The active policy: its frontier of accuracy and cost on held-out problems, and the numbers behind it.

import { get } from "./api.js";
import { chart, shape } from "./chart.js";
import { at, el, facts, svg, table } from "./dom.js";
import { count, missing, percent, seconds, short, unknown, usd } from "./words.js";

const COSTS = {
  tokens: "generated tokens per problem",
  flops: "FLOPs per problem",
  seconds: "seconds per problem",
  usd: "dollars per problem",
};
let state = { told: "", cost: "tokens", draw: [] };

export async function policy() {
  const told = (await get("policy")).policy;
  const text = JSON.stringify(told);
  if (text === state.told) return;
  state = { ...state, told: text, draw: [] };
  at("policy-body").replaceChildren(...(told ? shown(told) : [nothing()]));
}

function nothing() {
  return el(
    "div",
    { class: "empty" },
    el("p", {}, "No policy is active, so ", el("code", {}, "outthink/auto"), " follows fixed rules. Calibrate one and serve with it:"),
    el("pre", { tabindex: "0", "aria-label": "Example commands" }, el("code", {}, "outthink calibrate SAMPLES.parquet --out policy.json\noutthink serve --model URL --policy policy.json")),
  );
}

function shown(told) {
  const parts = [facts(told.facts.map((fact) => [fact.name, fact.value]))];
  const known = Object.keys(COSTS).filter((cost) => told.tasks.some((task) => task.points.some((point) => point[cost] > 0)));
  if (!known.includes(state.cost)) state.cost = known[0];
  if (known.length > 1) parts.push(costs(known));
  parts.push(...told.tasks.map(task));
  if (told.remarks.length) parts.push(el("h2", {}, "Remarks"), el("ul", { class: "hint" }, told.remarks.map((remark) => el("li", {}, remark))));
  return parts;
}

function costs(known) {
  const set = el("fieldset", {}, el("legend", {}, "Cost"), known.map((cost) =>
    el("label", {}, el("input", { type: "radio", name: "cost", value: cost, checked: cost === state.cost }), cost === "usd" ? "dollars" : cost),
  ));
  set.addEventListener("change", (event) => {
    state.cost = event.target.value;
    state.draw.forEach((draw) => draw());
  });
  return el("form", { class: "bar", "aria-label": "Horizontal axis" }, set);
}

function series(points) {
  const names = [...new Set(points.map((point) => point.series))];
  return names.map((name, place) => ({ name, kind: `v${place}`, shape: shape(place), points: points.filter((point) => point.series === name) }));
}

function task(one) {
  const all = series(one.points);
  const box = el("div", { class: "chart" });
  const draw = () => {
    const able = all.map((line) => ({ ...line, points: line.points.filter((point) => point[state.cost] > 0) })).filter((line) => line.points.length);
    const width = Math.max(280, Math.min(box.clientWidth || 900, 1100));
    box.replaceChildren(able.length ? chart(able, state.cost, COSTS[state.cost], width) : el("p", { class: "hint" }, "This cost is unknown here."));
  };
  state.draw.push(draw);
  new ResizeObserver(draw).observe(box); // also when the view is shown
  const legend = el("ul", { class: "legend", "aria-label": "Series" }, all.map((line) =>
    el("li", { class: line.kind }, svg("svg", { viewBox: "-1.5 -1.5 3 3", width: 14, height: 14, "aria-hidden": "true" }, svg("path", { class: "mark", d: line.shape })), line.name),
  ));
  const title = one.dataset ? `${one.model} · ${one.dataset}` : one.model;
  return el(
    "section",
    {},
    el("h2", {}, title),
    legend,
    box,
    el("p", { class: "hint" }, "Means over held-out problems with 95 % intervals. The ring marks the size that meets the target at the least cost."),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Numbers of ${title}` }, numbers(title, one.points)),
  );
}

function numbers(title, points) {
  return table(
    `Held-out figures, ${title}`,
    [
      { title: "Way", head: true, cell: (point) => (point.chosen ? `${point.name} (chosen)` : point.name) },
      { title: "Accuracy", number: true, cell: (point) => percent(point.accuracy) },
      { title: "95 % interval", number: true, cell: (point) => `${(100 * point.low).toFixed(1)} to ${(100 * point.high).toFixed(1)}` },
      { title: "Tokens", number: true, cell: (point) => count(point.tokens) },
      { title: "Samples", number: true, cell: (point) => point.samples.toFixed(1) },
      { title: "FLOPs", number: true, cell: (point) => (missing(point.flops) ? unknown() : short(point.flops)) },
      { title: "Seconds", number: true, cell: (point) => seconds(point.seconds) },
      { title: "Dollars", number: true, cell: (point) => usd(point.usd) },
    ],
    points,
  );
}
