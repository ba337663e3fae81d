// What operators do: each in a dialog of the page that says what will happen, to whom, before it does.

import { call } from "./api.js";
import { h, render } from "./dom.js";
import { parseSpan } from "./logic.js";
import { field, value } from "./parts.js";
import { soon } from "./store.js";

const dialog = document.getElementById("dialog");
const announcer = document.getElementById("announcer");

/** Says something to those who cannot see the page. */
export function announce(text) {
  announcer.textContent = text;
}

let shown;

/** Asks before it acts: `act` gets the form, and what it throws is shown where it was asked. */
function ask(order) {
  shown = { ...order, error: "", busy: false, number: (shown?.number ?? 0) + 1 };
  draw();
  if (!dialog.open) dialog.showModal();
}

function draw() {
  const { title, says, fields, verb, danger, error, busy, number } = shown;
  const form = h("form", { key: `order-${number}`, onsubmit: submit, novalidate: true },
    h("h2", { id: "dialog-title" }, title),
    h("p", null, says),
    fields,
    h("p", { class: "error", role: "alert" }, error),
    h("div", { class: "buttons" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button", { type: "submit", class: danger ? "danger" : "primary", disabled: busy }, verb)));
  render(dialog, form);
}

async function submit(event) {
  event.preventDefault();
  Object.assign(shown, { busy: true, error: "" });
  const order = shown;
  draw();
  try {
    const said = await order.act(event.target);
    if (order !== shown) return;
    dialog.close();
    announce(said);
    soon(0);
  } catch (error) {
    Object.assign(order, { busy: false, error: error.message });
    if (order === shown) draw();
  }
}

const reason = (hint) => field("reason", "Reason", { maxlength: "200" }, hint);

/** The length of time in a field, in ms. */
export function lengthOf(form, id) {
  const ms = parseSpan(value(form, id));
  if (ms === undefined) throw new Error(`"${value(form, id)}" is no length of time; write it as 90s, 10m or 2h`);
  return String(ms);
}

export function closeOpening({ id, door, source }) {
  ask({
    title: "Close an opening",
    says: `The opening of ${door} for ${source} is closed on every host at once.`,
    fields: [
      reason("For the record"),
      h("label", { class: "check", key: "kill" }, h("input", { type: "checkbox", name: "kill" }), " Cut established connections too"),
    ],
    verb: "Close it",
    danger: true,
    act: async (form) => {
      const request = { id, killConnections: form.elements.namedItem("kill").checked, reason: value(form, "reason") };
      await call("Close", request);
      return `Closed the opening of ${door} for ${source}`;
    },
  });
}

export function unban({ source }) {
  ask({
    title: "Lift a ban",
    says: `The knocks of ${source} count again from now on.`,
    fields: [],
    verb: "Lift the ban",
    act: async () => {
      await call("UnbanSource", { source });
      return `Lifted the ban of ${source}`;
    },
  });
}

export function ban(source = "") {
  ask({
    title: "Ban a source",
    says: "Its knocks do not count and its openings are closed until the ban ends. Other traffic is not touched.",
    fields: [
      field("source", "Source", { value: source, required: true, placeholder: "198.51.100.7" }, "An address, IPv4 or IPv6"),
      field("for", "For", { placeholder: "10m" }, "Such as 90s, 10m or 2h; empty: as the policy says"),
      reason("For the record"),
    ],
    verb: "Ban it",
    danger: true,
    act: async (form) => {
      const request = { source: value(form, "source"), forMs: lengthOf(form, "for"), reason: value(form, "reason") };
      await call("BanSource", request);
      return `Banned ${request.source}`;
    },
  });
}
