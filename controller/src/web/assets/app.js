// The page: routes, the header, signing in, and drawing all of it again when something is new or a second has passed.

import { announce } from "./actions.js";
import { signIn, signOut } from "./api.js";
import { board } from "./board.js";
import { h, render } from "./dom.js";
import { askAgain, explainPage } from "./explain.js";
import * as logic from "./logic.js";
import { field, mark, value } from "./parts.js";
import { doorPage, hostPage } from "./pages.js";
import { go, now, restart, start, state } from "./store.js";

const header = document.getElementById("header");
const main = document.getElementById("main");
const THEMES = ["auto", "light", "dark"];
const TELL_EVERY_MS = 1500;

let scheduled = false;
let said = "";
let signInError = "";
let toTell = [];

/** Draws at most once per frame, and in a hidden page not at all. */
function redraw() {
  if (scheduled || document.hidden) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function draw() {
  const { route, overview, signedOut } = state;
  render(header, banner());
  render(main, alerts(), signedOut ? signInPage() : overview ? page(route) : waiting());
  document.title = titleOf(route);
  askAgain(route, redraw);
}

function page(route) {
  switch (route.page) {
    case "host":
      return hostPage(route.name);
    case "door":
      return doorPage(route.name);
    case "explain":
      return explainPage(route, redraw);
    default:
      return board(redraw);
  }
}

const waiting = () => h("p", { class: "empty", key: "waiting", role: "status" },
  state.failures > 0 ? "The controller does not answer." : "Asking the controller…");

function titleOf(route) {
  const fleet = state.overview?.fleet ? `${state.overview.fleet} · Fleetknock` : "Fleetknock";
  const away = (state.overview?.hosts ?? 0) - (state.overview?.hostsConnected ?? 0);
  const part = { host: route.name, door: route.name, explain: "Explain" }[route.page];
  return `${away > 0 ? `(${away} cut off) ` : ""}${part ? `${part} · ` : ""}${fleet}`;
}

function banner() {
  const { route, overview, signedOut } = state;
  const link = (target, text, isHere) => h("a", { href: target, "aria-current": isHere ? "page" : null }, text);
  const caller = overview?.caller;
  return [
    h("a", { class: "brand", href: "#/", "aria-label": "Fleetknock, overview" },
      h("img", { src: "icon.svg", alt: "", width: "24", height: "24" }), h("strong", null, overview?.fleet || "Fleetknock")),
    !signedOut && h("nav", { "aria-label": "Pages", key: "nav" },
      link("#/", "Overview", route.page === "overview"), link(logic.explainRoute(), "Explain", route.page === "explain")),
    status(),
    h("div", { class: "who", key: "who" },
      caller && h("span", { key: "caller" }, caller.who || "anybody", caller.role && ` (${caller.role})`),
      caller?.by?.startsWith("token") && h("button", { type: "button", key: "out", onclick: leave }, "Sign out"),
      h("button", { type: "button", key: "theme", onclick: nextTheme, "aria-label": `Theme: ${theme()}; change it` }, `Theme: ${theme()}`)),
  ];
}

function status() {
  const { overview, answeredAt, signedOut } = state;
  if (signedOut) return h("div", { class: "status", key: "status" }, mark("warn", "Signed out"));
  const { level, text } = logic.connection({ ...state, controller: overview?.controller }, now());
  // Said aloud only when it becomes another one; a time that passes is no news.
  const plain = text.replace(/ since .*/, "");
  if (plain !== said) {
    if (said) tell(plain);
    said = plain;
  }
  return h("div", { class: "status", key: "status" }, mark(level, text),
    overview && h("span", { class: "from" }, `from ${overview.controller}`),
    answeredAt > 0 && h("span", { class: "from num" }, `at ${logic.time(answeredAt)}`));
}

function alerts() {
  const problems = [...state.problems];
  if (state.failures > 0 && state.overview) problems.push(`What is shown here is as of ${logic.time(state.answeredAt)}.`);
  return problems.map((text) => h("p", { class: "notice", key: `notice ${text}`, role: "status" }, mark("warn", text)));
}

function signInPage() {
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    try {
      await signIn(value(form, "token"));
      signInError = "";
      form.reset();
      restart();
    } catch (error) {
      signInError = error.message;
    }
    redraw();
  };
  return h("section", { class: "panel sign-in", key: "sign-in", "aria-labelledby": "page-title" },
    h("h1", { id: "page-title", tabindex: "-1" }, "Sign in"),
    h("p", null, "This fleet wants to know who looks. A token does it:"),
    h("p", null, h("code", null, "fleetknock token create --user NAME --role viewer")),
    h("form", { onsubmit: submit, novalidate: true },
      field("token", "Token", { type: "password", autocomplete: "current-password", required: true }),
      h("p", { class: "error", role: "alert" }, signInError),
      h("button", { type: "submit", class: "primary" }, "Sign in")));
}

async function leave() {
  await signOut().catch(() => {});
  restart();
}

function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function nextTheme() {
  const chosen = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem("fleetknock-theme", chosen);
  } catch {
    // Storage is forbidden here: it holds until the page goes.
  }
  redraw();
}

/** Says what happened, several things at once rather than one over the other. */
function tell(text) {
  if (toTell.length === 0) {
    setTimeout(() => {
      announce(toTell.slice(-3).join(". "));
      toTell = [];
    }, TELL_EVERY_MS);
  }
  toTell.push(text);
  toTell = toTell.slice(-3);
}

function follow() {
  // Other fragments, such as of the skip link, are no pages.
  if (location.hash && !location.hash.startsWith("#/")) return;
  document.getElementById("dialog").close();
  go(logic.parseRoute(location.hash));
  draw();
  window.scrollTo(0, 0);
  document.getElementById("page-title")?.focus({ preventScroll: true });
}

document.getElementById("skip").onclick = (event) => {
  event.preventDefault();
  main.focus();
};
window.addEventListener("hashchange", follow);
document.addEventListener("visibilitychange", redraw);
setInterval(redraw, 1000);
state.route = logic.parseRoute(location.hash);
start(redraw, (event) => tell(logic.spoken(event)));
draw();
