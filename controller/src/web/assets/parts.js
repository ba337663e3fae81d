// What several pages are made of: sections with tables, marks with words, progress, links.

import { h } from "./dom.js";
import * as logic from "./logic.js";

const MARKS = { ok: "✓", warn: "▲", bad: "✗", "": "·" };

/** A state: a mark, its color and, always, its word. */
export const mark = (tone, text) =>
  h("span", { class: `mark ${tone}` }, h("span", { "aria-hidden": "true", class: "sign" }, MARKS[tone]), " ", text);

export const sub = (...content) => h("span", { class: "sub" }, ...content);
export const tag = (text, tone = "") => h("span", { class: `tag ${tone}` }, text);

export const hostLink = (name) => h("a", { href: logic.hostRoute(name) }, name);
export const doorLink = (name) => h("a", { href: logic.doorRoute(name) }, name);
export const sourceLink = (source, door = "") =>
  h("a", { href: logic.explainRoute(source, door), title: `Explain the knocks of ${source}` }, source);

export const timeCell = (ms, now) => h("time", { datetime: iso(ms), title: iso(ms) }, logic.time(ms, now));

function iso(ms) {
  const at = new Date(logic.number(ms));
  return Number.isNaN(at.getTime()) ? "" : at.toISOString();
}

/** A button whose name says what it does to what. */
export const button = (text, name, onclick, more = {}) =>
  h("button", { type: "button", "aria-label": name, title: name, onclick, ...more }, text);

/** The panels of a page in three columns, which a desk shows as two and a phone as one. A panel never changes its column:
 * what one looks at stays where it is. */
export const columns = (...each) =>
  h("div", { class: "board", key: "board" }, each.map((panels, index) => h("div", { class: `column c${index + 1}` }, panels)));

/** A part of a page: a heading, perhaps something beside it, and content. */
export function section(id, title, beside, ...content) {
  const heading = h("div", { class: "heading" }, h("h2", { id: `${id}-title` }, title), beside);
  return h("section", { class: `panel ${id}`, id, key: id, "aria-labelledby": `${id}-title` }, heading, ...content);
}

/**
 * A table: columns are {title, class, hideTitle}, rows {key, cells}; the first cell names the row. It scrolls by itself
 * where it does not fit, also by keyboard. Roles are spelled out because a phone shows rows as paragraphs, unless
 * `look` is "grid".
 */
export function table(caption, columns, rows, empty, look = "stack") {
  if (rows.length === 0) return h("p", { class: "empty", key: `${caption}-empty` }, empty);
  const head = columns.map(({ title, class: style, hideTitle }) =>
    h("th", { scope: "col", role: "columnheader", class: style }, hideTitle ? h("span", { class: "hidden" }, title) : title),
  );
  const cellOf = (cell, index) => {
    const { title, class: style, hideTitle } = columns[index];
    if (index === 0) return h("th", { class: style, scope: "row", role: "rowheader" }, cell);
    return h("td", { class: style, role: "cell", "data-title": hideTitle || look === "grid" ? null : title }, cell);
  };
  const body = rows.map(({ key, cells }) => h("tr", { key, role: "row" }, cells.map(cellOf)));
  const acts = columns.some((column) => column.class === "action") ? " acts" : "";
  return h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption, key: `${caption}-table` },
    h("table", { role: "table", class: `${look}${acts}` },
      h("caption", { class: "hidden" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      h("tbody", { role: "rowgroup" }, body)));
}

/** Rows up to a bound, and how many more there are. */
export function capped(rows, most, words) {
  const more = rows.length - most;
  return { shown: more > 0 ? rows.slice(0, most) : rows, note: more > 0 ? `and ${logic.count(more)} more ${words}` : "" };
}

/** Steps done as pips and as words. */
export function steps(done, total) {
  const text = `${done} of ${total}`;
  const pips = Array.from({ length: Math.min(32, total) }, (_, index) => h("i", { class: index < done ? "on" : "" }));
  return h("span", { class: "stepper", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": String(total),
    "aria-valuenow": String(done), "aria-valuetext": `step ${text}`, "aria-label": "Steps done" },
    h("span", { class: "pips", "aria-hidden": "true" }, pips), h("span", { class: "num" }, text));
}

/** What is left of a time: in words, and as a bar that shrinks. */
export function countdown(fromMs, untilMs, now, label) {
  const rest = logic.left(untilMs, now);
  return h("span", { class: "countdown" }, h("span", { class: "num rest" }, rest),
    h("progress", { max: "1000", value: String(Math.round(logic.share(fromMs, untilMs, now) * 1000)), "aria-label": label, "aria-valuetext": rest }));
}

/** Facts as a list of names and values; those without a value are left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== undefined && value !== null && value !== false);
  return h("dl", { class: "facts" }, shown.map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))));
}

/** A labelled field of a form. */
export function field(id, label, properties, hint = "") {
  return h("div", { class: "field", key: id }, h("label", { for: id }, label),
    h("input", { id, name: id, type: "text", autocomplete: "off", spellcheck: "false", "aria-describedby": hint ? `${id}-hint` : null, ...properties }),
    hint && h("span", { class: "hint", id: `${id}-hint` }, hint));
}

export const value = (form, id) => form.elements.namedItem(id)?.value.trim() ?? "";
