"""The name of a cluster's audit stream (TE-2): what its checkpoints carry as first line."""

from __future__ import annotations


def stream_origin(trust_domain: str, cluster_id: int, epoch: int, *, insecure: bool) -> str:
    """``<trust-domain>/<cluster-id>/audit/<epoch>``; development clusters are marked in front."""
    origin = f"{trust_domain}/{cluster_id:016x}/audit/{epoch}"
    return f"insecure/{origin}" if insecure else origin
