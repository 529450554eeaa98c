"""The tunnel protocol from the agent's end, without a socket: frames and the session.

Written from proto/PROTOCOL.md alone, as its second implementation; the section names are that page's.
Raises ProtocolError for whatever a relay may not send.
"""

import collections
import threading

HELLO, WELCOME, REQUEST, RESPONSE, DATA, END, RESET, CREDIT, PING, PONG, OUTCOME, NOTICE, DRAIN, CLOSE = range(1, 15)
CANCELLED, NOT_CALLED, UNREACHABLE, BROKEN, TIMEOUT = range(1, 6)
MAX_MESSAGE, MAX_PAYLOAD, MAX_CHUNK, MAX_HEAD, MAX_LINES = 131072, 131054, 65536, 81920, 256
MAX_WINDOW = 1 << 30
WINDOW, STREAMS = 65536, 1024
TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class ProtocolError(Exception):
    """The peer broke the protocol: the session ends."""


# Bytes: varints, fields, header lines, frames.


def varint(value):
    for bits, size in ((6, 1), (14, 2), (30, 4), (62, 8)):
        if value < 1 << bits:
            return (value | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def take_varint(data, at):
    """The value and the place behind it, or None while it is not all there."""
    if at >= len(data):
        return None
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return None
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


class Cursor:
    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def number(self):
        taken = take_varint(self.data, self.at)
        if taken is None:
            raise ProtocolError("malformed number")
        value, self.at = taken
        return value

    def prefixed(self):
        size = self.number()
        if self.at + size > len(self.data):
            raise ProtocolError("malformed length")
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self):
        return self.data[self.at :]


def prefixed(data):
    return varint(len(data)) + data


def field(tag, value):
    return varint(tag) + prefixed(varint(value) if isinstance(value, int) else value)


def fields(data):
    """Tag and value of each field; the last of a tag is the one that counts."""
    cursor, found = Cursor(data), []
    while cursor.at < len(cursor.data):
        found.append((cursor.number(), cursor.prefixed()))
    return found


def number(value):
    cursor = Cursor(value)
    result = cursor.number()
    if cursor.rest():
        raise ProtocolError("malformed number")
    return result


def text(value):
    if len(value) > 1024:
        raise ProtocolError("text over its limit")
    try:
        result = value.decode()
    except UnicodeDecodeError:
        raise ProtocolError("malformed text") from None
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in result):
        raise ProtocolError("malformed text")
    return result


def lines(data):
    cursor, found = Cursor(data), []
    while cursor.at < len(cursor.data):
        name, value = cursor.prefixed(), cursor.prefixed()
        if not name or not TOKEN_BYTES.issuperset(name) or {0, 10, 13} & set(value):
            raise ProtocolError("malformed header line")
        found.append((name.decode(), value))
    if len(found) > MAX_LINES:
        raise ProtocolError("number of header lines over its limit")
    return found


def put_lines(headers):
    return b"".join(prefixed(name.encode()) + prefixed(value) for name, value in headers)


def frame(kind, stream=0, payload=b"", end=False):
    return bytes((kind, int(end))) + varint(stream) + varint(len(payload)) + payload


def next_frame(data, at):
    """Type, flags, stream, payload and the place behind it, or None while the frame is not all there."""
    if len(data) < at + 2:
        return None
    kind, flags = data[at], data[at + 1]
    if not 1 <= kind <= 14 and kind < 64:
        raise ProtocolError(f"frame type {kind} is not known")
    stream = take_varint(data, at + 2)
    size = stream and take_varint(data, stream[1])
    if not size:
        return None
    if size[0] > MAX_PAYLOAD:
        raise ProtocolError("a frame larger than a message")
    if len(data) < size[1] + size[0]:
        return None
    return kind, flags, stream[0], bytes(data[size[1] : size[1] + size[0]]), size[1] + size[0]


# What frames say, as dictionaries.


def head(payload):
    cursor = Cursor(payload)
    inner, headers = cursor.prefixed(), cursor.prefixed()
    if len(inner) + len(headers) > MAX_HEAD:
        raise ProtocolError("head over its limit")
    return dict(fields(inner)), lines(headers), cursor.rest()


def request_head(payload):
    known, headers, body = head(payload)
    if not all(tag in known for tag in (1, 2, 4)) or len(known[2]) != 16:
        raise ProtocolError("malformed request head")
    if any(len(known.get(tag, b"")) > 1024 for tag in (1, 4, 8)):
        raise ProtocolError("request head over its limit")
    said = dict(endpoint=known[1], event_id=known[2], method=known[4], target=known.get(5, b""), headers=headers, body=body)
    said["attempt"] = number(known.get(3, b"\x01"))
    said["chunked"] = number(known.get(6, b"\0")) == 1
    said["fence"] = number(known.get(7, b"\0")) or None
    said["upgrade"] = known.get(8, b"")
    said["asks_sha256"] = number(known.get(9, b"\0")) == 1
    return said


