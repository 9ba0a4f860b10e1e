#!/usr/bin/env python3
"""A fake tracer: it reads the asker's own report and prints the lines that a correct tracer would print, or
wrong ones, selected by FAKE_TRACER."""

import json
import os
import subprocess
import sys

MODE = os.environ.get("FAKE_TRACER", "right")
arguments = sys.argv[1:]
command = arguments[arguments.index("--") + 1 :]
rung = arguments[arguments.index("--attach") + 1]
output = arguments[arguments.index("--output") + 1]


def say(kind, data):
    with open(output, "a") as lines:
        print(json.dumps({"type": kind, "data": data}), file=lines)


if MODE == "cannot":
    print("fake: this kernel has no probes", file=sys.stderr)
    sys.exit(3)
if MODE == "panics":
    print("thread 'main' panicked at src/main.rs:1:1", file=sys.stderr)
if MODE == "crashes":
    print("fake: failed", file=sys.stderr)
    sys.exit(1)

code = subprocess.run(command).returncode
with open(command[command.index("--out") + 1]) as report:
    asked = [json.loads(line) for line in report]

lines = []
for line in asked:
    if line["type"] != "asked" or line["data"]["truth"].startswith("other-"):
        continue
    data = line["data"]
    if data["compat"] and MODE == "no-32bit":
        continue
    answer = data["truth"]
    lines.append(
        {
            "id": None,
            "socket": "0x1",
            "netns": 1,
            "api": "TCP_IS_MPTCP",
            "pid": data["pid"],
            "tid": data["tid"],
            "inode": data["inode"],
            "protocol": "mptcp" if data["so_protocol"] == 262 else "tcp",
            "family": data["family"],
            "state": data["state"],
            "local": data["local"],
            "remote": data["remote"],
            "answer": answer,
            "errno": data["errno"],
            "fell_back": data["fell_back"],
            "rung": rung,
        }
    )

middle = len(lines) // 2
if MODE == "missing":
    del lines[middle]
elif MODE == "doubled":
    lines.insert(middle, lines[middle])
elif MODE == "wrong":
    lines[0]["answer"] = "failed"
elif MODE == "swapped":
    lines[0], lines[1] = lines[1], lines[0]

losses = {name: 0 for name in ("filtered", "ring_full", "faulted", "table_full", "unfinished", "missed")}
losses.update(sensor="query", seen=len(lines) + (MODE == "unbalanced"), emitted=len(lines))
limits = []
say("start", {"schema": 1, "sensors": [{"name": "query", "rung": rung, "limits": limits}]})
say("a-type-of-the-future", {})
for line in lines:
    say("query", line)
say("end", {"findings": len(lines), "losses": [losses], "complete": True})
sys.exit(code)
