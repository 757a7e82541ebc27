"""etcd's simple tokens, for members under --insecure-dev only (A13, A16).

A token is 16 letters, a dot and the log index that its maker had applied. The first eight letters
tell when it was made, the others are a MAC keyed with the stored password hash. So every member
knows a token without being told, none survives a change of the password or the user, AuthDisable
ends all, and a member that was restarted takes none of before, though nothing is written down.

Always true:
  * A token lives its time after its last use, on each member by that member's own uses, as in etcd.
  * Times of members can be compared: under --insecure-dev all of them run on one machine (DEV-1).
  * A member judges a token only from its index on: before, it may not know the user or the password
    that the token was given for.

Not here: etcd's JWTs (``etcd_jwt``), the tokens of a secure member (``tokens``).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, NamedTuple, Protocol

from configsvc.auth.messages import User
from configsvc.auth.state import AuthState
from configsvc.identity.errors import InvalidToken
from configsvc.limits import SIMPLE_TOKENS_MAX, TOKEN_LEEWAY_S

SIMPLE_KEY_ID: Final = "etcd.simple"  # no member's key: those have no dot

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DATE_LETTERS: Final = 8  # of milliseconds since 1970: enough for 1 600 years
_MAC_LETTERS: Final = 8
_LETTERS_IN_ALL: Final = _DATE_LETTERS + _MAC_LETTERS
_TOKEN: Final = re.compile(r"[A-Za-z]{16}\.[0-9]{1,20}", re.ASCII)
_NS_PER_MS: Final = 1_000_000


class Bearer(NamedTuple):
    """Who a token of etcd's kind speaks for."""

    user: str
    uid: str
    jti: str  # a digest: the token itself never reaches a record
    key_id: str
    auth_revision: int


class EtcdTokens(Protocol):
    """What a member under --insecure-dev gives out and takes."""

    def assign(self, auth: AuthState, user: User, index: int, now_ns: int) -> str:
        """A token for a user whose password was right; ``index``: of the last applied entry.

        Raises:
            RequestError: this member can only verify.
        """

    def index_of(self, token: str) -> int:
        """The entry that must be applied before ``token`` can be judged; 0: none."""

    def bearer(self, auth: AuthState, token: str, now_ns: int) -> Bearer:
        """Who ``token`` speaks for now.

        Raises:
            InvalidToken: it is not, or no longer, good.
        """


class _Known(NamedTuple):
    user: str
    uid: str
    password_hash: str
    tokens_min: int
    until_ns: int


class SimpleTokens:
    """Simple tokens of one member."""

    def __init__(self, ttl_s: int, now_ns: int) -> None:
        """``ttl_s``: seconds after the last use; ``now_ns``: this start, older ones are dead."""
        self._ttl_ns = ttl_s * 1_000_000_000
        self._started_ns = now_ns - now_ns % _NS_PER_MS
        self._known: dict[str, _Known] = {}  # least recently used first

    def assign(self, auth: AuthState, user: User, index: int, now_ns: int) -> str:
        date = _letters(now_ns // _NS_PER_MS, _DATE_LETTERS)
        token = f"{date}{_mac(auth, user, date, index)}.{index}"
        self._keep(token, auth, user, now_ns)
        return token

    def index_of(self, token: str) -> int:
        """See ``EtcdTokens``; what is no simple token needs no entry to be refused."""
        return int(token[_LETTERS_IN_ALL + 1 :]) if _TOKEN.fullmatch(token) else 0

    def bearer(self, auth: AuthState, token: str, now_ns: int) -> Bearer:
        known = self._known.pop(token, None)
        user = self._user_of(auth, token, known, now_ns)
        self._keep(token, auth, user, now_ns)
        # The revision is the present one: a simple token outlives changes of rights (A16).
        return Bearer(user.name, user.uid, digest(token), SIMPLE_KEY_ID, auth.revision)

    def _user_of(self, auth: AuthState, token: str, known: _Known | None, now_ns: int) -> User:
        if known is None:
            return self._found(auth, token, now_ns)
        user = auth.users.get(known.user)
        if now_ns >= known.until_ns:
            raise InvalidToken("token has not been used for too long")
        if user is None or known[:4] != (user.name, user.uid, user.password_hash, auth.tokens_min):
            raise InvalidToken("token of before a change of its user")
        return user

    def _found(self, auth: AuthState, token: str, now_ns: int) -> User:
        """Whose token it is that this member sees for the first time."""
        if not _TOKEN.fullmatch(token):
            raise InvalidToken("token is none of etcd's simple ones")
        date, mac = token[:_DATE_LETTERS], token[_DATE_LETTERS:_LETTERS_IN_ALL]
        made_ns = _number(date) * _NS_PER_MS
        if made_ns < self._started_ns or now_ns >= made_ns + self._ttl_ns:
            raise InvalidToken("token has run out")
        if made_ns > now_ns + TOKEN_LEEWAY_S * 1_000_000_000:
            raise InvalidToken("token is from the future")
        index = self.index_of(token)
        for user in auth.users.values():
            if user.password_hash and hmac.compare_digest(mac, _mac(auth, user, date, index)):
                return user
        raise InvalidToken("token is nobody's")

    def _keep(self, token: str, auth: AuthState, user: User, now_ns: int) -> None:
        until = now_ns + self._ttl_ns
        self._known[token] = _Known(user.name, user.uid, user.password_hash, auth.tokens_min, until)
        while len(self._known) > SIMPLE_TOKENS_MAX:
            del self._known[next(iter(self._known))]


def digest(token: str) -> str:
    """What a record calls a token: 32 hex digits that tell nothing of it."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]


def _mac(auth: AuthState, user: User, date: str, index: int) -> str:
    text = f"simple {user.uid} {auth.tokens_min} {date} {index}"
    raw = hmac.digest(user.password_hash.encode(), text.encode(), "sha256")
    return _letters(int.from_bytes(raw[:8]), _MAC_LETTERS)


def _letters(number: int, count: int) -> str:
    """The last ``count`` digits of ``number`` to the base of 52."""
    out = []
    for _ in range(count):
        number, digit = divmod(number, len(_LETTERS))
        out.append(_LETTERS[digit])
    return "".join(reversed(out))


def _number(letters: str) -> int:
    out = 0
    for letter in letters:
        out = out * len(_LETTERS) + _LETTERS.index(letter)
    return out