def response_payload(status, headers, body=b"", sha256_in=None):
    told = field(3, sha256_in) if sha256_in else b""
    return prefixed(field(1, status) + told) + prefixed(put_lines(headers)) + body


STATES = {0: "accepted", 1: "standing by", 3: "copies"}


def welcome(payload):
    said = dict(version=0, initial_window=0, epoch=0, ping_after_ms=0, dead_after_ms=0, endpoints=[], available=[])
    names = {1: "version", 3: "initial_window", 8: "epoch", 9: "ping_after_ms", 10: "dead_after_ms"}
    for tag, value in fields(payload):
        if tag in names:
            said[names[tag]] = number(value)
        elif tag == 2:
            said["software"] = text(value)
        elif tag == 11:
            inner = dict(fields(value))
            state = STATES.get(number(inner.get(2, b"\0")), "refused")
            answer = dict(endpoint=text(inner.get(1, b"")), state=state, url=text(inner.get(4, b"")))
            answer["provider"] = text(inner.get(5, b""))
            if state == "refused":
                answer["code"] = text(inner.get(3, b""))
            said["endpoints"].append(answer)
        elif tag == 12:
            said["available"].append(text(value))
    if said["version"] < 1 or not 0 < said["initial_window"] <= MAX_WINDOW:
        raise ProtocolError("a welcome without a version or window that can be used")
    if not 0 < said["ping_after_ms"] < said["dead_after_ms"]:
        raise ProtocolError("malformed heartbeat")
    return said


def hello(name, instance, endpoints):
    parts = [field(1, 1), field(2, b"relay_agent.py/1"), field(3, WINDOW), field(4, STREAMS)]
    parts += [field(5, name.encode()), field(6, instance)]
    parts += [field(7, field(1, endpoint.encode()) + field(2, 0) + field(3, 0)) for endpoint in endpoints]
    return b"".join(parts)


# The session, without its socket.


class Exchange:
    """One request, and how far its answer is. Guarded by its session's condition."""

    def __init__(self, session, stream, said):
        self.session, self.stream, self.head = session, stream, said
        self.body, self.request_ended, self.trailers = collections.deque(), False, []
        self.granted, self.unread, self.to_grant = WINDOW, 0, 0
        self.credit = session.welcome["initial_window"]
        self.head_sent = self.response_ended = self.over = self.lost = False

    def receive(self, data, end, trailers=()):
        if self.request_ended:
            raise ProtocolError("data behind the request's end")
        if len(data) > self.granted:
            raise ProtocolError("more than was granted")
        self.granted -= len(data)
        if data:
            self.body.append(data)
        if end:
            self.request_ended, self.trailers = True, list(trailers)
            self.session.settle(self)

    def read(self):
        """The next piece of the body; b"" at its end; None once nobody wants an answer."""
        with self.session.changed:
            self.session.changed.wait_for(lambda: self.body or self.request_ended or self.over)
            if not self.body:
                return b"" if self.request_ended else None
            data = self.body.popleft()
            self.to_grant += len(data)
            if self.to_grant >= WINDOW // 2 and not self.request_ended and not self.over:
                self.session.owe(frame(CREDIT, self.stream, varint(self.to_grant)))
                self.granted, self.to_grant = self.granted + self.to_grant, 0
            return data

    def respond(self, status, headers):
        with self.session.changed:
            if not self.over:
                self.head_sent = True
                self.session.owe(frame(RESPONSE, self.stream, response_payload(status, headers)))

    def send(self, data):
        """Sends body bytes as there is credit; False once nobody wants them."""
        while data:
            with self.session.changed:
                self.session.changed.wait_for(lambda: self.over or (self.credit and self.session.has_room()))
                if self.over:
                    return False
                size = min(self.credit, MAX_CHUNK, len(data))
                self.credit -= size
                self.session.owe(frame(DATA, self.stream, data[:size]))
                data = data[size:]
        return True

    def finish(self):
        with self.session.changed:
            if not self.over:
                self.response_ended = True
                self.session.owe(frame(END, self.stream))
                self.session.settle(self)

    def reset(self, code):
        with self.session.changed:
            if not self.over:
                self.session.owe(frame(RESET, self.stream, varint(code)))
                self.session.drop(self)


