"""A launcher: `fork_launcher.py SOCKET train.py ...` has the fixture `launcher` fork the program; its exit code."""

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [b"."], [sys.stderr.fileno()])
    server.sendall(json.dumps([sys.argv[2:], dict(os.environ), os.getcwd()]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16)))
