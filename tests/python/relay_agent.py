#!/usr/bin/env python3
"""An agent for the relay, written from proto/PROTOCOL.md with Python's standard library alone.

A test of that page: small, complete enough to serve, not meant for production. It does not upgrade to other
protocols, and passes no trailers of a handler's answer on.

    relay_agent.py ws://127.0.0.1:8080 ENDPOINT (--target 127.0.0.1:3000 | --echo) [--token-file F] [--ca F]

The token is in the file, or in RELAY_TOKEN. Prints JSON lines about its sessions, and stops with SIGTERM.

Three kinds of threads: the main one reads the socket and never waits for anything else, one writes what is
owed, and one for each exchange calls the handler. All of them meet in one condition for each session.
"""

import argparse
import base64
import collections
import hashlib
import http.client
import json
import os
import random
import select
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.parse

from relay_tunnel import (
    BROKEN, DRAIN, HELLO, MAX_CHUNK, MAX_MESSAGE, NOT_CALLED, OUTCOME, PING, TIMEOUT, UNREACHABLE,
    Session, field, frame, hello, prefixed, response_payload,
)


class Refused(Exception):
    """The relay does not want this agent: connecting again would not help."""


# What an exchange does: calls the handler, or echoes.

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te"}
HOP_BY_HOP |= {"transfer-encoding", "upgrade"}


class Aborted(Exception):
    """Nobody wants the answer any more."""


def pieces(exchange):
    while data := exchange.read():
        yield data
    if data is None:
        raise Aborted


def call_handler(exchange, target):
    """Status, header lines and the body's pieces of the handler's answer."""
    said = exchange.head
    connection = http.client.HTTPConnection(target.hostname, target.port or 80, timeout=60)
    connection.connect()
    path = said["target"].decode("latin-1")
    path = path if path.startswith("/") else "/" + path
    connection.putrequest(said["method"].decode(), path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", f"{target.hostname}:{target.port or 80}")
    for name, value in said["headers"]:
        if name != "host" and not (said["chunked"] and name == "content-length"):
            connection.putheader(name, value)
    if said["chunked"]:
        connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for data in pieces(exchange):
        connection.send(b"%x\r\n%b\r\n" % (len(data), data) if said["chunked"] else data)
    if said["chunked"]:
        trailers = b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in exchange.trailers)
        connection.send(b"0\r\n" + trailers + b"\r\n")
    answer = connection.getresponse()
    named = {name.strip().lower() for name in (answer.getheader("connection") or "").split(",")}
    headers = [(name.lower(), value.encode("latin-1")) for name, value in answer.getheaders()]
    headers = [(name, value) for name, value in headers if name not in HOP_BY_HOP | named]
    return answer.status, headers, iter(lambda: answer.read1(MAX_CHUNK), b"")


def echo(exchange):
    body = list(pieces(exchange))
    return 200, [("x-echo", b"python"), ("content-length", b"%d" % sum(map(len, body)))], body


