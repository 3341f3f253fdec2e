#!/usr/bin/env python3
"""Prints sets of the crate's features, one a line, that are enough to try: each feature alone, and then sets such that
for every three features there is one with the first two and without the third. What breaks only where two features
meet, or where a third does not help out, fails in one of them; a set for each pair would be five times as many."""

import itertools
import json
import subprocess

metadata = subprocess.run(
    ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"],
    check=True,
    stdout=subprocess.PIPE,
)
packages = json.loads(metadata.stdout)["packages"]
(features,) = (it["features"] for it in packages if it["name"] == "tinkex-telemetry")
implied = {
    name: {it for it in needs if it in features} for name, needs in features.items() if name != "default"
}


def closed(names):
    """These features, with all that they imply."""
    known = set()
    while names:
        known |= names
        names = set().union(*(implied[it] for it in names)) - known
    return frozenset(known)


alone = {name: closed({name}) for name in implied}

# (two features, a third): the two with, the third without.
untried = set()
for a, b in itertools.combinations(sorted(alone), 2):
    both = alone[a] | alone[b]
    if b not in alone[a] and a not in alone[b]:
        untried |= {(frozenset((a, b)), c) for c in alone if c not in both}
        # Where nothing remains that could be left out.
        if len(both) == len(alone):
            untried.add((frozenset((a, b)), None))


def gain(names):
    return sum(1 for both, third in untried if both <= names and third not in names)


sets = sorted(alone.values(), key=lambda it: (len(it), sorted(it)))
while untried:
    # Begin with one that is untried, and add features for as long as that tries more.
    both, third = min(untried, key=lambda it: (sorted(it[0]), it[1] or ""))
    names = frozenset().union(*(alone[it] for it in both))
    while True:
        wider = [names | alone[it] for it in sorted(alone) if it not in names and third not in alone[it]]
        best = max(wider, key=gain, default=names)
        if gain(best) <= gain(names):
            break
        names = best
    sets.append(names)
    untried = {it for it in untried if not (it[0] <= names and it[1] not in names)}

for names in sets:
    # The implied ones need not be named.
    print(",".join(sorted(it for it in names if not any(it in alone[other] for other in names if other != it))))
