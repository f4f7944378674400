"""What a query is answered with, from the message and what its sender sees.

Messages are dnspython's; nothing here opens a socket.  Sources: RFC 1035, RFC 2308 (no such name
against no such record), RFC 6891 (EDNS), RFC 9715 (sizes over UDP).
"""

from __future__ import annotations

import ipaddress

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.network.resolver import NETWORK_DOMAIN

if TYPE_CHECKING:
    from rootlesspy.network.names.table import View

HEADER_BYTES = 12
# More than any real query; it bounds what parsing one may cost.
MAX_QUERY_BYTES = 4096
# What crosses every path unfragmented (RFC 9715), and what is allowed without EDNS (RFC 1035).
_MAX_UDP_BYTES = 1232
_MIN_UDP_BYTES = 512
# Containers come and go: nobody shall remember an address, or that a name was missing (an answer
# without SOA is not to be remembered, RFC 2308 section 5).
_TTL_S = 0
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.MAILA, dns.rdatatype.MAILB)
_TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
_SUFFIX = f".{NETWORK_DOMAIN}"


Turns = dict[tuple[str, int], int]


class Reply(NamedTuple):
    """What happens to a query; a reply without wire is none: it was no query."""

    wire: bytes = b""
    forward: bool = False
    """Nobody here knows: others are asked."""
    limit_bytes: int = _MIN_UDP_BYTES
    """The longest answer that its sender takes over UDP."""


def respond(wire: bytes, view: View, turns: Turns, *, tcp: bool = False) -> Reply:
    """Answer a query, or say that it is to be forwarded.

    turns is kept from query to query, so that the addresses of a name take turns.  Nothing is
    raised, whatever the bytes are: what cannot be read is not answered.
    """
    if not _is_query(wire):
        return Reply()
    if wire[2] >> 3 & 15 != dns.opcode.QUERY:
        return Reply(wire=failure(wire, dns.rcode.NOTIMP))
    if _counts(wire)[:3] != (1, 0, 0):
        return Reply(wire=failure(wire, dns.rcode.FORMERR))
    try:
        query = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return Reply()
    if question_end(wire) is None:
        return Reply()
    limit = min(max(query.payload, _MIN_UDP_BYTES), _MAX_UDP_BYTES)
    response = _respond(query, view, turns)
    if response is None:
        return Reply(forward=True, limit_bytes=limit)
    return Reply(wire=_pack(response, 65535 if tcp else limit))


def failure(query: bytes, rcode: int) -> bytes:
    """Return the answer that says only that something went wrong, from the query's header."""
    flags = 0x80 | query[2] & 0x79
    return query[:2] + bytes((flags, 0x80 | rcode)) + bytes(8)


def truncated(response: bytes) -> bytes:
    """Return an answer's header and question, marked as to be asked for again over TCP."""
    end = question_end(response) or HEADER_BYTES
    count = b"\0\1" if end > HEADER_BYTES else b"\0\0"
    flags = bytes((response[2] | 0x02, response[3]))
    return response[:2] + flags + count + bytes(6) + response[HEADER_BYTES:end]


def is_answer(response: bytes, query: bytes) -> bool:
    """Say whether a message of a resolver answers this query: number and question are the same."""
    if len(response) < HEADER_BYTES or response[:2] != query[:2] or not response[2] & 0x80:
        return False
    end = question_end(query)
    if response[4:6] == b"\0\0":
        # Some resolvers leave the question out of their complaints.
        return response[3] & 15 != dns.rcode.NOERROR
    return (
        end is not None
        and response[4:6] == b"\0\1"
        and response[HEADER_BYTES:end].lower() == query[HEADER_BYTES:end].lower()
    )


def is_truncated(response: bytes) -> bool:
    """Say whether an answer is to be asked for again over TCP."""
    return bool(response[2] & 0x02)


def is_refusal(response: bytes) -> bool:
    """Say whether another resolver may know better: SERVFAIL, NOTIMP, REFUSED."""
    return response[3] & 15 in (dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)


def question_end(wire: bytes) -> int | None:
    """Return where the only question ends; None when there is none or it is not plain."""
    if wire[4:6] != b"\0\1":
        return None
    at = HEADER_BYTES
    while at < len(wire) and wire[at]:
        if wire[at] > 63:
            return None
        at += wire[at] + 1
    end = at + 5
    return end if end <= len(wire) else None


def _is_query(wire: bytes) -> bool:
    """Say whether this may be a query; an answer is never answered, or two servers would talk."""
    return HEADER_BYTES <= len(wire) <= MAX_QUERY_BYTES and not wire[2] & 0x80


def _counts(wire: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(wire[at : at + 2], "big") for at in (4, 6, 8, 10))


def _respond(query: dns.message.Message, view: View, turns: Turns) -> dns.message.Message | None:
    """Return the answer that is ours to give, None when the query is to be forwarded."""
    question = query.question[0]
    response = dns.message.make_response(query, recursion_available=view.resolvers != ())
    if query.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
        return response
    if question.rdclass != dns.rdataclass.IN or question.rdtype in _TRANSFERS:
        response.set_rcode(dns.rcode.REFUSED)
        return response
    name = question.name.to_text(omit_final_dot=True).lower()
    own = name.removesuffix(_SUFFIX)
    addresses = view.addresses.get(own)
    if addresses is not None:
        _add_addresses(response, question, addresses, turns)
    elif (address := _reversed(question.name)) and _is_ours(address, view):
        _add_names(response, question, view.names.get(str(address)))
    elif own != name or name == NETWORK_DOMAIN or view.resolvers == ():
        response.set_rcode(dns.rcode.NXDOMAIN)
    else:
        return None
    response.flags |= dns.flags.AA
    return response


def _add_addresses(
    response: dns.message.Message,
    question: dns.rrset.RRset,
    addresses: tuple[str, ...],
    turns: Turns,
) -> None:
    """Add the addresses of the family asked for; none of it means no record, not no name."""
    for version, rdtype in _TYPES.items():
        if question.rdtype not in (rdtype, dns.rdatatype.ANY):
            continue
        texts = [each for each in addresses if (":" in each) == (version == 6)]
        if texts:
            # Of each type by itself: programs ask for both, always in the same order.
            turn = (str(question.name).lower(), int(rdtype))
            first = turns.get(turn, 0) % len(texts)
            turns[turn] = first + 1
            rotated = texts[first:] + texts[:first]
            response.answer.append(
                dns.rrset.from_text_list(question.name, _TTL_S, "IN", rdtype, rotated)
            )


def _add_names(
    response: dns.message.Message, question: dns.rrset.RRset, names: tuple[str, ...] | None
) -> None:
    if names is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype in (dns.rdatatype.PTR, dns.rdatatype.ANY):
        response.answer.append(
            dns.rrset.from_text_list(
                question.name, _TTL_S, "IN", dns.rdatatype.PTR, [f"{name}." for name in names]
            )
        )


def _reversed(name: dns.name.Name) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return None


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address, view: View) -> bool:
    return str(address) in view.names or any(address in subnet for subnet in view.subnets)


def _pack(response: dns.message.Message, limit_bytes: int) -> bytes:
    try:
        return response.to_wire(max_size=limit_bytes, want_shuffle=False)
    except dns.exception.TooBig:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit_bytes)
