#!/usr/bin/env python3
"""Holds the Python implementation of the tunnel protocol against proto/vectors.

Usage: check_vectors.py FOLDER. Prints how many vectors held, or the first that did not.
"""

import json
import pathlib
import sys

import relay_tunnel as tunnel

RESETS = ["no_error", "cancelled", "not_called", "unreachable", "broken", "timeout", "not_carriable"]


def shown(headers):
    return [[name, value.hex()] for name, value in headers]


def meaning(data):
    """What a frame that a relay may send says, in the words of the vectors; None for the others."""
    kind, flags, stream, payload, end = tunnel.next_frame(data, 0)
    assert end == len(data), "nothing is left over"
    end = bool(flags & 1)
    if kind >= 64:
        return {"type": "skipped"}
    if kind == tunnel.REQUEST:
        said = tunnel.request_head(payload)
        for name in ("endpoint", "method", "target", "upgrade"):
            said[name] = said[name].decode()
        said |= {"event_id": said["event_id"].hex(), "body": said["body"].hex(), "headers": shown(said["headers"])}
        return said | {"type": "REQUEST", "stream": stream, "end": end}
    if kind == tunnel.WELCOME:
        return tunnel.welcome(payload) | {"type": "WELCOME"}
    if kind == tunnel.DATA:
        return {"type": "DATA", "stream": stream, "end": end, "body": payload.hex()}
    if kind == tunnel.END:
        return {"type": "END", "stream": stream, "trailers": shown(tunnel.lines(payload))}
    if kind == tunnel.RESET:
        code = tunnel.Cursor(payload).number()
        return {"type": "RESET", "stream": stream, "code": RESETS[code] if code < len(RESETS) else "broken"}
    if kind == tunnel.CREDIT:
        return {"type": "CREDIT", "stream": stream, "bytes": tunnel.Cursor(payload).number()}
    if kind in (tunnel.PING, tunnel.PONG):
        return {"type": "PING" if kind == tunnel.PING else "PONG", "echo": payload.hex()}
    if kind == tunnel.DRAIN:
        return {"type": "DRAIN"}
    if kind == tunnel.CLOSE:
        cursor = tunnel.Cursor(payload)
        code = cursor.number()
        return {"type": "CLOSE", "code": code if code <= 7 else 7, "reason": tunnel.text(cursor.prefixed())}
    return None


def responses(data):
    """What this implementation writes for a response whose meaning is known."""
    kind, flags, stream, payload, _ = tunnel.next_frame(data, 0)
    known, headers, body = tunnel.head(payload)
    again = tunnel.response_payload(tunnel.number(known[1]), headers, body, known.get(3))
    return tunnel.frame(kind, stream, again, bool(flags & 1))


def check_frames(vectors):
    for vector in vectors:
        data = bytes.fromhex(vector["hex"])
        said = meaning(data)
        assert said is None or said == vector["meaning"], (vector["name"], said)
        # This one measures no time.
        if vector["canonical"] and data[0] == tunnel.RESPONSE and vector["meaning"]["handler_us"] is None:
            assert responses(data) == data, vector["name"]
        for cut in range(len(data)):
            assert tunnel.next_frame(data[:cut], 0) is None, (vector["name"], cut)


def check_conversation(vector, piece):
    """The relay's messages, in pieces, bring the events that the agent is to see."""
    seen, expected = [], []
    session = tunnel.Session(lambda exchange: seen.append(exchange))
    for step in vector["steps"]:
        if step["from"] == "relay":
            data = bytes.fromhex(step["hex"])
            for at in range(0, len(data), piece):
                session.feed(data[at : at + piece])
            expected += step["events"]
    requests = [event for event in expected if event["event"] == "request"]
    assert [exchange.stream for exchange in seen] == [event["stream"] for event in requests], vector["name"]
    for exchange, event in zip(seen, requests):
        assert exchange.head["target"].decode() == event["target"]
        assert shown(exchange.head["headers"]) == event["headers"]
        own = [event for event in expected if event.get("stream") == exchange.stream]
        body = "".join(event["body"] for event in own if event["event"] == "data")
        assert b"".join(exchange.body).hex() == body, vector["name"]
        ends = [event for event in own if event["event"] == "end"]
        assert exchange.request_ended == bool(ends), vector["name"]
        assert shown(exchange.trailers) == (ends[0]["trailers"] if ends else []), vector["name"]
        assert exchange.over == any(event["event"] in ("reset", "closed") for event in own) or session.closed
    closed = [(event["code"], event["reason"]) for event in expected if event["event"] == "closed"]
    assert [session.closed] == (closed or [None]), (vector["name"], session.closed)


def check_bad(vectors, given):
    count = 0
    for vector in vectors:
        if vector["to"] != "agent":
            continue
        session = tunnel.Session(lambda exchange: None)
        if vector["given"] == "open":
            for message in given["open"]["the agent got"]:
                session.feed(bytes.fromhex(message))
        assert session.closed is None
        session.feed(bytes.fromhex(vector["hex"]))
        assert session.closed and session.closed[0] == vector["close"]["code"], (vector["name"], session.closed)
        assert session.take_owed()[0] == tunnel.CLOSE
        count += 1
    return count


def main():
    folder = pathlib.Path(sys.argv[1])
    frames, conversations, bad = (
        json.loads((folder / name).read_text()) for name in ("frames.json", "conversations.json", "bad.json")
    )
    check_frames(frames["frames"])
    for vector in conversations["conversations"]:
        for piece in (1, 7, 1 << 20):
            check_conversation(vector, piece)
    ended = check_bad(bad["bad"], bad["given"])
    print(f"{len(frames['frames'])} frames, {len(conversations['conversations'])} conversations, {ended} bad ends")


if __name__ == "__main__":
    main()
