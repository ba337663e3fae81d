// The lists that stand on several pages: openings, attempts, bans, doors, hosts, controllers, events.

import { ban, closeOpening, unban } from "./actions.js";
import { h } from "./dom.js";
import * as logic from "./logic.js";
import { button, capped, countdown, doorLink, hostLink, mark, sourceLink, steps, sub, table, tag, timeCell } from "./parts.js";

const ROWS = 200;
const CHIPS = 6;
const action = { title: "Action", class: "action", hideTitle: true };

const note = (text) => text && h("p", { class: "note" }, text);

export function openings(all, now, caller) {
  const rows = logic.active(all ?? [], now);
  const { shown, note: more } = capped(rows, ROWS, "openings");
  const may = logic.mayOperate(caller);
  const columns = [
    { title: "Door and source" },
    { title: "On hosts", class: "long" },
    { title: "Ports", class: "wide tight" },
    { title: "By", class: "wide" },
    { title: "Left", class: "left" },
    ...(may ? [action] : []),
  ];
  const cells = (opening) => [
    [doorLink(opening.door), sub(sourceLink(opening.source, opening.door))],
    onHosts(opening),
    logic.ports(opening.ports),
    [opening.openedBy, logic.number(opening.generation) > 1 && sub(`refreshed ${logic.plural(logic.number(opening.generation) - 1, "time")}`)],
    countdown(logic.number(opening.refreshedMs) || opening.openedMs, opening.expiresMs, now, `Time left of ${opening.door} for ${opening.source}`),
    ...(may ? [button("Close", `Close opening of ${opening.door} for ${opening.source}`, () => closeOpening(opening))] : []),
  ];
  return [
    table("Openings", columns, shown.map((opening) => ({ key: opening.id, cells: cells(opening) })), "Nothing is open."),
    note(more),
  ];
}

const HOST_TONES = { applied: "ok", failed: "bad", pending: "", expired: "", withdrawn: "" };

function onHosts(opening) {
  const standing = logic.standing(opening);
  const order = ["failed", "pending", "withdrawn", "expired", "applied"];
  const state = (on) => logic.word("HOST_OPENING_STATE_", on.state);
  const sorted = [...(opening.hosts ?? [])].sort((a, b) => order.indexOf(state(a)) - order.indexOf(state(b)) || logic.compare(a.host, b.host));
  if (standing.total === 0) return mark("", "no host yet");
  if (standing.total > CHIPS && standing.applied === standing.total) return mark("ok", `applied on all ${standing.total}`);
  const chips = sorted.slice(0, CHIPS).map((on) => h("span", { class: "chip", key: on.host },
    mark(HOST_TONES[state(on)] ?? "", on.host), state(on) !== "applied" && ` ${state(on)}${on.reason ? `: ${on.reason}` : ""}`));
  return [chips, standing.total > CHIPS && sub(`applied on ${standing.applied} of ${standing.total}`)];
}

export function attempts(all, now) {
  const rows = [...(all ?? [])].sort((a, b) => b.stepsDone - a.stepsDone || logic.compare(a.source, b.source));
  const { shown, note: more } = capped(rows, ROWS, "attempts");
  const columns = [{ title: "Door and source" }, { title: "Steps" }, { title: "Last seen on", class: "wide" }, { title: "Left", class: "left" }];
  const cells = (attempt) => [
    [doorLink(attempt.door), sub(sourceLink(attempt.source, attempt.door))],
    steps(attempt.stepsDone, attempt.stepsTotal),
    attempt.lastHost ? hostLink(attempt.lastHost) : "",
    countdown(attempt.startedMs, attempt.deadlineMs, now, `Time left to knock ${attempt.door} from ${attempt.source}`),
  ];
  const keyed = shown.map((attempt) => ({ key: `${attempt.door} ${attempt.source}`, cells: cells(attempt) }));
  return [table("Attempts in flight", columns, keyed, "Nobody is knocking."), note(more)];
}

export function bans(all, now, caller) {
  const rows = (all ?? []).filter((one) => logic.number(one.expiresMs) > now);
  const { shown, note: more } = capped(rows, ROWS, "bans");
  const may = logic.mayOperate(caller);
  const columns = [{ title: "Source" }, { title: "Reason", class: "long" }, { title: "Left", class: "left" }, ...(may ? [action] : [])];
  const cells = (one) => [
    sourceLink(one.source),
    [one.reason, sub(`by ${one.by}`)],
    countdown(one.sinceMs, one.expiresMs, now, `Time left of the ban of ${one.source}`),
    ...(may ? [button("Unban", `Lift the ban of ${one.source}`, () => unban(one))] : []),
  ];
  return [table("Bans", columns, shown.map((one) => ({ key: one.source, cells: cells(one) })), "No source is banned."), note(more)];
}

export const banButton = (caller) => logic.mayOperate(caller) && button("Ban a source…", "Ban a source", () => ban());

