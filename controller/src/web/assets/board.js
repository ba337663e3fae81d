// The overview: what a wall screen shows.

import { chart } from "./chart.js";
import { h } from "./dom.js";
import * as logic from "./logic.js";
import { columns, mark, section } from "./parts.js";
import { now, state } from "./store.js";
import * as tables from "./tables.js";

const filter = { door: "", source: "" };

export function board(redraw) {
  const { overview, hosts, openings, attempts, bans, doors, controllers, events } = state;
  const at = now();
  const caller = overview.caller;
  const shown = logic.filterEvents(events, filter);
  return [
    h("h1", { class: "hidden", key: "title", id: "page-title", tabindex: "-1" }, `Fleet ${overview.fleet}`),
    tiles(overview, attempts?.attempts.length, at),
    columns(
      [
        section("knocks", "Knocks", h("span", { class: "aside" }, "last 5 minutes"), chart(overview, at)),
        section("openings", "Openings", beside(openings, "openings"), tables.openings(openings?.openings, at, caller)),
        section("attempts", "Attempts in flight", beside(attempts, "attempts"), tables.attempts(attempts?.attempts, at)),
        section("bans", "Bans", tables.banButton(caller), tables.bans(bans?.bans, at, caller)),
      ],
      [
        section("hosts", "Hosts", beside(hosts, "hosts"), tables.hosts(hosts?.hosts)),
        section("doors", "Doors", beside(doors, "doors"), tables.doors(doors?.doors, at)),
        section("controllers", "Controllers", null, tables.controllers(controllers?.controllers, at)),
      ],
      [section("events", "Events", filterForm(redraw), tables.events(shown, at))]),
  ];
}

const beside = (list, words) => list?.more && h("span", { class: "aside" }, `more ${words} than are shown`);

function tiles(overview, inFlight, at) {
  const away = overview.hosts - overview.hostsConnected;
  const hosts = [
    away > 0 && mark("bad", `${logic.count(away)} cut off`),
    overview.hostsDrifting > 0 && mark("warn", logic.plural(overview.hostsDrifting, "clock drifts", "clocks drift")),
    away === 0 && overview.hostsDrifting === 0 && mark("ok", "all up, clocks agree"),
  ];
  const used = Math.round((100 * logic.number(overview.sourcesInFlight)) / Math.max(1, logic.number(overview.sourcesLimit)));
  const room = `${logic.plural(overview.sourcesInFlight, "source")} followed${used > 0 ? `, ${used} % of the room` : ""}`;
  const { totals } = logic.bins(overview.knocks, at);
  const serving = (one) => one.state === "CONTROLLER_STATE_SERVING" && !state.unanswered.includes(one.name);
  const silent = (state.controllers?.controllers ?? []).filter((one) => !serving(one)).length;
  const tile = (key, title, value, ...below) =>
    h("div", { class: "tile", key }, h("dt", null, title), h("dd", { class: "value" }, value), h("dd", { class: "below" }, below));
  return h("dl", { class: "tiles", key: "tiles", "aria-label": "The fleet at a glance" },
    tile("hosts", "Hosts up", `${logic.count(overview.hostsConnected)} of ${logic.count(overview.hosts)}`, hosts),
    tile("openings", "Openings", logic.count(overview.openings), overview.openings > 0 ? "open now" : "everything is closed"),
    tile("attempts", "Attempts", logic.count(inFlight ?? 0), used > 80 ? mark("warn", room) : room),
    tile("knocks", "Complete knocks", logic.count(totals.completed), `${logic.plural(totals.misses, "miss", "misses")} in 5 minutes`),
    tile("bans", "Bans", logic.count(overview.bans), overview.bans > 0 ? mark("warn", "sources banned") : "no source is banned"),
    tile("doors", "Doors", logic.count(overview.doors), "applied"),
    tile("controllers", "Controllers", logic.count(overview.controllers), silent > 0 ? mark("bad", `${silent} not serving`) : mark("ok", "all serve")));
}

function filterForm(redraw) {
  const input = (name, label) =>
    h("label", { key: name, class: "filter" }, h("span", null, label),
      h("input", { type: "search", name, autocomplete: "off", spellcheck: "false", "aria-label": `Show only events of this ${name}`,
        oninput: (event) => { filter[name] = event.target.value.trim(); redraw(); } }));
  return h("form", { class: "filters", role: "search", "aria-label": "Filter the events", onsubmit: (event) => event.preventDefault() },
    input("door", "Door"), input("source", "Source"));
}
