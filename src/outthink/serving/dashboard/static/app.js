// Which view is open, how often it asks again, and the key where the proxy wants one.

import { Refused, key } from "./api.js";
import { at } from "./dom.js";
import * as livePart from "./live.js";
import * as policyPart from "./policy.js";
import * as searchPart from "./search.js";
import * as spendPart from "./spend.js";
import { story } from "./story.js";

const VIEWS = ["live", "requests", "story", "spend", "policy"];
const TITLES = { live: "Live", requests: "Requests", story: "Request", spend: "Spend", policy: "Policy" };
let turn = 0;
let first = true;

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, id] = path.split("/");
  const terms = new URLSearchParams(query ?? "");
  if (view === "requests" && id) return { view: "story", id, terms };
  return { view: VIEWS.includes(view) && view !== "story" ? view : "live", id: null, terms };
}

// Asks what the open view shows; a number of seconds after which it asks again, null for not at all.
async function ask(here) {
  if (here.view === "live") await livePart.live();
  else if (here.view === "requests") await searchPart.search(here.terms);
  else if (here.view === "spend") await spendPart.spend();
  else if (here.view === "policy") await policyPart.policy();
  else return (await story(here.id)) ? 1 : null;
  return here.view === "live" ? 1 : null;
}

function show(view) {
  for (const name of [...VIEWS, "gate"]) at(name).hidden = name !== view;
}

function mark(view) {
  const name = view === "story" ? "requests" : view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[view]} – outthink`;
}

async function open({ moved = true } = {}) {
  const mine = (turn += 1);
  const here = place();
  mark(here.view);
  at("forget").hidden = !key.get();
  let entered = false;
  const enter = () => {
    if (entered) return;
    entered = true;
    show(here.view);
    if (moved && !first) at(`${here.view}-title`).focus();
    first = false;
  };
  while (mine === turn) {
    let again = 5;
    try {
      again = await ask(here);
      if (mine !== turn) return;
      enter();
      trouble("");
    } catch (error) {
      if (mine !== turn) return;
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401 || error.status === 403) return gate(error);
      enter();
      trouble(error.message);
    }
    if (again === null) return;
    await new Promise((wake) => setTimeout(wake, again * 1000));
  }
}

function trouble(text) {
  at("trouble").hidden = !text;
  at("trouble").textContent = text;
}

function gate(error) {
  const tried = key.get();
  first = false;
  key.forget();
  at("forget").hidden = true;
  show("gate");
  document.title = "Key – outthink";
  at("gate-error").textContent = tried ? error.message : "";
  at("gate-key").value = "";
  at("gate-key").focus();
}

at("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("gate-key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) {
    at("gate-error").textContent = "A key has letters, digits and dashes only.";
    return;
  }
  key.set(given);
  open();
});
at("forget").addEventListener("click", () => {
  key.forget();
  location.reload();
});
at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});
livePart.begin();
searchPart.begin();
spendPart.begin(() => open({ moved: false }));
window.addEventListener("hashchange", () => open());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) open({ moved: false });
});
open();
