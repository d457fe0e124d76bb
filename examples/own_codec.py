"""A payload codec of one's own, mu-law for sound: registered, used in a memory, and found again by other processes."""

import tempfile
from pathlib import Path

import numpy as np

from exmem import ExemplarMemory, Schema, TokenSpec
from exmem.codecs import CODECS, PayloadCodec
from exmem.errors import CodecError

# A memory records the name and the options of its codec, and no code. So every process that opens it has to know the
# codec: by `CODECS.add` in a script, or without that by an entry point of the package that has it, in pyproject.toml:
#
#     [project.entry-points."exmem.codec"]
#     mu_law = "own_codec:MuLaw"


class MuLaw(PayloadCodec):
    """Samples of -1..1 in one byte each, finer near 0, as telephones do (ITU-T G.711)."""

    codec_id = "mu_law"  # the name that it is registered by

    def __init__(self, *, shape=(), dtype="float32", mu=255):
        super().__init__(shape=shape, dtype=dtype)
        if self.dtype != "float32" or not self.shape:
            raise CodecError(f"{self.codec_id} takes windows of float32 samples, got {self.dtype} of shape {shape}")
        self.mu = mu
        self.window = int(np.prod(self.shape))

    def get_config(self):
        return super().get_config() | {"mu": self.mu}  # JSON; the codec is made again from it

    def encode(self, buf):
        samples = np.clip(self.check_values(buf), -1, 1)
        companded = np.sign(samples) * np.log1p(self.mu * np.abs(samples)) / np.log1p(self.mu)
        return np.round(companded * 127).astype(np.int8).tobytes()

    def token_count(self, payload):
        return len(payload) // self.window  # asked before anything is allocated

    def decode_into(self, payload, out):
        if len(payload) != len(out) * self.window:  # damage is an error, never other values
            raise CodecError(f"{self.codec_id}: expected {len(out) * self.window} bytes, got {len(payload)}")
        companded = np.frombuffer(payload, np.int8).reshape(out.shape).astype(np.float32) / 127
        out[...] = np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(self.mu)) / self.mu


def sounds(count):
    """Notes that fade, (count, 16 windows, 256 samples)."""
    rng, time = np.random.default_rng(0), np.arange(16 * 256) / 8000
    notes = np.sin(2 * np.pi * rng.uniform(200, 800, (count, 1)) * time) * np.exp(-4 * time)
    return (0.8 * notes + rng.normal(0, 0.01, notes.shape)).astype(np.float32).reshape(count, 16, 256)


if __name__ == "__main__":
    CODECS.add("mu_law", MuLaw)
    waves = sounds(20)
    for codec in ("lossless", "float16", {"id": "mu_law", "mu": 255}):
        spec = TokenSpec(positions=16, shape=(256,), dtype="float32", codec=codec)
        with tempfile.TemporaryDirectory() as folder:
            with ExemplarMemory.create(Path(folder) / "m", schema=Schema({"sound": spec}), max_bytes="1MB") as memory:
                memory.add_batch({"sound": waves}, labels=np.zeros(20, int))
            memory = ExemplarMemory.open(Path(folder) / "m")
            restored = memory.read(memory.slots).tokens["sound"].values
            recorded = dict(memory.schema.modalities["sound"].codec)
        error = np.sqrt(np.mean((restored - waves) ** 2) / np.mean(waves**2))
        print(f"{recorded}: {memory.sizes.mean():,.0f} bytes an exemplar, error {error:.2%} of the signal")
