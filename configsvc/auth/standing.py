"""Is the principal of a request still who it was proven to be?

The edge proves an identity; between then and the moment of decision the user may have been
re-created, a token or certificate revoked, a password changed. Judged in apply for every write,
and before every read and watch batch, also on administrative paths (N22, N24).

Not here: signature, lifetime and audience of tokens, validity of certificates (``identity``).
"""

from __future__ import annotations

from typing import Final

from configsvc.auth.state import AuthState
from configsvc.errors import (
    AuthOldRevisionError,
    CertificateNotAcceptableError,
    InvalidAuthTokenError,
    PermissionDeniedError,
    UserEmptyError,
)
from configsvc.types import KIND_NONE, KIND_SYSTEM, Principal

ETCD_JWT: Final = "etcd.jwt"  # key id of etcd's JWTs; no member's key is called so


def check_revision(state: AuthState, principal: Principal) -> None:
    """Return unless ``principal`` came with one of etcd's JWTs of before the last change of auth.

    For what touches keys only; what administrates looks at the user alone (A17).

    Raises:
        AuthOldRevisionError: log in again.
    """
    if principal.key_id == ETCD_JWT and state.enabled and principal.auth_revision < state.revision:
        raise AuthOldRevisionError


def check_principal(state: AuthState, principal: Principal, time_ns: int) -> None:
    """Return if ``principal`` still stands at ``time_ns`` (leader time).

    Raises:
        CertificateNotAcceptableError: its certificate or identity is on the deny-list.
        InvalidAuthTokenError: its token or the key that signed it is, or the token claims an auth
            revision that does not exist yet.
        AuthOldRevisionError: the user is gone, was re-created, or its tokens were ended (JWT-7).
        PermissionDeniedError: there is no identity although the store is a secure one.
        UserEmptyError: nor in one born under --insecure-dev, where etcd's text counts (A20).
    """
    kind = principal.kind
    if kind == KIND_SYSTEM:
        return
    if kind == KIND_NONE:
        if not state.insecure:
            raise PermissionDeniedError
        if state.enabled:
            raise UserEmptyError
        return
    if state.denied:
        _check_denied(state, principal, time_ns)
    if principal.uid:
        user = state.users.get(principal.user)
        if user is None or user.uid != principal.uid:
            raise AuthOldRevisionError
        if principal.jti:
            _check_token(state, principal, max(user.min_arev, state.tokens_min))
    elif principal.jti:
        # Tokens are given to users only: without a uid it is no token of ours.
        raise InvalidAuthTokenError


def _check_denied(state: AuthState, principal: Principal, time_ns: int) -> None:
    serial, uri = principal.cert_serial, principal.cert_uri
    if (serial and state.is_denied("serial", serial, time_ns)) or (
        uri and state.is_denied("identity", uri, time_ns)
    ):
        raise CertificateNotAcceptableError
    if principal.jti and (
        state.is_denied("jti", principal.jti, time_ns)
        or state.is_denied("kid", principal.key_id, time_ns)
    ):
        raise InvalidAuthTokenError


def _check_token(state: AuthState, principal: Principal, least: int) -> None:
    if principal.auth_revision > state.revision:
        raise InvalidAuthTokenError
    if principal.auth_revision < least:
        raise AuthOldRevisionError
