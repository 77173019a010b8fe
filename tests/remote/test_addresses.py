"""Which addresses pictures may come from."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.remote.addresses import Reach, reach_of

PUBLIC = ["93.184.216.34", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::200e"]
PRIVATE = ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1"]
NEVER = [
    *("169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "0.0.0.9", "0.1.2.3", "224.0.0.1"),
    *("239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "192.88.99.1"),
    *("fd00:ec2::254", "::", "fe80::1", "fe80::1%eth0", "2606:4700::1111%1", "ff02::1", "2001:db8::1", "3fff::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8", "2002:7f00:1::", "2001:0:1::1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::a00:1", "fec0::1", "100::1", "", "localhost", "127.1", "0x7f.0.0.1", "010.0.0.1"),
]


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        *((each, Reach.PUBLIC) for each in PUBLIC),
        *((each, Reach.PRIVATE) for each in [*PRIVATE, "fd12::1"]),
        *((each, Reach.NEVER) for each in NEVER),
    ],
)
def test_who_answers_at_an_address(address: str, reach: Reach) -> None:
    """Only what is certainly public is; metadata services and IPv6 in disguise are for nobody."""
    assert reach_of(address) is reach


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_becomes_public_inside_ipv6(inner: IPv4Address) -> None:
    """Mapped, compatible, 6to4, Teredo and NAT64 never lead to an IPv4 address that is not looked at itself."""
    number = int(inner)
    prefixes = [0xFFFF << 32, 0, 0x64FF9B << 96, (0x64FF9B << 96) | (1 << 80)]
    wrapped = [prefix | number for prefix in prefixes]
    wrapped += [(0x2002 << 112) | (number << 80), (0x20010000 << 96) | (number ^ 0xFFFFFFFF)]
    assert Reach.PUBLIC not in {reach_of(str(IPv6Address(each))) for each in wrapped}


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_otherwise(address: IPv4Address | IPv6Address) -> None:
    """The tables only take away from what the registries call global."""
    odd = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if odd or address.is_reserved or address.is_unspecified:
        assert reach_of(str(address)) is not Reach.PUBLIC
