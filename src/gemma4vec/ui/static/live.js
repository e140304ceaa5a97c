// A run that trains: figures from each event as it is written; curves are drawn by the server every few seconds, and less
// often where that takes long.

const part = document.getElementById("live");
const REDRAW_MS = 3000;
const SHARE = 0.01; // of a core's time that the curves may take from a training beside them
const digits = {
  step: (value) => value.toLocaleString("en"),
  loss: (value) => value.toFixed(4),
  learning_rate: (value) => value.toExponential(2),
  gradient_norm: (value) => value.toFixed(3),
  tokens_per_second: (value) => Math.round(value).toLocaleString("en"),
  padding_share: (value) => `${(100 * value).toFixed(1)}%`,
};
let waiting = null;
let pause = REDRAW_MS;
let source = null;

function show(name, text) {
  const place = part.querySelector(`[data-live="${name}"]`);
  if (place) place.textContent = text;
}

async function redraw() {
  waiting = null;
  if (document.hidden) return;
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  const reply = await fetch(`/runs/${encodeURIComponent(part.dataset.run)}/live`);
  if (!reply.ok) return;
  // Long trainings have long curves, so they are drawn less often.
  pause = Math.max(REDRAW_MS, Number(reply.headers.get("Server-Timing")?.match(/dur=([\d.]+)/)?.[1] ?? 0) / SHARE);
  part.innerHTML = await reply.text(); // escaped by the server, and the policy runs no script in it
  const now = [...part.querySelectorAll("details")];
  if (now.length === open.length) now.forEach((one, at) => (one.open = open[at]));
}

function soon(wait = pause) {
  if (wait < pause) {
    clearTimeout(waiting);
    waiting = null;
  }
  waiting ??= setTimeout(() => redraw().catch(() => {}), wait);
}

function listen() {
  source = new EventSource(`/api/runs/${encodeURIComponent(part.dataset.run)}/events?from=${part.dataset.from}`);
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.event === "step") {
      for (const [name, write] of Object.entries(digits)) {
        if (typeof event[name] === "number") show(name, write(event[name]));
      }
    }
    soon(event.event === "step" ? pause : REDRAW_MS);
  };
  source.addEventListener("state", () => soon(REDRAW_MS));
  source.addEventListener("gone", () => {
    show("state", "deleted");
    source.close();
  });
}

if (part && part.dataset.state !== "deleted") {
  listen();
  document.addEventListener("visibilitychange", () => document.hidden || soon(0));
  addEventListener("pagehide", () => source?.close());
}
