// Keys: j and k move between rows, o opens one, x chooses it, 1 and 0 judge it, / goes to the search field, ? lists them.

const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);
let here = null;

function go(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(here);
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)];
  here?.classList.remove("here");
  here = next;
  here.classList.add("here");
  // The link gets the focus, so that a screen reader says the row and Enter opens it.
  const link = here.querySelector("[data-open]");
  if (link) link.focus({ preventScroll: true });
  here.scrollIntoView({ block: "nearest" });
}

function isTyping(target) {
  return target instanceof HTMLElement && (target.matches("input, textarea, select") || target.isContentEditable);
}

const actions = {
  j: () => go(1),
  k: () => go(-1),
  o: () => here?.querySelector("[data-open]")?.click(),
  x: () => here?.querySelector("[data-choose]")?.click(),
  1: () => here?.querySelector("[data-one]")?.click(),
  0: () => here?.querySelector("[data-zero]")?.click(),
  "/": () => document.querySelector("[data-slash]")?.focus(),
  "?": () => document.getElementById("keys")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const own = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (own) {
    event.preventDefault();
    own.click();
  } else if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});

// Chosen runs have the letters that they will have where they are compared: the oldest is A.
const boxes = [...document.querySelectorAll("[data-made]")];
function giveLetters() {
  const chosen = boxes.filter((box) => box.checked).sort((one, other) => (one.dataset.made < other.dataset.made ? -1 : 1));
  for (const box of boxes) box.nextElementSibling.textContent = box.checked ? String.fromCharCode(65 + (chosen.indexOf(box) % 26)) : "";
}
boxes.forEach((box) => box.addEventListener("change", giveLetters));
giveLetters();

// After a judgment the page comes back at the document that was judged.
const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
if (target?.matches("[data-row]")) {
  here = target;
  here.classList.add("here");
}

const button = document.getElementById("keys-button");
if (button) {
  button.hidden = false;
  button.addEventListener("click", actions["?"]);
}
