"""Which network addresses the crawler may connect to.

A page can link or redirect to a name that leads into the crawling machine's own network (server-side
request forgery). The check is made on the address that is connected to, after the name was resolved,
so that no name, redirect or change of DNS gets around it.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any, cast

import httpcore


class ForbiddenAddress(Exception):
    """The host is at an address that the crawl may not connect to."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet (globally reachable, IANA registries)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is not None:
            return is_public(str(embedded))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if any(ip in network for network in _LOCAL_TRANSLATIONS):
            return False
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Forms of IPv4 that a local translator may turn into any address (RFC 4291, 2765 and 8215).
_LOCAL_TRANSLATIONS = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48")))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to allowed addresses only, and honours `resolve` as curl's --resolve does."""

    def __init__(self, resolve: Mapping[str, str], allow_private_hosts: bool) -> None:
        self._resolve = resolve
        self._allow_private_hosts = allow_private_hosts
        self._backend = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host by name. Raises ForbiddenAddress, or httpcore.ConnectError."""
        if host in self._resolve:
            address, _, target_port = self._resolve[host].rpartition(":")
            addresses, port = [address.strip("[]")], int(target_port)
        else:
            addresses = await self._addresses_of(host, port)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait; httpcore asks for it between its own connection attempts."""
        await asyncio.sleep(seconds)

    async def _addresses_of(self, host: str, port: int) -> list[str]:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} does not resolve: {error}") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
        # One private address among public ones is enough to refuse: which is used is up to chance.
        private = [address for address in addresses if not is_public(address)]
        if private and not self._allow_private_hosts:
            raise ForbiddenAddress(f"{host} is at {private[0]}, which is not on the public internet")
        return addresses
