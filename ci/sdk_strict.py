"""Sends what the public Python SDK has sent, as recorded, to a collector that checks strictly.

Arguments: the recording, and the collector's URL. The calls are sent as they are. Of telemetry four things are not those
of the strict wire, and are replaced: the platform's name, the form of the idempotency key, and in old versions the missing
id of the process and a traceback that is null. Exits with 1 if a response is not a 200, or if the recording has no telemetry.
"""

import json
import sys
import urllib.error
import urllib.request
import uuid


def send(url, exchange):
    body = bytes.fromhex(exchange["body_hex"]) if "body_hex" in exchange else (exchange.get("body") or "").encode()
    headers = {**exchange["headers"], "x-api-key": "tml-any-key"}
    is_telemetry = exchange["path"].endswith("/telemetry")
    if is_telemetry:
        batch = json.loads(body)
        batch["platform"] = "unix/" + batch["platform"].lower()
        batch.setdefault("process_uuid", str(uuid.uuid4()))
        for event in batch["events"]:
            if "traceback" in event and event["traceback"] is None:
                del event["traceback"]
        body = json.dumps(batch).encode()
        headers["x-idempotency-key"] = headers["x-idempotency-key"].removeprefix("stainless-python-retry-")
    request = urllib.request.Request(
        url + exchange["path"], body or None, headers, method=exchange["method"]
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            status, answer = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, answer = error.code, error.read()
    if status != 200:
        sys.exit(f"{exchange['path']} got {status}: {answer[:500]!r}")
    return len(json.loads(body)["events"]) if is_telemetry else 0


with open(sys.argv[1]) as lines:
    counts = [send(sys.argv[2], json.loads(line)) for line in lines]
if not any(counts):
    sys.exit("the recording has no telemetry")
print(f"strictly: {len(counts)} requests, {sum(counts)} events")
