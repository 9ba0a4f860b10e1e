"""Reads JSON lines as an independent program would, and derives the verdicts itself."""
import json, sys

messages = [json.loads(line) for line in sys.stdin]
fell, asked, counts = {}, {}, {}
for data in (m["data"] for m in messages if m["type"] == "fallback"):
    fell.setdefault(data["id"], []).append(data["boottime_ns"])
for kind, data in ((m["type"], m["data"]) for m in messages):
    if kind not in ("query", "verdict") or data["verdict"] is None:
        continue
    key, verdict = data["id"], data["verdict"]
    if kind == "query":
        at = data["boottime_ns"] + (data["latency_ns"] or 0)
        asked.setdefault(key, []).append((at, data["answer"]))
    at, answer = (asked.get(key) or [(0, None)])[-1]
    before = max((it for it in fell.get(key, ()) if it <= at), default=None)
    after = min((it for it in fell.get(key, ()) if it > at), default=None)
    if verdict == "explained":
        assert answer == "tcp" and data["delay_ns"] == at - before, data
    elif verdict == "stale":
        assert answer == "mptcp" and data["delay_ns"] == after - at, data
    elif verdict == "never-asked":
        assert answer is None and data["fell_back_at_ns"] == after, data
    elif verdict in ("still-mptcp", "plain-tcp"):
        assert answer == {"still-mptcp": "mptcp", "plain-tcp": "tcp"}[verdict], data
    counts[verdict] = counts.get(verdict, 0) + 1
assert messages[0]["type"] == "start" and messages[-1]["data"]["complete"], messages[-1]
print(" ".join(f"{verdict}={count}" for verdict, count in sorted(counts.items())))
