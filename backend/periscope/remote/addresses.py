"""Which IP addresses a picture may be fetched from. Pure tables; resolves nothing.

Source: the special-purpose address registries of IANA. `ipaddress.is_global` alone is not enough: it takes multicast
for global, and says of IPv6 ranges that carry an IPv4 address only what holds for the outer one.
"""

from __future__ import annotations

from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final


class Reach(Enum):
    """Who answers at an address."""

    PUBLIC = auto()
    #: This machine and its networks: only for hosts that are allowed by name.
    PRIVATE = auto()
    #: Metadata services, link-local, multicast, reserved, and IPv6 that stands for some IPv4 address: for nobody.
    NEVER = auto()


#: Cloud metadata services that lie in ranges which are otherwise merely private or public.
_METADATA: Final = frozenset(map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16")))
_PRIVATE_4: Final = tuple(
    map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
)
_PRIVATE_6: Final = tuple(map(IPv6Network, ("::1/128", "fc00::/7")))
#: Protocol assignments and relays of 6to4, of which `ipaddress` counts some as global.
_NEVER_4: Final = tuple(map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
#: Everything public lies in here ...
_UNICAST_6: Final = IPv6Network("2000::/3")
#: ... but for Teredo and its neighbours, documentation, and 6to4. Mapped, compatible and NAT64 addresses lie outside.
_NEVER_6: Final = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


def reach_of(address: str) -> Reach:
    """Pure: who answers at this address. What is no address, or has a scope (`fe80::1%en0`), is for nobody."""
    try:
        ip = ip_address(address)
    except ValueError:
        return Reach.NEVER
    if ip in _METADATA:
        return Reach.NEVER
    return _reach_of_4(ip) if isinstance(ip, IPv4Address) else _reach_of_6(ip)


def _reach_of_4(ip: IPv4Address) -> Reach:
    if any(ip in network for network in _PRIVATE_4):
        return Reach.PRIVATE
    is_public = ip.is_global and not ip.is_multicast and not ip.is_reserved
    return Reach.PUBLIC if is_public and not any(ip in network for network in _NEVER_4) else Reach.NEVER


def _reach_of_6(ip: IPv6Address) -> Reach:
    if ip.scope_id is not None:
        return Reach.NEVER
    if any(ip in network for network in _PRIVATE_6):
        return Reach.PRIVATE
    is_public = ip.is_global and ip in _UNICAST_6
    return Reach.PUBLIC if is_public and not any(ip in network for network in _NEVER_6) else Reach.NEVER
