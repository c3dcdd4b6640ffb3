"""The settings of a server."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Limits on the requests of clients.

    A request has at most `rows` rows and `body_bytes` bytes, and must arrive within `body_seconds`.
    A row has at most `characters` characters. At most `queued_rows` rows wait for the model. A
    request that has no answer after `seconds` is dropped. At most `streams` texts are generated as
    events at a time. At most `connections` are open.
    """

    rows: int = 512
    characters: int = 20_000
    body_bytes: int = 4_000_000
    body_seconds: float = 10.0
    queued_rows: int = 4096
    seconds: float = 30.0
    streams: int = 16
    connections: int = 512


@dataclass(frozen=True)
class Settings:
    """The settings of a server beside its artifacts.

    Requests are gathered for at most `wait_ms` milliseconds, or until they have about
    `batch_tokens` tokens. `admin_token` allows the requests that change the artifacts; these lie in
    `admin_folder`. `corrections` is the folder of corrections (None: they are refused). After a
    stop signal, the server still accepts requests for `drain_seconds`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    wait_ms: float = 2.0
    batch_tokens: int = 4096
    limits: Limits = field(default_factory=Limits)
    admin_token: str | None = None
    admin_folder: Path | None = None
    corrections: Path | None = None
    drain_seconds: float = 1.0
