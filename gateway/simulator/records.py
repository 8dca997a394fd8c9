"""What the simulator remembers: one frozen record per transaction and per discovery task.

Rules
- A record holds facts, never a written answer; `answers` and `discovery` write it when it is read.
- A record belongs to a tenant, and no other tenant can see it.
"""

from dataclasses import dataclass
from datetime import datetime

from gateway.simulator.inquiry import Inquiry
from gateway.simulator.payers import Outcome, Payer, TaskPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """A discovery task: pending while `ended_at` is None."""

    id: str
    tenant_id: str
    correlation_id: str
    trace_id: str
    plan: TaskPlan
    inquiry: Inquiry
    started_at: datetime
    ended_at: datetime | None
    callback_url: str | None

    @property
    def status(self) -> str:
        """The contract's word for how far the task is."""
        if self.ended_at is None:
            return "pending"
        return "success" if self.plan.succeeds else "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A finished real-time transaction. `source_id` names the one that a duplicate came from."""

    id: str
    tenant_id: str
    correlation_id: str
    source_type: str
    source_id: str | None
    processed_at: datetime
    outcome: Outcome
    payer: Payer
    inquiry: Inquiry
    discoveries: tuple[Discovery, ...]
    """As they were when they were started: only their ids and names are of use."""
