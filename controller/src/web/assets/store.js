// What the page knows of the fleet: asked every two seconds, at once after an event, seldom while nobody looks, and with
// growing pauses while nobody answers. Everything kept has a bound: the page stays open for months.

import { Refusal, call, list, session, watch } from "./api.js";
import * as logic from "./logic.js";

const EVERY_MS = 2000;
const HIDDEN_EVERY_MS = 30_000;
const SOON_MS = 200;
/** However many events come, no more questions than this. */
const APART_MS = 700;
const HISTORY_MS = 3_600_000;
const HISTORY_PAGES = 5;

export const state = {
  route: { page: "overview" },
  overview: undefined,
  hosts: undefined,
  openings: undefined,
  attempts: undefined,
  bans: undefined,
  doors: undefined,
  controllers: undefined,
  /** Of the host's or the door's page: what was answered, or why nothing was. */
  detail: undefined,
  detailMissing: "",
  events: [],
  unanswered: [],
  problems: [],
  signedOut: false,
  failures: 0,
  answeredAt: 0,
  streaming: false,
  /** Whether it ever was. */
  streamed: false,
};

let changed = () => {};
let told = () => {};
let sample;
let timer = 0;
let asking = false;
let askAgain = false;
let stopWatching;
let watchFailures = 0;
let watchTimer = 0;
let firstVersion = "";
let isKnown = false;
let askedAt = -APART_MS;
let fresh = [];

/** The fleet's time, by the controller's clock and not by this machine's. */
export function now() {
  return sample ? sample.nowMs + (performance.now() - sample.at) : Date.now();
}

/** Begins to ask. `onChange` is told of everything new, `onEvent` of each event that is worth saying aloud. */
export function start(onChange, onEvent) {
  changed = onChange;
  told = onEvent;
  document.addEventListener("visibilitychange", () => soon());
  window.addEventListener("online", () => soon());
  cycle();
}

/** Goes to another page: what the old one knew is not shown for the new one. */
export function go(route) {
  state.route = route;
  state.detail = undefined;
  state.detailMissing = "";
  soon(0);
}

/** Asks a moment from now: many events make one question. */
export function soon(after = SOON_MS) {
  if (asking) {
    askAgain = true;
    return;
  }
  if (document.hidden) return;
  clearTimeout(timer);
  timer = setTimeout(cycle, after === 0 ? 0 : Math.max(after, askedAt + APART_MS - performance.now()));
}

/** After signing in or out: as if the page were new. */
export function restart() {
  isKnown = false;
  stopWatching?.();
  stopWatching = undefined;
  Object.assign(state, { signedOut: false, events: [], detail: undefined, overview: undefined, streaming: false });
  soon(0);
}

async function cycle() {
  if (asking) return;
  asking = true;
  askedAt = performance.now();
  askAgain = false;
  const route = state.route;
  const questions = isKnown ? questionsOf(route) : { session };
  const names = Object.keys(questions);
  const answers = await Promise.allSettled(names.map((name) => questions[name]()));
  const refusals = answers.map(({ reason }) => reason);
  if (refusals.some((refusal) => refusal?.status === 401)) {
    signedOut();
  } else if (!isKnown && answers[0].status === "fulfilled") {
    isKnown = askAgain = true;
  } else {
    names.forEach((name, index) => take(name, answers[index], route));
    judge(answers, refusals);
  }
  asking = false;
  next();
  changed();
}

function next() {
  clearTimeout(timer);
  if (state.signedOut) return;
  let wait = document.hidden ? HIDDEN_EVERY_MS : EVERY_MS;
  if (state.failures > 0) wait = Math.max(wait, logic.backOff(state.failures, Math.random()));
  else if (askAgain && !document.hidden) wait = state.overview ? APART_MS : 0;
  timer = setTimeout(cycle, wait);
}

