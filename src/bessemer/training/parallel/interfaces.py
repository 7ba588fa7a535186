"""Which network interface gloo uses. Left alone it looks up this machine's name, which may lead nowhere."""

import fcntl
import os
import socket
import struct

_SIOCGIFADDR = 0x8915
"""ioctl: the IPv4 address of an interface (Linux, netdevice(7))."""
_VARIABLE = "GLOO_SOCKET_IFNAME"


def prefer_loopback() -> None:
    """Processes of one machine need no network, and no name that it must resolve."""
    names = [name for _, name in socket.if_nameindex()]
    for name in ("lo", "lo0"):
        if name in names:
            os.environ.setdefault(_VARIABLE, name)


def prefer_interface_of(address: str) -> None:
    """Use the interface through which the others know this machine, where it can be found."""
    if name := interface_of(address):
        os.environ.setdefault(_VARIABLE, name)


def interface_of(address: str) -> str | None:
    """The interface that has this IPv4 address; None where none has, or the system does not tell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)
            except OSError:  # it has no such address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
