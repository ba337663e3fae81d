// "I knocked, why is it still closed?": a verdict for each door, the remedy first, and then the knocks.

import { call } from "./api.js";
import { h } from "./dom.js";
import * as logic from "./logic.js";
import { doorLink, field, hostLink, mark, section, steps, table, value } from "./parts.js";
import { state } from "./store.js";

const AGAIN_MS = 3000;

/** The answer that is shown, to which question. Ports are shown for the question with which they were asked for, and for
 * no other that follows. */
const asked = { key: "", answer: undefined, error: "", revealed: "", at: 0, busy: false };

const questionOf = (source, door) => JSON.stringify([source, door]);
const isRevealed = (route) => asked.revealed === questionOf(route.source, route.door);

/** Asks when the question is another one, and again from time to time; never again by itself where steps are shown, as
 * each showing is told in the audit trail. */
export async function askAgain(route, redraw) {
  if (route.page !== "explain") return;
  const reveal = isRevealed(route);
  const key = `${questionOf(route.source, route.door)} ${reveal}`;
  if (!route.source) {
    Object.assign(asked, { key, answer: undefined, error: "" });
    return;
  }
  const isNew = asked.key !== key;
  const isDue = performance.now() - asked.at > AGAIN_MS && !reveal && !document.hidden;
  if (asked.busy || !(isNew || isDue)) return;
  if (isNew) Object.assign(asked, { answer: undefined, error: "" });
  Object.assign(asked, { key, busy: true, at: performance.now() });
  try {
    const answer = await call("Explain", { source: route.source, door: route.door, reveal });
    Object.assign(asked, { answer, error: "" });
  } catch (error) {
    if (error.status !== 0) Object.assign(asked, { answer: undefined, error: error.message });
  }
  asked.busy = false;
  asked.at = performance.now();
  redraw();
}

export function explainPage(route, redraw) {
  return [
    h("div", { class: "title", key: "title" }, h("h1", { id: "page-title", tabindex: "-1" }, "Why did it not open?")),
    h("div", { class: "column", key: "column" }, section("question", "Whose knocks", null, form(route, redraw)), answer(route)),
  ];
}

function form(route, redraw) {
  const submit = (event) => {
    event.preventDefault();
    const [source, door] = [value(event.target, "source"), value(event.target, "door")];
    asked.revealed = event.target.elements.namedItem("reveal")?.checked ? questionOf(source, door) : "";
    // The same question again is asked again.
    asked.key = "";
    location.hash = logic.explainRoute(source, door);
    askAgain({ page: "explain", source, door }, redraw);
  };
  const names = (state.doors?.doors ?? []).slice(0, 1000).map((door) => h("option", { value: door.name, key: door.name }));
  return h("form", { class: "row", key: `ask-${route.source}-${route.door}`, onsubmit: submit, novalidate: true },
    field("source", "Source", { value: route.source, placeholder: "203.0.113.5", required: true }),
    field("door", "Door", { value: route.door, placeholder: "every door", list: "door-names" }),
    h("datalist", { id: "door-names" }, names),
    logic.mayAdmin(state.overview?.caller) && h("label", { class: "check", title: "Told in the audit trail" },
      h("input", { type: "checkbox", name: "reveal", checked: isRevealed(route) }), " Show ports"),
    h("button", { type: "submit", class: "primary" }, "Explain"));
}

function answer(route) {
  if (asked.error) return section("verdicts", "Answer", null, h("p", { class: "error", role: "alert" }, asked.error));
  if (!route.source) return null;
  if (!asked.answer) return section("verdicts", "Answer", null, h("p", { class: "empty" }, "Asking the controllers…"));
  const { source, doors, knocks, caveats, unanswered, rememberedFromMs, nowMs } = asked.answer;
  const at = logic.number(nowMs);
  const warnings = [...caveats, ...(unanswered.length > 0 ? [`Not answered by: ${unanswered.join(", ")}. What they saw is missing.`] : [])];
  return [
    section("verdicts", `Verdicts for ${source}`, null,
      doors.length > 0 ? h("ul", { class: "verdict-list" }, doors.map(verdict)) : h("p", { class: "empty" }, "No door is concerned.")),
    warnings.length > 0 && section("caveats", "Worth knowing", null,
      h("ul", { class: "list" }, warnings.map((text) => h("li", null, mark("warn", text))))),
    section("seen", "Knocks", h("span", { class: "aside" }, `remembered since ${logic.time(rememberedFromMs, at)}`),
      table("Knocks in the order of their capture", KNOCK_COLUMNS, knocks.map(knockRow), "No knock of this source is remembered.")),
  ];
}

function verdict(one) {
  const tone = logic.verdictTone(one.code);
  return h("li", { key: one.door, class: `verdict ${tone}` },
    h("h3", null, doorLink(one.door), " ", mark(tone, logic.word("EXPLAIN_CODE_", one.code))),
    one.remedy && h("p", { class: "remedy" }, one.remedy),
    h("p", { class: "message" }, one.message),
    one.stepsTotal > 0 && steps(one.stepsDone, one.stepsTotal));
}

const KNOCK_COLUMNS = [
  { title: "Captured", class: "tight" },
  { title: "Host" },
  { title: "Port", class: "tight" },
  { title: "Outcome" },
  { title: "Message" },
  { title: "Within", class: "right tight wide" },
];

const OUTCOME_TONES = {
  step: "ok", completed: "ok", repeat: "", waiting: "", miss: "bad", banned: "bad", "too late": "bad", future: "bad", ping: "",
  "no room": "bad", refused: "bad",
};

function knockRow(knock, index) {
  const outcome = logic.word("KNOCK_OUTCOME_", knock.outcome);
  const step = knock.of > 0 ? `, ${knock.step} of ${knock.of}` : "";
  return {
    key: knock.boot ? `${knock.host} ${knock.boot} ${knock.counter}` : `${index}`,
    cells: [
      h("span", { class: "num" }, logic.precise(knock.timeUs)),
      hostLink(knock.host),
      knock.port ? logic.port(knock.port) : knock.hidden ? "hidden" : "",
      mark(OUTCOME_TONES[outcome] ?? "", `${outcome}${step}`),
      knock.message,
      h("span", { class: "num" }, `± ${logic.micros(knock.uncertaintyUs)}`),
    ],
  };
}
