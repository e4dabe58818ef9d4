"""Who may ask: API keys, of which the server knows only the hashes.

First step of a request where keys are configured. An entry is a line

    NAME sha256:HEX [admin] [requests_per_s=N] [burst=N]     # a comment

One SHA-256 is enough, and no slow hash is needed: those make a guess of a password dear, and a key is no
password but 256 bits of the system's randomness, which nobody guesses at any price. A slow hash would
only be paid by ourselves, on every request. Imports the standard library and what lies below the modes.

Source: RFC 6750 section 2.1 (Authorization: Bearer); NIST SP 800-63B section 3.1.2 (look-up secrets of at
least 112 bits need neither salt nor a slow hash)
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path

from fairlead.errors import ConfigError
from fairlead.web.problems import Header

VARIABLE = "FAIRLEAD_API_KEYS"
FILE_VARIABLE = "FAIRLEAD_API_KEYS_FILE"
PREFIX = "fl_"
# Beyond these a limit is a slip of the pen, and its arithmetic is not exact.
MIN_REQUESTS_PER_S, MAX_REQUESTS_PER_S, MAX_BURST = 1e-6, 1e6, 10**6

FORM = "NAME sha256:HEX [admin] [requests_per_s=N] [burst=N]"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_OPTION = re.compile(
    r"(?P<admin>admin)|requests_per_s=(?P<requests_per_s>\d+(?:\.\d+)?)|burst=(?P<burst>\d+)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Parameters
    ----------
    name : for logs and metrics; unique.
    digest : SHA-256 of the key, 32 bytes.
    is_admin : may load, reload and unload models.
    requests_per_s : what it may ask in the long run; None is no limit.
    burst : requests it may send at once after a pause, at least 1; None without a limit.
    """

    name: str
    digest: bytes = field(repr=False)
    is_admin: bool = False
    requests_per_s: float | None = None
    burst: int | None = None


class Keys:
    """The keys of a server.

    Parameters
    ----------
    keys : names and digests unique.
    warnings : what the operator should mend, for the log.
    """

    def __init__(self, keys: Iterable[Key], warnings: Iterable[str] = ()) -> None:
        self._keys = tuple(keys)
        self._digests = tuple((key.digest, key) for key in self._keys)
        self.warnings = tuple(warnings)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def read(cls, environ: Mapping[str, str], file: Path | None = None) -> Keys | None:
        """Read the keys of `FAIRLEAD_API_KEYS` and of a file together, None when neither is configured.

        Parameters
        ----------
        environ : entries in `FAIRLEAD_API_KEYS` are separated by newlines or ``;``; `FAIRLEAD_API_KEYS_FILE`
            names a file.
        file : the setting `api_keys_file`.

        Raises
        ------
        ConfigError
            With a line for each bad entry, none of which repeats what stands there; and when keys are
            configured but there are none, since that must not open the server to everybody.
        """
        path = _path(environ, file)
        lines: list[tuple[str, str]] = []
        if VARIABLE in environ:
            entries = re.split(r"[\n;]", environ[VARIABLE])
            lines += [(f"{VARIABLE}, entry {number}", entry) for number, entry in enumerate(entries, 1)]
        if path is not None:
            text = _text(path)
            lines += [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1)]
        if VARIABLE not in environ and path is None:
            return None
        keys = _parse_all(lines)
        if not keys:
            configured = " and ".join([VARIABLE] * (VARIABLE in environ) + [str(path)] * (path is not None))
            raise ConfigError(f"{configured}: expected an API key, got none: make one with `fairlead key NAME`")
        return cls(keys, () if path is None else _warnings(path))

    def find(self, headers: Iterable[Header]) -> Key | None:
        """Find the key that a request shows, None when it shows none or an unknown one.

        Parameters
        ----------
        headers : as in ASGI, names in lower case. ``X-API-Key: KEY`` goes over ``Authorization: Bearer KEY``,
            since a proxy may use the latter for itself.

        Every digest is compared, each in constant time, so that the time tells nothing of which one agrees.
        """
        shown = None
        for name, value in headers:
            if name == b"x-api-key":
                shown = value
                break
            if name == b"authorization" and shown is None and value[:7].lower() == b"bearer ":
                shown = value[7:]
        if not shown:
            return None
        digest = hashlib.sha256(shown.strip()).digest()
        found = None
        for known, key in self._digests:
            if compare_digest(known, digest):
                found = key
        return found


