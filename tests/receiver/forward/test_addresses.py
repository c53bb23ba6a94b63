"""Which addresses are public; in whatever spelling, no request of a task's URL reaches another one."""

import ipaddress
import random

import pytest

from receiver.forward.addresses import is_public

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "168.63.129.17",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdaa::3",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_public(address: str):
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_of_a_network_of_our_own_is_not(address: str):
    assert not is_public(address)


def test_it_never_takes_for_public_what_python_does_not():
    rng = random.Random(7)
    numbers = [ipaddress.IPv4Address(rng.getrandbits(32)) for _ in range(4_000)]
    numbers += [ipaddress.IPv6Address((1 << 125) | rng.getrandbits(125)) for _ in range(4_000)]
    wrong = [one for one in numbers if is_public(str(one)) and (not one.is_global or one.is_multicast)]
    assert wrong == []
