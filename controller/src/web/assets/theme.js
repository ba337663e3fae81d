// Before the first paint: the chosen theme, so that a dark room is not lit by a white flash. app.js changes it.
"use strict";
try {
  const theme = localStorage.getItem("fleetknock-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden here: the system's theme will do.
}
