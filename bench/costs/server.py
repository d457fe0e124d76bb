"""An object store in RAM that counts its requests, answers late, and shares a link of so many bytes a second.

It speaks as much of S3 as obstore asks for: GET, PUT with conditions, DELETE, and lists in pages of 1,000 keys. Run as
`python -m bench.costs.server`; it prints its address.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import zarr.storage
from obstore.store import S3Store

__all__ = ["Remote", "remote"]

_PAGE = 1000  # keys, as in S3
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class _Server:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.latency_s = 0.0
        self.link_bytes_s = 0.0  # 0: any number
        self.counts: Counter[str] = Counter()
        self._link_free = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                path, _, query = target.partition("?")
                key = urllib.parse.unquote(path)
                if key.startswith("/_"):
                    status, more, data = 200, {}, self._control(key, json.loads(body or b"{}"))
                else:
                    status, more, data = self._answer(method, key.split("/", 2)[-1], query, headers, body)
                    await self._wait(len(body) + len(data))
                lines = [f"HTTP/1.1 {status} X", f"Content-Length: {more.pop('length', len(data))}"]
                lines += [f"{name}: {text}" for name, text in more.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else data))
                await writer.drain()
        writer.close()

    async def _wait(self, num_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.time() + self.latency_s
        if self.link_bytes_s:
            self._link_free = max(ready, self._link_free) + num_bytes / self.link_bytes_s
            ready = self._link_free
        if ready > loop.time():
            await asyncio.sleep(ready - loop.time())

    def _control(self, key: str, told: dict[str, float]) -> bytes:
        if key == "/_set":
            self.latency_s, self.link_bytes_s = told["latency_s"], told["link_bytes_s"]
        counts = dict(self.counts)
        self.counts.clear()
        return json.dumps(counts).encode()

    def _answer(
        self, method: str, key: str, query: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, Any], bytes]:
        if "list-type" in query:
            return self._list(dict(urllib.parse.parse_qsl(query)))
        if method == "POST":
            names = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for name in names:
                self._delete(name)
            gone = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            return 200, {}, f"<DeleteResult>{gone}</DeleteResult>".encode()
        if method == "DELETE":
            self._delete(key)
            return 204, {}, b""
        there = self.tags.get(key)
        if method == "PUT":
            if (headers.get("if-none-match") and there) or headers.get("if-match", there) != there:
                self.counts["refused"] += 1
                return 412, {}, b""
            self.objects[key], self.tags[key] = body, f'"{hashlib.md5(body).hexdigest()}"'
            self._count("put", len(body))
            return 200, {"ETag": self.tags[key]}, b""
        data = self.objects.get(key)
        self._count("get", len(data or b""))
        if data is None:
            return 404, {}, b""
        return 200, {"ETag": there, "Last-Modified": _DATE}, data

    def _list(self, query: dict[str, str]) -> tuple[int, dict[str, Any], bytes]:
        after = query.get("continuation-token", "")
        keys = sorted(key for key in self.objects if key.startswith(query.get("prefix", "")) and key > after)
        page = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>x</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys[:_PAGE]
        )
        more = f"<NextContinuationToken>{keys[_PAGE - 1]}</NextContinuationToken>" if len(keys) > _PAGE else ""
        data = f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{page}</ListBucketResult>"
        self._count("list", len(data))
        return 200, {"Content-Type": "application/xml"}, data.encode()

    def _delete(self, key: str) -> None:
        self._count("delete", 0)
        self.objects.pop(key, None)
        self.tags.pop(key, None)

    def _count(self, kind: str, num_bytes: int) -> None:
        self.counts[kind] += 1
        self.counts[f"{kind}_bytes"] += num_bytes


class Remote:
    """A server that runs."""

    def __init__(self, address: str) -> None:
        self.address = address

    def store(self, name: str) -> zarr.storage.ObjectStore:
        """Return a place for a memory."""
        keys = {"access_key_id": "x", "secret_access_key": "x", "region": "us-east-1"}
        options = {"allow_http": True}
        return zarr.storage.ObjectStore(
            S3Store("bucket", prefix=name, endpoint=self.address, client_options=options, **keys)
        )

    def set(self, *, latency_s: float = 0.0, link_bytes_s: float = 0.0) -> None:
        """Choose how late answers come, and what the link carries."""
        self._ask("/_set", {"latency_s": latency_s, "link_bytes_s": link_bytes_s})

    def counted(self) -> Counter[str]:
        """Return the requests and bytes by kind since the last call."""
        return Counter(self._ask("/_counts", {}))

    def _ask(self, path: str, told: dict[str, float]) -> dict[str, int]:
        request = urllib.request.Request(self.address + path, json.dumps(told).encode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            found: dict[str, int] = json.loads(answer.read())
        return found


@contextlib.contextmanager
def remote() -> Iterator[Remote]:
    """Run a server in a process of its own."""
    command = [sys.executable, "-m", "bench.costs.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Remote(process.stdout.readline().strip())
        finally:
            process.kill()


async def main() -> None:
    server = await asyncio.start_server(_Server().serve, "127.0.0.1", 0, limit=2**20)
    print("http://{}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
