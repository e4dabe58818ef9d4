"""What a visitor's browser carries: signed cookies, and tokens of forms.

Layer L3; imports flask.

Source: RFC 6265bis (SameSite, the prefix __Host-); OWASP Cross-Site Request Forgery Prevention Cheat Sheet (signed
double-submit cookie, Fetch metadata)
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Literal

from flask import Response, request

from fairlead.dashboard.logins.proxies import Proxies

# A session, which lasts, or a nonce that the forms on the page for logging in belong to.
Kind = Literal["session", "form"]
# 256 bits and their signature have 108; there is no need to sign a text of any length to find out that it is none.
_MAX_COOKIE_CHARACTERS = 200


class Visitors:
    """Reads and writes what browsers carry.

    Parameters
    ----------
    key : signs it.
    lasts_s : seconds after which a browser drops a session.
    proxies : know whether a browser speaks TLS.
    """

    def __init__(self, key: bytes, lasts_s: float, proxies: Proxies) -> None:
        self._key = key
        self._lasts_s = lasts_s
        self._proxies = proxies
        # A browser sends cookies to every port of a machine: two servers there must not overwrite each other's.
        self._name = f"fairlead-{self._sign('name', 'cookies')[:8]}"

    def session(self) -> str | None:
        """Read the id of the session that the request carries, None when it carries none that was signed here."""
        return self._carried("session")

    def nonce(self) -> str:
        """Read the nonce that the request carries, or make one, which the response then has to carry."""
        return self._carried("form") or secrets.token_urlsafe(32)

    def carry(self, response: Response, kind: Kind, value: str) -> None:
        """Have the browser carry a session or a nonce."""
        is_session = kind == "session"
        response.set_cookie(
            self._cookie(kind),
            f"{value}.{self._sign(kind, value)}",
            max_age=int(self._lasts_s) if is_session else None,
            secure=self._proxies.is_secure(),
            httponly=True,
            # A link in a letter may lead to a dashboard, but a form is only ever sent from our own page.
            samesite="Lax" if is_session else "Strict",
        )

    def drop(self, response: Response) -> None:
        """Have the browser drop its session."""
        is_secure = self._proxies.is_secure()
        response.delete_cookie(self._cookie("session"), secure=is_secure, httponly=True, samesite="Lax")

    def token(self, kind: Kind, value: str) -> str:
        """Make the token for a form of a session or a nonce, which only a page of ours can know."""
        return self._sign(f"token of {kind}", value)

    def is_ours(self, kind: Kind) -> bool:
        """Whether the form that was sent comes from a page that we gave to this browser."""
        # A page of a neighbouring host can set our cookies, but not this header.
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return False
        value = self._carried(kind)
        return value is not None and _agree(self.token(kind, value), request.form.get("token", ""))

    def _carried(self, kind: Kind) -> str | None:
        carried = request.cookies.get(self._cookie(kind), "")
        if len(carried) > _MAX_COOKIE_CHARACTERS:
            return None
        value, _, signature = carried.partition(".")
        return value if _agree(self._sign(kind, value), signature) else None

    def _cookie(self, kind: Kind) -> str:
        # With the prefix, a browser takes it over TLS only, and from this very host.
        return f"__Host-{self._name}-{kind}" if self._proxies.is_secure() else f"{self._name}-{kind}"

    def _sign(self, purpose: str, value: str) -> str:
        content = f"fairlead dashboard, {purpose}: {value}".encode(errors="replace")
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()


def _agree(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode(errors="replace"))
