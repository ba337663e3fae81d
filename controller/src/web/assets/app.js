"use strict";

async function call(method, request) {
  const response = await fetch(`/api/v1/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", "fleetknock-request": "1" },
    body: JSON.stringify(request),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

async function show() {
  const list = document.getElementById("hosts");
  const lines = await call("ListHosts", { pageSize: 1000 }).then(
    (answer) => answer.hosts.map((host) => `${host.name}: ${host.connected ? "connected" : "cut off"}`),
    (error) => [error.message],
  );
  list.replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
}

show();
setInterval(show, 5000);
