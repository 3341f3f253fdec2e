// The page: what arrives goes to the store, and at most once a frame to the screen.

import { Store } from "./store.js";
import { Rows } from "./rows.js";
import { Lanes } from "./lanes.js";
import { batchTable, clock, element, eventParts, parse, table, visible } from "./detail.js";

const $ = id => document.getElementById(id);
/** Larger events are shown when asked for. */
const LARGE = 512 * 1_024;

const store = new Store();
let current = null, paused = false, dirty = true, caughtUp = false, request = 0;

const rows = new Rows($("list"), $("spacer"), picked => picked.row ? showEvent(picked.row.i) : showGap(picked.gap));
const lanes = new Lanes($("canvas"), $("tip"), item => {
  if (item.batch) return showBatch(item.batch);
  const index = item.call ? item.call.index : item.index;
  if (!rows.pickIndex(index)) showEvent(index);
});
lanes.onFollow = follow => setFollow(follow);

// The stream. The browser reconnects by itself, and says what it has seen last.
const stream = new EventSource("/ui/api/stream");
stream.onopen = () => state("live", "live");
stream.onerror = () => stream.readyState === EventSource.CLOSED
  ? state("away", "signed out: open the URL that the program prints")
  : state("away", "away, trying again");
stream.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === "now") caughtUp = true;
  if (message.type === "clear" || message.type === "restart") current = null;
  const session = store.take(message, Date.now());
  if (session && (!current || (!touched && !caughtUp))) current ??= session;
  schedule();
};
let touched = false;

function state(name, text) {
  $("state").className = name;
  $("state").textContent = text;
}

let frame = null, shown = null, lastList = 0;
function schedule() {
  dirty = true;
  frame ??= requestAnimationFrame(update);
}

function update() {
  frame = null;
  if (!dirty) return;
  dirty = false;
  const now = performance.now();
  if (now - lastList > 200 || shown !== current) {
    lastList = now;
    listSessions();
  } else setTimeout(schedule, 200);
  $("empty").hidden = store.sessions.size > 0;
  if (shown !== current) {
    shown = current;
    rows.show(current);
    lanes.show(current);
    closeDetail();
  }
  if (!paused) {
    rows.extend();
    if (rows.follow && lanes.follow) rows.toEnd();
    if (caughtUp || now - fitted > 500) {
      fitted = now;
      if (lanes.follow && current && !current.ended && current.last - current.first < 30_000) lanes.fit();
      lanes.schedule();
    }
  }
  facts();
}
let fitted = 0;

function facts() {
  const total = current?.rows.length ?? 0;
  const gaps = rows.gaps.length, count = rows.view.length - gaps;
  $("shown").textContent = count === total ? `${total.toLocaleString("en")} events` : `${count.toLocaleString("en")} of ${total.toLocaleString("en")}`;
  $("title").textContent = current ? title(current) : "No session yet";
  const { platform, sdk_version: version } = current?.facts ?? {};
  const lost = current?.lost ? ["refused", "dropped"].flatMap(kind => Object.entries(current.lost[kind] ?? {}).map(([reason, n]) => `${n} ${kind}: ${reason}`)) : [];
  $("facts").textContent = visible([platform, version && `version ${version}`, ...lost, store.missed && `${store.missed} earlier rows are not kept`].filter(Boolean).join(" · "));
}

const title = session => visible(session.run > 1 ? `${session.id} #${session.run}` : session.id);

