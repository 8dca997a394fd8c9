"""What coverage discovery says: tasks, receipts and dry runs.

Rules
- A plan without paths does not qualify: it is refused with 422, alone or as one item of a 207.
- Poll and callback give the same document.
- Ids inside a document are derived from the task's own: reading twice gives the same ones.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.simulator.answers import timestamp, transaction_document
from gateway.simulator.exchange import Headers, Reply, json_reply, refusal
from gateway.simulator.payers import Outcome, Path, TaskPlan, payer_for
from gateway.simulator.records import Discovery, Transaction


def task_document(task: Discovery) -> dict[str, Any]:
    """Write a task as GET and callback give it."""
    document: dict[str, Any] = {
        "id": task.id,
        "status": task.status,
        "tenantName": "Simulated Tenant",
        "traceId": task.trace_id,
        "correlationId": task.correlation_id,
        "name": task.plan.name,
        "type": task.plan.kind,
        "startDateTime": timestamp(task.started_at),
        "discoveryPaths": {"successful": [], "unsuccessful": [], "pending": [], "skipped": []},
    }
    if task.ended_at is not None:
        document["endDateTime"] = timestamp(task.ended_at)
    for path in task.plan.paths:
        document["discoveryPaths"][_place(path, task.ended_at)].append(_path(task, path))
    return document


def dry_run(plans: Sequence[TaskPlan]) -> Reply:
    """Answer which paths would run, and start none."""
    results = [_would_run(plan) for plan in plans]
    if len(plans) > 1:
        return json_reply(
            207,
            [
                {"status": 422, "body": _unqualified(plan)} if result is None else {"status": 200, "body": result}
                for plan, result in zip(plans, results, strict=True)
            ],
        )
    return refusal(422, [_unqualified(plans[0])]) if results[0] is None else json_reply(200, results[0])


def receipt(plans: Sequence[TaskPlan], tasks: Sequence[Discovery | None]) -> Reply:
    """Answer which tasks were started; None stands for a plan that did not qualify."""
    if len(plans) > 1:
        return json_reply(207, [_item(plan, task) for plan, task in zip(plans, tasks, strict=True)])
    task = tasks[0]
    if task is None:
        return refusal(422, [_unqualified(plans[0])])
    location: Headers = (("location", _href(task)),)
    return json_reply(202, {"id": task.id, "name": task.plan.name}, location)


def _would_run(plan: TaskPlan) -> dict[str, Any] | None:
    if not plan.paths:
        return None
    return {"successful": [], "unsuccessful": [], "pending": [{"name": path.name} for path in plan.paths]}


def _item(plan: TaskPlan, task: Discovery | None) -> dict[str, Any]:
    if task is None:
        return {"status": 422, "body": _unqualified(plan)}
    return {"status": 202, "body": {"id": task.id, "name": task.plan.name}, "href": _href(task)}


def _unqualified(plan: TaskPlan) -> str:
    return f"Unprocessable: no path of '{plan.name}' qualifies for this request"


def _href(task: Discovery) -> str:
    return f"/coverage-discovery/{task.id}"


def _place(path: Path, ended_at: datetime | None) -> str:
    if path.finds is None:
        return "skipped"
    if ended_at is None:
        return "pending"
    return "successful" if path.finds is Outcome.ELIGIBLE else "unsuccessful"


def _path(task: Discovery, path: Path) -> dict[str, Any]:
    path_id = str(uuid.uuid5(uuid.UUID(task.id), path.name))
    described: dict[str, Any] = {
        "id": path_id,
        "name": path.name,
        "description": f"{path.name} path",
        "timestamp": timestamp(task.ended_at or task.started_at),
    }
    if path.finds is None:
        described["reason"] = "answered within the last 72 hours"
    elif task.ended_at is not None:
        described["transaction"] = _path_transaction(task, path.finds, path_id, task.ended_at)
    return described


def _path_transaction(task: Discovery, finds: Outcome, path_id: str, ended_at: datetime) -> dict[str, Any]:
    found = transaction_document(
        Transaction(
            id=str(uuid.uuid5(uuid.UUID(path_id), "transaction")),
            tenant_id=task.tenant_id,
            correlation_id=task.correlation_id,
            source_type="new",
            source_id=None,
            processed_at=ended_at,
            outcome=finds,
            payer=payer_for("SIM-FAST"),
            inquiry=task.inquiry,
            discoveries=(),
        ),
    )
    short = {"id": found["id"], "status": finds.value, "chcPayerId": found["payer"]["chcId"]}
    return short | ({"x12-271": found["x12-271"]} if "x12-271" in found else {})
