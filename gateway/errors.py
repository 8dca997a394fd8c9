"""One error tree, one JSON shape (RFC 9457).

Rules
- Every way in which the gateway itself refuses or fails has a stable `code`; what the upstream answers,
  good or bad, passes through unchanged and is never an error here.
- `hint` says what the reader can do. No sentence here ever holds a value from a request, an answer, a
  token or a foreign exception: whatever is said here may be logged and is shown to callers.
- `retry_safe` is true where nothing of the request can have had an effect upstream.
"""

from collections.abc import Iterator, Mapping

from gateway.problem import GatewayError, Source


class CallerError(GatewayError):
    """The request was refused: nothing of it reached the upstream."""

    source = Source.CALLER
    retry_safe = True


class NotHttp(CallerError):
    """Whatever came could not be read as one HTTP/1.1 request."""

    code = "not_http"
    status = 400
    title = "The request could not be read as HTTP."
    hint = "Send one well-formed HTTP/1.1 request; the connection is closed."


class AmbiguousRequest(CallerError):
    """The request can be read in more than one way, so that somebody behind us might read it differently."""

    code = "ambiguous_request"
    status = 400
    title = "The request is ambiguous."
    hint = (
        "Use an origin-form target, HTTP/1.0 or 1.1, one framing (Content-Length or chunked; none with GET), header "
        "names without underscores, values in UTF-8 and no upgrade; the connection is closed."
    )


class HeadTooLarge(CallerError):
    """The request line, a header or all of them together are over the cap."""

    code = "head_too_large"
    status = 431
    title = "The head of the request is too large."
    hint = "A target and a header may have 8190 bytes, and all of them together 32768; the connection is closed."


class HeadTooSlow(CallerError):
    """The head of a request began, and was not complete within its deadline."""

    code = "head_too_slow"
    status = 408
    title = "The head of the request did not arrive in time."
    hint = "Send the whole head without a pause; GATEWAY_HEAD_TIMEOUT_S is the limit. The connection is closed."


class UnknownPath(CallerError):
    """The path is no operation of the API, and no policy forwards it."""

    code = "unknown_path"
    status = 404
    title = "No such path here."
    hint = "Use one of the API's nine operations, or ask the operators for a policy that forwards this path."


class WrongMethod(CallerError):
    """The path is known, the method is not."""

    code = "wrong_method"
    status = 405
    title = "This path is not called with this method."
    hint = "The Allow header of this answer names the methods."


class BodyTooLarge(CallerError):
    """The body is over the cap."""

    code = "body_too_large"
    status = 413
    title = "The request body is too large."
    hint = "Send a smaller body, or ask the operators to raise GATEWAY_MAX_BODY_BYTES."


class BodyTooSlow(CallerError):
    """The body did not arrive within its deadline."""

    code = "body_too_slow"
    status = 408
    title = "The request body did not arrive in time."
    hint = "Send the whole body without a pause; GATEWAY_BODY_TIMEOUT_S is the limit."


class CallerStalled(CallerError):
    """The caller takes nothing of its reply any more; nobody is told but the log."""

    code = "caller_stalled"
    status = 408
    title = "The reply was not read in time."
    hint = "Read the reply without a pause of more than 30 s; the transaction may exist upstream."
    retry_safe = False


class BodyTorn(CallerError):
    """The body ended before it was complete, or its framing was broken."""

    code = "body_torn"
    status = 400
    title = "The request body is incomplete."
    hint = "Send as many bytes as the framing announces."


class ExpectationUnknown(CallerError):
    """An `Expect` header asks for something else than 100-continue."""

    code = "expectation_unknown"
    status = 417
    title = "The expectation cannot be met."
    hint = "Only `Expect: 100-continue` is understood (RFC 9110, 10.1.1)."


class Unauthenticated(CallerError):
    """No credentials where some are needed, or credentials that belong to nobody."""

    code = "unauthenticated"
    status = 401
    title = "The caller is not known."
    hint = "Send the credentials that this gateway's operators gave to your service."