function listSessions() {
  const sessions = [...store.sessions.values()];
  $("session-count").textContent = sessions.length || "";
  const list = $("sessions");
  // The latest 500: more are a matter for the command line.
  const latest = sessions.slice(-500).reverse();
  latest.forEach((session, at) => {
    let item = items.get(session);
    if (!item) {
      item = element("div", "session");
      item.setAttribute("role", "option");
      item.append(element("span", "id"), element("span", "facts"));
      item.session = session;
      items.set(session, item);
    }
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
    item.setAttribute("aria-selected", session === current);
    item.children[0].textContent = title(session);
    const silent = Math.round((Date.now() - session.heard) / 1_000);
    const state = session.ended ? ["ended", ""] : silent > 5 ? [`silent ${span(silent)}`, "warn"] : ["running", "ok"];
    const lost = session.lost ? Object.values(session.lost.refused ?? {}).concat(Object.values(session.lost.dropped ?? {})).reduce((sum, n) => sum + (Number(n) || 0), 0) : 0;
    const parts = [state, [`${session.rows.length + session.trimmed} events`, ""]];
    if (session.errors) parts.push([`${session.errors} error${session.errors > 1 ? "s" : ""}`, "bad"]);
    if (session.missing > 0) parts.push([`${session.missing} missing`, "warn"]);
    if (lost) parts.push([`${lost} lost`, "warn"]);
    if (session.duplicates) parts.push([`${session.duplicates} twice`, ""]);
    const signature = parts.join();
    if (item.signature !== signature) {
      item.signature = signature;
      item.children[1].replaceChildren(...parts.map(([text, name]) => element("span", name, text)));
    }
  });
  while (list.children.length > latest.length) list.lastChild.remove();
}
/** The entry of each session in the list. */
const items = new WeakMap();

const span = seconds => seconds < 120 ? `${seconds} s` : seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;

$("sessions").addEventListener("click", event => {
  const item = event.target.closest(".session");
  if (item) select(item.session);
});

function select(session) {
  touched = true;
  current = session;
  schedule();
}

// Details.

function openDetail(text, ...parts) {
  $("detail-title").textContent = text;
  $("detail-body").replaceChildren(...parts);
  $("detail-body").scrollTop = 0;
  $("detail").classList.add("open");
}

function closeDetail() {
  request += 1;
  $("detail").classList.remove("open");
  $("detail-title").textContent = "Details";
  $("detail-body").replaceChildren(element("p", "dim", "Select an event, a call or a batch."));
}

async function showEvent(index, evenLarge) {
  const session = current, own = request += 1;
  const row = session.rows[session.find(index)];
  const name = row ? visible(row.n) : `event ${index}`;
  if (row && row.z > LARGE && !evenLarge) {
    const button = element("button", "", `Load ${(row.z / 1_048_576).toFixed(1)} MiB`);
    button.addEventListener("click", () => showEvent(index, true));
    return openDetail(name, button);
  }
  const query = new URLSearchParams({ session: session.id, run: session.run, index });
  let parts;
  try {
    const response = await fetch(`/ui/api/event?${query}`);
    parts = response.ok ? eventParts(session, parse(await response.text())) : [element("p", "dim", "The collector does not have this event any more.")];
  } catch (error) {
    parts = [element("p", "dim", `The event cannot be shown: ${error.message}`)];
  }
  if (own === request) openDetail(name, ...parts);
}

function showBatch(batch) {
  request += 1;
  const others = current.batches.filter(other => other.key && other.key === batch.key && other !== batch);
  const parts = [batchTable(batch)];
  for (const other of others) parts.push(element("h3", "", `Attempt ${other.attempt}`), batchTable(other));
  openDetail(batch.events ? `Batch ${batch.first}–${batch.last}` : "Request", ...parts);
}

function showGap([first, last]) {
  request += 1;
  const reason = current.reason(first, last);
  openDetail(`${first}–${last} missing`, table([["count", last - first + 1], ["reason", reason || "no loss report names them"]]));
}

$("close").addEventListener("click", closeDetail);

// Filters.

let typing = 0;
$("text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    rows.setFilter({ text: $("text").value });
    facts();
  }, 120);
});
$("kind").addEventListener("change", () => {
  rows.setFilter({ kind: $("kind").value === "" ? -1 : Number($("kind").value) });
  facts();
});
$("severity").addEventListener("change", () => {
  rows.setFilter({ severity: Number($("severity").value) });
  facts();
});

