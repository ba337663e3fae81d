// What the page knows without a page: numbers to words, bins of knocks, merging, routes. No DOM, no clock of its own:
// time is an argument. Numbers of 64 bits come as texts in proto3 JSON; all of ours are below 2^53.

export const EVENTS_KEPT = 500;
export const CHART_SECONDS = 300;
export const BIN_SECONDS = 5;
const DRIFT_US = 500_000;
const UNCERTAIN_US = 100_000;

export const number = (value) => Number(value) || 0;

const two = (value) => String(value).padStart(2, "0");

/** A count for people: 12,345. */
export const count = (value) => String(Math.trunc(number(value))).replace(/\B(?=(\d{3})+$)/g, ",");

export const plural = (value, word, words = `${word}s`) => `${count(value)} ${number(value) === 1 ? word : words}`;

/** The time of day where the reader is; with the date when that is another day than `now`. */
export function time(ms, now) {
  const at = new Date(number(ms));
  const day = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return now === undefined || day(at) === day(new Date(now)) ? clock : `${day(at)} ${clock}`;
}

/** The time of day to the millisecond, of a time in µs. */
export const precise = (us) => `${time(number(us) / 1000)}.${String(Math.floor(number(us) / 1000) % 1000).padStart(3, "0")}`;

/** A length of time, two units at most: "28 s", "4 min 05 s", "2 h 03 min", "3 d 04 h". */
export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${two(hours)} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  if (minutes > 0) return `${minutes} min ${two(seconds % 60)} s`;
  return `${seconds} s`;
}

/** What is left until then. The last second counts as one: 0 s is over. */
export function left(untilMs, now) {
  const rest = number(untilMs) - now;
  return rest <= 0 ? "over" : span(Math.ceil(rest / 1000) * 1000);
}

/** How much of a time is left, 1 to 0. */
export function share(fromMs, untilMs, now) {
  const whole = number(untilMs) - number(fromMs);
  return whole <= 0 ? 0 : Math.min(1, Math.max(0, (number(untilMs) - now) / whole));
}

/** A setting's length of time, exactly: "30s", "1500ms", "2h". */
export function setting(ms) {
  const value = number(ms);
  if (value % 1000 !== 0) return `${value} ms`;
  if (value % 3_600_000 === 0 && value > 0) return `${value / 3_600_000} h`;
  if (value % 60_000 === 0 && value > 0) return `${value / 60_000} min`;
  return `${value / 1000} s`;
}

/** A difference of clocks: "+1.2 ms", "−0.03 ms", "+2.40 s". */
export function offset(us) {
  const value = number(us);
  return `${value < 0 ? "−" : "+"}${micros(Math.abs(value))}`;
}

export function micros(us) {
  const value = number(us);
  if (value >= 1_000_000) return `${(value / 1_000_000).toFixed(2)} s`;
  if (value >= 100_000) return `${Math.round(value / 1000)} ms`;
  return `${(value / 1000).toFixed(value >= 1000 ? 1 : 2)} ms`;
}

/** The last word of an enum's name, in small letters: "OPENING_STATE_ACTIVE" after "OPENING_STATE_" is "active". */
export function word(prefix, name) {
  const text = typeof name === "string" && name.startsWith(prefix) ? name.slice(prefix.length) : "unspecified";
  return text.toLowerCase().replaceAll("_", " ");
}

export const port = (value) => (value ? `${word("PROTOCOL_", value.protocol)}/${value.port}` : "");
export const ports = (list) => (list ?? []).map(port).join(", ");
export const range = (value) =>
  `${word("PROTOCOL_", value.protocol)}/${value.first}${value.last === value.first ? "" : `–${value.last}`}`;

/** Which hosts: "role=edge, db-1", or any of them. */
export function selector(value) {
  const labels = Object.entries(value?.matchLabels ?? {}).map(([key, text]) => `${key}=${text}`);
  const all = [...labels, ...(value?.names ?? [])];
  return all.length > 0 ? all.join(", ") : "any host";
}

/** What a role may do. Where there are no roles, everybody may do everything. */
export const mayOperate = (caller) => ["", "operator", "admin"].includes(caller?.role ?? "viewer");
export const mayAdmin = (caller) => ["", "admin"].includes(caller?.role ?? "viewer");

export const drifts = (host) =>
  host.connected && (Math.abs(number(host.clockOffsetUs)) > DRIFT_US || number(host.clockUncertaintyUs) > UNCERTAIN_US);

export const drops = (host) =>
  number(host.dropsKernel) + number(host.dropsQueue) + number(host.dropsMalformed) + number(host.dropsSourceLimit);

