"""How the scoring process and its owner talk: JSON messages over a socket, each after its length.

JSON and not pickle, because the child runs code that is not trusted to hand back objects.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

_LENGTH = struct.Struct("<I")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def send_message(channel: socket.socket, message: Any, timeout_s: float | None = None) -> None:
    """Send a JSON value; raises OSError when the other side is gone, TimeoutError when it does not take it in time."""
    content = json.dumps(message).encode()
    channel.settimeout(timeout_s)
    channel.sendall(_LENGTH.pack(len(content)) + content)


def receive_message(channel: socket.socket, deadline: float | None = None) -> Any:
    """Next message. `deadline` is a time of `time.monotonic`; None waits for ever.

    Raises TimeoutError at the deadline, EOFError when the other side is gone, ValueError for what is no message.
    """
    (length,) = _LENGTH.unpack(_receive_exactly(channel, _LENGTH.size, deadline))
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {length} bytes; at most {MAX_MESSAGE_BYTES} are read")
    return json.loads(_receive_exactly(channel, length, deadline))


def _receive_exactly(channel: socket.socket, num_bytes: int, deadline: float | None) -> bytes:
    content = bytearray()
    while len(content) < num_bytes:
        channel.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
        try:
            received = channel.recv(num_bytes - len(content))
        except ConnectionError:
            received = b""
        if not received:
            raise EOFError
        content += received
    return bytes(content)
