"""A registry behind http:// or https://, to read from."""

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from compress.registry.place import AT_ONCE, CHUNK, CONNECT, QUIET, Pace, Streamed

SCHEMES = ("http", "https")
_LINK = re.compile(rb"""href=["']([^"'?#/]+)/["']""", re.IGNORECASE)
_MOST_PAGE = 16 * 2**20
_PART, _PAST_END = 206, 416
_MISSING, _FORBIDDEN = (404, 410), (401, 403, 407)


class Web(Streamed):
    """`names` are those that a page of the server links to."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self.words = without_password(url).rstrip("/")
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        self.https = parts.scheme == "https"
        self.login = unquote(parts.netloc.rpartition("@")[0])

    @cached_property
    def _pool(self) -> Any:
        from urllib.request import getproxies, proxy_bypass

        import urllib3

        parts = urlsplit(self.url)
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=CONNECT, read=QUIET),
            "retries": urllib3.Retry(connect=1, read=0, redirect=5, status=0, other=0),
            "headers": urllib3.make_headers(basic_auth=self.login) if self.login else None,
            "maxsize": AT_ONCE,
        }
        return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def _stream(self, path: str, start: int, begin: Callable[[], object], take: Callable[[bytes], None]) -> None:
        pace, pool = Pace(), self._pool
        headers = {**pool.headers, "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={start}-"} if start else {}
        answer = pool.request("GET", f"{self.url}/{path}", headers=headers, preload_content=False)
        try:
            self._check(answer)
            if start and answer.status != _PART:
                begin()
            if answer.status != _PAST_END:
                for data in iter(lambda: answer.read1(CHUNK), b""):
                    pace.passed(len(data))
                    take(data)
        except BaseException:
            answer.close()
            raise
        answer.release_conn()

    def _check(self, answer: Any) -> None:
        led = [str(each.redirect_location) for each in answer.retries.history if each.redirect_location]
        if self.https and any(each.lower().startswith("http:") for each in led):
            raise OSError("leads to http://, which anyone on the way can change")
        if answer.status in _MISSING:
            raise FileNotFoundError
        if answer.status in _FORBIDDEN:
            raise PermissionError
        if answer.status >= 400 and answer.status != _PAST_END:
            raise OSError(f"the server answers {answer.status} {answer.reason or ''}".rstrip())

    def names(self, path: str) -> list[str] | None:
        page = self.read(f"{path}/".lstrip("/"), _MOST_PAGE) or b""
        return sorted({unquote(link.decode("latin-1")) for link in _LINK.findall(page)}) or None


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.password else url
