"""Reads JSON lines as a stranger would, and concludes for itself what the answers were worth."""
import json, sys

messages = [json.loads(line) for line in sys.stdin]
fell = {m["data"]["id"]: m["data"]["boottime_ns"] for m in messages if m["type"] == "fallback"}
asked, counts = {}, {}
for kind, data in ((m["type"], m["data"]) for m in messages):
    if kind not in ("query", "verdict") or data["verdict"] is None:
        continue
    fallback, verdict = fell.get(data["id"]), data["verdict"]
    if kind == "query":
        at = data["boottime_ns"] + data["latency_ns"]
        asked.setdefault(data["id"], []).append((at, data["answer"]))
    at, answer = (asked.get(data["id"]) or [(None, None)])[-1]
    if verdict == "explained":
        assert answer == "tcp" and fallback <= at and data["delay_ns"] == at - fallback, data
    elif verdict == "stale":
        assert answer == "mptcp" and fallback > at and data["delay_ns"] == fallback - at, data
    elif verdict == "never-asked":
        assert answer is None and fallback == data["fell_back_at_ns"], data
    elif verdict in ("still-mptcp", "plain-tcp"):
        assert answer == {"still-mptcp": "mptcp", "plain-tcp": "tcp"}[verdict], data
        assert fallback is None or fallback >= at, data
    counts[verdict] = counts.get(verdict, 0) + 1
assert messages[0]["type"] == "start" and messages[-1]["data"]["complete"], messages[-1]
print(" ".join(f"{verdict}={count}" for verdict, count in sorted(counts.items())))
