"""Holds a listening socket open and runs a program on it, again and again: what systemd's socket units do.

Usage: activate.py PROGRAM ARGUMENT...

Prints the socket's port, then one line `started PID` for each start of the program, which inherits the
socket as descriptor 3 under the name `public` (sd_listen_fds(3)). When the program ends, it is started again,
until standard input ends.
"""

import os
import select
import socket
import subprocess
import sys

# The program ends with this one, whatever ends it (prctl(2), PR_SET_PDEATHSIG).
START = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""


def main():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    if listener.fileno() != 3:
        os.dup2(listener.fileno(), 3)
        listener.close()
        listener = socket.socket(fileno=3)
    os.set_inheritable(3, True)
    print(listener.getsockname()[1], flush=True)
    environment = dict(os.environ, LISTEN_FDS="1", LISTEN_FDNAMES="public")
    while True:
        child = subprocess.Popen([sys.executable, "-c", START, *sys.argv[1:]], env=environment, pass_fds=[3])
        print("started", child.pid, flush=True)
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin], [], [], 0.02)
            if readable and not sys.stdin.buffer.read1():
                child.kill()
                child.wait()
                return


main()
