// Samples as a strip of squares and votes as bars. A letter ties a sample to its answer, so colour is never alone.

import { bar, el } from "./dom.js";
import { plural } from "./words.js";

const LETTERS = "ABCDEFGH";
const MARKS = { started: "", cancelled: "×", failed: "!" };
const WORDS = { started: "running", finished: "finished", cancelled: "cancelled", failed: "failed" };

export function summary(work) {
  const counts = work.counts;
  const parts = ["finished", "started", "cancelled", "failed"].filter((state) => counts[state]);
  const said = parts.map((state) => `${counts[state]} ${WORDS[state]}`).join(", ");
  const tokens = work.samples.reduce((sum, sample) => sum + (sample.tokens ?? 0), 0);
  return said + (tokens && counts.started ? ` · ${plural(tokens, "token")} so far` : "");
}

export function strip(work) {
  const letters = new Map(work.votes.map((vote, place) => [vote.answer, place]));
  const squares = work.samples.map((sample) => {
    const place = letters.get(sample.answer);
    const voted = sample.state === "finished" && place !== undefined;
    const mark = voted ? LETTERS[place] : MARKS[sample.state] ?? "–";
    const said = [`sample ${sample.index + 1}: ${WORDS[sample.state] ?? sample.state}`];
    if (sample.tokens !== null) said.push(plural(sample.tokens, "token"));
    if (sample.state === "finished") said.push(sample.answer === null ? "no readable answer" : `answer ${sample.answer}`);
    return el("li", { class: `sample ${sample.state} ${voted ? `v${place}` : ""}`, title: said.join(", ") }, mark);
  });
  const more = Object.values(work.counts).reduce((sum, part) => sum + part, 0) - squares.length;
  if (more > 0) squares.push(el("li", { class: "more" }, `+${more}`));
  return el("ol", { class: "strip", role: "img", "aria-label": `Samples: ${summary(work) || "none yet"}` }, squares);
}

export function ballot(work) {
  if (!work.votes.length) return null;
  const most = work.votes[0].weight || 1;
  const rows = work.votes.map((vote, place) =>
    el(
      "li",
      { class: vote.answer === work.leader ? "leads" : null },
      el("span", { class: `letter v${place}`, "aria-hidden": "true" }, LETTERS[place]),
      el("span", { class: "answer" }, vote.answer || "(empty)"),
      bar(vote.weight / most, `v${place}`),
      el("span", { class: "number" }, Number.isInteger(vote.weight) ? `${vote.weight}` : vote.weight.toFixed(2)),
    ),
  );
  const rest = work.answers - work.votes.length;
  if (rest > 0) rows.push(el("li", { class: "rest" }, `and ${plural(rest, "other answer")}`));
  return el("ol", { class: "ballot", "aria-label": "Votes" }, rows);
}
