# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the control socket that checks what it hears, answers against the schema too."""
import functools
import json
import socket

SECONDS = 30
KINDS = {"str": str, "bool": bool, "int": int}


def conforms(schema, name, value, where):
    """@value is as type @name says: each member that is there is described, and none is missing."""
    t = schema[name]
    kind = t["meta-type"]
    if kind == "array":
        assert isinstance(value, list), where
        for i, v in enumerate(value):
            conforms(schema, t["element-type"], v, f"{where}[{i}]")
    elif kind == "object":
        members = {m["name"]: m for m in t["members"]}
        assert isinstance(value, dict), where
        assert set(value) <= set(members), (where, "not described", set(value) - set(members))
        assert {n for n, m in members.items() if "default" not in m} <= set(value), (where, "not sent", set(members) - set(value))
        for key, v in value.items():
            conforms(schema, members[key]["type"], v, f"{where}.{key}")
    elif kind == "enum":
        assert value in t["values"], (where, value)
    else:
        assert name == "any" or type(value) is KINDS[name], (where, value)


@functools.lru_cache
def our_schema(path):
    """By a connection of its own, so that no events are lost."""
    q = Qmp(path, checks=False)
    schema = {e["name"]: e for e in q.ask("query-qmp-schema")[1]["return"]}
    q.close()
    return schema


class Qmp:
    def __init__(self, path, negotiate=True, checks=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(path))
        self.buffer = b""
        self.greeting = self.line()
        hello = (self.greeting or {}).get("QMP")  # without one, there is no room for us
        ours = hello and hello["version"]["package"].startswith("lodge ")
        self.schema = our_schema(path) if ours and negotiate and checks else None
        if negotiate:
            assert self.ask("qmp_capabilities") == ([], {"return": {}})

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        """The next line as JSON; None at the end."""
        while b"\r\n" not in self.buffer:
            try:
                got = self.socket.recv(65536)
            except ConnectionResetError:
                got = b""
            if not got:
                assert not self.buffer, self.buffer
                return None
            self.buffer += got
        text, self.buffer = self.buffer.split(b"\r\n", 1)
        return json.loads(text)

    def answer(self):
        """Events before the answer, and the answer."""
        events = []
        while True:
            v = self.line()
            assert v is not None, f"the end after {events}"
            if "event" not in v:
                return events, v
            assert set(v.pop("timestamp")) == {"seconds", "microseconds"}
            events.append(v)

    def ask(self, command, **arguments):
        self.send(json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode())
        events, answer = self.answer()
        if self.schema and "return" in answer:
            conforms(self.schema, self.schema[command]["ret-type"], answer["return"], command)
        return events, answer

    def close(self):
        self.socket.close()