// Follow, pause, zoom.

function setFollow(follow) {
  lanes.follow = rows.follow = follow;
  $("follow").setAttribute("aria-pressed", follow);
  if (follow) {
    rows.toEnd();
    lanes.schedule();
  }
}
$("list").addEventListener("wheel", event => { if (event.deltaY < 0 && rows.follow) setFollow(false); }, { passive: true });
$("follow").addEventListener("click", () => setFollow(!rows.follow));
function togglePause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  schedule();
}
$("pause").addEventListener("click", togglePause);
$("in").addEventListener("click", () => lanes.zoom(0.6));
$("out").addEventListener("click", () => lanes.zoom(1.6));
$("fit").addEventListener("click", () => lanes.fit());

// Failures on purpose.

async function post(call, body) {
  const response = await fetch(`/ui/api/${call}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  if (!response.ok) state("away", `refused: ${response.status}`);
}
for (const button of document.querySelectorAll("[data-reply]")) {
  button.addEventListener("click", () => post("fail", { [$("always").checked ? "always" : "script"]: button.dataset.reply }).then(() => {
    for (const other of document.querySelectorAll("[data-reply]")) other.setAttribute("aria-pressed", $("always").checked && other === button);
  }));
}
$("always").addEventListener("change", () => {
  if ($("always").checked) return;
  for (const button of document.querySelectorAll("[data-reply]")) button.setAttribute("aria-pressed", false);
  post("fail", { reset: true });
});
$("clear").addEventListener("click", () => post("clear", {}));

// Theme.

const themes = ["", "light", "dark"];
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme ? theme[0].toUpperCase() + theme.slice(1) : "Theme";
  try {
    localStorage.setItem("theme", theme);
  } catch { /* Without storage it lasts as long as the page. */ }
  lanes.colors();
}
$("theme").addEventListener("click", () => setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme ?? "") + 1) % 3]));
try {
  setTheme(localStorage.getItem("theme") ?? "");
} catch { /* As the system has it. */ }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => lanes.colors());

// Keys.

$("keys").addEventListener("click", () => $("help").showModal());
document.addEventListener("keydown", event => {
  const isTyping = event.target.matches("input[type=search], select");
  if (event.key === "Escape") {
    if (isTyping) event.target.blur(); else closeDetail();
    return;
  }
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const isButton = event.target.matches("button, summary, input");
  const page = Math.max(1, Math.floor($("list").clientHeight / 22) - 1);
  const move = by => rows.pick(Math.min(Math.max((rows.picked < 0 ? (by > 0 ? -1 : rows.view.length) : rows.picked) + by, 0), rows.view.length - 1));
  const sessions = [...store.sessions.values()].reverse();
  const actions = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    PageDown: () => move(page), PageUp: () => move(-page), Home: () => rows.pick(0), End: () => rows.pick(rows.view.length - 1),
    "]": () => select(sessions[Math.min(sessions.indexOf(current) + 1, sessions.length - 1)] ?? current),
    "[": () => select(sessions[Math.max(sessions.indexOf(current) - 1, 0)] ?? current),
    e: () => rows.next(row => row && row.v >= 3), g: () => rows.next(row => !row),
    "/": () => $("text").focus(), "+": () => lanes.zoom(0.6), "=": () => lanes.zoom(0.6), "-": () => lanes.zoom(1.6), 0: () => lanes.fit(),
    f: () => setFollow(!rows.follow), " ": isButton ? null : togglePause, Enter: isButton ? null : () => $("detail").focus(),
    "?": () => $("help").showModal(),
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  if (["j", "k", "ArrowUp", "ArrowDown", "Home", "PageUp", "e", "g"].includes(event.key)) setFollow(false);
  action();
});

$("origin").textContent = location.origin;
setInterval(() => {
  if (!paused && current && !current.ended) lanes.schedule();
  listSessions();
}, 1_000);
globalThis.telemetry = { store, rows, lanes };
void clock;
