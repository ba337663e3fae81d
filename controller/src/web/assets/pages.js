// The page of one host and the page of one door.

import { lengthOf, announce } from "./actions.js";
import { call } from "./api.js";
import { h } from "./dom.js";
import * as logic from "./logic.js";
import { columns, facts, field, hostLink, mark, section, table, tag, timeCell, value } from "./parts.js";
import { now, soon, state } from "./store.js";
import * as tables from "./tables.js";

const PER_PAGE_EVENTS = 100;

const title = (text, ...beside) =>
  h("div", { class: "title", key: "title" }, h("h1", { id: "page-title", tabindex: "-1" }, text), beside);

function waiting(text) {
  return [title(text), h("p", { class: "empty", key: "waiting", role: "status" }, state.detailMissing || "Asking the controller…")];
}

export function hostPage(name) {
  const host = state.detail;
  if (!host) return waiting(name);
  const at = now();
  const own = (state.openings?.openings ?? []).filter((opening) => opening.hosts.some((on) => on.host === name));
  const doors = (state.doors?.doors ?? []).filter((door) => host.doors.includes(door.name) || door.hosts.includes(name));
  const events = logic.filterEvents(state.events, { host: name }, true);
  return [
    title(name, tables.hostState(host), tables.labels(host) && tag(tables.labels(host))),
    columns(
      [
        section("warnings", "Warnings", null, warnings(host)),
        section("openings", "Openings", null, tables.openings(own, at, state.overview.caller)),
        section("doors", "Doors", null, tables.doors(doors, at)),
        section("guard", "Guard", null, guard(host)),
      ],
      [section("facts", "Host", null, hostFacts(host, at)), section("capture", "Capture and repair", null, captureFacts(host))],
      [section("events", "Events", null, tables.events(events, at, PER_PAGE_EVENTS))]),
  ];
}

const warnings = (host) =>
  host.warnings.length > 0
    ? h("ul", { class: "list" }, host.warnings.map((text) => h("li", null, mark("warn", text))))
    : h("p", { class: "empty" }, "Nothing to warn of.");

const hostFacts = (host, at) =>
  facts([
    ["Addresses", host.addresses.join(", ")],
    ["Controller", host.controller],
    [host.connected ? "Connected since" : "Last seen", timeCell(host.connected ? host.connectedSinceMs : host.lastSeenMs, at)],
    ["Version", host.version],
    ["Firewall", host.firewall],
    ["Clock", tables.clock(host)],
    ["Management", host.management.join(", ")],
    ["Ports in use there", (host.inUse ?? []).map(logic.range).join(", ") || "none known"],
    ["Picture", `revision ${host.revision}`],
  ]);

const captureFacts = (host) =>
  facts([
    ["Knocks reported", logic.count(host.observations)],
    ["Lost in the kernel", lost(host.dropsKernel)],
    ["Lost in a queue", lost(host.dropsQueue)],
    ["Malformed packets", lost(host.dropsMalformed)],
    ["Over a source's limit", lost(host.dropsSourceLimit)],
    ["Rules repaired", logic.plural(host.repairs, "time")],
    ["Last repair", host.lastRepair],
  ]);

const lost = (number) => (logic.number(number) > 0 ? mark("warn", logic.count(number)) : "0");

function guard(host) {
  const counts = new Map(host.guardCounts.map((one) => [logic.port(one.port), one]));
  const guarded = host.guarded.map(logic.port);
  const observed = host.observed.map(logic.port);
  const all = [...new Set([...guarded, ...observed, ...counts.keys()])].sort();
  const heads = [{ title: "Port" }, { title: "Mode" }, { title: "Dropped", class: "right" }, { title: "Would be dropped", class: "right" }];
  const mode = (port) => (guarded.includes(port) ? mark("ok", "guarded") : observed.includes(port) ? mark("warn", "observed") : "no longer");
  const rows = all.map((port) => ({
    key: port,
    cells: [port, mode(port), logic.count(counts.get(port)?.dropped), logic.count(counts.get(port)?.observed)],
  }));
  return table("Ports that guard keeps", heads, rows, "No door guards a port here.");
}

export function doorPage(name) {
  const door = state.detail;
  if (!door) return waiting(name);
  const at = now();
  const { caller } = state.overview;
  const events = logic.filterEvents(state.events, { door: name }, true);
  return [
    title(name, tables.doorTags(door, at)),
    columns(
      [
        section("openings", "Openings", null, tables.openings(state.openings?.openings, at, caller)),
        section("attempts", "Attempts in flight", null, tables.attempts(state.attempts?.attempts, at)),
        logic.mayOperate(caller) && section("open", "Open without a knock", null, openForm(name, door)),
      ],
      [section("facts", "Door", null, doorFacts(door, at)), section("hosts", "Hosts that it opens", null, doorHosts(door))],
      [section("events", "Events", null, tables.events(events, at, PER_PAGE_EVENTS))]),
  ];
}

function doorFacts(door, at) {
  const spec = door.spec ?? {};
  const labels = Object.entries(door.labels ?? {}).map(([key, text]) => `${key}=${text}`).sort();
  const until = logic.number(door.confirmUntilMs);
  return facts([
    ["Knock", `${logic.plural(spec.sequence?.length, "step")} within ${logic.setting(spec.sequence?.withinMs)}`],
    ["Strength", tables.strength(door)],
    ["Who may knock", spec.sources?.length > 0 ? spec.sources.join(", ") : "everybody"],
    ["Opens", `${logic.ports(spec.openPorts)} on ${logic.selector(spec.openHosts)}`],
    ["For", logic.setting(spec.openForMs)],
    ["Not confirmed", until > at && mark("warn", `the last change is rolled back in ${logic.left(until, at)} unless it is confirmed`)],
    ["Labels", labels.join(" ")],
    ["Changed", timeCell(door.updatedMs, at)],
    ["Revision", door.revision],
  ]);
}

function doorHosts(door) {
  const known = new Map((state.hosts?.hosts ?? []).map((host) => [host.name, host]));
  const rows = door.hosts.slice(0, 200).map((name) => {
    const host = known.get(name);
    return { key: name, cells: [hostLink(name), host ? tables.hostState(host) : "", host ? tables.clock(host) : ""] };
  });
  const heads = [{ title: "Host" }, { title: "State" }, { title: "Clock", class: "right" }];
  const more = door.hosts.length - rows.length;
  return [
    table("Hosts that the door opens", heads, rows, "No host matches what the door asks for: nothing would open."),
    more > 0 && h("p", { class: "note" }, `and ${logic.count(more)} more`),
  ];
}

const opened = { error: "", busy: false };

function openForm(name, door) {
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    if (opened.busy) return;
    Object.assign(opened, { error: "", busy: true });
    try {
      const request = { door: name, source: value(form, "open-source"), forMs: lengthOf(form, "open-for"), reason: value(form, "open-reason") };
      await call("Open", request);
      form.reset();
      announce(`Opened ${name} for ${request.source}`);
    } catch (error) {
      opened.error = error.message;
    }
    opened.busy = false;
    soon(0);
  };
  return h("form", { class: "row", key: `open-${name}`, onsubmit: submit, novalidate: true },
    field("open-source", "Source", { placeholder: "203.0.113.5", required: true }),
    field("open-for", "For", { placeholder: logic.setting(door.spec?.openForMs).replace(" ", "") }),
    field("open-reason", "Reason", { maxlength: "200" }),
    h("button", { type: "submit", class: "primary" }, `Open ${name}`),
    h("p", { class: "error", role: "alert" }, opened.error));
}