/** The ones that want attention first, then by name. */
export function byTrouble(hosts) {
  const rank = (host) => (!host.connected ? 0 : drifts(host) ? 1 : host.warnings?.length > 0 ? 2 : 3);
  return [...hosts].sort((a, b) => rank(a) - rank(b) || compare(a.name, b.name));
}

export const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** How an opening stands on its hosts: how many in which state, the failed ones by name. */
export function standing(opening) {
  const all = { applied: 0, pending: 0, failed: 0, expired: 0, withdrawn: 0, total: 0 };
  for (const on of opening.hosts ?? []) {
    const state = word("HOST_OPENING_STATE_", on.state);
    if (state in all) all[state] += 1;
    all.total += 1;
  }
  return all;
}

/** Openings that are still open by the server's time, the first to end first. */
export const active = (openings, now) =>
  openings
    .filter((opening) => opening.state === "OPENING_STATE_ACTIVE" && number(opening.expiresMs) > now)
    .sort((a, b) => number(a.expiresMs) - number(b.expiresMs) || compare(a.id, b.id));

export const LANES = [
  { name: "steps", title: "Steps", says: "knocks that advanced an attempt" },
  { name: "completed", title: "Complete", says: "complete knocks" },
  { name: "misses", title: "Misses", says: "wrong knocks" },
  { name: "banned", title: "Banned", says: "knocks of banned sources" },
];

/** The knocks of the last five minutes in bins that stand still: a bin begins at a multiple of its width. */
export function bins(knocks, now, seconds = CHART_SECONDS, width = BIN_SECONDS) {
  const size = width * 1000;
  const length = Math.ceil(seconds / width);
  const first = (Math.floor(now / size) - length + 1) * size;
  const lanes = Object.fromEntries(LANES.map(({ name }) => [name, new Array(length).fill(0)]));
  const totals = Object.fromEntries([...LANES.map(({ name }) => [name, 0]), ["others", 0]]);
  for (const second of knocks ?? []) {
    const at = Math.floor((number(second.fromMs) - first) / size);
    if (at < 0 || at >= length) continue;
    for (const { name } of LANES) lanes[name][at] += number(second[name]);
    for (const name of Object.keys(totals)) totals[name] += number(second[name]);
  }
  return { first, size, lanes, totals };
}

/** The bars of one lane as an SVG path: full height is the largest value, and nothing is drawn for 0. */
export function bars(values, width, height, gap = 1) {
  const largest = Math.max(1, ...values);
  const each = width / values.length;
  const parts = [];
  values.forEach((value, index) => {
    if (value <= 0) return;
    const tall = Math.max(2, (value / largest) * height);
    const [x, y, wide] = [index * each, height - tall, each - gap].map((part) => Number(part.toFixed(2)));
    parts.push(`M${x} ${y}h${wide}V${height}h${-wide}z`);
  });
  return parts.join("");
}

/** The same bins as rows of a table, one for each minute, the latest first. */
export function minutes(binned) {
  const rows = [];
  const perMinute = 60_000 / binned.size;
  const length = binned.lanes.steps.length;
  for (let end = length; end > 0; end -= perMinute) {
    const begin = Math.max(0, end - perMinute);
    const row = { fromMs: binned.first + begin * binned.size };
    for (const { name } of LANES) row[name] = binned.lanes[name].slice(begin, end).reduce((sum, value) => sum + value, 0);
    rows.push(row);
  }
  return rows;
}

export const chartText = (totals) =>
  `Knocks in the last 5 minutes: ${plural(totals.steps, "step")}, ${count(totals.completed)} complete, ` +
  `${plural(totals.misses, "miss", "misses")}, ${count(totals.banned)} of banned sources.`;

/** What makes an event one event. */
export const identity = (event) =>
  event.id || JSON.stringify([event.kind, event.timeMs, event.door, event.source, event.host, event.message]);

/** New events into the kept ones, the latest first, none twice, and never more than are kept. */
export function mergeEvents(kept, fresh, most = EVENTS_KEPT) {
  const known = new Set(kept.map(identity));
  const added = [];
  for (const event of fresh) {
    const own = identity(event);
    if (known.has(own)) continue;
    known.add(own);
    added.push(event);
  }
  if (added.length === 0) return kept;
  return [...added, ...kept].sort((a, b) => number(b.timeMs) - number(a.timeMs)).slice(0, most);
}

/** Those that match all that is given: door, source and host exactly, or by their beginning while one types. */
export function filterEvents(events, { door = "", source = "", host = "" }, exactly = false) {
  const fits = (value, wanted) => wanted === "" || (exactly ? value === wanted : (value ?? "").startsWith(wanted));
  return events.filter((event) => fits(event.door, door) && fits(event.source, source) && fits(event.host, host));
}

