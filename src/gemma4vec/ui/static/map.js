// Maps: gestures and texts here, pixels in a worker each. Points are drawn without WebGL, which machines without a GPU
// lack. Figures with `data-linked` show the same numbers: what is pointed at or lassoed in one is marked in the others.

const SHARE = 0.94; // of the canvas, as in the worker
const CORNERS = 64;
const figures = [...document.querySelectorAll("figure.map")];
const maps = [];
const toOthers = (own, send) => maps.forEach((one) => one !== own && own.linked && one.linked && send(one));

function colors(figure) {
  const legend = document.getElementById(figure.dataset.legend);
  return [...legend.querySelectorAll("[class^=swatch-]")].map((one) => getComputedStyle(one).backgroundColor.match(/\d+/g).slice(0, 3).map(Number));
}

// The view stands behind the # of the address, so that it stays when a lasso lists its points.
function readView(place) {
  const given = (location.hash.match(/view=([-\d.,;]+)/)?.[1] ?? "").split(";")[place]?.split(",").map(Number) ?? [];
  const [scale, x, y] = given.length === 3 && given.every(Number.isFinite) ? given : [1, 0.5, 0.5];
  return { scale, x, y };
}

function toAddress(corners, place) {
  const address = new URL(location.href);
  const views = maps.map(({ view }) => [view.scale, view.x, view.y].map((one) => +one.toPrecision(6)).join(","));
  if (corners.length) address.searchParams.set("lasso", corners.flat().map((one) => one.toFixed(4)).join(","));
  else address.searchParams.delete("lasso");
  if (corners.length && place) address.searchParams.set("of", String(place + 1));
  else address.searchParams.delete("of");
  address.searchParams.delete("page");
  address.hash = `view=${views.join(";")}`;
  return address;
}

