"""rootlesspy: OCI containers for an ordinary user; systemd is the daemon."""

__version__ = "0.1.0"
