# The unit is there now; whether it runs is the administrator's decision.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # An upgrade of a running service takes effect at once.
    if [ "$1" -ge 2 ]; then
        systemctl try-restart mptcp-trace.service || :
    fi
fi