def make(
    name: str, admin: bool = False, requests_per_s: float | None = None, burst: int | None = None
) -> tuple[str, str]:
    """Make a key, and the entry by which a server knows it; the key itself is told only now.

    Raises
    ------
    ConfigError
        When the name or the limit is one that an entry cannot have.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the key {name!r}: expected a name of at most 64 letters, digits, '.', '_', '-'")
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    if admin:
        line += " admin"
    if requests_per_s is not None:
        # `repr` of a small float has an exponent, which an entry has not.
        line += f" requests_per_s={format(requests_per_s, '.6f').rstrip('0').rstrip('.')}"
    if burst is not None:
        line += f" burst={burst}"
    try:
        _parse(line)
    except ValueError as error:
        raise ConfigError(f"the key {name!r}: {error}") from error
    return key, line


def _path(environ: Mapping[str, str], file: Path | None) -> Path | None:
    if FILE_VARIABLE not in environ:
        return file
    path = Path(environ[FILE_VARIABLE])
    if file is not None and file != path:
        # Whichever went first, someone would keep an access that another believes to be withdrawn.
        raise ConfigError(f"{FILE_VARIABLE} and the setting api_keys_file name two files: give one of them")
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: expected a file of API keys: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without the cause, which holds what was read.
        raise ConfigError(f"{path}: expected API keys in UTF-8, got another encoding") from None


def _warnings(path: Path) -> list[str]:
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        return [f"{path}: every user of this machine can add API keys to it: run `chmod o-rwx` on it"]
    if mode & stat.S_IROTH:
        return [f"{path}: every user of this machine can read whose API keys there are: run `chmod o-rwx` on it"]
    return []


def _parse_all(lines: Iterable[tuple[str, str]]) -> list[Key]:
    keys: list[Key] = []
    problems: list[str] = []
    names: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    for place, line in lines:
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            key = _parse(entry)
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        for what, first in (("name", names.get(key.name)), ("key", digests.get(key.digest))):
            if first is not None:
                problems.append(f"{place}: expected another {what} than at {first}, got the same")
        names.setdefault(key.name, place)
        digests.setdefault(key.digest, place)
        keys.append(key)
    if problems:
        raise ConfigError("\n".join(problems))
    return keys


def _parse(entry: str) -> Key:
    """Read one entry; a ValueError says what is wrong and repeats nothing, since it may be a key."""
    name, *rest = entry.split()
    hashed = _HASH.fullmatch(rest[0]) if rest else None
    if hashed is None or not _NAME.fullmatch(name):
        hint = ": this looks like a key itself, make a new one with `fairlead key NAME`" if PREFIX in entry else ""
        raise ValueError(f"expected {FORM}, got something else{hint}")
    if name.startswith(PREFIX):
        raise ValueError(f"expected a name, got something that begins as a key does, with {PREFIX}")
    given: dict[str, str] = {}
    for option in rest[1:]:
        match = _OPTION.fullmatch(option)
        if match is None or match.lastgroup is None:
            raise ValueError("expected admin, requests_per_s=N or burst=N after the hash, got something else")
        if match.lastgroup in given:
            raise ValueError(f"expected {match.lastgroup} once, got it twice")
        given[match.lastgroup] = match[match.lastgroup]
    return Key(name, bytes.fromhex(hashed[1]), "admin" in given, *_limit(given))


def _limit(given: Mapping[str, str]) -> tuple[float | None, int | None]:
    if "requests_per_s" not in given:
        if "burst" in given:
            raise ValueError("expected requests_per_s=N beside burst=N, got burst alone")
        return None, None
    rate = float(given["requests_per_s"])
    if not MIN_REQUESTS_PER_S <= rate <= MAX_REQUESTS_PER_S:
        raise ValueError("expected requests_per_s from 0.000001 to 1000000, got a number outside")
    # As a float: `int` takes no text of thousands of digits.
    burst = float(given["burst"]) if "burst" in given else max(1, math.ceil(rate))
    if not 1 <= burst <= MAX_BURST:
        raise ValueError("expected burst from 1 to 1000000, got a number outside")
    return rate, int(burst)
