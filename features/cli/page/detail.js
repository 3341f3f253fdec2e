// The details of one thing, as text: nothing that was received becomes markup.

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u034f\u115f\u1160\u3164\uffa0]|[\ud800-\udfff](?![\udc00-\udfff])(?<![\ud800-\udbff][\udc00-\udfff])/gu;
const escaped = char => `\\u{${char.codePointAt(0).toString(16)}}`;

/** Text whose direction cannot be turned and in which nothing is invisible. */
export function visible(text) {
  return text.replace(HIDDEN, escaped);
}

/** The same over several lines. */
function lines(text) {
  return text.split("\n").map(visible).join("\n");
}

export function clock(ms, short) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "--:--:--";
  const text = date.toISOString();
  return short ? text.slice(11, 19) : text.slice(11, 23);
}

/** JSON as it was written: keys in their order, numbers with every digit. */
export function parse(text) {
  let at = 0;
  const token = /\s*(?:([{}[\],:])|("(?:[^"\\]|\\.)*")|([^\s{}[\],:"]+))/y;
  const next = () => {
    token.lastIndex = at;
    const found = token.exec(text);
    if (!found) throw new Error("not JSON");
    at = token.lastIndex;
    return found;
  };
  const value = (found, depth) => {
    const [, mark, string, word] = found;
    if (string !== undefined) return { type: "str", text: JSON.parse(string) };
    if (word !== undefined) return { type: /^[-\d]/.test(word) ? "num" : "lit", text: word };
    if (depth > 200) throw new Error("too deep");
    const isList = mark === "[", items = [];
    const close = isList ? "]" : "}";
    if (mark !== "[" && mark !== "{") throw new Error("not JSON");
    let found2 = next();
    while (found2[1] !== close) {
      let key = null;
      if (!isList) {
        key = JSON.parse(found2[2]);
        next();
        found2 = next();
      }
      items.push([key, value(found2, depth + 1)]);
      found2 = next();
      if (found2[1] === ",") found2 = next();
    }
    return { type: isList ? "list" : "object", items };
  };
  return value(next(), 0);
}

/** A value as a tree that opens. */
export function tree(key, node, depth = 0) {
  const name = key === null ? [] : [element("span", "key", visible(key)), ": "];
  if (node.items === undefined) {
    const leaf = element("div", depth ? "leaf" : "");
    const shown = node.type === "str" ? JSON.stringify(node.text) : node.text;
    leaf.append(...name, element("span", node.type, visible(shown)));
    return leaf;
  }
  const [open, close] = node.type === "list" ? "[]" : "{}";
  if (!node.items.length) {
    const leaf = element("div", depth ? "leaf" : "");
    leaf.append(...name, open + close);
    return leaf;
  }
  const details = element("details"), summary = element("summary");
  summary.append(...name, element("span", "dim", `${open} ${node.items.length} ${close}`));
  details.append(summary);
  let filled = false;
  const fill = () => {
    if (filled) return;
    filled = true;
    const inner = element("div");
    const more = from => {
      node.items.slice(from, from + 200).forEach(([name, item], offset) => inner.append(tree(name ?? String(from + offset), item, depth + 1)));
      if (node.items.length > from + 200) {
        const button = element("button", "", `${node.items.length - from - 200} more`);
        button.addEventListener("click", () => { button.remove(); more(from + 200); });
        inner.append(button);
      }
    };
    more(0);
    details.append(inner);
  };
  details.addEventListener("toggle", fill);
  if (depth < 2 && node.items.length <= 50) {
    fill();
    details.open = true;
  }
  return details;
}

export function table(pairs) {
  const made = element("table");
  for (const [name, value] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    const row = made.insertRow();
    row.append(element("td", "", name), element("td", "", visible(String(value))));
  }
  return made;
}

export function batchTable(batch) {
  return table([
    ["answered", batch.reply], ["attempt", batch.attempt], ["arrived", clock(batch.at)], ["took", `${batch.took.toFixed(2)} ms`],
    ["delayed", batch.delay ? `${batch.delay} ms` : ""], ["waited", batch.waited ? `${(batch.waited / 1_000).toFixed(2)} s before it` : ""],
    ["Retry-After", batch.retry_after], ["events", batch.events ? `${batch.first}–${batch.last} (${batch.events})` : "none read"],
    ["new", batch.kept ? batch.new : "not kept"], ["reason", batch.reason], ["bytes", batch.bytes], ["path", batch.path], ["key", batch.key],
  ]);
}

function section(title, ...content) {
  return [element("h3", "", title), ...content];
}

/** What an event says, with the request that brought it. */
export function eventParts(session, node) {
  const field = name => node.items.find(([key]) => key === name)?.[1];
  const text = name => field(name)?.text;
  const parts = [table([
    ["kind", text("event")], ["severity", text("severity")], ["index", text("event_session_index")], ["time", text("timestamp")],
    ["id", text("event_id")], ["duration", text("duration")],
  ])];
  if (field("error_message")) {
    const message = element("pre", "bad", lines(text("error_message")));
    parts.push(...section("Message", message));
  }
  if (text("traceback")) {
    const [causes, ...stack] = text("traceback").split(/^Stack:\n/m);
    if (causes.trim()) parts.push(...section("Causes", element("pre", "", lines(causes.trim()))));
    if (stack.length) parts.push(...section("Stack", element("pre", "", lines(stack.join("Stack:\n")))));
  }
  if (field("event_data")) {
    const made = element("div", "tree");
    made.append(tree(null, field("event_data")));
    parts.push(...section("Data", made));
  }
  const known = ["event", "severity", "event_session_index", "timestamp", "event_id", "duration", "error_message", "error_type", "traceback", "event_data", "event_name"];
  const others = node.items.filter(([key]) => !known.includes(key));
  if (others.length) {
    const made = element("div", "tree");
    made.append(tree(null, { type: "object", items: others }));
    parts.push(...section("Other keys", made));
  }
  const batch = session.cameIn(Number(text("event_session_index")));
  if (batch) parts.push(...section("Came in", batchTable(batch)));
  return parts;
}
