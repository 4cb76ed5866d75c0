"""STUN and TURN servers, which connect browsers and servers behind routers."""

import re

from aiortc import RTCIceServer

from live_seg.errors import UsageError

STUN = re.compile(r"stuns?:[^@\s]+")
TURN = re.compile(r"(?P<scheme>turns?):(?P<user>[^:@\s]+):(?P<password>\S+)@(?P<place>[^@\s]+)")


def ice_server(text: str) -> RTCIceServer:
    """Return the server that `text` names: stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT.

    Every visitor gets the user and password with the page. Raises UsageError.
    """
    if STUN.fullmatch(text):
        return RTCIceServer(urls=text)
    if match := TURN.fullmatch(text):
        return RTCIceServer(
            urls=f"{match['scheme']}:{match['place']}", username=match["user"], credential=match["password"]
        )
    raise UsageError(
        "Expected a STUN or TURN server as stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT. "
        f"Got one that begins with {text.partition(':')[0]!r}."
    )
