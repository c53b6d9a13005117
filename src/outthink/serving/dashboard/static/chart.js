// Accuracy against cost: one line a series, whiskers for its intervals. Knows scales and shapes, not policies.

import { svg } from "./dom.js";
import { percent, short } from "./words.js";

const HEIGHT = 320;
const EDGE = { left: 52, right: 16, top: 14, bottom: 44 };
const SHAPES = [
  "M0-1A1 1 0 1 1 0 1A1 1 0 1 1 0-1Z",
  "M-.9-.9H.9V.9H-.9Z",
  "M0-1.2L1.1.8H-1.1Z",
  "M0-1.3L1.3 0 0 1.3-1.3 0Z",
  "M0 1.2L1.1-.8H-1.1Z",
  "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",
];

export const shape = (place) => SHAPES[place % SHAPES.length];

function logarithmic(values, start, end) {
  const low = Math.min(...values) / 1.15;
  const high = Math.max(...values) * 1.15;
  const spot = (value) => start + ((end - start) * Math.log(value / low)) / Math.log(high / low);
  const ladders = [[1, 2, 3, 5], [1, 2, 5], [1, 3], [1]];
  let ticks = [];
  for (const ladder of ladders) {
    ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      ticks.push(...ladder.map((digit) => digit * 10 ** power).filter((value) => value >= low && value <= high));
    }
    if (ticks.every((value, place) => place === 0 || spot(value) - spot(ticks[place - 1]) > 46)) break;
  }
  return { spot, ticks };
}

function linear(values, start, end) {
  const [low, high] = [Math.max(0, Math.min(...values) - 0.01), Math.min(1, Math.max(...values) + 0.01)];
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((size) => (high - low) / size <= 7) ?? 0.2;
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) ticks.push(value);
  return { spot: (value) => start + ((end - start) * (value - low)) / (high - low), ticks };
}

export function chart(series, cost, title, width) {
  const points = series.flatMap((one) => one.points);
  const x = logarithmic(points.map((point) => point[cost]), EDGE.left, width - EDGE.right);
  const y = linear(points.flatMap((point) => [point.low, point.high]), HEIGHT - EDGE.bottom, EDGE.top);
  const best = points.reduce((found, point) => (point.accuracy > found.accuracy ? point : found));
  const name = `Accuracy against ${title}: ${series.length} series; the best is ${best.name} with ${percent(best.accuracy)} at ${short(best[cost])}. The table below has every number.`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": name });
  const [right, bottom] = [width - EDGE.right, HEIGHT - EDGE.bottom];
  for (const tick of y.ticks) {
    picture.append(svg("path", { class: "grid", d: `M${EDGE.left} ${y.spot(tick)}H${right}` }));
    picture.append(svg("text", { class: "tick", x: EDGE.left - 8, y: y.spot(tick) + 4, "text-anchor": "end" }, `${Math.round(tick * 100)} %`));
  }
  for (const tick of x.ticks) {
    picture.append(svg("path", { class: "grid", d: `M${x.spot(tick)} ${EDGE.top}V${bottom}` }));
    picture.append(svg("text", { class: "tick", x: x.spot(tick), y: bottom + 17, "text-anchor": "middle" }, short(tick)));
  }
  picture.append(svg("text", { class: "tick", x: (EDGE.left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, `${title} (logarithmic)`));
  [...series].reverse().forEach((one) => picture.append(drawn(one, cost, x, y)));
  return picture;
}

function drawn(one, cost, x, y) {
  const group = svg("g", { class: one.kind });
  const spots = one.points.map((point) => [x.spot(point[cost]), y.spot(point.accuracy)]);
  group.append(svg("path", { class: "line", d: `M${spots.map((spot) => spot.join(" ")).join("L")}` }));
  one.points.forEach((point, place) => {
    const [left, top] = spots[place];
    group.append(svg("path", { class: "whisker", d: `M${left} ${y.spot(point.low)}V${y.spot(point.high)}` }));
    if (point.chosen) group.append(svg("circle", { class: "ring", cx: left, cy: top, r: 11 }));
    const mark = svg("path", { class: "mark", d: one.shape, transform: `translate(${left} ${top}) scale(5)` });
    mark.append(svg("title", {}, `${point.name}: ${percent(point.accuracy)} [${percent(point.low)}, ${percent(point.high)}] at ${short(point[cost])}`));
    group.append(mark);
  });
  return group;
}
