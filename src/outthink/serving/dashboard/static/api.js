// The proxy's data. Knows the key, which lives in this tab alone, and what a refusal says.

const PLACE = "outthink-key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const key = {
  get: () => sessionStorage.getItem(PLACE),
  set: (value) => sessionStorage.setItem(PLACE, value),
  forget: () => sessionStorage.removeItem(PLACE),
};

export async function get(path, terms = {}) {
  const query = new URLSearchParams(Object.entries(terms).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const headers = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  let reply;
  try {
    reply = await fetch(`dashboard/api/${path}${query.size ? `?${query}` : ""}`, { headers, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Refused(0, "The proxy does not answer. Is it running?");
  }
  if (reply.ok) return reply.json();
  const told = await reply.json().catch(() => null);
  throw new Refused(reply.status, told?.error?.message ?? `The proxy answered with status ${reply.status}.`);
}

let names = null;

// Names of keys by id; asked for once a minute at most.
export async function keys() {
  if (names === null || Date.now() - names.at > 60000) {
    const rows = (await get("keys")).keys;
    names = { at: Date.now(), rows, by: new Map(rows.map((row) => [row.id, row.name])) };
  }
  return names;
}

export const named = (id) => names?.by.get(id) || id || "none";