class Session:
    """The agent's end. `feed` takes bytes, `take_owed` gives bytes; `serve` is called for each exchange."""

    def __init__(self, serve, notice=lambda said: None):
        self.serve, self.notice = serve, notice
        self.changed = threading.Condition(threading.RLock())
        self.buffer, self.owed, self.owed_bytes, self.pong = bytearray(), collections.deque(), 0, None
        self.streams, self.last, self.welcome = {}, 0, None
        self.closed, self.draining = None, False

    def owe(self, data):
        with self.changed:
            self.owed.append(data)
            self.owed_bytes += len(data)
            self.changed.notify_all()

    def has_room(self):
        return self.owed_bytes < 4 * MAX_CHUNK

    def take_owed(self):
        """The next message, or None; whole frames only."""
        with self.changed:
            message = b""
            if self.pong is not None:
                message, self.pong = frame(PONG, 0, self.pong), None
            while self.owed and len(message) + len(self.owed[0]) <= MAX_MESSAGE:
                message += self.owed.popleft()
            self.owed_bytes = sum(map(len, self.owed))
            self.changed.notify_all()
            return message or None

    def drop(self, exchange, lost=False):
        exchange.over, exchange.lost = True, lost
        self.streams.pop(exchange.stream, None)
        self.changed.notify_all()

    def settle(self, exchange):
        if exchange.request_ended and exchange.response_ended:
            self.drop(exchange)

    def end(self, code, reason, tell=False):
        with self.changed:
            if self.closed is None:
                self.closed = (code, reason)
                self.owed.clear()
                if tell:
                    self.owed.append(frame(CLOSE, 0, varint(code) + prefixed(reason.encode()[:200])))
                for exchange in list(self.streams.values()):
                    self.drop(exchange, lost=True)
                self.changed.notify_all()

    def feed(self, data):
        """Takes bytes of the relay, in pieces of any size."""
        with self.changed:
            self.buffer += data
            at = 0
            try:
                while self.closed is None and (found := next_frame(self.buffer, at)):
                    kind, flags, stream, payload, at = found
                    self.take(kind, flags & 1, stream, payload)
            except ProtocolError as error:
                self.end(2, str(error), tell=True)
            del self.buffer[:at]
            self.changed.notify_all()

    def take(self, kind, end, stream, payload):
        if kind >= 64:
            return
        if kind in (PING, PONG):
            if len(payload) != 8:
                raise ProtocolError("malformed ping")
            self.pong = payload if kind == PING else self.pong
        elif kind == CLOSE:
            cursor = Cursor(payload)
            self.end(cursor.number(), text(cursor.prefixed()))
        elif kind == WELCOME and self.welcome is None:
            self.welcome = welcome(payload)
        elif self.welcome is None or kind in (HELLO, WELCOME, RESPONSE, OUTCOME):
            raise ProtocolError("a frame that is not allowed here")
        elif kind == NOTICE:
            self.take_notice(payload)
        elif kind == DRAIN:
            self.draining = True
        elif kind == REQUEST:
            self.take_request(stream, payload, end)
        else:
            self.take_for_stream(kind, end, stream, payload)

    def take_notice(self, payload):
        said = dict(fields(payload))
        for tag in (1, 5, 8):
            number(said.get(tag, b"\0"))
        self.notice({tag: text(said[tag]) for tag in (2, 3, 6, 7) if tag in said})

    def take_request(self, stream, payload, end):
        if stream <= self.last:
            raise ProtocolError("a stream's number does not rise")
        if len(self.streams) >= STREAMS:
            raise ProtocolError("too many streams")
        said = request_head(payload)
        self.last = stream
        exchange = self.streams[stream] = Exchange(self, stream, said)
        exchange.receive(said.pop("body"), end)
        self.serve(exchange)

    def take_for_stream(self, kind, end, stream, payload):
        if not 1 <= stream <= self.last:
            raise ProtocolError("a stream that was never opened")
        value = Cursor(payload).number() if kind in (RESET, CREDIT) else lines(payload) if kind == END else payload
        if kind == DATA and not payload and not end:
            raise ProtocolError("empty data")
        exchange = self.streams.get(stream)
        if exchange is None:
            return  # It is over; this crossed its end.
        if kind == RESET:
            self.drop(exchange)
        elif kind == CREDIT:
            exchange.credit += value
            if not value or exchange.credit > MAX_WINDOW:
                raise ProtocolError("credit past its limits")
        elif kind == END:
            exchange.receive(b"", True, value)
        else:
            exchange.receive(payload, end)
