// What has arrived: sessions, their events as small rows, and what the timeline draws. Nothing here touches the page.

export const KINDS = ["SESSION_START", "SESSION_END", "GENERIC_EVENT", "UNHANDLED_EXCEPTION"];
export const SEVERITIES = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
/** Rows in all; beyond that the oldest of the largest session go. */
const MAX_ROWS = 400_000;
const MAX_BATCHES = 20_000;

const names = new Map();
/** One text for each name, however often it arrives. */
function intern(text) {
  const known = names.get(text);
  if (known !== undefined) return known;
  if (names.size > 50_000) names.clear();
  names.set(text, text);
  return text;
}

/** What an event of the crate's own says, shorter than its data. */
function summary(name, data) {
  const meta = data.metadata, duration = data.measurements?.duration;
  if (typeof meta !== "object" || meta === null) return "";
  if (name === "tinkex.queue.state_change") return [meta.to, meta.reason].filter(Boolean).join(": ");
  if (!name.startsWith("tinkex.http.request.")) return "";
  const took = typeof duration === "number" ? `${(duration / 1e6).toFixed(1)} ms` : "";
  return [`${meta.method} ${meta.path}`, took, meta.status ?? meta.result ?? meta.kind, meta.reason].filter(Boolean).join("  ");
}

export class Session {
  constructor(id, run) {
    this.id = id;
    this.run = run;
    this.facts = {};
    /** Sorted by index, each index once: {i: index, k: kind, v: severity, n: name, t: ms, p: preview, z: bytes}. */
    this.rows = [];
    this.trimmed = 0;
    /** Rows before it may be elsewhere; null: until the next row. And the number of rows before it. */
    this.base = 0;
    this.before = 0;
    this.errors = 0;
    this.duplicates = 0;
    this.reasons = [];
    this.lost = null;
    this.ended = false;
    this.first = Infinity;
    this.last = -Infinity;
    this.heard = 0;
    /** {name, start, end, state, index}; the end of an open one is null. */
    this.calls = [];
    this.open = new Map();
    this.queue = [];
    this.queued = new Map();
    this.batches = [];
    this.attempts = new Map();
    /** Counts changes that are more than rows at the end. */
    this.rebuilt = 0;
  }

  get missing() {
    const last = this.rows.at(-1);
    return last ? Math.max(last.i + 1 - (this.base ?? 0) - (this.rows.length + this.trimmed - this.before), 0) : 0;
  }

