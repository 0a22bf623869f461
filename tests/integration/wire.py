# SPDX-License-Identifier: PostgreSQL
"""The wire between the program and its server, as a place where a test can stand.

Proxy(shop)     .conninfo            for the configuration: all sessions then come through it
                .arm(judge, strike)  forgets all links; judge(number, unit) is asked about each transaction (whole, with its
                                     end) before it goes on: "drop" cuts the connection, "lose" cuts it when the server has
                                     executed it, before the answer arrives; strike() is called with the blow
                .count .lost         transactions so far; an Event: an answer was lost
                .ended(link)         is called when a link's session has ended, before the program sees it
                .links               in the order in which they came; .go_deaf() parts one from its server unnoticed
"""

import contextlib
import pathlib
import shutil
import socket
import tempfile
import threading


def messages(buffer, typed=True):
    """The whole messages at the head of the protocol's bytes, which are taken out of the buffer."""
    while len(buffer) >= (5 if typed else 4):
        length = int.from_bytes(buffer[1:5], "big") + 1 if typed else int.from_bytes(buffer[:4], "big")
        if len(buffer) < length:
            return
        message = bytes(buffer[:length])
        del buffer[:length]
        yield message
        if not typed:
            return


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy, client):
        self.proxy, self.client = proxy, client
        self.server = socket.socket(socket.AF_UNIX)
        self.server.connect(proxy.target)
        self.sent = self.answered = 0
        self.turn = threading.Condition()
        self.cut = self.deaf = False
        for work in (self.upward, self.downward):
            threading.Thread(target=work, daemon=True).start()

    def upward(self):
        buffer, unit, typed = bytearray(), b"", False
        while data := self._receive(self.client):
            buffer += data
            while True:
                message = next(messages(buffer, typed), None)
                if message is None:
                    break
                unit += message
                if typed and message[:1] not in b"SQX":
                    continue
                if message[:1] == b"X" and typed:
                    self._send(self.server, unit)
                else:
                    typed = True
                    self.proxy.transaction(self, unit)
                unit = b""
        self._close(self.server)

    def downward(self):
        buffer = bytearray()
        while data := self._receive(self.server):
            buffer += data
            for message in messages(buffer):
                if self.cut:
                    break
                if message[:1] == b"Z":
                    with self.turn:
                        self.answered += 1
                        lost = self.answered == self.lose_at
                        self.turn.notify_all()
                    if lost:
                        self.proxy.lost.set()
                        self._strike()
                        break
                self._send(self.client, message)
        self.proxy.ended(self)
        if not self.deaf:
            self._close(self.client)

    lose_at = None

    def forward(self, unit):
        self.sent += 1
        self._send(self.server, unit)

    def forward_and_lose(self, unit):
        """The server executes it, and the program never learns."""
        self.lose_at = self.sent + 1
        self.forward(unit)

    def _strike(self):
        self.cut = True
        self.proxy.strike()
        self._close(self.client)
        self._close(self.server)

    def drop(self):
        self._strike()

    def go_deaf(self):
        """A network that parts: the server sees the connection end, the program does not."""
        self.deaf = True
        self._close(self.server)

    @staticmethod
    def _receive(of):
        try:
            return of.recv(65536)
        except OSError:
            return b""

    @staticmethod
    def _send(to, data):
        with contextlib.suppress(OSError):
            to.sendall(data)

    @staticmethod
    def _close(end):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Stands between the program and its server, and is handed each transaction, numbered, before it goes on."""

    def __init__(self, shop):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rm-"))
        self.target = f"{shop.server.socket}/.s.PGSQL.5432"
        self.conninfo = shop.conninfo().replace(f"host={shop.server.socket}", f"host={self.directory}")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{self.directory}/.s.PGSQL.5432")
        self.listener.listen(64)
        self.lock = threading.Lock()
        self.arm(None)
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, judge=None, strike=lambda: None):
        """`judge(number, unit)` says "drop", "lose" or None to each transaction; strike() is called with the blow."""
        self.links, self.count, self.judge, self.strike = [], 0, judge, strike
        self.lost = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        for link in self.links:
            Link._close(link.client)
        shutil.rmtree(self.directory)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.links.append(Link(self, client))

    def ended(self, link):
        pass

    def transaction(self, link, unit):
        with self.lock:
            self.count += 1
            verdict = self.judge(self.count, unit) if self.judge else None
        if verdict == "drop":
            link.drop()
        elif verdict == "lose":
            link.forward_and_lose(unit)
        else:
            link.forward(unit)
