"""The shop's API: products and orders as JSON over HTTP. Standard library only."""

import contextlib
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pg
from store import Store

INSTANCE = os.environ.get("GILLIAM_INSTANCE", f"api-{os.getpid()}")
RELEASE = os.environ.get("GILLIAM_RELEASE", "0")


def log(message):
    print(message, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536  # Head and body leave together.

    def setup(self):
        super().setup()
        self.busy = False
        with self.server.lock:
            self.server.handlers.add(self)

    def finish(self):
        with self.server.lock:
            self.server.handlers.discard(self)
        super().finish()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/healthz":  # Only about this process: a database away for a moment is no reason to restart it.
            self.answer(200, {"ok": True})
        elif path == "/products":
            self.answer(200, self.server.store.products())
        elif path == "/orders":
            self.answer(200, self.server.store.orders(limit=10))
        elif path.startswith("/orders/"):
            order = self.server.store.order(path[len("/orders/") :])
            self.answer(200, order) if order else self.refuse(404, "there is no such order")
        else:
            self.refuse(404, "try /products or /orders")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/orders":
            return self.refuse(404, "orders are sent to /orders")
        try:
            wish = json.loads(body)
            key, product, quantity = str(wish["key"]), int(wish["product"]), int(wish.get("quantity", 1))
        except (ValueError, KeyError, TypeError):
            return self.refuse(400, 'send {"key": "…", "product": 1, "quantity": 1}')
        if not 1 <= quantity <= 1000 or not 1 <= len(key) <= 200:
            return self.refuse(400, "quantity is 1 to 1000, key 1 to 200 characters")
        order = self.server.store.place(key, product, quantity)
        if order is None:
            return self.refuse(404, f"there is no product {product}")
        self.answer(201, order)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (pg.ConnectionLost, pg.Error) as error:
            log(f"{self.command} {self.path}: {error}")
            self.close_connection = True
            self.refuse(503, f"the database did not answer: {error}")
            self.wfile.flush()
        finally:
            self.busy = False
            if self.server.stopping:
                self.close_connection = True

    def parse_request(self):
        self.busy = True
        return super().parse_request()

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-served-by", f"{INSTANCE} release {RELEASE}")
        if self.server.stopping:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, message):
        self.answer(status, {"error": message})

    def log_message(self, format, *arguments):
        """Quiet: the proxies keep the access log."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False
    block_on_close = True

    def __init__(self, address, store):
        super().__init__(address, Handler)
        self.store = store
        self.stopping = False
        self.handlers = set()
        self.lock = threading.Lock()

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks the DNS for a name, and there may be none.

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # A caller that hung up is no news.
            super().handle_error(request, client_address)

    def stop(self):
        """Takes no new connection, lets every request in flight finish, then returns from serve_forever."""
        self.stopping = True
        self.shutdown()
        with self.lock:
            idle = [handler for handler in self.handlers if not handler.busy]
        for handler in idle:
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RD)  # What was received is still read, then it ends.


def main():
    url = os.environ.get("DB_URL", "postgres://gilliam@localhost:5432/db")
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8081")))
    store = Store(url)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # While it waits for the database there is nothing to finish.
    store.migrate(log)
    server = Server(address, store)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
    log(f"api {INSTANCE} of release {RELEASE} listens on {address[0]}:{address[1]}")
    server.serve_forever(poll_interval=0.1)
    server.server_close()  # Waits for the requests in flight.
    log("finished every request, leaving")


if __name__ == "__main__":
    main()