export function doors(all, now) {
  const { shown, note: more } = capped(all ?? [], ROWS, "doors");
  const columns = [
    { title: "Door" },
    { title: "Opens", class: "wide" },
    { title: "Strength", class: "right tight" },
    { title: "Hosts", class: "right tight" },
    { title: "Open now", class: "right" },
  ];
  const cells = (door) => [
    [doorLink(door.name), " ", ...doorTags(door, now)],
    [logic.ports(door.spec?.openPorts), sub(`for ${logic.setting(door.spec?.openForMs)}`)],
    `${strength(door)}`,
    door.hosts.length === 0 ? mark("warn", "none") : logic.count(door.hosts.length),
    logic.count(door.activeOpenings),
  ];
  return [table("Doors", columns, shown.map((door) => ({ key: door.name, cells: cells(door) })), "No door is applied."), note(more)];
}

export const strength = (door) => `${Number(door.strengthBits).toFixed(1)} bits`;

export function doorTags(door, now) {
  const until = logic.number(door.confirmUntilMs);
  const observes = door.spec?.mode === "DOOR_MODE_OBSERVE";
  return [
    tag(observes ? "observes" : "enforced", observes ? "warn" : ""),
    until > now && [" ", tag(`not confirmed, rolls back in ${logic.left(until, now)}`, "warn")],
  ];
}

export function hosts(all, most = ROWS) {
  const { shown, note: more } = capped(logic.byTrouble(all ?? []), most, "hosts, which have less to tell");
  const columns = [
    { title: "Host" },
    { title: "State", class: "tight" },
    { title: "Clock", class: "right tight" },
    { title: "Lost knocks", class: "right wide" },
    { title: "Warnings" },
  ];
  return [table("Hosts", columns, shown.map((host) => ({ key: host.name, cells: hostCells(host) })), "No host has ever connected."), note(more)];
}

function hostCells(host) {
  const lost = logic.drops(host);
  return [
    [hostLink(host.name), sub(labels(host))],
    hostState(host),
    clock(host),
    lost > 0 ? mark("warn", logic.count(lost)) : "0",
    host.warnings.length > 0 ? [mark("warn", host.warnings[0]), host.warnings.length > 1 && sub(`and ${host.warnings.length - 1} more`)] : sub("none"),
  ];
}

export const labels = (host) => Object.entries(host.labels ?? {}).map(([key, text]) => `${key}=${text}`).sort().join(" ");

export const hostState = (host) => (host.connected ? mark("ok", "up") : mark("bad", "cut off"));

export function clock(host) {
  if (!host.connected) return sub("unknown");
  const text = `${logic.offset(host.clockOffsetUs)} ± ${logic.micros(host.clockUncertaintyUs)}`;
  return logic.drifts(host) ? [mark("warn", "drifts"), sub(text)] : text;
}

const CONTROLLER_TONES = { serving: "ok", suspended: "bad", draining: "warn", unreachable: "bad" };

export function controllers(all, now) {
  const columns = [
    { title: "Controller" },
    { title: "State", class: "tight" },
    { title: "Agents", class: "right" },
    { title: "Lease", class: "right tight" },
    { title: "Peers" },
  ];
  const cells = (one) => {
    const state = logic.word("CONTROLLER_STATE_", one.state);
    const lease = logic.number(one.leaseUntilMs);
    return [
      [one.name, sub(`${one.version || "version unknown"}${one.clockLeader === one.name ? ", leads the clock" : ""}`)],
      mark(CONTROLLER_TONES[state] ?? "", state),
      logic.count(one.agents),
      lease > 0 ? h("span", { class: "num" }, logic.left(lease, now)) : "none",
      peers(one),
    ];
  };
  const rows = (all ?? []).map((one) => ({ key: one.name, cells: cells(one) }));
  return table("Controllers", columns, rows, "No controller is known.");
}

function peers(one) {
  if (!one.peers?.length) return "none";
  const state = (peer) => logic.word("PEER_STATE_", peer.state);
  const away = one.peers.filter((peer) => state(peer) !== "up");
  if (away.length === 0) return mark("ok", `${one.peers.length} up`);
  return away.map((peer) => h("span", { class: "chip", key: peer.controller }, mark("bad", `${peer.controller} ${state(peer)}`), peer.reason && `: ${peer.reason}`));
}

/** What an event is about: its message does not say it again. */
function subjects({ door, source, host, controller, kind }) {
  const about = [door && doorLink(door), source && sourceLink(source, door), host && hostLink(host)].filter(Boolean);
  if (about.length === 0 && logic.isOfController(kind) && controller) about.push(controller);
  return about.length > 0 && h("span", { class: "about" }, about.map((one) => h("span", null, one)));
}

export function events(all, now, most = 100) {
  const columns = [{ title: "Time", class: "tight" }, { title: "What", class: "tight" }, { title: "Message", class: "long" }];
  const rows = all.slice(0, most).map((event) => ({
    key: logic.identity(event),
    cells: [
      timeCell(event.timeMs, now),
      mark(logic.tone(event.kind), logic.word("EVENT_KIND_", event.kind)),
      [subjects(event), event.message, event.actor?.who && sub(`by ${event.actor.who}`)],
    ],
  }));
  return table("Events, the latest first", columns, rows, "Nothing has happened that is remembered.", "stack plain");
}
