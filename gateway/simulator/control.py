"""The simulator's own paths under /_simulator: scripted faults, counters, received requests.

Rules
- They need no token, are never counted or logged, and meet no fault.
- Danger: whoever reaches the port can script it. It listens on loopback unless told otherwise.

| request                            | answer                                                  |
|------------------------------------|---------------------------------------------------------|
| GET    /_simulator/counters        | every counter                                           |
| GET    /_simulator/requests?limit= | the last API requests, byte for byte                    |
| GET    /_simulator/faults          | the faults that are left                                |
| POST   /_simulator/faults          | appends a JSON list of faults, answers what is left     |
| DELETE /_simulator/faults          | forgets them                                            |
| POST   /_simulator/reset           | forgets everything but issued tokens                    |
| POST   /_simulator/tokens/revoke   | revokes every issued token                              |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from gateway.simulator.exchange import Reply, json_reply, refusal
from gateway.simulator.faults import read_faults
from gateway.simulator.inquiry import Rejected
from gateway.simulator.tokens import Tokens
from gateway.simulator.world import World

PREFIX: Final = "/_simulator"
_METHODS: Final = {
    "/counters": "GET",
    "/requests": "GET",
    "/faults": "DELETE, GET, POST",
    "/reset": "POST",
    "/tokens/revoke": "POST",
}


@dataclass(frozen=True, slots=True)
class Control:
    """Answers control requests. `reset` puts a new world in the place of the old one."""

    tokens: Tokens
    reset: Callable[[], None]

    def answer(self, world: World, method: str, path: str, query: str, body: bytes) -> Reply:
        """Answer one request."""
        match method, path.removeprefix(PREFIX):
            case "GET", "/counters":
                return json_reply(200, world.counters.document())
            case "GET", "/requests":
                return _requests(world, query)
            case "GET", "/faults":
                return json_reply(200, world.faults.listed())
            case "POST", "/faults":
                return _script(world, body)
            case "DELETE", "/faults":
                world.faults.clear()
                return Reply(204, b"")
            case "POST", "/reset":
                self.reset()
                return Reply(204, b"")
            case "POST", "/tokens/revoke":
                return json_reply(200, {"revoked": self.tokens.revoke_all()})
            case _, known if known in _METHODS:
                return refusal(405, [f"Method Not Allowed: use {_METHODS[known]}"], (("allow", _METHODS[known]),))
        return refusal(404, ["Not Found: the simulator has no such path"])


def _requests(world: World, query: str) -> Reply:
    limit = parse_qs(query).get("limit", ["100"])[-1]
    if not (limit.isascii() and limit.isdigit()) or len(limit) > 9:  # noqa: PLR2004 - the log is far shorter
        return refusal(422, ["Unprocessable: 'limit' must be a whole number"])
    return json_reply(200, [request.document() for request in world.requests.newest(int(limit))])


def _script(world: World, body: bytes) -> Reply:
    faults = read_faults(body)
    if isinstance(faults, Rejected):
        return refusal(faults.status, faults.problems)
    world.faults.script(faults)
    return json_reply(200, world.faults.listed())