const BAD_EVENTS = ["HOST_DISCONNECTED", "OPENING_FAILED", "LEASE_LOST", "PEER_LOST", "IMPOSTOR", "CONTROLLER_LEFT"];
const WARNING_EVENTS = ["WARNING", "LAGGED", "SOURCE_BANNED", "REPAIRED", "CALL_DENIED", "AUTHENTICATION_FAILED", "DOOR_ROLLED_BACK", "DOOR_REVEALED", "ATTEMPT_FAILED"];
const GOOD_EVENTS = ["OPENING_GRANTED", "OPENING_APPLIED", "HOST_CONNECTED", "LEASE_HELD", "PEER_BACK", "CONTROLLER_JOINED"];

/** How an event is marked: bad, warn, ok, or nothing. */
export function tone(kind) {
  const name = typeof kind === "string" ? kind.replace("EVENT_KIND_", "") : "";
  if (BAD_EVENTS.includes(name)) return "bad";
  if (WARNING_EVENTS.includes(name)) return "warn";
  return GOOD_EVENTS.includes(name) ? "ok" : "";
}

/** What is said aloud to those who cannot see the page: what changes who gets in, or takes something away. */
export const isTold = (kind) =>
  tone(kind) === "bad" || ["EVENT_KIND_OPENING_GRANTED", "EVENT_KIND_OPENING_WITHDRAWN", "EVENT_KIND_SOURCE_BANNED", "EVENT_KIND_HOST_CONNECTED"].includes(kind);

/** An event in one sentence, for those who hear it. */
export function spoken({ kind, door, source, host, message }) {
  const about = [door, source, host].filter(Boolean).join(", ");
  return `${word("EVENT_KIND_", kind)}${about && `: ${about}`}${message && `: ${message}`}`;
}

/** Whether an event is about the controller that tells it. */
export const isOfController = (kind) => /^EVENT_KIND_(CONTROLLER|LEASE|PEER)_/.test(kind);

/** When to try again after so many failures in a row: 1 s, 2 s, 4 s … 30 s, spread by `random` of 0 to 1. */
export const backOff = (failures, random = 0.5) =>
  Math.round(Math.min(30_000, 1000 * 2 ** Math.min(10, Math.max(0, failures - 1))) * (0.75 + random / 2));

/** The fleet's time from the best of the latest samples: the one whose answer took least tells most. */
export function betterSample(kept, fresh) {
  const isOld = !kept || fresh.at - kept.at > 60_000;
  return isOld || fresh.took <= kept.took * 1.5 ? fresh : kept;
}

/** How the page stands with its controller: a level and one line. */
export function connection({ failures, answeredAt, streaming, streamed, unanswered, controller }, now) {
  if (failures > 0) {
    const since = answeredAt ? ` since ${time(answeredAt, now)}` : "";
    return { level: "bad", text: `No answer from ${controller || "the controller"}${since}; trying again` };
  }
  if (!answeredAt) return { level: "", text: "Connecting" };
  if (unanswered.length > 0) return { level: "warn", text: `Not answered by: ${unanswered.join(", ")}` };
  if (streaming) return { level: "ok", text: "Live" };
  return streamed ? { level: "warn", text: "Reconnecting to live events" } : { level: "", text: "Connecting to live events" };
}

/** Which page a fragment names. What is no route is the overview. */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/");
  const name = decode(rest.join("/"));
  if (page === "host" && name) return { page, name };
  if (page === "door" && name) return { page, name };
  if (page === "explain") {
    const asked = new URLSearchParams(query);
    return { page, source: asked.get("source") ?? "", door: asked.get("door") ?? "" };
  }
  return { page: "overview" };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const hostRoute = (name) => `#/host/${encodeURIComponent(name)}`;
export const doorRoute = (name) => `#/door/${encodeURIComponent(name)}`;
export const explainRoute = (source = "", door = "") =>
  `#/explain${source || door ? `?${new URLSearchParams({ source, door })}` : ""}`;

const GOOD_CODES = ["OPEN"];
const MIDDLING_CODES = ["OPEN_IN_PART", "INCOMPLETE", "OBSERVES", "EXPIRED", "WITHDRAWN"];

export function verdictTone(code) {
  const name = typeof code === "string" ? code.replace("EXPLAIN_CODE_", "") : "";
  return GOOD_CODES.includes(name) ? "ok" : MIDDLING_CODES.includes(name) ? "warn" : "bad";
}

/** A length of time as people write it: "90", "90s", "10m", "2h"; in ms. 0 for nothing, undefined for nonsense. */
export function parseSpan(text) {
  const found = /^\s*(\d{1,6})\s*(s|m|min|h|d)?\s*$/.exec(text);
  if (!found) return text.trim() === "" ? 0 : undefined;
  const unit = { s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 }[found[2] ?? "s"];
  return Number(found[1]) * unit;
}
