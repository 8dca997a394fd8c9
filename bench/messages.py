"""The one request and the one reply of every measurement, and the framing that both ends read.

Facts
- The request is a synthetic 270 in JSON, 2.7 KB as integrations write it (indented); the reply is 12 KB of JSON.
- Every request asks about another member, so no proxy can answer one request with the answer to another.
- The upstream answers PATH at once and PATH_HELD when it is told to: a proxy can be warm before it has to hold.
- The upstream wants TOKEN. Whoever asks a bare peer brings it along; whoever asks the gateway brings another
  one, so a gateway that forgets to put its own in place is answered 401, which counts as an error.
"""

import json
import re
from typing import Final

PATH: Final = "/rcm/eligibility/v1"
PATH_HELD: Final = f"{PATH}?hold"
PATH_RELEASE: Final = "/release"
TOKEN_PATH: Final = "/apip/auth/v2/token"  # noqa: S105 - a path, not a secret
TOKEN: Final = "bench-upstream-token-" + "0" * 480  # worth nothing; as long as a small JWT
CALLER_TOKEN: Final = "bench-caller-token-" + "0" * 482  # the same, and just as long
HELD_METRIC: Final = "bench_upstream_requests_in_flight"
CALLS_METRIC: Final = "bench_upstream_requests_total"
HEAD_END: Final = b"\r\n\r\n"

_ID: Final = "0193e6a4-0000-7000-8000-000000000001"
_REPLY_BODY_BYTES: Final = 12 * 1024
_MEMBER: Final = "MEMBER_ID"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


def whole(buffer: bytes | bytearray) -> tuple[int, int] | None:
    """Return where the body of the first message in a buffer begins and ends, once all of it is there."""
    head = buffer.find(HEAD_END)
    if head < 0:
        return None
    length = _LENGTH.search(buffer, 0, head)
    begin = head + len(HEAD_END)
    end = begin + (int(length[1]) if length is not None else 0)
    return (begin, end) if len(buffer) >= end else None


class Requests:
    """An endless supply of requests of one length, each about another member; or, in turn, about so many."""

    def __init__(self, token: str, target: str = PATH, members: int | None = None, first: int = 0) -> None:
        document = json.dumps(_inquiry(), indent=2).encode()
        before, _, after = document.partition(_MEMBER.encode())
        length = len(before) + len(b"M%09d" % 0) + len(after)
        head = (
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\n"
            f"Accept-Encoding: gzip, deflate\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        self._before, self._after = head.encode() + before, after
        self._members = members
        self._first = first
        self._made = 0

    def next(self) -> bytes:
        """Return the next request, head and body."""
        self._made = self._made % self._members + 1 if self._members else self._made + 1
        return b"%bM%09d%b" % (self._before, self._first + self._made, self._after)


def reply(status: str, body: bytes, *headers: str) -> bytes:
    """Return a whole HTTP reply with a JSON body."""
    lines = (f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + HEAD_END + body


def eligibility_reply() -> bytes:
    """Return the reply to a 270: 12 KB, with the headers that the API sends."""
    return reply(
        "200 OK",
        eligibility_body(),
        "date: Fri, 02 Jan 2026 10:30:00 GMT",
        "cache-control: no-store",
        "strict-transport-security: max-age=31536000; includeSubDomains",
        "x-optum-correlation-id: 0193e6a4-0000-7000-8000-000000000000",
        "x-optum-trace-id: 6f0c1f5e5a0f4b0e9f0a5f1d2c3b4a59",
        "x-optum-tenant-id: 00000000-0000-4000-8000-000000000000",
    )


def eligibility_body() -> bytes:
    """Return a 271 in JSON of exactly 12 KB; what the benefits leave is filled by the X12 text."""
    document = {
        "id": _ID,
        "status": {"value": "eligible", "description": "The patient has active coverage."},
        "payer": {"chcId": "00001", "name": "SYNTHETIC PAYER"},
        "subscriber": {"firstName": "JANE", "lastName": "SYNTHETIC", "dateOfBirth": "1971-03-04"},
        "benefits": [
            {
                "service": str(number),
                "networkClass": "inNetwork" if number % 2 else "outNetwork",
                "benefitType": "individual",
                "name": ("coPayment", "coInsurance", "deductible")[number % 3],
                "value": str(number * 5),
                "type": "amount",
            }
            for number in range(60)
        ],
        "x12-271": "",
    }
    document["x12-271"] = "~" * (_REPLY_BODY_BYTES - len(_dump(document)))
    return _dump(document)


def _dump(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _inquiry() -> dict[str, object]:
    address = {"address1": "1 SYNTHETIC STREET", "city": "NASHVILLE", "state": "TN", "postalCode": "370000000"}
    return {
        "submitterTransactionIdentifier": "BENCH00001",
        "tradingPartnerServiceId": "00001",
        "tradingPartnerName": "SYNTHETIC PAYER",
        "provider": {
            "organizationName": "SYNTHETIC CLINIC OF BENCHMARKS",
            "npi": "1234567893",
            "providerCode": "AD",
            "referenceIdentification": "54321G",
            "providerType": "provider",
        },
        "informationReceiverName": {"facilityIdNumber": "000001", "address": address},
        "subscriber": {
            "memberId": _MEMBER,
            "firstName": "JANE",
            "lastName": "SYNTHETIC",
            "gender": "F",
            "dateOfBirth": "19710304",
            "groupNumber": "G0000001",
            "address": address,
            "additionalIdentification": {
                "patientAccountNumber": "ACC0000001",
                "medicalRecordIdentificationNumber": "MRN0000001",
            },
        },
        "dependents": [
            {
                "firstName": f"CHILD{number}",
                "lastName": "SYNTHETIC",
                "gender": "M",
                "dateOfBirth": f"2010010{number}",
                "address": address,
            }
            for number in range(1, 6)
        ],
        "encounter": {
            "dateOfService": "20260102",
            "serviceTypeCodes": [str(code) for code in (1, 30, 33, 35, 47, 48, 50, 86, 88, 98)],
        },
    }


ANSWERED_BYTES: Final = len(eligibility_body())
REPLAYED_BYTES: Final = ANSWERED_BYTES + len(f'"sourceType":"duplicate","sourceId":"{_ID}",')
