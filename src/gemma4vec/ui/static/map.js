// The map: gestures and texts here, pixels in a worker. Points are drawn without WebGL, which machines without a GPU lack.

const figure = document.getElementById("map");
const canvas = figure?.querySelector("canvas");

function colors() {
  return [...document.querySelectorAll("[class^=swatch-]")].map((one) => getComputedStyle(one).backgroundColor.match(/\d+/g).slice(0, 3).map(Number));
}

function start() {
  const view = { scale: 1, x: 0.5, y: 0.5 };
  const worker = new Worker("/static/map-worker.js");
  const index = encodeURIComponent(figure.dataset.index);
  const say = (name, text) => (figure.querySelector(`[data-map="${name}"]`).textContent = text);
  const chosen = document.querySelector('[data-group][aria-current="true"]');
  let pending = false;
  let moving = false;
  let idle = 0;
  let asked = -1;

  // One frame at a time: what happens meanwhile is drawn by the next one.
  const draw = () => {
    if (pending) return;
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
      draw();
    }, 150);
    draw();
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const zoom = (factor, [px, py] = [0.5, 0.5]) =>
    move(() => {
      view.x += ((px - 0.5) / view.scale) * (1 - 1 / factor);
      view.y += ((py - 0.5) / view.scale) * (1 - 1 / factor);
      view.scale *= factor;
    });

  worker.onmessage = async ({ data }) => {
    if (data.frame) {
      pending = false;
      figure.dataset.frames = Number(figure.dataset.frames ?? 0) + 1;
      figure.dataset.checksum = data.frame.checksum;
      say("shown", `${data.frame.shown.toLocaleString("en")} in view, ${data.frame.ms.toFixed(0)} ms.`);
    }
    if (data.hit !== undefined && data.hit !== asked) {
      asked = data.hit;
      if (asked < 0) return;
      const reply = await fetch(`/api/map/texts?index=${index}&rows=${asked}`);
      if (reply.ok) {
        const [one] = await reply.json();
        say("text", `${one.id}: ${one.text}`);
      }
    }
  };

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => (drag = null));
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) {
      const [x, y] = place(event);
      worker.postMessage({ find: { x, y } });
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
    zoom(event.deltaY < 0 ? 1.25 : 0.8, place(event));
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
    Home: () => move(() => Object.assign(view, { scale: 1, x: 0.5, y: 0.5 })),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  const paint = () => {
    worker.postMessage({ colors: colors(), lit: chosen ? Number(chosen.dataset.group) : -1 });
    draw();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  const offscreen = canvas.transferControlToOffscreen();
  fetch(`/api/map/points?index=${index}`)
    .then((reply) => (reply.ok ? reply.arrayBuffer() : Promise.reject(new Error(reply.statusText))))
    .then((points) => {
      worker.postMessage({ canvas: offscreen, points }, [offscreen, points]);
      paint();
    })
    .catch((error) => say("text", `The points did not arrive (${error.message}); reload the page.`));
}

if (canvas && "OffscreenCanvas" in window) {
  figure.hidden = false;
  start();
}