/** What each page needs to know. */
function questionsOf(route) {
  const door = route.page === "door" ? { door: route.name } : {};
  const all = {
    overview: () => overview(),
    hosts: () => list("ListHosts", "hosts", {}, 2000),
    openings: () => list("ListOpenings", "openings", door),
    attempts: () => list("ListAttempts", "attempts", door),
    bans: () => list("ListBans", "bans"),
    doors: () => list("ListDoors", "doors"),
    controllers: () => list("ListControllers", "controllers"),
  };
  const { overview: glance, hosts, openings, attempts, doors } = all;
  switch (route.page) {
    case "host":
      return { overview: glance, openings, doors, detail: () => call("GetHost", { name: route.name }) };
    case "door":
      return { overview: glance, hosts, openings, attempts, detail: () => call("GetDoor", { name: route.name }) };
    case "explain":
      return { overview: glance, doors };
    default:
      return all;
  }
}

async function overview() {
  const before = performance.now();
  const answer = await call("Overview", { seconds: logic.CHART_SECONDS });
  const after = performance.now();
  const nowMs = logic.number(answer.nowMs);
  sample = logic.betterSample(sample, { nowMs, at: (before + after) / 2, took: after - before });
  return answer;
}

function take(name, { status, value, reason }, route) {
  if (name === "detail") {
    if (route !== state.route) return;
    if (status === "fulfilled") Object.assign(state, { detail: value, detailMissing: "" });
    else if (reason.status >= 400) Object.assign(state, { detail: undefined, detailMissing: reason.message });
  } else if (status === "fulfilled") {
    state[name] = value;
  }
}

function judge(answers, refusals) {
  const answered = answers.some(({ status }) => status === "fulfilled");
  const silent = refusals.some((refusal) => refusal && !(refusal instanceof Refusal && refusal.status > 0));
  state.failures = answered && !silent ? 0 : state.failures + 1;
  if (state.failures === 0) state.answeredAt = now();
  const names = answers.flatMap(({ value }) => value?.unanswered ?? []);
  state.unanswered = [...new Set(names)].sort();
  const messages = refusals.filter((refusal) => refusal?.status >= 400 && refusal.status !== 404).map(({ message }) => message);
  state.problems = [...new Set(messages)];
  const version = state.overview?.version ?? "";
  firstVersion ||= version;
  // Another version serves another page: a wall screen follows by itself.
  if (version && version !== firstVersion && !document.querySelector("dialog[open]")) location.reload();
  if (state.failures === 0 && !stopWatching && !watchTimer) follow();
}

function signedOut() {
  isKnown = false;
  stopWatching?.();
  stopWatching = undefined;
  Object.assign(state, { signedOut: true, streaming: false, events: [], overview: undefined, detail: undefined });
}

/** Follows the events; those of the last hour come from the audit trail. */
function follow() {
  stopWatching = watch({
    onOpen: () => {
      watchFailures = 0;
      Object.assign(state, { streaming: true, streamed: true });
      history();
      soon();
      changed();
    },
    onEvent: (event) => {
      if (fresh.length === 0) setTimeout(takeIn, SOON_MS);
      fresh = [event, ...fresh].slice(0, logic.EVENTS_KEPT);
      if (logic.isTold(event.kind)) told(event);
    },
    onEnd: () => {
      stopWatching = undefined;
      state.streaming = false;
      watchFailures += 1;
      clearTimeout(watchTimer);
      watchTimer = setTimeout(() => {
        watchTimer = 0;
        if (!stopWatching && !state.signedOut && state.failures === 0) follow();
      }, logic.backOff(watchFailures, Math.random()));
      soon();
      changed();
    },
  });
}

/** Takes in what came in the last moment at once: a storm of events draws the page no more often than a few. */
function takeIn() {
  if (!state.signedOut) state.events = logic.mergeEvents(state.events, fresh);
  fresh = [];
  soon();
  changed();
}

async function history() {
  try {
    const request = { sinceMs: String(Math.floor(now() - HISTORY_MS)) };
    const { events } = await list("ListEvents", "events", request, 1000 * HISTORY_PAGES);
    state.events = logic.mergeEvents(state.events, events.reverse());
    changed();
  } catch {
    // The events from now on are shown all the same.
  }
}
