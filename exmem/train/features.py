"""Streams of the frozen part of a backbone: computed once and kept, or computed whenever they are asked for."""

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

from exmem.backbones import Backbone, Hidden
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText

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

    def __call__(self, rows: NDArray[np.int64], /) -> Hidden:
        """Return the streams of some rows, float32, on the backbone's device."""


class CachedStreams:
    """Streams that were computed before.

    Parameters
    ----------
    stream : Hidden
        All rows, float16 in RAM.
    device : torch.device
        Where rows go when they are asked for.
    rows : ndarray, shape (N,), int64, optional
        Their row numbers, increasing; 0..N-1 when left out.
    """

    def __init__(self, stream: Hidden, device: torch.device, rows: NDArray[np.int64] | None = None) -> None:
        self._stream, self._device, self._rows = stream, device, rows

    def __call__(self, rows: NDArray[np.int64]) -> Hidden:
        """Return some rows.

        Parameters
        ----------
        rows : ndarray, shape (B,), int64
            Row numbers.

        Returns
        -------
        Hidden
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

    def __call__(self, rows: NDArray[np.int64]) -> Hidden:
        """Embed some rows.

        Parameters
        ----------
        rows : ndarray, shape (B,), int64
            Row numbers.

        Returns
        -------
        Hidden
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
) -> Hidden:
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
    Hidden
        All rows in RAM, float16.
    """
    parts = []
    for start in range(0, len(rows), _ROWS):
        chosen = rows[start : start + _ROWS]
        parts.append(backbone.embed(tokens(chosen)).to("cpu").to(torch.float16))
        if advance is not None:
            advance(len(chosen))
    return Hidden.cat(parts)


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


def load_or_embed(path: Path, compute: Callable[[], Hidden]) -> Hidden:
    """Load streams from a file, or compute and save them.

    Parameters
    ----------
    path : Path
        The file; written whole or not at all.
    compute : callable
        Computes the streams when there is no file.

    Returns
    -------
    Hidden
        The streams.
    """
    if not path.exists():
        stream = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file({name: _plain(tensor) for name, tensor in stream.tensors().items()}, temporary)
        Path(temporary).replace(path)
    return load_stream(path)


def load_stream(path: Path) -> Hidden:
    """Load streams from a file.

    Parameters
    ----------
    path : Path
        What `load_or_embed` wrote.

    Returns
    -------
    Hidden
        The streams.
    """
    return Hidden.of(load_file(path))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()
