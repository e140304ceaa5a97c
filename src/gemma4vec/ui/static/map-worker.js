// Draws points as a raster: how many lie in each pixel, and the group of the last one. Points are in random order, so
// the first of them are a sample, which is what is drawn while the map moves.

const FEW = 250_000;
const REACH = 10; // pixels around the pointer
let context, width, height, count, xs, ys, rows, groups, palette = [], lit = -1, seen = { scale: 1, x: 0.5, y: 0.5 };

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
    const dim = lit >= 0 && groups[at] !== lit;
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
    const alpha = dim ? 60 : Math.min(255, 130 + 45 * Math.log2(many));
    out[pixel] = ((alpha << 24) | shade) >>> 0;
    checksum = Math.imul(checksum ^ pixel ^ (many << 8) ^ last[pixel], 16777619) >>> 0;
  }
  context.putImageData(image, 0, 0);
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
  postMessage({ hit: hit < 0 ? -1 : rows[hit] });
}

onmessage = ({ data }) => {
  if (data.canvas) {
    ({ width, height } = data.canvas);
    context = data.canvas.getContext("2d");
    read(data.points);
  }
  if (data.colors) [palette, lit] = [data.colors, data.lit];
  if (!context) return;
  if (data.draw) draw(data.draw);
  if (data.find) find(data.find);
};