class TokenNotGranted(CallerError):
    """A request for a token is refused, in the words of OAuth2 (RFC 6749, 5.2) instead of a problem document."""

    content_type = "application/json"

    def document(self, correlation_id: str) -> Mapping[str, str | int | bool]:  # noqa: ARG002 - the standard has none
        """The JSON members of the reply."""
        return {"error": self.code, "error_description": f"{self.title} {self.hint}"}


class InvalidClient(TokenNotGranted):
    """The credentials belong to nobody."""

    code = "invalid_client"
    status = 401
    title = "The client id or its secret is not valid."
    hint = "Send those that this gateway's operators gave to your service."


class InvalidTokenRequest(TokenNotGranted):
    """The request for a token cannot be read, or holds credentials twice."""

    code = "invalid_request"
    status = 400
    title = "The request for a token is not well-formed."
    hint = "Send grant_type, client_id and client_secret once each, as JSON or as a form, or the last two as Basic."


class UnsupportedGrantType(TokenNotGranted):
    """The grant type is another one."""

    code = "unsupported_grant_type"
    status = 400
    title = "The grant type is not supported."
    hint = "Send grant_type=client_credentials."


class NoPolicy(CallerError):
    """No policy lets this caller use this operation."""

    code = "no_policy"
    status = 403
    title = "This caller may not use this operation."
    hint = "Ask the operators: `eligibility-gateway explain` shows which policy governs a caller and an operation."


class TooManyRequests(CallerError):
    """The caller is over its own limits, and its queue is full or its wait was too long."""

    code = "too_many_requests"
    status = 429
    title = "The caller asks more than it may."
    hint = "Retry after the time named by Retry-After; RateLimit-Policy names the limits that the operators set."


class ForeignSubtenant(CallerError):
    """The request names a subtenant that its caller may not speak for."""

    code = "foreign_subtenant"
    status = 403
    title = "This caller may not ask on behalf of this subtenant."
    hint = "Leave x-optum-subtenant-id out, or send once one that the operators gave to your service."


class IssuerUnavailable(GatewayError):
    """A platform's token cannot be judged: its keys were never read, or not for an hour."""

    code = "issuer_unavailable"
    status = 503
    title = "The keys of the platform that issued the token are not known."
    hint = "Nothing was sent; retry after the time named by Retry-After. The operators must check `issuers:`."
    source = Source.GATEWAY
    retry_safe = True


class Overloaded(GatewayError):
    """The process holds as many requests as it may."""

    code = "overloaded"
    status = 503
    title = "The gateway is full."
    hint = "Retry after the time named by Retry-After; nothing was sent upstream."
    source = Source.GATEWAY
    retry_safe = True


class AnswerPending(GatewayError):
    """The caller's time is up while the answer is still under way; when it comes it is kept."""

    code = "answer_pending"
    status = 504
    title = "The answer is still under way."
    hint = (
        "The transaction goes on: retry within a minute of its end, and what came of it is yours without another call."
    )
    source = Source.UPSTREAM
    retry_safe = True


class DeadlineExceeded(GatewayError):
    """The caller's time is up, and an answer that comes later is kept for nobody."""

    code = "deadline_exceeded"
    status = 504
    title = "The answer did not come within the caller's time."
    hint = "The transaction may exist upstream: look it up by the correlation id before you submit again."
    source = Source.UPSTREAM
    retry_safe = False


class QuestionSpent(GatewayError):
    """The processes that asked this question died over it, one after the other."""

    code = "question_spent"
    status = 503
    title = "This question was lost twice."
    hint = "The transaction may exist upstream; nobody asks again before the time named by Retry-After."
    source = Source.GATEWAY
    retry_safe = False


class DedupUnavailable(GatewayError):
    """Redis is silent, and the policy says `store_unavailable: reject`."""

    code = "dedup_unavailable"
    status = 503
    title = "Deduplication is not available."
    hint = "Nothing was sent; retry after the time named by Retry-After."
    source = Source.GATEWAY
    retry_safe = True


