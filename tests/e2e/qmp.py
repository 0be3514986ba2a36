# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the control socket that checks what it hears."""
import json
import socket

SECONDS = 30


class Qmp:
    def __init__(self, path, negotiate=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(path))
        self.buffer = b""
        self.greeting = self.line()
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
        return self.answer()

    def close(self):
        self.socket.close()
