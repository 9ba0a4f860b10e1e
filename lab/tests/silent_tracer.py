#!/usr/bin/env python3
"""A tracer that is live and reports that it sees nothing: it tests how the lab handles missing lines."""

import json
import os
import signal
import sys

MODE = os.environ.get("SILENT_TRACER", "silent")
arguments = sys.argv[1:]


def value(name):
    return arguments[arguments.index(name) + 1]


if MODE == "cannot":
    print("fake: this kernel has no probes", file=sys.stderr)
    sys.exit(3)
if MODE == "crashes":
    print("fake: failed", file=sys.stderr)
    sys.exit(1)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
limits = ["fallbacks are not seen"] if MODE == "limited" else []
with open(value("--output"), "w") as output:

    def say(kind, data):
        print(json.dumps({"type": kind, "data": data}), file=output)

    sensor = {"rung": value("--attach"), "limits": limits}
    say("start", {"sensors": [sensor]})
    with open(value("--ready-file"), "w") as ready:
        print(os.getpid(), file=ready)
    signal.sigwait([signal.SIGINT])
    counters = ["seen", "emitted", "filtered", "ring_full", "faulted", "table_full", "unfinished", "missed"]
    losses = {name: 0 for name in counters}
    say("end", {"findings": 0, "losses": [losses], "reconciliation": []})