  /** The position of an index, or where it would stand, as -1 - position. */
  find(index) {
    const rows = this.rows;
    let low = 0, high = rows.length;
    if (high && rows[high - 1].i < index) return -1 - high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].i < index) low = middle + 1; else high = middle;
    }
    return rows[low]?.i === index ? low : -1 - low;
  }

  add(event) {
    const at = this.find(event.index);
    if (at >= 0) return false;
    if (this.base === null) {
      this.base = event.index;
      this.before = this.rows.length + this.trimmed;
      this.rebuilt += 1;
    } else if (event.index < this.base) this.before += 1;
    const t = Date.parse(event.timestamp) || this.last || 0;
    const own = event.data && summary(event.name, event.data);
    const row = { i: event.index, k: KINDS.indexOf(event.kind), v: SEVERITIES.indexOf(event.severity), n: intern(event.name), t, p: own || event.preview, z: event.size };
    if (-1 - at === this.rows.length) this.rows.push(row);
    else {
      this.rows.splice(-1 - at, 0, row);
      this.rebuilt += 1;
    }
    this.first = Math.min(this.first, t);
    this.last = Math.max(this.last, t);
    if (row.v >= 3) this.errors += 1;
    if (row.k === 1) this.ended = true;
    if (event.data) this.draw(row, event.data);
    return true;
  }

  /** Takes what the timeline draws from an event of the crate's own. */
  draw(row, data) {
    const meta = data.metadata ?? {}, measured = data.measurements ?? {};
    if (row.n === "tinkex.telemetry.report") {
      this.lost = data;
      this.reasons = Array.isArray(data.lost) ? data.lost : [];
      this.rebuilt += 1;
    } else if (row.n === "tinkex.queue.state_change") {
      const key = String(meta.request_id ?? meta.call);
      const before = this.queued.get(key);
      if (before) before.end = row.t;
      const state = { name: String(meta.to ?? ""), start: row.t, end: null, index: row.i };
      this.queued.set(key, state);
      if (state.name !== "active") this.queue.push(state);
    } else if (/^tinkex\.http\.request\.(start|stop|exception)$/.test(row.n)) {
      const name = `${meta.method ?? ""} ${meta.path ?? ""}`;
      const key = meta.call === undefined ? name : String(meta.call);
      const waiting = this.open.get(key) ?? [];
      if (row.n.endsWith("start")) {
        const call = { name, start: row.t, end: null, state: "open", index: row.i };
        waiting.push(call);
        this.open.set(key, waiting);
        this.calls.push(call);
        return;
      }
      let call = waiting.shift();
      if (!waiting.length) this.open.delete(key);
      if (!call) {
        call = { name, start: row.t - (measured.duration ?? 0) / 1e6 };
        this.calls.push(call);
      }
      call.end = row.t;
      call.index = row.i;
      call.retries = meta.retry_count;
      call.state = row.n.endsWith("exception") || meta.result === "error" ? "bad" : "ok";
    }
  }

  /** Adds a request with events of this session. */
  batch(request) {
    const attempt = (this.attempts.get(request.key) ?? 0) + 1;
    if (request.key) {
      if (this.attempts.size > MAX_BATCHES) this.attempts.clear();
      this.attempts.set(request.key, attempt);
    }
    const before = attempt > 1 ? this.batches.findLast(batch => batch.key === request.key) : null;
    this.batches.push({ ...request, attempt, start: request.at, end: request.at + Math.max(request.took + request.delay, 0), waited: before ? request.at - before.end : 0 });
    if (this.batches.length > MAX_BATCHES) this.batches.splice(0, 1_000);
    this.first = Math.min(this.first, request.at);
    this.last = Math.max(this.last, request.at + request.took + request.delay);
    if (request.kept) this.duplicates += request.events - request.new;
  }

  /** The reason that the loss report gives for a missing index. */
  reason(first, last) {
    const found = this.reasons.filter(run => run && run.first <= last && run.last >= first).map(run => String(run.reason));
    return [...new Set(found)].join(", ");
  }

  /** The request that brought an index first. */
  cameIn(index) {
    return this.batches.find(batch => batch.kept && batch.first <= index && batch.last >= index);
  }
}

export class Store {
  constructor() {
    this.restart();
  }

  /** Another collector, which knows nothing of before. */
  restart() {
    this.cut = false;
    this.cleared = new Set();
    this.reset();
  }

  reset() {
    this.sessions = new Map();
    this.rows = 0;
    this.missed = 0;
    this.notices = [];
  }

  session(id, run) {
    const key = `${run}\u0000${id}`;
    let session = this.sessions.get(key);
    if (!session) {
      this.sessions.set(key, session = new Session(id, run));
      if (this.cut || this.cleared.has(id)) session.base = null;
    }
    return session;
  }

  /** Takes a message of the stream; the session that it changed, if any. */
  take(message, now) {
    switch (message.type) {
      case "restart": this.restart(); return null;
      case "clear":
        for (const session of this.sessions.values()) this.cleared.add(session.id);
        this.reset();
        return null;
      case "gap":
        this.missed += message.rows;
        this.cut = true;
        for (const session of this.sessions.values()) session.base = null;
        return null;
      case "notice":
        this.notices.push(message);
        if (this.notices.length > 200) this.notices.shift();
        return null;
      case "session": {
        const session = this.session(message.session, message.run);
        session.facts = message;
        session.heard = now;
        return session;
      }
      case "event": {
        const session = this.session(message.session, message.run);
        if (session.add(message)) this.rows += 1;
        session.heard = now;
        if (this.rows > MAX_ROWS) this.trim();
        return session;
      }
      case "request": {
        if (message.session === null) return null;
        const runs = [...this.sessions.values()].filter(session => session.id === message.session);
        const session = message.run ? this.session(message.session, message.run) : runs.at(-1) ?? this.session(message.session, 1);
        session.batch(message);
        session.heard = now;
        return session;
      }
    }
    return null;
  }

  trim() {
    let largest = null;
    for (const session of this.sessions.values()) if (!largest || session.rows.length > largest.rows.length) largest = session;
    const count = Math.ceil(largest.rows.length / 10);
    const kept = largest.rows[count]?.i ?? 0;
    largest.rows.splice(0, count);
    largest.trimmed += count;
    largest.calls = largest.calls.filter(call => call.end === null || call.index >= kept);
    largest.rebuilt += 1;
    this.rows -= count;
  }
}
