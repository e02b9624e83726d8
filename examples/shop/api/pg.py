"""A small PostgreSQL client: protocol 3.0, SCRAM-SHA-256, parameters sent apart from the SQL.

    connection = pg.connect("postgres://user:secret@localhost:5432/shop")
    rows = connection.query("SELECT name FROM products WHERE id = $1", [7])

Every value comes and goes as text; PostgreSQL converts. Not for threads: one connection, one thread.
"""

import base64
import hashlib
import hmac
import os
import select
import socket
import struct
from urllib.parse import unquote, urlsplit


class Error(Exception):
    """The server refused. `code` is the SQLSTATE, like 23505; the connection is still good unless it is `fatal`."""

    def __init__(self, code, message, fatal=False):
        super().__init__(f"{message} ({code})")
        self.code = code
        self.fatal = fatal


class ConnectionLost(Exception):
    """The connection is gone. `sent` says whether the statement may have been executed all the same."""

    def __init__(self, message, sent):
        super().__init__(message)
        self.sent = sent


def connect(url, timeout=5):
    """Opens a connection to `postgres://user:password@host:port/database`; `timeout` in seconds for each answer."""
    parts = urlsplit(url)
    user = unquote(parts.username or "postgres")
    try:
        stream = socket.create_connection((parts.hostname or "localhost", parts.port or 5432), timeout)
    except OSError as error:
        raise ConnectionLost(f"cannot reach PostgreSQL at {parts.hostname}:{parts.port}: {error}", sent=False) from error
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(stream)
    try:
        connection._start(user, unquote(parts.password or ""), unquote(parts.path.lstrip("/")) or user)
    except BaseException:
        connection.close()
        raise
    return connection


class Connection:
    def __init__(self, stream):
        self._stream = stream
        self._reader = stream.makefile("rb")
        self._sent = False
        self.broken = False

    def query(self, sql, parameters=()):
        """Runs one statement; returns its rows as dicts of text (or None), empty where it gives no rows."""
        values = [None if value is None else str(value).encode() for value in parameters]
        bind = struct.pack("!xxhh", 0, len(values))  # Unnamed portal and statement; every parameter is text.
        for value in values:
            bind += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
        self._send(
            _message(b"P", b"\0" + sql.encode() + b"\0" + struct.pack("!h", 0)),
            _message(b"B", bind + struct.pack("!h", 0)),
            _message(b"D", b"P\0"),
            _message(b"E", b"\0" + struct.pack("!i", 0)),
            _message(b"S", b""),
        )
        names, rows, failure = [], [], None
        while True:
            kind, body = self._receive()
            if kind == b"T":
                names = _column_names(body)
            elif kind == b"D":
                rows.append(dict(zip(names, _values(body))))
            elif kind == b"E":
                failure = _error(body)
                if failure.fatal:  # The server hangs up after it, and sends no ReadyForQuery.
                    self.close()
                    raise failure
            elif kind == b"Z":
                if failure:
                    raise failure
                return rows

    def hung_up(self):
        """Whether the server ended the connection while it was unused: nothing may come between statements."""
        return bool(select.select([self._stream], [], [], 0)[0])

    def close(self):
        self.broken = True
        self._reader.close()
        self._stream.close()

    def _start(self, user, password, database):
        settings = f"user\0{user}\0database\0{database}\0client_encoding\0UTF8\0\0".encode()
        self._send(struct.pack("!ii", len(settings) + 8, 196608) + settings)
        while True:
            kind, body = self._receive()
            if kind == b"E":
                raise _error(body)
            if kind == b"Z":
                return
            if kind == b"R":
                method = struct.unpack_from("!i", body)[0]
                if method == 10:
                    self._scram(password)
                elif method != 0:
                    raise Error("28000", f"the server wants authentication method {method}; only SCRAM-SHA-256 is known")

    def _scram(self, password):
        """RFC 5802 and RFC 7677, without channel binding. Also makes the server prove that it knows the password."""
        nonce = base64.b64encode(os.urandom(18)).decode()
        first = f"n=,r={nonce}"
        initial = f"n,,{first}".encode()
        self._send(_message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(initial)) + initial))
        challenge = self._authentication(11)
        fields = dict(field.split("=", 1) for field in challenge.split(","))
        if not fields["r"].startswith(nonce):
            raise Error("28000", "the server's nonce does not begin with ours")
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        final = f"c=biws,r={fields['r']}"
        text = f"{first},{challenge},{final}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), text, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
        self._send(_message(b"p", f"{final},p={proof}".encode()))
        server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), text, "sha256")
        if self._authentication(12) != "v=" + base64.b64encode(server).decode():
            raise Error("28000", "the server does not know the password either")

    def _authentication(self, expected):
        kind, body = self._receive()
        if kind == b"E":
            raise _error(body)
        if kind != b"R" or struct.unpack_from("!i", body)[0] != expected:
            raise Error("28000", "the server broke off the SCRAM exchange")
        return body[4:].decode()

    def _send(self, *messages):
        self._sent = False
        try:
            self._stream.sendall(b"".join(messages))
        except OSError as error:
            self.close()
            raise ConnectionLost(f"PostgreSQL hung up: {error}", sent=False) from error
        self._sent = True

    def _receive(self):
        try:
            head = self._reader.read(5)
            body = self._reader.read(struct.unpack_from("!i", head, 1)[0] - 4) if len(head) == 5 else b""
        except OSError as error:
            self.close()
            raise ConnectionLost(f"no answer from PostgreSQL: {error}", sent=self._sent) from error
        if len(head) < 5:
            self.close()
            raise ConnectionLost("PostgreSQL hung up", sent=self._sent)
        return head[:1], body


def _message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


def _column_names(body):
    names, at = [], 2
    for _ in range(struct.unpack_from("!h", body)[0]):
        end = body.index(b"\0", at)
        names.append(body[at:end].decode())
        at = end + 19  # Table, column, type, size, modifier and format follow the name.
    return names


def _values(body):
    values, at = [], 2
    for _ in range(struct.unpack_from("!h", body)[0]):
        length = struct.unpack_from("!i", body, at)[0]
        at += 4
        values.append(None if length < 0 else body[at : at + length].decode())
        at += max(0, length)
    return values


def _error(body):
    fields = {field[:1]: field[1:].decode() for field in body.split(b"\0") if field}
    return Error(fields.get(b"C", "XX000"), fields.get(b"M", "unknown"), fields.get(b"V") in ("FATAL", "PANIC"))
