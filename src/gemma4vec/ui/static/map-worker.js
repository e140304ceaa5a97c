// Draws points as a raster: how many lie in each pixel, and the group of the last one. Points are in random order, so
// the first of them are a sample, which is what is drawn while the map moves.

const FEW = 250_000;
const REACH = 10; // pixels around the pointer
const RING = 7; // pixels from the middle to the side
let context, width, height, count, xs, ys, rows, groups, palette = [], lit = -1, seen = { scale: 1, x: 0.5, y: 0.5 };
let marks = null; // a byte a point: whether it is in the lasso, here or in a linked map
let waiting = null; // numbers that were marked before the points were here
let ring = -1; // number of the point that is pointed at, here or in a linked map
let placeOf = null; // number -> point
let hitAt = -1; // the point under the pointer

function read(buffer) {
  const head = new DataView(buffer);
  const length = head.getUint32(4, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  count = about.count;
  const start = 8 + length;
  xs = new Float32Array(buffer, start, count);
  ys = new Float32Array(buffer, start + 4 * count, count);
  rows = new Uint32Array(buffer, start + 8 * count, count);
  groups = new Uint8Array(buffer, start + 12 * count, count);
}

function findPlace(number) {
  if (hitAt >= 0 && rows[hitAt] === number) return hitAt;
  if (!placeOf) {
    placeOf = new Map();
    for (let at = 0; at < count; at++) placeOf.set(rows[at], at);
  }
  return placeOf.get(number) ?? -1;
}

// By the even-odd rule, as the server does it.
function pick(corners) {
  marks = new Uint8Array(count);
  const picked = [];
  const [cx, cy] = [corners.filter((_, at) => at % 2 === 0), corners.filter((_, at) => at % 2)];
  const [left, right, top, bottom] = [Math.min(...cx), Math.max(...cx), Math.min(...cy), Math.max(...cy)];
  for (let at = 0; at < count; at++) {
    const [x, y] = [xs[at], ys[at]];
    if (x < left || x > right || y < top || y > bottom) continue;
    let inside = false;
    for (let one = 0, last = cx.length - 1; one < cx.length; last = one++) {
      if (y < cy[last] !== y < cy[one] && x < cx[last] + ((y - cy[last]) / (cy[one] - cy[last])) * (cx[one] - cx[last])) inside = !inside;
    }
    if (inside) {
      marks[at] = 1;
      picked.push(rows[at]);
    }
  }
  postMessage({ picked: Uint32Array.from(picked) });
}

function mark(numbers) {
  if (!count) {
    waiting = numbers;
    return;
  }
  marks = new Uint8Array(count);
  for (const number of numbers) {
    const at = findPlace(number);
    if (at >= 0) marks[at] = 1;
  }
  postMessage({ picked: numbers.filter((number) => findPlace(number) >= 0), linked: true });
}

function drawRing(sx, sy, ox, oy) {
  const at = ring < 0 ? -1 : findPlace(ring);
  if (at >= 0) {
    context.lineWidth = 3;
    context.strokeStyle = `rgb(${palette[Math.min(groups[at], palette.length - 1)] ?? [128, 128, 128]})`;
    context.strokeRect(xs[at] * sx + ox - RING, ys[at] * sy + oy - RING, 2 * RING, 2 * RING);
  }
  return at >= 0 ? ring : -1;
}

function draw(view) {
  const began = performance.now();
  seen = view;
  const image = context.createImageData(width, height);
  const hits = new Uint16Array(width * height);
  const last = new Uint8Array(width * height);
  const [sx, sy] = [view.scale * width * 0.94, view.scale * height * 0.94];
  const [ox, oy] = [width / 2 - view.x * sx, height / 2 - view.y * sy];
  const most = view.few ? Math.min(count, FEW) : count;
  const size = most > 100_000 ? 1 : most > 15_000 ? 2 : most > 1_000 ? 4 : 6; // few points would not be seen
  let shown = 0;
  for (let at = 0; at < most; at++) {
    const x = (xs[at] * sx + ox) | 0;
    const y = (ys[at] * sy + oy) | 0;
    if (x < 0 || y < 0 || x > width - size || y > height - size) continue;
    shown++;
    const dim = (lit >= 0 && groups[at] !== lit) || (marks !== null && !marks[at]);
    for (let dy = 0; dy < size; dy++) {
      for (let dx = 0; dx < size; dx++) {
        const pixel = (y + dy) * width + x + dx;
        // A lit group stays above the others.
        if (dim && hits[pixel] && last[pixel] !== 255) continue;
        if (hits[pixel] < 65535) hits[pixel]++;
        last[pixel] = dim ? 255 : groups[at];
      }
    }
  }
  const out = new Uint32Array(image.data.buffer);
  const shades = [...palette, [128, 128, 128]].map(([r, g, b]) => (b << 16) | (g << 8) | r);
  let checksum = 2166136261;
  for (let pixel = 0; pixel < hits.length; pixel++) {
    const many = hits[pixel];
    if (!many) continue;
    const dim = last[pixel] === 255;
    const shade = shades[dim ? shades.length - 1 : Math.min(last[pixel], shades.length - 2)];
    const alpha = dim ? 60 : size > 1 ? 235 : Math.min(255, 130 + 45 * Math.log2(many));
    out[pixel] = ((alpha << 24) | shade) >>> 0;
    checksum = Math.imul(checksum ^ pixel ^ (many << 8) ^ last[pixel], 16777619) >>> 0;
  }
  context.putImageData(image, 0, 0);
  postMessage({ ringed: drawRing(sx, sy, ox, oy) });
  postMessage({ frame: { ms: performance.now() - began, shown, checksum } });
}

function find({ x, y }) {
  const [sx, sy] = [seen.scale * width * 0.94, seen.scale * height * 0.94];
  const [px, py] = [x * width - (width / 2 - seen.x * sx), y * height - (height / 2 - seen.y * sy)];
  let best = REACH * REACH;
  let hit = -1;
  for (let at = 0; at < count; at++) {
    const dx = xs[at] * sx - px;
    const dy = ys[at] * sy - py;
    const far = dx * dx + dy * dy;
    if (far < best) [best, hit] = [far, at];
  }
  hitAt = hit;
  postMessage({ hit: hit < 0 ? -1 : rows[hit] });
}

onmessage = ({ data }) => {
  if (data.canvas) {
    ({ width, height } = data.canvas);
    context = data.canvas.getContext("2d");
    read(data.points);
    if (waiting) mark(waiting);
  }
  if (data.lasso) pick(data.lasso);
  if (data.marked) mark(data.marked);
  if (data.ring !== undefined) ring = data.ring;
  if (data.colors) [palette, lit] = [data.colors, data.lit];
  if (!context) return;
  if (data.draw) draw(data.draw);
  if (data.find) find(data.find);
};
