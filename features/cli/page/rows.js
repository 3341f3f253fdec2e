// The list of events: only what is visible is in the page, however many there are.

import { SEVERITIES } from "./store.js";
import { element, visible, clock } from "./detail.js";

const HEIGHT = 22;
/** Rows beyond both edges. */
const SPARE = 8;

export class Rows {
  constructor(list, spacer, onPick) {
    Object.assign(this, { list, spacer, onPick });
    this.session = null;
    this.filter = { text: "", kind: -1, severity: 0 };
    this.view = [];
    this.gaps = [];
    this.picked = -1;
    this.follow = true;
    this.pool = [];
    list.addEventListener("scroll", () => {
      this.schedule();
      this.atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - HEIGHT;
    });
    list.addEventListener("click", event => {
      const row = event.target.closest(".row");
      if (row) this.pick(Number(row.dataset.at));
    });
    new ResizeObserver(() => this.schedule()).observe(list);
  }

  show(session) {
    this.session = session;
    this.picked = -1;
    this.rebuild();
    if (this.follow) this.toEnd(); else this.list.scrollTop = 0;
  }

  setFilter(change) {
    const entry = this.view[this.picked];
    Object.assign(this.filter, change);
    this.rebuild();
    this.picked = entry === undefined ? -1 : this.view.indexOf(entry);
    if (this.picked >= 0) this.reveal();
  }

  rebuild() {
    this.view = [];
    this.gaps = [];
    this.seen = 0;
    this.expected = Math.max(this.session?.base ?? 0, this.session?.trimmed ? this.session.rows[0]?.i ?? 0 : 0);
    this.rebuilt = this.session?.rebuilt;
    this.extend();
  }

  /** Adds the rows that came since. An entry is a position in the rows, or -1 - a gap. */
  extend() {
    const { session, filter, view } = this;
    if (session) {
      if (session.rebuilt !== this.rebuilt) return this.again();
      const text = filter.text.toLowerCase();
      for (; this.seen < session.rows.length; this.seen += 1) {
        const row = session.rows[this.seen];
        if (row.i > this.expected && !text && filter.kind < 0) {
          this.gaps.push([this.expected, row.i - 1]);
          view.push(-this.gaps.length);
        }
        this.expected = Math.max(this.expected, row.i + 1);
        if (row.v < filter.severity || (filter.kind >= 0 && row.k !== filter.kind)) continue;
        if (text && !row.n.toLowerCase().includes(text) && !row.p.toLowerCase().includes(text)) continue;
        view.push(this.seen);
      }
    }
    this.spacer.style.height = `${view.length * HEIGHT}px`;
    this.schedule();
  }

  /** After rows came in between, the same event stays picked. */
  again() {
    const entry = this.view[this.picked];
    const index = entry >= 0 ? this.pickedIndex : null;
    this.rebuild();
    this.picked = index === null || index === undefined ? -1 : this.position(index);
  }

  position(index) {
    return this.view.findIndex(entry => entry >= 0 && this.session.rows[entry].i === index);
  }

  toEnd() {
    this.list.scrollTop = this.view.length * HEIGHT;
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.render();
    });
  }

  render() {
    const top = Math.max(0, Math.floor(this.list.scrollTop / HEIGHT) - SPARE);
    const count = Math.min(this.view.length - top, Math.ceil(this.list.clientHeight / HEIGHT) + 2 * SPARE);
    while (this.pool.length < count) {
      const row = element("div", "row");
      row.setAttribute("role", "option");
      for (const part of ["time", "index", "severity", "name", "data"]) row.append(element("span", part));
      this.pool.push(row);
      this.list.append(row);
    }
    this.pool.forEach((row, offset) => {
      row.hidden = offset >= count;
      if (!row.hidden) this.fill(row, top + offset);
    });
  }

  fill(row, at) {
    const entry = this.view[at];
    row.style.top = `${at * HEIGHT}px`;
    row.dataset.at = at;
    row.id = `row-${at}`;
    row.setAttribute("aria-selected", at === this.picked);
    row.setAttribute("aria-posinset", at + 1);
    row.setAttribute("aria-setsize", this.view.length);
    const [time, index, severity, name, data] = row.children;
    if (entry < 0) {
      const [first, last] = this.gaps[-1 - entry];
      row.className = "row gap";
      const reason = this.session.reason(first, last);
      const which = first === last ? `${first}` : `${first}–${last}`;
      for (const part of [index, severity, name, data]) part.textContent = "";
      time.textContent = visible(`${which} missing${reason ? `: ${reason}` : ""}`);
      return;
    }
    const event = this.session.rows[entry];
    row.className = `row s${event.v}`;
    time.textContent = clock(event.t);
    index.textContent = event.i;
    severity.textContent = SEVERITIES[event.v].toLowerCase();
    name.textContent = visible(event.n);
    data.textContent = visible(event.p);
  }

  pick(at) {
    if (at < 0 || at >= this.view.length) return;
    this.picked = at;
    const entry = this.view[at];
    this.pickedIndex = entry >= 0 ? this.session.rows[entry].i : null;
    this.reveal();
    this.list.setAttribute("aria-activedescendant", `row-${at}`);
    this.onPick(entry >= 0 ? { row: this.session.rows[entry] } : { gap: this.gaps[-1 - entry] });
  }

  pickIndex(index) {
    const at = this.position(index);
    if (at >= 0) this.pick(at);
    return at >= 0;
  }

  reveal() {
    const top = this.picked * HEIGHT, list = this.list;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    this.schedule();
  }

  /** The next entry, after the picked one and then from the beginning, of which this is true. */
  next(isWanted) {
    const { length } = this.view;
    for (let step = 1; step <= length; step += 1) {
      const at = (this.picked + step + length) % length;
      const entry = this.view[at];
      if (isWanted(entry < 0 ? null : this.session.rows[entry])) return this.pick(at);
    }
  }
}
