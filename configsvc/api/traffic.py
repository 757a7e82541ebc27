"""Bytes of gRPC clients: the frontend counts them, the gateway shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ClientTraffic:
    """Of all HTTP/2 connections since the start, inside TLS."""

    sent: int = 0
    received: int = 0