class AuditUnavailable(GatewayError):
    """The audit trail cannot be written, and the policy says `audit: {unavailable: reject}`."""

    code = "audit_unavailable"
    status = 503
    title = "The audit trail cannot be written."
    hint = "Nothing was sent; retry after the time named by Retry-After."
    source = Source.GATEWAY
    retry_safe = True


class Internal(GatewayError):
    """A defect of the gateway."""

    code = "internal_error"
    status = 500
    title = "The gateway failed."
    hint = "Tell the operators the correlation id; whether the request took effect upstream is not known."
    source = Source.GATEWAY
    retry_safe = False


class Stopped(GatewayError):
    """The process had to end before the answer came."""

    code = "stopped"
    status = 503
    title = "The gateway was stopped."
    hint = "The transaction may exist upstream: look it up by the correlation id before you submit again."
    source = Source.GATEWAY
    retry_safe = False


class UpstreamUnreachable(GatewayError):
    """No connection could be opened: the request was not sent."""

    code = "upstream_unreachable"
    status = 502
    title = "The upstream cannot be reached."
    hint = "Nothing was sent; retry after a short while."
    source = Source.UPSTREAM
    retry_safe = True


class UpstreamNotTrusted(GatewayError):
    """No connection with TLS was made, for one side does not trust the other: the request was not sent."""

    code = "upstream_not_trusted"
    status = 502
    title = "No secure connection to the upstream could be made."
    hint = "Nothing was sent; the operators must look at the upstream's certificate, GATEWAY_UPSTREAM_CA and their own."
    source = Source.UPSTREAM
    retry_safe = True


class UpstreamConnectTimeout(GatewayError):
    """No connection was opened within the policy's `timeout.connect`: the request was not sent."""

    code = "upstream_connect_timeout"
    status = 504
    title = "The upstream could not be connected to in time."
    hint = "Nothing was sent; retry after a short while."
    source = Source.UPSTREAM
    retry_safe = True


class UpstreamTimeout(GatewayError):
    """The request was sent and no complete answer came within the policy's `timeout.answer`."""

    code = "upstream_timeout"
    status = 504
    title = "The upstream did not answer in time."
    hint = "The transaction may exist upstream: look it up by the correlation id before you submit again."
    source = Source.UPSTREAM
    retry_safe = False


class UpstreamBroken(GatewayError):
    """The request was sent, and the answer was cut off or could not be read."""

    code = "upstream_broken"
    status = 502
    title = "The upstream's answer was cut off or could not be read."
    hint = "The transaction may exist upstream: look it up by the correlation id before you submit again."
    source = Source.UPSTREAM
    retry_safe = False


class TokenUnavailable(GatewayError):
    """The upstream's token endpoint gave no token: it cannot be reached, is slow, failing or unreadable."""

    code = "token_unavailable"
    status = 503
    title = "The upstream's token endpoint gives no token."
    hint = "Nothing was sent; retry after the time named by Retry-After."
    source = Source.UPSTREAM
    retry_safe = True


class CredentialsRefused(GatewayError):
    """The upstream's token endpoint refused the gateway's own credentials."""

    code = "credentials_refused"
    status = 503
    title = "The upstream refuses the gateway's credentials."
    hint = "Nothing was sent; the operators must check GATEWAY_UPSTREAM_CLIENT_ID and GATEWAY_UPSTREAM_CLIENT_SECRET."
    source = Source.GATEWAY
    retry_safe = True


def every_problem(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """Yield each error that states a problem: the leaves of the tree."""
    below = root.__subclasses__()
    if not below:
        yield root
    for one in below:
        yield from every_problem(one)


def error_of(code: str) -> type[GatewayError]:
    """Return the error that has this code; a code that nobody has is a defect's."""
    return next((error for error in every_problem() if error.code == code), Internal)
