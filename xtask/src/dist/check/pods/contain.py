"""Runs a program as a container runtime does, with nothing but what its argument (JSON) names:

root: an empty directory; program: its path outside; args: its arguments; volumes: pairs of a
directory outside and one inside, mounted read-only; capabilities: their numbers.

It expects mount, network and cgroup namespaces of its own, and a PID namespace if it shall have one.
"""
import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys

what = json.loads(sys.argv[1])
root = what["root"]
libc = ctypes.CDLL(None, use_errno=True)


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def make(path):
    os.makedirs(root + path, exist_ok=True)
    return root + path


mount("--make-rprivate", "/")
mount("-t", "tmpfs", "-o", "mode=755", "image", root)
shutil.copy(what["program"], make("/usr/bin"))
mount("-t", "proc", "proc", make("/proc"))
mount("-t", "sysfs", "-o", "ro", "sysfs", make("/sys"))
make("/dev")
open(root + "/dev/null", "w").close()
mount("--bind", "/dev/null", root + "/dev/null")
for outside, inside in what["volumes"]:
    mount("--bind", outside, make(inside))
    mount("-o", "remount,bind,ro", root + inside)
mount("-o", "remount,ro", root)

# A pod's network namespace has a loopback interface that is up.
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))

# The new root covers the old one. A process in a mere chroot may not create the user namespace of the
# self-test.
os.chdir(root)
mount("--move", ".", "/")
os.chroot(".")
os.chdir("/")
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 23, 24, 38
number = 0
while libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
    if number not in what["capabilities"] and libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0):
        sys.exit(f"cannot drop capability {number}: {os.strerror(ctypes.get_errno())}")
    number += 1
os.setgroups([])
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
program = "/usr/bin/" + os.path.basename(what["program"])
os.execve(program, [program, *what["args"]], {})