function start(figure, place) {
  const canvas = figure.querySelector("canvas");
  const line = figure.querySelector("polyline");
  const worker = new Worker("/static/map-worker.js");
  const own = { worker, linked: figure.hasAttribute("data-linked"), view: readView(place), ready: false };
  maps.push(own);
  const { view } = own;
  const say = (name, text) => (figure.querySelector(`[data-map="${name}"]`).textContent = text);
  const legend = document.getElementById(figure.dataset.legend);
  const chosen = legend.querySelector('[data-group][aria-current="true"]');
  const lassoButton = figure.querySelector('[data-tool="lasso"]');
  let pending = false;
  let again = false;
  let moving = false;
  let idle = 0;
  let asked = -1;
  let pointer = [0, 0]; // as shares of the canvas
  let drawn = null; // corners of the lasso that is being drawn, as shares of the canvas

  // One frame at a time: what happens meanwhile is drawn by the next one.
  own.draw = () => {
    again = pending;
    if (pending || !own.ready) return;
    pending = true;
    worker.postMessage({ draw: { ...view, few: moving } });
  };
  const move = (change) => {
    change();
    view.scale = Math.min(Math.max(view.scale, 0.5), 4000);
    moving = true;
    clearTimeout(idle);
    idle = setTimeout(() => {
      moving = false;
      own.draw();
    }, 150);
    own.draw();
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const onMap = ([px, py]) => [view.x + (px - 0.5) / (view.scale * SHARE), view.y + (py - 0.5) / (view.scale * SHARE)];
  const zoom = (factor, [px, py] = [0.5, 0.5]) =>
    move(() => {
      view.x += ((px - 0.5) / view.scale) * (1 - 1 / factor);
      view.y += ((py - 0.5) / view.scale) * (1 - 1 / factor);
      view.scale *= factor;
    });
  // The text stands beside the pointer, on the side with more room, so that it is in sight wherever the page is scrolled to.
  const placeText = () => {
    const { style } = figure.querySelector('[data-map="text"]');
    const [x, y] = pointer.map((share) => 100 * share);
    [style.left, style.right] = x < 50 ? [`${x + 2}%`, "auto"] : ["auto", `${102 - x}%`];
    [style.top, style.bottom] = y < 50 ? [`${y + 3}%`, "auto"] : ["auto", `${103 - y}%`];
  };
  const list = (corners) => {
    const step = Math.ceil(corners.length / CORNERS) || 1;
    location.assign(toAddress(corners.filter((_, number) => number % step === 0).map(onMap), place));
  };
  const listView = () => list([[0, 0], [1, 0], [1, 1], [0, 1]]);

  worker.onmessage = async ({ data }) => {
    if (data.frame) {
      pending = false;
      if (again) own.draw();
      figure.dataset.frames = Number(figure.dataset.frames ?? 0) + 1;
      figure.dataset.checksum = data.frame.checksum;
      say("shown", `${data.frame.shown.toLocaleString("en")} in view, drawn in ${data.frame.ms.toFixed(0)} ms.`);
    }
    if (data.picked) {
      figure.dataset.picked = data.picked.length;
      if (!data.linked) toOthers(own, (other) => {
        other.worker.postMessage({ marked: data.picked });
        other.draw();
      });
    }
    if (data.ringed !== undefined) figure.dataset.ringed = data.ringed;
    if (data.hit !== undefined && data.hit !== asked) {
      asked = data.hit;
      for (const one of own.linked ? maps : [own]) {
        if (one !== own && !one.linked) continue;
        one.worker.postMessage({ ring: asked });
        one.draw();
      }
      if (asked < 0) {
        say("text", "");
        return;
      }
      const reply = await fetch(`${figure.dataset.texts}${figure.dataset.texts.endsWith("?") ? "" : "&"}rows=${asked}`);
      if (reply.ok) {
        const [one] = await reply.json();
        if (one.row !== asked) return; // the pointer has moved on
        say("text", one.text ? `${one.id}: ${one.text}` : one.id);
        placeText();
      }
    }
  };

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (event.shiftKey || lassoButton.getAttribute("aria-pressed") === "true") drawn = [at(event)];
    else drag = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointercancel", () => {
    [drag, drawn] = [null, null];
    line.setAttribute("points", "");
  });
  canvas.addEventListener("pointerup", () => {
    const corners = drawn;
    [drag, drawn] = [null, null];
    if (!corners) return;
    line.setAttribute("points", "");
    if (corners.length > 2) list(corners);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drawn) {
      drawn.push(at(event));
      line.setAttribute("points", drawn.map(([x, y]) => `${(1000 * x).toFixed(1)},${(640 * y).toFixed(1)}`).join(" "));
      return;
    }
    if (!drag) {
      pointer = at(event);
      worker.postMessage({ find: { x: pointer[0], y: pointer[1] } });
      return;
    }
    const box = canvas.getBoundingClientRect();
    const [dx, dy] = [event.clientX - drag[0], event.clientY - drag[1]];
    drag = [event.clientX, event.clientY];
    move(() => {
      view.x -= dx / box.width / view.scale;
      view.y -= dy / box.height / view.scale;
    });
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, at(event));
  }, { passive: false });
  const step = (dx, dy) => move(() => {
    view.x += dx / view.scale;
    view.y += dy / view.scale;
  });
  const keys = {
    ArrowLeft: () => step(-0.1, 0),
    ArrowRight: () => step(0.1, 0),
    ArrowUp: () => step(0, -0.1),
    ArrowDown: () => step(0, 0.1),
    "+": () => zoom(1.25),
    "-": () => zoom(0.8),
    l: listView,
    Home: () => move(() => Object.assign(view, { scale: 1, x: 0.5, y: 0.5 })),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  lassoButton.addEventListener("click", () => {
    const on = lassoButton.getAttribute("aria-pressed") !== "true";
    lassoButton.setAttribute("aria-pressed", String(on));
    canvas.classList.toggle("drawing", on);
  });
  figure.querySelector('[data-tool="view"]').addEventListener("click", listView);
  figure.querySelector('[data-tool="clear"]')?.addEventListener("click", () => location.assign(toAddress([], place)));

  const paint = () => {
    if (!own.ready) return;
    worker.postMessage({ colors: colors(figure), lit: chosen ? Number(chosen.dataset.group) : -1 });
    own.draw();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  const offscreen = canvas.transferControlToOffscreen();
  fetch(figure.dataset.points)
    .then((reply) => (reply.ok ? reply.arrayBuffer() : Promise.reject(new Error(reply.statusText))))
    .then((points) => {
      worker.postMessage({ canvas: offscreen, points }, [offscreen, points]);
      own.ready = true;
      if (figure.dataset.lasso) worker.postMessage({ lasso: figure.dataset.lasso.split(",").map(Number) });
      paint();
    })
    .catch((error) => say("text", `The points did not arrive (${error.message}); reload the page.`));
}

if ("OffscreenCanvas" in window) {
  figures.forEach((figure, place) => {
    figure.hidden = false;
    start(figure, place);
  });
}
