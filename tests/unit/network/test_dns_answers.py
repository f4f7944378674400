"""What queries of containers are answered with, and what each container sees."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.network.names import answers
from rootlesspy.network.names.table import Member, NetworkNames, Table

DB = Member("d" * 64, ("db", "Data-Base"), ("10.89.0.2/24", "fd00:0::2"))
WEB1 = Member("1" * 64, ("web-1", "web"), ("10.89.0.3",))
WEB2 = Member("2" * 64, ("web-2", "web"), ("10.89.0.4",))
NETWORK = NetworkNames(("10.89.0.0/24", "fd00::/64"), (DB, WEB1, WEB2))
TABLE = Table(NETWORK)
REVERSED = dns.reversename.from_address("fd00::2").to_text()


def ask(
    name: str,
    rdtype: str = "A",
    *,
    table: Table = TABLE,
    client: str = "10.89.0.3",
    turns: answers.Turns | None = None,
    **options: Any,
) -> dns.message.Message | None:
    """Return the answer; None: it is forwarded."""
    query = dns.message.make_query(name, rdtype, **options)
    view = table.view(client)
    assert view is not None
    reply = answers.respond(query.to_wire(), view, {} if turns is None else turns)
    if reply.forward:
        return None
    response = dns.message.from_wire(reply.wire)
    assert query.is_response(response)
    return response


def texts(response: dns.message.Message | None) -> list[str]:
    assert response is not None
    assert response.rcode() == dns.rcode.NOERROR
    return [record.to_text() for rrset in response.answer for record in rrset]


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("db", "A", ["10.89.0.2"]),
        ("db", "AAAA", ["fd00::2"]),
        ("DB", "A", ["10.89.0.2"]),
        ("data-base", "A", ["10.89.0.2"]),
        ("db.dns.podman", "A", ["10.89.0.2"]),
        ("Db.DNS.Podman", "AAAA", ["fd00::2"]),
        ("d" * 12, "A", ["10.89.0.2"]),
        ("db", "ANY", ["10.89.0.2", "fd00::2"]),
        ("web-1", "A", ["10.89.0.3"]),
        # No such record is not no such name.
        ("web", "AAAA", []),
        ("db", "MX", []),
        ("2.0.89.10.in-addr.arpa", "PTR", ["db.", "Data-Base.", "dddddddddddd."]),
        (REVERSED, "PTR", ["db.", "Data-Base.", "dddddddddddd."]),
        ("2.0.89.10.in-addr.arpa", "A", []),
    ],
)  # fmt: skip
def test_names_of_the_network(name: str, rdtype: str, expected: list[str]) -> None:
    response = ask(name, rdtype)
    assert texts(response) == expected
    assert response is not None
    assert response.flags & dns.flags.AA
    assert response.flags & dns.flags.RA
    assert all(rrset.ttl == 0 for rrset in response.answer)


def test_several_addresses_take_turns() -> None:
    turns: answers.Turns = {}
    both = ["10.89.0.3", "10.89.0.4"]
    assert [
        [texts(ask("web", rdtype, turns=turns)) for rdtype in ("A", "AAAA")] for _ in range(3)
    ] == [[both, []], [both[::-1], []], [both, []]]


@pytest.mark.parametrize("name", ["nobody.dns.podman", "dns.podman", "9.0.89.10.in-addr.arpa"])
def test_missing_names_of_ours_are_not_asked_of_others(name: str) -> None:
    response = ask(name, "PTR" if name.endswith("arpa") else "A")
    assert response is not None
    assert response.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "name", ["example.org", "nobody", "1.1.1.1.in-addr.arpa", "db.example.org", "a\\.b", "."]
)
def test_other_names_are_forwarded(name: str) -> None:
    assert ask(name) is None


def test_dns_of_an_internal_network_asks_nobody() -> None:
    """CVE-2024-29018: an internal network does not leak queries."""
    table = Table(NETWORK._replace(internal=True, dns=("9.9.9.9",)))
    response = ask("example.org", table=table)
    assert response is not None
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert not response.flags & dns.flags.RA
    assert texts(ask("db", table=table)) == ["10.89.0.2"]


# --- who sees what ----------------------------------------------------------------------------


def test_members_of_several_networks_see_all_of_them() -> None:
    """Musl asks all servers at once and believes the first that knows no such name."""
    cache = Member("c" * 64, ("cache",), ("10.90.0.3",))
    other = NetworkNames(("10.90.0.0/24",), (WEB1._replace(addresses=("10.90.0.2",)), cache))
    table = Table(NETWORK, (other, NetworkNames(("10.91.0.0/24",), (DB,))))
    assert texts(ask("cache", table=table, client="10.89.0.3")) == ["10.90.0.3"]
    assert texts(ask("web-1", table=table, client="10.89.0.3")) == ["10.89.0.3", "10.90.0.2"]
    # This one is only in the first network.
    assert ask("cache", table=table, client="10.89.0.4") is None
    assert texts(ask("web-1", table=table, client="10.89.0.4")) == ["10.89.0.3"]


@pytest.mark.parametrize(
    ("client", "seen"),
    [
        ("10.89.0.200", True),
        ("fd00::99", True),
        ("10.88.0.2", False),
        ("fe80::1%eth0", False),
        ("8.8.8.8", False),
    ],
)
def test_only_the_network_is_answered(client: str, seen: bool) -> None:
    assert (TABLE.view(client) is not None) is seen


@pytest.mark.parametrize(
    ("networks", "resolvers"),
    [
        pytest.param([NETWORK], None, id="the host's"),
        pytest.param([NETWORK._replace(dns=("9.9.9.9",))], ("9.9.9.9",), id="the network's"),
        pytest.param(
            [NETWORK._replace(dns=("9.9.9.9",), members=(DB._replace(dns=("1.1.1.1",)),))],
            ("1.1.1.1",),
            id="the container's",
        ),
        pytest.param([NETWORK._replace(internal=True)], (), id="internal"),
        pytest.param([NETWORK._replace(internal=True), NETWORK], None, id="internal and not"),
    ],
)
def test_who_is_asked(networks: list[NetworkNames], resolvers: tuple[str, ...] | None) -> None:
    view = Table(networks[0], tuple(networks[1:])).view("10.89.0.2")
    assert view is not None
    assert view.resolvers == resolvers


# --- sizes and versions -----------------------------------------------------------------------

MANY = Table(
    NetworkNames(
        ("10.89.0.0/16",),
        tuple(Member(f"{n:064}", (f"w{n}", "all"), (f"10.89.1.{n}",)) for n in range(200)),
    )
)


@pytest.mark.parametrize(
    ("options", "limit"),
    [({}, 512), ({"payload": 100}, 512), ({"payload": 1000}, 1000), ({"payload": 4096}, 1232)],
)
def test_what_does_not_fit_is_truncated(options: dict[str, Any], limit: int) -> None:
    query = dns.message.make_query("all", "A", **options)
    view = MANY.view("10.89.1.1")
    assert view is not None
    reply = answers.respond(query.to_wire(), view, {})
    assert len(reply.wire) <= limit
    response = dns.message.from_wire(reply.wire)
    assert response.flags & dns.flags.TC
    assert response.question == query.question
    whole = dns.message.from_wire(answers.respond(query.to_wire(), view, {}, tcp=True).wire)
    assert len(whole.answer[0]) == 200
    forwarded = dns.message.make_query("x.org", "A", **options).to_wire()
    assert answers.respond(forwarded, view, {}).limit_bytes == limit


def test_forwarded_answers_are_truncated() -> None:
    response = dns.message.make_response(dns.message.make_query("x.org", "TXT", id=7))
    response.answer.append(dns.rrset.from_text("x.org.", 5, "IN", "TXT", "a" * 200, "b" * 200))
    short = dns.message.from_wire(answers.truncated(response.to_wire()))
    assert (short.id, short.question, short.answer) == (7, response.question, [])
    assert short.flags & dns.flags.TC


def test_version_of_edns() -> None:
    wire = bytearray(dns.message.make_query("db", "A", use_edns=0).to_wire())
    # The second byte of the OPT record's TTL, which its length follows (RFC 6891).
    wire[-5] = 1
    assert dns.message.from_wire(respond(bytes(wire)).wire).rcode() == dns.rcode.BADVERS


# --- what is no query -------------------------------------------------------------------------


def respond(wire: bytes) -> answers.Reply:
    view = TABLE.view("10.89.0.3")
    assert view is not None
    return answers.respond(wire, view, {})


def rcode(reply: answers.Reply) -> int:
    return reply.wire[3] & 15


QUERY = dns.message.make_query("db", "A", id=1).to_wire()


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="empty"),
        pytest.param(QUERY[:11], id="no header"),
        pytest.param(QUERY[:2] + b"\x84" + QUERY[3:], id="an answer"),
        pytest.param(QUERY[:-1], id="cut off"),
        pytest.param(QUERY + b"x", id="more than a query"),
        pytest.param(QUERY[:12] + b"\xc0\x0c\0\1\0\1", id="a name that points to itself"),
        pytest.param(QUERY[:12] + b"\xc0\x04\0\1\0\1", id="a name that points to the header"),
        pytest.param(QUERY[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", id="a long label"),
        pytest.param(QUERY + bytes(answers.MAX_QUERY_BYTES), id="long"),
    ],
)
def test_malformed_packets_are_ignored(wire: bytes) -> None:
    assert respond(wire) == answers.Reply()


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        pytest.param(QUERY[:2] + b"\x28" + QUERY[3:], dns.rcode.NOTIMP, id="update"),
        pytest.param(QUERY[:5] + b"\2" + QUERY[6:], dns.rcode.FORMERR, id="two questions"),
        pytest.param(QUERY[:7] + b"\1" + QUERY[8:], dns.rcode.FORMERR, id="with an answer"),
        pytest.param(
            dns.message.make_query("example.org", "AXFR").to_wire(), dns.rcode.REFUSED, id="AXFR"
        ),
        pytest.param(
            dns.message.make_query("version.bind", "TXT", "CH").to_wire(),
            dns.rcode.REFUSED,
            id="chaos",
        ),
    ],
)
def test_what_is_refused(wire: bytes, expected: int) -> None:
    reply = respond(wire)
    assert (rcode(reply), reply.wire[:2]) == (expected, wire[:2])
    assert len(reply.wire) <= len(wire)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything(data: bytes) -> None:
    for wire in (data, QUERY[:2] + b"\1\0\0\1\0\0\0\0" + data, QUERY[: len(data)] + data):
        reply = respond(wire)
        assert isinstance(reply, answers.Reply)
        assert len(reply.wire) == 0 or len(reply.wire) >= answers.HEADER_BYTES


@given(st.data())
def test_no_change_of_a_query_raises_anything(data: st.DataObject) -> None:
    wire = bytearray(dns.message.make_query("db.dns.podman", "A", use_edns=0).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    reply = respond(bytes(wire))
    assert len(reply.wire) <= 200


# --- answers of resolvers ---------------------------------------------------------------------


def test_only_the_answer_to_the_question_is_one() -> None:
    query = dns.message.make_query("x.org", "A", id=77)
    response = dns.message.make_response(query).to_wire()
    wire = query.to_wire()
    assert answers.is_answer(response, wire)
    assert answers.is_answer(response.replace(b"org", b"ORG"), wire)
    other = dns.message.make_response(dns.message.make_query("y.org", "A", id=77)).to_wire()
    for wrong in (wire, b"", response[:11], b"\0\0" + response[2:], other):
        assert not answers.is_answer(wrong, wire)
    assert answers.is_answer(answers.failure(wire, dns.rcode.SERVFAIL), wire)
    assert not answers.is_answer(answers.failure(wire, dns.rcode.NOERROR), wire)
