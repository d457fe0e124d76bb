"""Streams of the frozen part of a backbone: computed once and kept, or computed whenever they are asked for."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from exmem.backbones import Backbone, Stream
from exmem.data import ImageText
from exmem.tensors import TensorBatch

__all__ = [
    "CachedStreams",
    "LiveStreams",
    "Streams",
    "data_batch",
    "data_key",
    "embed_rows",
    "load_or_embed",
    "load_stream",
]

_ROWS = 64

Advance = Callable[[int], None]


class Streams(Protocol):
    """Streams by row number."""

    def __call__(self, rows: NDArray[np.int64], /) -> Stream:
        """Return the streams of some rows, float32, on the backbone's device."""


class CachedStreams:
    """Streams that were computed before.

    Parameters
    ----------
    stream : Stream
        All rows, float16 in RAM.
    device : torch.device
        Where rows go when they are asked for.
    rows : ndarray, shape (N,), int64, optional
        Their row numbers, increasing; 0..N-1 when left out.
    """

    def __init__(self, stream: Stream, device: torch.device, rows: NDArray[np.int64] | None = None) -> None:
        self._stream, self._device, self._rows = stream, device, rows

    def __call__(self, rows: NDArray[np.int64]) -> Stream:
        """Return some rows.

        Parameters
        ----------
        rows : ndarray, shape (B,), int64
            Row numbers.

        Returns
        -------
        Stream
            Those rows, float32.
        """
        places = rows if self._rows is None else np.searchsorted(self._rows, rows)
        return self._stream.select(torch.from_numpy(places)).to(self._device).to(torch.float32)


class LiveStreams:
    """Streams that are computed when they are asked for.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    tokens : callable
        Row numbers -> TensorBatch.
    """

    def __init__(self, backbone: Backbone, tokens: Callable[[NDArray[np.int64]], TensorBatch]) -> None:
        self._backbone, self._tokens = backbone, tokens

    def __call__(self, rows: NDArray[np.int64]) -> Stream:
        """Embed some rows.

        Parameters
        ----------
        rows : ndarray, shape (B,), int64
            Row numbers.

        Returns
        -------
        Stream
            Their streams.
        """
        return self._backbone.embed(self._tokens(rows))


def data_batch(backbone: Backbone, data: ImageText) -> Callable[[NDArray[np.int64]], TensorBatch]:
    """Return what reads examples of a data set as tokens of a backbone.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    data : ImageText
        The data.

    Returns
    -------
    callable
        Row numbers -> TensorBatch.
    """

    def read(rows: NDArray[np.int64]) -> TensorBatch:
        texts = [data.texts[row] for row in rows.tolist()]
        return TensorBatch.from_numpy(backbone.tokens(data.images(rows, backbone.picture_size), texts))

    return read


def embed_rows(
    backbone: Backbone,
    tokens: Callable[[NDArray[np.int64]], TensorBatch],
    rows: NDArray[np.int64],
    advance: Advance | None = None,
) -> Stream:
    """Embed rows in batches.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    tokens : callable
        Row numbers -> TensorBatch.
    rows : ndarray, shape (N,), int64
        One row or more; the same rows give the same numbers.
    advance : callable, optional
        Told how many rows were done.

    Returns
    -------
    Stream
        All rows in RAM, float16.
    """
    parts = []
    for start in range(0, len(rows), _ROWS):
        chosen = rows[start : start + _ROWS]
        parts.append(backbone.embed(tokens(chosen)).to("cpu").to(torch.float16))
        if advance is not None:
            advance(len(chosen))
    return Stream.cat(parts)


def data_key(backbone: Backbone, data: ImageText) -> str:
    """Name what decides the streams of a data set: frozen weights, sizes, files and texts.

    Parameters
    ----------
    backbone : Backbone
        The backbone, before it is tuned.
    data : ImageText
        The data; a file counts as changed when its size or time of change is another.

    Returns
    -------
    str
        A hash.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    digest.update(
        json.dumps(
            [backbone.picture_size, backbone.max_text, backbone.num_frozen_blocks, *backbone.token_specs()]
        ).encode()
    )
    for path, text in zip(data.paths, data.texts, strict=True):
        found = path.stat()
        digest.update(json.dumps([str(path), found.st_size, found.st_mtime_ns, text]).encode())
    return digest.hexdigest()


def load_or_embed(path: Path, compute: Callable[[], Stream]) -> Stream:
    """Load streams from a file, or compute and save them.

    Parameters
    ----------
    path : Path
        The file; written whole or not at all.
    compute : callable
        Computes the streams when there is no file.

    Returns
    -------
    Stream
        The streams.
    """
    if not path.exists():
        stream = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file({field.name: _plain(getattr(stream, field.name)) for field in dataclasses.fields(stream)}, temporary)
        Path(temporary).replace(path)
    return load_stream(path)


def load_stream(path: Path) -> Stream:
    """Load streams from a file.

    Parameters
    ----------
    path : Path
        What `load_or_embed` wrote.

    Returns
    -------
    Stream
        The streams.
    """
    return Stream(**load_file(path))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()
