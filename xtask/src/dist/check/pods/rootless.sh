# Runs a program in a container of a user without privileges (rootless podman).
# Arguments: a directory to write to, the user's number, options and words of podman.
set -e
cd "$1" && user=$2 && shift 2

if [ "$(stat --file-system --format %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi

# The user exists in this mount namespace only.
add() { cp "/etc/$1" "$1" 2>/dev/null || : >"$1"; echo "$2" >>"$1"; [ -e "/etc/$1" ] || touch "/etc/$1"; mount --bind "$1" "/etc/$1"; }
add passwd "mptcp-dist:x:$user:$user::$PWD/home:/bin/sh"
add group "mptcp-dist:x:$user:"
add subuid "mptcp-dist:700000:65536"
add subgid "mptcp-dist:700000:65536"

mkdir -p home run tree/usr tree/proc tree/sys tree/dev tree/etc tree/run tree/tmp
for link in bin lib lib64; do ln -sf "usr/$link" "tree/$link"; done
chown -R "$user:$user" home run tree
exec setpriv --reuid "$user" --regid "$user" --clear-groups \
    env -i HOME="$PWD/home" XDG_RUNTIME_DIR="$PWD/run" PATH="$PATH" \
    podman --cgroup-manager cgroupfs --storage-driver vfs run --rm --network none --volume /usr:/usr:ro \
    "$@"
