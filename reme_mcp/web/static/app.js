// An App inside a chat: JSON-RPC with its host over postMessage; what it shows is made by the server.
"use strict";
const { app, key } = document.body.dataset;
const place = document.getElementById("app");
const waiting = new Map();
let last = 0;
let state = {};

const send = (message) => window.parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
const request = (method, params) => new Promise((resolve, reject) => {
  last += 1;
  waiting.set(last, { resolve, reject });
  send({ id: last, method, params });
});

async function show(more) {
  try {
    const result = await request("tools/call", { name: `reme_${app}`, arguments: { key, ...state, ...more } });
    const shown = result.structuredContent;
    if (result.isError || !shown) throw new Error(result.content && result.content[0] ? result.content[0].text : "no answer");
    place.innerHTML = shown.html;
  } catch (trouble) {
    const said = document.createElement("p");
    said.className = "reason";
    said.setAttribute("role", "alert");
    said.textContent = trouble.message;
    place.append(said);
    for (const one of place.querySelectorAll("button")) one.disabled = false;
  }
}

// What the host looks like, which need not be what the system prefers.
const wear = (context) => {
  const theme = context && context.theme;
  if (theme === "light" || theme === "dark") document.documentElement.style.colorScheme = theme;
};

const told = {
  "ui/notifications/host-context-changed": wear,
  "ui/notifications/tool-input": ({ arguments: given }) => {
    if (given && given.workspace) state.workspace = given.workspace;
  },
  "ui/notifications/tool-result": ({ structuredContent: result }) => {
    if (!result) return;
    const found = app === "notes" ? result.experiences : result.quarantined;
    state.ids = (found || []).map((one) => one.id);
    if (app === "notes" && result.receipt) state.receipt = result.receipt;
    show({});
  },
};

window.addEventListener("message", ({ source, data }) => {
  if (source !== window.parent || !data || data.jsonrpc !== "2.0") return;
  if (data.method) {
    if (told[data.method]) told[data.method](data.params || {});
    else if (data.id !== undefined) send({ id: data.id, result: {} });
    return;
  }
  const asked = waiting.get(data.id);
  waiting.delete(data.id);
  if (asked && data.error) asked.reject(new Error(data.error.message));
  else if (asked) asked.resolve(data.result);
});

place.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-answer]");
  if (!button) return;
  for (const one of place.querySelectorAll("button")) one.disabled = true;
  show({ id: button.dataset.id, answer: button.dataset.answer });
});

new ResizeObserver(() => {
  const { offsetWidth: width, offsetHeight: height } = document.documentElement;
  send({ method: "ui/notifications/size-changed", params: { width, height } });
}).observe(document.documentElement);

request("ui/initialize", {
  appInfo: { name: `reme ${app}`, version: "1" }, appCapabilities: {}, protocolVersion: "2026-01-26",
}).then(({ hostContext }) => {
  wear(hostContext);
  send({ method: "ui/notifications/initialized", params: {} });
});
