# 0 packages of this name are left: it is being removed, not upgraded.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
    if [ -d /run/systemd/system ]; then
        systemctl stop mptcp-trace.service || :
    fi
    systemctl --quiet disable mptcp-trace.service || :
fi
