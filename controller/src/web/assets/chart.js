// Knocks over time: four lanes on one axis, each with its own scale and its numbers, so that neither a flood nor a color
// hides what is rare. The same as a table, for those who cannot see it.

import { h } from "./dom.js";
import * as logic from "./logic.js";
import { table } from "./parts.js";

const WIDTH = 600;
const HEIGHT = 30;

export function chart(overview, now) {
  const binned = logic.bins(overview.knocks, now);
  const lanes = logic.LANES.map((lane) => laneOf(lane, binned));
  const marks = ["5 min ago", "4", "3", "2", "1", "now"].map((text) => h("span", null, text));
  const { others } = binned.totals;
  return [
    h("div", { class: "chart", key: "chart", role: "img", "aria-label": logic.chartText(binned.totals) },
      lanes, h("div", { class: "axis", "aria-hidden": "true" }, marks)),
    h("details", { key: "numbers", class: "numbers" },
      h("summary", null, "The same in numbers"),
      numbers(binned, now),
      others > 0 && h("p", { class: "note" }, `and ${logic.plural(others, "knock")} that were repeats, waited, or were not taken in`)),
  ];
}

function laneOf({ name, title, says }, binned) {
  const values = binned.lanes[name];
  const largest = Math.max(...values);
  const path = logic.bars(values, WIDTH, HEIGHT);
  return h("div", { class: `lane ${name}`, key: name, title: says, "aria-hidden": "true" },
    h("span", { class: "name" }, title),
    h("span", { class: "num total" }, logic.count(binned.totals[name])),
    h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" },
      h("path", { class: "base", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }), h("path", { class: "bars", d: path })),
    h("span", { class: "peak num" }, largest > 0 ? `${logic.count(largest)} in ${logic.BIN_SECONDS} s` : ""));
}

function numbers(binned, now) {
  const columns = [{ title: "From" }, ...logic.LANES.map(({ title }) => ({ title, class: "right" }))];
  const rows = logic.minutes(binned).map((row) => ({
    key: String(row.fromMs),
    cells: [logic.time(row.fromMs, now), ...logic.LANES.map(({ name }) => logic.count(row[name]))],
  }));
  return table("Knocks by minute", columns, rows, "", "grid");
}
