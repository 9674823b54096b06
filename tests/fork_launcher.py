"""A launcher: `fork_launcher.py SOCKET train.py ...` asks the fixture `launcher` to fork the program.

It exits with the exit code of the program.
"""

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