class Agent:
    def __init__(self, options):
        self.options, self.stopping = options, threading.Event()
        self.instance, self.relay = os.urandom(16), urllib.parse.urlsplit(options.relay)
        self.target = options.target and urllib.parse.urlsplit("http://" + options.target)
        self.session, self.reports = None, {}

    def serve(self, exchange):
        threading.Thread(target=self.answer, args=(exchange,), daemon=True).start()

    def answer(self, exchange):
        said, called, outcome = exchange.head, False, None
        try:
            if said["upgrade"] or said["endpoint"].decode() not in self.offered(exchange.session):
                return exchange.reset(NOT_CALLED)
            called = True
            status, headers, body = echo(exchange) if self.options.echo else call_handler(exchange, self.target)
            exchange.respond(status, headers)
            kept = b""
            for data in body:
                kept = (kept + data)[: MAX_CHUNK + 1]
                if not exchange.send(data) and not (exchange.lost and said["fence"]):
                    return None
            exchange.finish()
            outcome = (1, response_payload(status, headers, kept[:MAX_CHUNK]), len(kept) > MAX_CHUNK)
        except Aborted:
            outcome = (2, field(5, BROKEN), False)
        except (TimeoutError, ConnectionRefusedError, OSError, http.client.HTTPException, ValueError) as error:
            unreachable = isinstance(error, ConnectionRefusedError) or not called
            code = UNREACHABLE if unreachable else TIMEOUT if isinstance(error, TimeoutError) else BROKEN
            exchange.reset(code)
            outcome = (2, field(5, code), False)
        finally:
            if said["fence"] and outcome:
                self.keep(said, outcome)

    def offered(self, session):
        return {answer["endpoint"] for answer in session.welcome["endpoints"] if answer["state"] != "refused"}

    def keep(self, said, outcome):
        """Remembers how an attempt of a stored event ended, for a session that may follow (section 9)."""
        state, more, truncated = outcome
        inner = field(1, said["event_id"]) + field(2, said["attempt"]) + field(3, said["fence"]) + field(4, state)
        inner += (more if state == 2 else b"") + (field(6, 1) if truncated else b"")
        self.reports[said["fence"]] = (time.monotonic(), prefixed(inner) + (more if state == 1 else b""))
        while len(self.reports) > 1024:
            self.reports.pop(next(iter(self.reports)))

    # The socket.

    def connect(self):
        secure = self.relay.scheme == "wss"
        port = self.relay.port or (443 if secure else 80)
        if not secure and self.relay.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise Refused("the token goes over plain ws:// only to this machine")
        sock = socket.create_connection((self.relay.hostname, port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            sock = ssl.create_default_context(cafile=self.options.ca).wrap_socket(sock, server_hostname=self.relay.hostname)
        key = base64.b64encode(os.urandom(16)).decode()
        request = [f"GET /_relay/v1/connect HTTP/1.1", f"Host: {self.relay.netloc}", "Connection: Upgrade"]
        request += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        request += ["Sec-WebSocket-Protocol: relay.v1", f"Authorization: Bearer {self.options.token}", "", ""]
        sock.sendall("\r\n".join(request).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = sock.recv(4096)
            if not more or len(answer) > 16384:
                raise OSError("no answer to the upgrade")
            answer += more
        head, rest = answer.split(b"\r\n\r\n", 1)
        first, *headers = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
        status = int(first.split()[1])
        if status != 101:
            self.retry_after = min(float(headers.get("retry-after", 0)), 300)
            refused = 400 <= status < 500 and status not in (408, 429)
            raise (Refused if refused else OSError)(f"the relay answered {status}: {rest.decode(errors='replace').strip()}")
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        if headers.get("sec-websocket-accept") != accept or headers.get("sec-websocket-protocol") != "relay.v1":
            raise Refused("this is no relay")
        sock.settimeout(None)
        return sock, rest

    def write(self, sock, session, socket_owed):
        """Sends what is owed until the session has closed and its last frame is out."""
        try:
            while True:
                with session.changed:
                    ready = lambda: session.owed or session.pong is not None or session.closed or socket_owed
                    session.changed.wait_for(ready)
                    control = socket_owed.popleft() if socket_owed else None
                    message = None if control else session.take_owed()
                    done = session.closed and not message and not control
                sock.sendall(control or (ws_frame(2, message) if message else ws_frame(8, b"\x03\xe8")))
                if done:
                    return sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            session.end(1, f"the connection was lost: {error}")

    def run_session(self):
        sock, rest = self.connect()
        session = self.session = Session(self.serve, lambda said: tell(notice=said))
        socket_owed = collections.deque()
        session.owe(frame(HELLO, 0, hello(self.options.name, self.instance, [self.options.endpoint])))
        writer = threading.Thread(target=self.write, args=(sock, session, socket_owed), daemon=True)
        writer.start()
        began = heard = time.monotonic()
        pinged, reader, ready, draining = False, WsReader(session, socket_owed), 0, False
        reader.feed(rest)
        while session.closed is None:
            said = session.welcome
            if said and not ready:
                ready = time.monotonic()
                self.welcomed(session, said)
            ping_after = (said["ping_after_ms"] if said else 5000) / 1000
            dead_after = (said["dead_after_ms"] if said else 10000) / 1000
            if self.stopping.is_set() and not draining:
                draining = True
                session.owe(frame(DRAIN)) if said else session.end(0, "stopped", tell=True)
            due = heard + (dead_after if pinged else ping_after)
            waits = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
            if waits or select.select([sock], [], [], max(0, min(0.25, due - time.monotonic())))[0]:
                try:
                    data = sock.recv(65536)
                except OSError as error:
                    data = session.end(1, str(error)) or b""
                if not data:
                    session.end(1, "the connection ended")
                heard, pinged = time.monotonic(), False
                reader.feed(data)
            elif (now := time.monotonic()) >= due:
                if not pinged or now > due + 1:
                    heard, pinged = max(heard, now - ping_after), True
                    session.owe(frame(PING, 0, os.urandom(8)))
                else:
                    session.end(4, "the relay is silent", tell=True)
            if not said and time.monotonic() > began + 10:
                session.end(4, "no welcome in time", tell=True)
        writer.join(2)
        sock.close()
        tell(closed=session.closed[0], reason=session.closed[1])
        if session.closed[0] in (5, 6):
            raise Refused(session.closed[1])
        return ready and time.monotonic() - ready

    def welcomed(self, session, said):
        tell(ready=said["endpoints"], epoch=said["epoch"])
        for ended, report in list(self.reports.values()):
            if ended > time.monotonic() - 60:
                session.owe(frame(OUTCOME, 0, report))

    def run(self):
        failures = 0
        while not self.stopping.is_set():
            self.retry_after = 0
            try:
                if self.run_session() > 60:
                    failures = 0
            except OSError as error:
                tell(lost=str(error))
            ceiling = min(30, 2**failures)
            failures += 1
            self.stopping.wait(self.retry_after + random.uniform(0, ceiling))


# WebSocket (RFC 6455), as a client.


def ws_frame(opcode, payload):
    size, mask = len(payload), os.urandom(4)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    masked = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return bytes((0x80 | opcode,)) + length + mask + masked.to_bytes(size, "big")


class WsReader:
    """Cuts what comes from the socket into WebSocket frames."""

    def __init__(self, session, owed):
        self.session, self.owed, self.buffer, self.message, self.controls = session, owed, bytearray(), 0, 0

    def feed(self, data):
        self.buffer += data
        while self.session.closed is None and len(self.buffer) >= 2:
            opcode, size, at = self.buffer[0] & 15, self.buffer[1] & 127, 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(self.buffer[2:at], "big")
            if self.buffer[0] & 0x70 or self.buffer[1] & 0x80 or size > MAX_MESSAGE or opcode not in (0, 2, 8, 9, 10):
                return self.session.end(2, "not a WebSocket frame of this protocol", tell=True)
            if len(self.buffer) < at + size:
                return None
            payload, final = bytes(self.buffer[at : at + size]), self.buffer[0] & 0x80
            del self.buffer[: at + size]
            self.take(opcode, payload, final)
        return None

    def take(self, opcode, payload, final):
        if opcode == 8:
            return self.session.end(1, "the relay closed the WebSocket")
        if opcode in (9, 10):
            self.controls += 1
            if self.controls > 64:
                return self.session.end(2, "too many WebSocket control frames", tell=True)
            if opcode == 9:
                with self.session.changed:
                    self.owed.append(ws_frame(10, payload))
                    self.session.changed.notify_all()
            return None
        self.message += len(payload)
        if self.message > MAX_MESSAGE:
            return self.session.end(2, "a message over its limit", tell=True)
        self.session.feed(payload)
        if final:
            self.message = self.controls = 0
        return None


def tell(**said):
    print(json.dumps(said), flush=True)


def main():
    parser = argparse.ArgumentParser(description="An agent for the relay.")
    parser.add_argument("relay", help="ws://… or wss://…")
    parser.add_argument("endpoint", nargs="?", default="", help="the endpoint; by default the token's only one")
    parser.add_argument("--target", help="the handler's HOST:PORT")
    parser.add_argument("--echo", action="store_true", help="send bodies back instead")
    parser.add_argument("--name", default="python")
    parser.add_argument("--token-file")
    parser.add_argument("--ca", help="a PEM file with the authority that signed the relay's certificate")
    options = parser.parse_args()
    if bool(options.target) == options.echo:
        parser.error("either --target or --echo")
    if options.token_file:
        with open(options.token_file, encoding="ascii") as file:
            options.token = file.read().strip()
    else:
        options.token = os.environ["RELAY_TOKEN"]
    agent = Agent(options)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: agent.stopping.set())
    try:
        agent.run()
    except Refused as error:
        tell(refused=str(error))
        sys.exit(3)


if __name__ == "__main__":
    main()
