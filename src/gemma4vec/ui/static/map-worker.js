// Draws points as a raster: how many lie in each pixel, and the group of the last one. Points are in random order, so
// the first of them are a sample, which is what is drawn while the map moves.

const FEW = 250_000;
const REACH = 10; // pixels around the pointer
const RING = 7; // pixels from the middle to the side
const DIM = 31; // ink of points that are not lit
const LARGE = 5; // pixels of a side, from which on groups have shapes
// Whether a place of a square is in a group's shape, x and y from -1 to 1: disk, frame, plus, triangle, cross, diamond,
// turned triangle, bar. The style sheet has the same shapes for the legend.
const SHAPES = [
  (x, y) => x * x + y * y <= 1.1,
  (x, y) => Math.max(Math.abs(x), Math.abs(y)) > 0.6,
  (x, y) => Math.min(Math.abs(x), Math.abs(y)) < 0.3,
  (x, y) => Math.abs(x) <= (y + 1.1) / 2,
  (x, y) => Math.abs(Math.abs(x) - Math.abs(y)) < 0.3,
  (x, y) => Math.abs(x) + Math.abs(y) <= 1.05,
  (x, y) => Math.abs(x) <= (1.1 - y) / 2,
  (x, y) => Math.abs(y) < 0.4,
];
// A pixel's cell is a byte, so that all cells stay in the processor's cache: 8 times the ink, plus the points, of which
// more than 7 look like 7. What a cell becomes when a point of an ink falls on it; what is lit stays above the rest.
const AFTER = Uint8Array.from({ length: 256 * 32 }, (_, place) => {
  const [cell, ink] = [place >> 5, place & 31];
  return ink === DIM && cell && cell >> 3 !== DIM ? cell : (ink << 3) | Math.min((cell & 7) + 1, 7);
});
let context, width, height, count, xs, ys, rows, groups, palette = [], lit = -1, seen = { scale: 1, x: 0.5, y: 0.5 };
let marks = null; // a byte a point: whether it is in the lasso, here or in a linked map
let waiting = null; // numbers that were marked before the points were here
let ring = -1; // number of the point that is pointed at, here or in a linked map
let placeOf = null; // number -> point
let hitAt = -1; // the point under the pointer
let image, out; // the picture, and its pixels as numbers
let cells; // what lies in each pixel
let inked = null; // the ink of each point; null where it has to be found again

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
  inked ??= chooseInks();
  cells.fill(0);
  const [sx, sy] = [view.scale * width * 0.94, view.scale * height * 0.94];
  const [ox, oy] = [width / 2 - view.x * sx, height / 2 - view.y * sy];
  const most = view.few ? Math.min(count, FEW) : count;
  const size = most > 100_000 ? 1 : most > 15_000 ? 2 : most > 4_000 ? LARGE : LARGE + 2; // few points would not be seen
  const to = [cells, width, height, sx, sy, ox, oy];
  const shown = size > 1 ? countSquares(xs, ys, inked, most, size, ...to) : countPoints(xs, ys, inked, most, ...to);
  fill(out, cells, mixInks(size > 1));
  context.putImageData(image, 0, 0);
  postMessage({ ringed: drawRing(sx, sy, ox, oy) });
  postMessage({ frame: { ms: performance.now() - began, shown, checksum: view.few ? undefined : sum(cells) } });
}

// The ink of each point: its group, or DIM where another group is lit or the lasso leaves it out.
function chooseInks() {
  const found = groups.map((group) => Math.min(group, DIM - 1));
  if (lit < 0 && !marks) return found;
  return found.map((ink, at) => ((lit >= 0 && ink !== lit) || (marks && !marks[at]) ? DIM : ink));
}

// The loops get their arrays as arguments: those that stand outside are read at half the speed.
function countPoints(xs, ys, inked, most, cells, width, height, sx, sy, ox, oy) {
  let shown = 0;
  for (let at = 0; at < most; at++) {
    const x = (xs[at] * sx + ox) | 0;
    const y = (ys[at] * sy + oy) | 0;
    if (x < 0 || y < 0 || x >= width || y >= height) continue;
    shown++;
    const pixel = y * width + x;
    cells[pixel] = AFTER[(cells[pixel] << 5) | inked[at]];
  }
  return shown;
}

function countSquares(xs, ys, inked, most, size, cells, width, height, sx, sy, ox, oy) {
  let shown = 0;
  const masks = Array.from({ length: DIM + 1 }, (_, ink) => maskOf(ink, size));
  for (let at = 0; at < most; at++) {
    const x = (xs[at] * sx + ox - size / 2) | 0;
    const y = (ys[at] * sy + oy - size / 2) | 0;
    if (x < 0 || y < 0 || x > width - size || y > height - size) continue;
    shown++;
    const mask = masks[inked[at]];
    for (let dy = 0; dy < size; dy++) {
      for (let dx = 0; dx < size; dx++) {
        if (!mask[dy * size + dx]) continue;
        const pixel = (y + dy) * width + x + dx;
        cells[pixel] = AFTER[(cells[pixel] << 5) | inked[at]];
      }
    }
  }
  return shown;
}

// The places of a square that a point of an ink fills: all of a small one, the shape of its group in a large one.
function maskOf(ink, size) {
  const middle = (size - 1) / 2;
  const shape = ink === DIM ? (x, y) => Math.max(Math.abs(x), Math.abs(y)) < 0.6 : SHAPES[ink % SHAPES.length];
  return Uint8Array.from({ length: size * size }, (_, at) =>
    size < LARGE || shape(((at % size) - middle) / middle, (Math.floor(at / size) - middle) / middle) ? 1 : 0);
}

// The color of each value of a cell.
function mixInks(isSolid) {
  const colors = new Uint32Array(256);
  for (let cell = 0; cell < 256; cell++) {
    const [ink, many] = [cell >> 3, cell & 7];
    if (!many) continue;
    const [r, g, b] = (ink === DIM ? null : palette[Math.min(ink, palette.length - 1)]) ?? [128, 128, 128];
    const alpha = ink === DIM ? 60 : isSolid ? 235 : Math.min(255, 130 + 45 * Math.log2(many));
    colors[cell] = (alpha << 24) | (b << 16) | (g << 8) | r;
  }
  return colors;
}

function fill(out, cells, colors) {
  for (let pixel = 0; pixel < cells.length; pixel++) out[pixel] = colors[cells[pixel]];
}

// Of a frame that stands: equal sums are equal pictures.
function sum(cells) {
  let found = 2166136261;
  for (let pixel = 0; pixel < cells.length; pixel++) found = Math.imul(found ^ cells[pixel], 16777619);
  return found >>> 0;
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
    image = context.createImageData(width, height);
    out = new Uint32Array(image.data.buffer);
    cells = new Uint8Array(width * height);
    read(data.points);
    if (waiting) mark(waiting);
  }
  if (data.lasso) pick(data.lasso);
  if (data.marked) mark(data.marked);
  if (data.ring !== undefined) ring = data.ring;
  if (data.colors) [palette, lit] = [data.colors, data.lit];
  if (data.lasso || data.marked || data.colors) inked = null;
  if (!context) return;
  if (data.draw) draw(data.draw);
  if (data.find) find(data.find);
};
