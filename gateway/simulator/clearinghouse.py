"""The clearinghouse: it takes a transaction, lets the payer's time pass, and stores what came out.

Everything here runs in tasks that the simulator owns, so a caller's leaving changes nothing.
"""

import dataclasses
import hashlib
import uuid
from dataclasses import dataclass

from gateway.simulator.callbacks import Courier
from gateway.simulator.clock import Clock
from gateway.simulator.exchange import Call
from gateway.simulator.inquiry import Inquiry
from gateway.simulator.options import Options
from gateway.simulator.owned import Owned
from gateway.simulator.payers import Outcome, Payer, TaskPlan
from gateway.simulator.records import Discovery, Transaction
from gateway.simulator.world import World


@dataclass(frozen=True, slots=True)
class Clearinghouse:
    """Processes submissions and runs discovery tasks."""

    options: Options
    clock: Clock
    owned: Owned
    courier: Courier

    async def process(self, world: World, call: Call, inquiry: Inquiry, payer: Payer) -> Transaction:
        """Take one submission from its arrival to the store."""
        key = _material(call, inquiry)
        if self._deduplicates(call):
            earlier = world.earlier(key, self.clock.now_s(), self.options.deduplicate_window_s)
            if earlier is not None:
                return self._duplicate(world, call, earlier)
        world.counters.submissions_started += 1
        outcome, latency_s = payer.outcome, payer.latency.draw(world.chance)
        if latency_s > self.options.clearinghouse_timeout_s:
            outcome, latency_s = Outcome.PAYER_UNAVAILABLE, self.options.clearinghouse_timeout_s
        await self.clock.sleep(latency_s)
        starts = payer.starts_discovery(outcome)
        tasks = [self.discover(world, call, inquiry, plan, None) for plan in (payer.tasks if starts else ())]
        transaction = Transaction(
            id=str(uuid.uuid4()),
            tenant_id=call.tenant_id,
            correlation_id=call.correlation_id,
            source_type="new",
            source_id=None,
            processed_at=self.clock.date(),
            outcome=outcome,
            payer=payer,
            inquiry=inquiry,
            discoveries=tuple(task for task in tasks if task is not None),
        )
        world.transactions.put(transaction)
        world.counters.submissions_processed += 1
        if self.options.deduplicate:
            world.remember(key, transaction, self.clock.now_s())
        return transaction

    def discover(
        self,
        world: World,
        call: Call,
        inquiry: Inquiry,
        plan: TaskPlan,
        callback_url: str | None,
    ) -> Discovery | None:
        """Start a discovery task; None if no path of its plan qualifies."""
        if not plan.paths:
            return None
        task = Discovery(
            id=str(uuid.uuid4()),
            tenant_id=call.tenant_id,
            correlation_id=call.correlation_id,
            trace_id=call.trace_id,
            plan=plan,
            inquiry=inquiry,
            started_at=self.clock.date(),
            ended_at=None,
            callback_url=callback_url or self.options.callback_url,
        )
        world.discoveries.put(task)
        world.counters.discoveries_started += 1
        self.owned.start(self._run(world, task))
        return task

    async def _run(self, world: World, task: Discovery) -> None:
        await self.clock.sleep(task.plan.duration.draw(world.chance))
        ended = dataclasses.replace(task, ended_at=self.clock.date())
        # A task that the bounded store has dropped meanwhile stays dropped.
        if world.discoveries.get(task.id) is not None:
            world.discoveries.put(ended)
        world.counters.discoveries_ended += 1
        if ended.callback_url is not None:
            await self.courier.deliver(world.counters, ended.callback_url, ended)

    def _deduplicates(self, call: Call) -> bool:
        return self.options.deduplicate and "deduplication" not in call.disabled

    def _duplicate(self, world: World, call: Call, earlier: Transaction) -> Transaction:
        transaction = dataclasses.replace(
            earlier,
            id=str(uuid.uuid4()),
            correlation_id=call.correlation_id,
            source_type="duplicate",
            source_id=earlier.id,
            processed_at=self.clock.date(),
            discoveries=(),
        )
        world.transactions.put(transaction)
        world.counters.duplicates_answered += 1
        return transaction


def _material(call: Call, inquiry: Inquiry) -> bytes:
    """Say what makes two submissions the same one."""
    parts = (call.operation.name, call.tenant_id, call.subtenant_id or "", call.scenario)
    return hashlib.sha256("\x1f".join(parts).encode() + inquiry.digest).digest()
