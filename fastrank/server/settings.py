"""What an operator may set. The command line and FASTRANK_SERVE_* fill it in (`fastrank serve --help`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastrank.server.wire.calls import Role
from fastrank.server.wire.fields import Limits

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Limits, keys and times. Sizes are bytes, times seconds."""

    limits: Limits = field(default_factory=Limits)
    max_body: int = 32 * MIB  # also of what a compressed body inflates to
    max_waiting_tokens: int = 1_000_000
    max_connections: int = 1024
    timeout: float = 120.0  # of a request, from its body to its result
    body_timeout: float = 30.0  # between two pieces of a body
    header_timeout: float = 10.0
    keep_alive: float = 75.0  # longer than common proxies' 60
    truncate: bool = True  # where the client does not say
    default_role: Role = None  # the same
    keys: tuple[str, ...] = ()  # any of them; none: no key is needed
    cors_origins: tuple[str, ...] = ()
    gzip: bool = False  # compress large answers for clients that accept it
    url_prefix: str = ""  # under which all paths are served too
    drain_delay: float = 0.0
    drain_timeout: float = 30.0
