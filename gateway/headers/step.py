"""Carry out the `headers:` clause on the way in and on the way out."""

from msgspec.structs import replace

from gateway.errors import ForeignSubtenant
from gateway.exchange import Exchange, Forward, Outbound, Reply
from gateway.headers.rules import Foreign, SpeaksFor, choose_subtenant, outbound_headers, reply_headers


class HeadersStep:
    """After it, the outbound carries what the policy says and nothing forged; the reply, the caller's own id."""

    def speak_for(self, exchange: Exchange) -> None:
        """Say on whose behalf it is asked. Raises ForeignSubtenant."""
        match choose_subtenant(exchange.inbound.headers, exchange.governing.headers, exchange.asking.entry):
            case SpeaksFor(subtenant):
                exchange.subtenant = subtenant
            case Foreign():
                raise ForeignSubtenant

    async def __call__(self, forward: Forward, exchange: Exchange, outbound: Outbound, /) -> Reply:
        """Replace the headers on the way in, and again on the way out."""
        outbound.headers.extend(
            outbound_headers(
                exchange.inbound,
                exchange.governing.headers,
                subtenant=exchange.subtenant,
                correlation_id=exchange.correlation_id,
                decided=outbound.headers,
            ),
        )
        reply = await forward(exchange, outbound)
        return replace(reply, headers=reply_headers(reply, exchange.correlation_id))
