// The timeline of a session: calls, queue states, batches with their attempts, errors, on one axis.

import { clock, visible } from "./detail.js";

const LABEL = 74;
const AXIS = 20;
const MAX_LANES = 7;

export class Lanes {
  constructor(canvas, tip, onPick) {
    Object.assign(this, { canvas, tip, onPick });
    this.session = null;
    this.follow = true;
    this.span = 30_000;
    this.end = Date.now();
    this.hits = [];
    this.colors();
    new ResizeObserver(() => this.schedule()).observe(canvas);
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan((event.deltaX || event.deltaY) / this.width * this.span);
      else this.zoom(Math.exp(event.deltaY / 300), this.timeAt(event.offsetX));
    }, { passive: false });
    let drag = null;
    canvas.addEventListener("pointerdown", event => {
      drag = { x: event.clientX, end: this.end, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      if (drag) {
        const moved = event.clientX - drag.x;
        drag.moved ||= Math.abs(moved) > 3;
        if (drag.moved) {
          this.setFollow(false);
          this.end = drag.end - moved / this.width * this.span;
          this.schedule();
        }
      } else this.hover(event.offsetX, event.offsetY);
    });
    canvas.addEventListener("pointerup", event => {
      if (drag && !drag.moved) {
        const hit = this.hit(event.offsetX, event.offsetY);
        if (hit) this.onPick(hit.item);
      }
      drag = null;
    });
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("keydown", event => {
      const step = { ArrowLeft: -0.2, ArrowRight: 0.2 }[event.key];
      if (step) {
        this.pan(step * this.span);
        event.preventDefault();
        event.stopPropagation();
      }
    });
  }

  colors() {
    const style = getComputedStyle(document.documentElement);
    this.color = name => style.getPropertyValue(`--${name}`).trim();
    this.schedule();
  }

  setFollow(follow) {
    if (this.follow !== follow) {
      this.follow = follow;
      this.onFollow?.(follow);
    }
  }

  show(session) {
    this.session = session;
    this.fit();
  }

  /** The time up to which open calls are drawn. */
  now() {
    const { session } = this;
    if (!session) return Date.now();
    const isLive = !session.ended && Date.now() - session.last < 60_000;
    return isLive ? Math.max(Date.now(), session.last) : session.last;
  }

  fit() {
    const { session } = this;
    if (!session || !Number.isFinite(session.first)) return;
    this.span = Math.max(this.now() - session.first, 200) * 1.06;
    this.end = session.first + this.span * 0.98;
    this.schedule();
  }

  zoom(factor, around = this.end - this.span / 2) {
    const span = Math.min(Math.max(this.span * factor, 5), 4 * 7 * 86_400_000);
    this.end = around + (this.end - around) * span / this.span;
    this.span = span;
    this.schedule();
  }

  pan(by) {
    this.setFollow(false);
    this.end += by;
    this.schedule();
  }

  get width() {
    return Math.max(this.canvas.clientWidth - LABEL, 1);
  }

  timeAt(x) {
    return this.end - this.span + (x - LABEL) / this.width * this.span;
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const { canvas, session, color } = this;
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const paint = canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    paint.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    paint.textBaseline = "middle";
    this.hits = [];
    if (!session) return;
    const now = this.now();
    if (this.follow && !session.ended) this.end = Math.max(now, session.last) + this.span * 0.02;
    const start = this.end - this.span;
    const x = t => LABEL + (t - start) / this.span * this.width;
    this.axis(paint, start, width, height);
    // Calls may be many at once; the other lanes need a row each.
    const below = 3 * 24, room = height - AXIS - below - 6;
    const { lanes, count } = this.pack(session.calls, start, now);
    const laneHeight = Math.max(4, Math.min(18, Math.floor(room / Math.max(count, 1))));
    this.label(paint, "calls", AXIS + 10, session.calls.length);
    for (const [call, lane] of lanes) {
      const fill = { ok: "call", bad: "badfill", open: "call" }[call.state];
      const box = this.bar(paint, x(call.start), x(call.end ?? now), AXIS + 2 + lane * laneHeight, laneHeight - 2, fill, call.end === null, width);
      if (box && box.w > 40 && laneHeight > 11) this.text(paint, call.name, box);
      if (box) this.hits.push({ ...box, item: { call }, tip: `${call.name}\n${this.length(call.start, call.end ?? now)}${call.end === null ? ", open" : ""}${call.retries ? `, ${call.retries} retries` : ""}` });
    }
    let top = height - below;
    this.rule(paint, top - 3, width);
    this.label(paint, "queue", top + 9);
    for (const state of session.queue) {
      const box = this.bar(paint, x(state.start), x(state.end ?? now), top, 16, "queue", state.end === null, width);
      if (box && box.w > 40) this.text(paint, state.name, box, "#16181d");
      if (box) this.hits.push({ ...box, item: { index: state.index }, tip: `${state.name}\n${this.length(state.start, state.end ?? now)}` });
    }
    top += 24;
    this.rule(paint, top - 4, width);
    this.label(paint, "batches", top + 8, session.batches.length);
    for (const batch of session.batches) {
      const isOk = batch.reply >= 200 && batch.reply < 300;
      // The backoff before an attempt.
      if (batch.waited > 0) this.bar(paint, x(batch.start - batch.waited), x(batch.start), top + 7, 2, "wait", false, width);
      const box = this.bar(paint, x(batch.start), x(batch.end), top, 16, isOk ? "okfill" : "badfill", false, width);
      const which = batch.events ? `${batch.first}–${batch.last}` : "no events read";
      if (box && box.w > 34) this.text(paint, `${batch.reply}`, box);
      if (box) this.hits.push({ ...box, item: { batch }, tip: `${which}: ${batch.reply}${batch.attempt > 1 ? `, attempt ${batch.attempt}` : ""}\n${this.length(batch.start, batch.end)}` });
    }
    top += 24;
    this.rule(paint, top - 4, width);
    this.label(paint, "errors", top + 8, session.errors);
    if (session.errors) this.errors(paint, session, start, x, top);
    if (!session.ended) {
      const at = x(now);
      if (at > LABEL && at < width) {
        paint.fillStyle = color("accent");
        paint.fillRect(at, AXIS, 1, height);
      }
    }
    canvas.setAttribute("aria-label", `Timeline from ${clock(start)} to ${clock(this.end)}: ${session.calls.length} calls, ${session.batches.length} batches, ${session.errors} errors`);
  }

  /** Calls that are visible, each in the first lane that is free. */
  pack(calls, start, now) {
    const lanes = [], ends = [];
    const shortest = this.span / this.width * 2;
    for (const call of calls) {
      const end = call.end ?? now;
      if (end < start || call.start > this.end) continue;
      let lane = ends.findIndex(free => free <= call.start);
      if (lane < 0) lane = ends.length < MAX_LANES * 3 ? ends.push(0) - 1 : ends.length - 1;
      ends[lane] = Math.max(end, call.start + shortest);
      lanes.push([call, lane]);
    }
    return { lanes, count: ends.length };
  }

  /** One mark for each pixel at most, whatever there is. */
  errors(paint, session, start, x, top) {
    paint.fillStyle = this.color("badfill");
    let last = -9;
    for (const row of session.rows) {
      if (row.v < 3 || row.t < start || row.t > this.end) continue;
      const at = x(row.t);
      if (at - last < 3) continue;
      last = at;
      paint.beginPath();
      paint.arc(at, top + 8, 4, 0, 7);
      paint.fill();
      this.hits.push({ x: at - 5, y: top, w: 10, h: 18, item: { index: row.i }, tip: `${row.n}\n${row.p}` });
    }
  }

  bar(paint, from, to, y, h, fill, isOpen, width) {
    const left = Math.max(from, LABEL), right = Math.min(Math.max(to, from + 2), width);
    if (right <= LABEL || left >= width) return null;
    paint.fillStyle = this.color(fill);
    paint.globalAlpha = isOpen ? 0.55 : 1;
    paint.fillRect(left, y, right - left, h);
    paint.globalAlpha = 1;
    return { x: left, y, w: right - left, h };
  }

  text(paint, text, box, ink = "#fff") {
    paint.save();
    paint.beginPath();
    paint.rect(box.x, box.y, box.w, box.h);
    paint.clip();
    paint.fillStyle = ink;
    paint.fillText(visible(text).slice(0, 120), box.x + 5, box.y + box.h / 2 + 0.5);
    paint.restore();
  }

  label(paint, text, y, count) {
    paint.fillStyle = this.color("dim");
    paint.fillText(count ? `${text} ${count}` : text, 10, y);
  }

  rule(paint, y, width) {
    paint.fillStyle = this.color("line");
    paint.fillRect(0, y, width, 1);
  }

  axis(paint, start, width, height) {
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 18e5, 36e5, 216e5, 864e5, 6048e5];
    const step = steps.find(step => step / this.span * this.width > 90) ?? 6048e5;
    for (let t = Math.ceil(start / step) * step; t < this.end; t += step) {
      const at = LABEL + (t - start) / this.span * this.width;
      paint.fillStyle = this.color("line");
      paint.fillRect(at, AXIS - 4, 1, height);
      paint.fillStyle = this.color("dim");
      paint.fillText(clock(t, step >= 1_000), at + 4, 10);
    }
    this.rule(paint, AXIS - 1, width);
  }

  length(start, end) {
    const ms = Math.max(end - start, 0);
    return ms < 1_000 ? `${ms.toPrecision(3)} ms` : `${(ms / 1_000).toFixed(2)} s`;
  }

  hit(x, y) {
    return this.hits.findLast(hit => x >= hit.x - 1 && x <= hit.x + hit.w + 1 && y >= hit.y && y <= hit.y + hit.h);
  }

  hover(x, y) {
    const hit = this.hit(x, y);
    this.tip.hidden = !hit;
    if (!hit) return;
    this.tip.textContent = hit.tip.split("\n").map(visible).join("\n");
    const left = Math.min(x + 12, this.canvas.clientWidth - this.tip.offsetWidth - 8);
    this.tip.style.left = `${Math.max(left, 4)}px`;
    this.tip.style.top = `${y + 50}px`;
  }
}
