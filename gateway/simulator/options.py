"""What one simulator is told at its start.

Rules
- Every duration is in simulated seconds: `speed` divides it. The time that a callback receiver may
  take is the one exception, because the receiver lives in real time.
- A secret never shows in a `repr`.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults behave like the real upstream, on a free loopback port."""

    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 1.0
    """Simulated seconds per real second: 60 makes a simulated minute take one second."""
    seed: int = 0

    credentials: tuple[tuple[str, str], ...] = field(default=(("simulator", "simulator-secret"),), repr=False)
    """Accepted pairs of client id and secret. Each client id is a tenant of its own."""
    token_life_s: float = 3600.0

    enterprise_gateway_cut_s: float | None = 110.0
    """When the enterprise gateway in front cuts the caller off; None takes it away."""
    clearinghouse_timeout_s: float = 120.0

    deduplicate: bool = False
    deduplicate_window_s: float = 86_400.0

    callback_url: str | None = None
    """The enrolled receiver, for every discovery task whose request names none."""
    callback_token_url: str | None = None
    callback_client_id: str = "simulator-callbacks"
    callback_client_secret: str = field(default="simulator-callbacks-secret", repr=False)
    callback_hosts: tuple[str, ...] = ()
    """Hosts that callbacks may reach besides loopback."""
    callback_tries: int = 6
    callback_backoff_s: float = 5.0
    callback_timeout_s: float = 10.0
    """Real seconds."""

    stored_records: int = 50_000
    """How many transactions, and how many discovery tasks, are kept: the newest."""
    stored_requests: int = 1_000

    def __post_init__(self) -> None:
        """Refuse numbers that would make the clock or the stores meaningless."""
        if not self.speed > 0:
            raise ValueError(f"speed must be positive, not {self.speed}")
        for name in ("token_life_s", "clearinghouse_timeout_s", "callback_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("callback_tries", "stored_records", "stored_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.credentials:
            raise ValueError("credentials must hold at least one pair of client id and secret")
