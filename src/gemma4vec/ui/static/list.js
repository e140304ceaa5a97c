// A long list of queries as one list that scrolls: rows exist where one looks, and come by the hundred from the server.
// Without scripts, and on narrow windows, the list has pages.

const PAGE = 100;
const SPARE = 15; // rows above and below what is seen
const MOST = 500_000; // rows: a browser draws no higher box
const part = document.getElementById("list");

function start() {
  const total = Number(part.dataset.total);
  const table = part.querySelector("table");
  const body = table.tBodies[0];
  const columns = table.tHead.rows[0].cells.length;
  const labels = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const place = `list:${location.pathname}${location.search}`;
  const pages = new Map(); // number -> rows, or null while they are on their way
  const made = new Map(); // place in the list -> row on the page
  let failed = false;

  document.querySelectorAll(".paging").forEach((one) => (one.hidden = true));
  part.classList.add("virtual");
  part.tabIndex = 0;
  part.setAttribute("role", "region");
  part.setAttribute("aria-label", `${total.toLocaleString("en")} queries`);
  table.setAttribute("aria-rowcount", String(total + 1));
  const [above, below] = [document.createElement("tr"), document.createElement("tr")];
  for (const one of [above, below]) {
    one.setAttribute("aria-hidden", "true");
    one.append(Object.assign(document.createElement("td"), { colSpan: columns }));
  }
  const sample = body.rows[0].getBoundingClientRect().height;
  body.replaceChildren(above, below);
  const height = Math.max(Math.round(sample), 20);

  async function load(number) {
    if (pages.has(number) || failed) return;
    pages.set(number, null);
    const reply = await fetch(`${part.dataset.list}&page=${number + 1}`).catch(() => null);
    if (!reply?.ok) {
      failed = true;
      table.caption.textContent = "The list did not arrive; reload the page.";
      return;
    }
    pages.set(number, (await reply.json()).queries);
    for (const [at, row] of made) if (Math.floor(at / PAGE) === number) fill(row, at);
    show();
  }

  function cell(kind, text, label) {
    const one = document.createElement(kind);
    one.textContent = text;
    if (label) one.dataset.label = label;
    return one;
  }

  function fill(row, at) {
    const found = pages.get(Math.floor(at / PAGE))?.[at % PAGE];
    if (!found) {
      row.replaceChildren(Object.assign(cell("td", "\u2026"), { colSpan: columns }));
      return;
    }
    const head = cell("th", "");
    head.scope = "row";
    const link = Object.assign(document.createElement("a"), { href: `${part.dataset.link}${found.row}?${part.dataset.query}`, textContent: found.shown });
    link.dataset.open = "";
    if (found.language) link.lang = found.language;
    head.append(link);
    const number = (value, digits, sign) => (typeof value === "number" ? `${sign && value >= 0 ? "+" : ""}${value.toFixed(digits)}` : "-");
    const cells = [number(found.score, 2), number(found.difference, 2, true), found.rank === null ? "not found" : String(found.rank)];
    if (columns === 4) cells.splice(1, 1);
    row.replaceChildren(
      head,
      ...cells.map((text, column) => Object.assign(cell("td", text, labels[column + 1]), { className: "number" })),
      cell("td", found.kinds.join(", ") || "-", labels.at(-1)),
    );
  }

  function show() {
    const top = Math.max(part.scrollTop - body.offsetTop, 0);
    const first = Math.max(Math.floor(top / height) - SPARE, 0);
    const last = Math.min(Math.ceil((top + part.clientHeight) / height) + SPARE, total);
    for (const [at, row] of made) {
      if (at >= first && at < last) continue;
      row.remove();
      made.delete(at);
    }
    let after = above;
    for (let at = first; at < last; at++) {
      let row = made.get(at);
      if (!row) {
        row = document.createElement("tr");
        row.dataset.row = "";
        row.setAttribute("aria-rowindex", String(at + 2));
        made.set(at, row);
        fill(row, at);
        after.after(row);
      }
      after = row;
    }
    above.style.height = `${first * height}px`;
    below.style.height = `${(total - last) * height}px`;
    for (let number = Math.floor(first / PAGE); number * PAGE < last; number++) load(number);
    part.dataset.first = first;
  }

  let waiting = false;
  part.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      show();
    });
  }, { passive: true });
  addEventListener("resize", show);
  // Who comes back from a query finds the place in the list again.
  addEventListener("pagehide", () => sessionStorage.setItem(place, String(part.scrollTop)));
  show();
  part.scrollTop = Number(sessionStorage.getItem(place) ?? 0);
}

if (part?.dataset.list && Number(part.dataset.total) <= MOST && matchMedia("(min-width: 44.01rem)").matches) start();
