"""Settings of addresses, checked before anything starts: the incumbent's URL, and that it is not this server's own."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from foretaste.errors import ConfigError

EXAMPLE = "https://api.openai.com/v1"


def check_incumbent(url: str, host: str, port: int) -> None:
    """Refuse a URL that cannot be an endpoint's base, or is that of the server at `host` and `port` itself.

    Raises: ConfigError, with the form that is accepted.
    """
    parts = urlsplit(url)
    try:
        named, its_port = parts.hostname, parts.port
    except ValueError:
        named, its_port = None, None
    if parts.scheme not in ("http", "https") or not named:
        raise ConfigError(
            f"incumbent.url = {url!r} cannot be used; accepted: http:// or https:// and a host, such as {EXAMPLE}"
        )
    if parts.username or parts.password:
        raise ConfigError(
            f"incumbent.url names a user or a password, and cannot be used; accepted: {parts.scheme}://{named}"
            f"{parts.path}. Put the key into an environment variable, and its name into incumbent.api_key_env"
        )
    if parts.fragment:
        raise ConfigError(f"incumbent.url = {url!r} cannot be used; accepted: {url.partition('#')[0]}")
    for tail in ("/chat/completions", "/completions", "/responses"):
        if parts.path.rstrip("/").endswith(tail):
            right = parts._replace(path=parts.path.rstrip("/").removesuffix(tail)).geturl()
            raise ConfigError(
                f"incumbent.url = {url!r} cannot be used: it is the base to which paths such as {tail} are added; "
                f"accepted: {right}"
            )
    default = 443 if parts.scheme == "https" else 80
    if port and (its_port or default) == port and _is_own(named, host):
        raise ConfigError(
            f"incumbent.url = {url!r} cannot be used: it is this server's own address ({host}:{port}), and requests "
            "would go round for ever; accepted: the address of the endpoint that shall answer. Or let this server "
            "listen elsewhere: server.port"
        )


def check_server(certfile: str | None, keyfile: str | None, origins: tuple[str, ...]) -> None:
    """Refuse half of a certificate, and origins that are none.

    Raises: ConfigError.
    """
    if (certfile is None) != (keyfile is None):
        given, missing = ("certfile", "keyfile") if keyfile is None else ("keyfile", "certfile")
        raise ConfigError(f"server.{given} is set without server.{missing}; accepted: both, or neither")
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path):
            raise ConfigError(
                f"server.cors_origins has {origin!r}, which cannot be used; accepted: a scheme and a host without a "
                'path, such as https://chat.example.org, or "*"'
            )


def plain_http_warning(host: str, certfile: str | None) -> str | None:
    """Return what to tell who lets other machines reach the server without TLS; None if nobody else can."""
    if certfile is not None or all(ipaddress.ip_address(one).is_loopback for one in _resolved(host)):
        return None
    return (
        f"The server listens at {host} without TLS: keys, prompts and answers cross the network in clear. Set "
        "server.certfile and server.keyfile, or keep it behind a proxy that speaks TLS."
    )


def _is_own(named: str, host: str) -> bool:
    theirs = _resolved(named)
    if any(ipaddress.ip_address(one).is_unspecified for one in theirs):
        theirs |= {"127.0.0.1", "::1"}
    ours = _resolved(host)
    if any(ipaddress.ip_address(one).is_unspecified for one in ours):
        return any(_is_local(one) for one in theirs)
    return bool(theirs & ours)


def _resolved(host: str) -> set[str]:
    """Return the addresses of a host; none if it cannot be looked up now."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {str(one[4][0]).partition("%")[0] for one in found}


def _is_local(address: str) -> bool:
    """Return whether an address is one of this machine's: only then can something listen at it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        try:
            one.bind((address, 0))
        except OSError:
            return False
    return True
