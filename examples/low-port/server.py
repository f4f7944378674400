"""A web server that tells its clients who they are, on the socket that systemd listens on."""

import http.server
import os
import socket


class Page(http.server.BaseHTTPRequestHandler):
    """Answers every request with the address that it came from."""

    def do_GET(self) -> None:
        # An IPv6 socket shows IPv4 addresses as ::ffff:1.2.3.4.
        client = self.client_address[0].removeprefix("::ffff:")
        body = f"you are {client}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Server(http.server.HTTPServer):
    """Takes the socket over instead of making one."""

    def __init__(self) -> None:
        super().__init__(("", 0), Page, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=3)


if int(os.environ.get("LISTEN_FDS", "0")) < 1 or os.environ.get("LISTEN_PID") != str(os.getpid()):
    raise SystemExit("systemd handed over no socket")
Server().serve_forever()
