#!/usr/bin/env python3
"""Checks which module imports which: ci/imports.py [ROOT]. Exits with 1 and prints each import circle.

* `features/` may import `src/`, never the other way round.
* No circle between rooms. A room is a file or folder directly under `src/` or `features/`.
* No circle between files of different folders: a file counts as its folder, since a child and its `mod.rs` are one.
  A `mod.rs` that lists its own folder's modules does not import them.

Test code is ignored. A re-exported name counts for the file that defines it.
"""

import re
import sys
from pathlib import Path

ROOT = Path(next((arg for arg in sys.argv[1:] if not arg.startswith("--")), "."))
TREES = {"src": (), "features": ("features",)}


def without_comments_and_strings(text):
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
    return text


def without_tests(text):
    """Cuts items under `#[cfg(test)]` or `#[cfg(all(test, …))]`, up to their closing brace or semicolon."""
    out, at = [], 0
    for found in re.finditer(r"#\[cfg\((?:test\b|all\(test\b|any\(test\))[^\]]*\]", text):
        if found.start() < at:
            continue
        out.append(text[at : found.start()])
        at = found.end()
        depth = 0
        while at < len(text):
            if text[at] == "{":
                depth += 1
            elif text[at] == "}":
                depth -= 1
                if depth == 0:
                    at += 1
                    break
            elif text[at] == ";" and depth == 0:
                at += 1
                break
            at += 1
    out.append(text[at:])
    return "".join(out)


def split_top(text):
    depth, piece = 0, ""
    for c in text:
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            yield piece.strip()
            piece = ""
        else:
            piece += c
    if piece.strip():
        yield piece.strip()


def expand(tree):
    """`a::{b, c as d}` as pairs of a path and the name it is imported under."""
    tree = tree.strip()
    if tree.endswith("}"):
        head, inner = tree.split("{", 1)
        head = [part for part in head.strip().removesuffix("::").split("::") if part]
        for piece in split_top(inner[:-1]):
            for path, name in expand(piece):
                yield tuple(head) + path, name
        return
    path, _, alias = tree.partition(" as ")
    path = tuple(part.strip() for part in path.split("::") if part.strip())
    if path[-1:] == ("self",):
        path = path[:-1]
    yield path, (alias.strip() or (path[-1] if path else ""))


class Module:
    def __init__(self, file, path):
        self.file, self.path = file, path
        text = without_tests(without_comments_and_strings(file.read_text()))
        self.uses, self.exports = [], {}
        for found in re.finditer(r"(\bpub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);", text):
            for path_, name in expand(re.sub(r"\s+", " ", found.group(2))):
                self.uses.append(path_)
                if found.group(1):
                    self.exports[name] = path_
        rest = re.sub(r"\buse\s+[^;]+;", "", text)
        for found in re.finditer(r"\b(?:crate|super|self)(?:::\w+)+", rest):
            self.uses.append(tuple(found.group(0).split("::")))
        self.is_mod = file.name in ("mod.rs", "lib.rs")


def modules():
    found = {}
    for tree, prefix in TREES.items():
        for file in sorted((ROOT / tree).rglob("*.rs")):
            parts = file.relative_to(ROOT / tree).with_suffix("").parts
            if parts in (("main",), ("cli", "main")):
                continue
            if parts[-1] in ("mod", "lib"):
                parts = parts[:-1]
            found[prefix + parts] = Module(file, prefix + parts)
    return found


def test_only(known):
    """Files that a `mod` under `#[cfg(test)]` declares."""
    for path, module in known.items():
        text = without_comments_and_strings(module.file.read_text())
        for found in re.finditer(r"#\[cfg\((?:test|all\(test)[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*mod\s+(\w+);", text):
            yield path + (found.group(1),)


KNOWN = modules()
for path in list(test_only(KNOWN)):
    KNOWN.pop(path, None)


def absolute(path, module):
    here = module.path
    if path[:1] == ("crate",):
        return path[1:]
    if path[:1] == ("self",):
        return here + path[1:]
    if path[:1] == ("super",):
        while path[:1] == ("super",):
            path, here = path[1:], here[:-1]
        return here + path
    if path and here + path[:1] in KNOWN:
        return here + path
    return None


def origin(path, seen=()):
    """The file that defines what is at an absolute path; None if it is not in this crate."""
    if path is None or path in seen:
        return None
    for length in range(len(path), -1, -1):
        module = KNOWN.get(path[:length])
        if module is None:
            continue
        rest = path[length:]
        if not rest:
            return module
        target = module.exports.get(rest[0])
        if target is not None:
            found = origin_of_use(target + rest[1:], module, seen + (path,))
            return found or module
        for export in module.exports.values():
            if export[-1:] == ("*",):
                found = origin_of_use(export[:-1] + rest, module, seen + (path,))
                if found and found is not module:
                    return found
        return module
    return None


def origin_of_use(path, module, seen):
    return origin(absolute(path, module), seen)


def room(module):
    if module.path[:1] == ("features",):
        return "features/" + module.path[1] if len(module.path) > 1 else None
    return "src/" + module.path[0] if module.path else None


def folder(module):
    """The node of a file in the import graph: its folder, or the file itself if it is directly under a tree."""
    return str((module.file if module.file.parent.name in TREES else module.file.parent).relative_to(ROOT))


def circles(graph):
    """Strongly connected components of more than one node."""
    index, low, stack, found, counter = {}, {}, [], [], [0]

    def visit(node):
        index[node] = low[node] = counter[0]
        counter[0] += 1
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            ring = []
            while True:
                ring.append(stack.pop())
                if ring[-1] == node:
                    break
            if len(ring) > 1:
                found.append(sorted(ring))

    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def main():
    folders, rooms, wrong_way = {}, {}, []
    for module in KNOWN.values():
        # The crate's root and the list of adapters only declare modules.
        if room(module) is None:
            continue
        for path in module.uses:
            target = origin(absolute(path, module))
            if target is None or target is module or room(target) is None:
                continue
            a, b = (str(m.file.relative_to(ROOT)) for m in (module, target))
            if a.startswith("src/") and b.startswith("features/"):
                wrong_way.append(f"{a} imports {b}")
            if room(module) != room(target):
                rooms.setdefault(room(module), {}).setdefault(room(target), set()).add(f"{a} -> {b}")
            one, other = folder(module), folder(target)
            is_list = module.is_mod and target.path[: len(module.path)] == module.path
            if one != other and not is_list:
                folders.setdefault(one, {}).setdefault(other, set()).add(f"{a} -> {b}")
    failures = list(wrong_way)
    for ring in circles(rooms):
        failures.append("circle of rooms: " + ", ".join(ring))
        for one in ring:
            for other in ring:
                failures += [f"    {edge}" for edge in sorted(rooms.get(one, {}).get(other, ()))]
    for ring in circles(folders):
        failures.append("circle of files: " + ", ".join(ring))
        for one in ring:
            for other in ring:
                failures += [f"    {edge}" for edge in sorted(folders.get(one, {}).get(other, ()))]
    if failures:
        print("\n".join(failures))
        return 1
    names = {room(module) for module in KNOWN.values()} - {None}
    print(
        f"{len(KNOWN)} files in {sum(name.startswith('src/') for name in names)} rooms of src/ and "
        f"{sum(name.startswith('features/') for name in names)} of features/: no circle."
    )
    if "--rooms" in sys.argv:
        for one in sorted(rooms):
            print(f"{one} -> {', '.join(sorted(rooms[one]))}")
    return 0


sys.exit(main())
