"""Provokes a fallback a few times a second: an MPTCP client of a listener without MPTCP."""
import socket
import time

MPTCP = 262
while True:
    with socket.socket() as listener, socket.socket(
        socket.AF_INET, socket.SOCK_STREAM, MPTCP
    ) as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        listener.accept()[0].close()
    time.sleep(0.2)
