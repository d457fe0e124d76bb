"""Sound as a third modality beside image and text: spectrogram frames, kept by energy, and replayed with the others."""

import tempfile
from pathlib import Path

import numpy as np

from exmem import ExemplarMemory, Schema, TokenSpec
from exmem.masking import mean_threshold
from exmem.replay import replay_loader
from exmem.tokens import cut_patches

RATE, WINDOW, FRAMES, BINS = 8_000, 256, 64, 64
SCHEMA = Schema(
    {
        "image": TokenSpec(grid=(4, 4), shape=(16, 16, 3), codec="patch_jpeg"),
        "text": TokenSpec(positions=12, dtype="int32"),
        "audio": TokenSpec(positions=FRAMES, shape=(BINS,), dtype="float32", codec="int8"),
    }
)


def sounds(label, count, rng):
    """Stand-ins for recordings of a class, (count, samples): its note, struck at some time, and silence around it."""
    time = np.arange(FRAMES * WINDOW) / RATE - rng.uniform(0.2, 1.2, (count, 1))  # since it was struck
    note = np.sin(2 * np.pi * 220 * 2 ** (label / 3) * time) * np.exp(-8 * np.abs(time)) * (time > 0)
    return note + rng.normal(0, 1e-3, note.shape)


def log_spectrogram(waves):
    """One frame for each window of samples, (count, FRAMES, BINS)."""
    windows = waves.reshape(len(waves), FRAMES, WINDOW) * np.hanning(WINDOW)
    return np.log1p(np.abs(np.fft.rfft(windows))[..., :BINS]).astype(np.float32)


def main():
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with ExemplarMemory.create(Path(folder) / "memory", schema=SCHEMA, max_bytes="200kB") as memory:
            for label in range(5):
                frames = log_spectrogram(sounds(label, 60, rng))
                audible = mean_threshold((frames**2).mean(2))  # the rule for image patches, on the energy of frames
                patches = cut_patches(np.full((60, 64, 64, 3), 40 * label, np.uint8), 16)
                words = np.full((60, 12), 1000 + label, np.int32)
                told = np.arange(12) < rng.integers(3, 12, (60, 1))  # captions of 3 to 11 words
                tokens = {"image": patches, "text": words, "audio": frames}
                report = memory.add_batch(tokens, np.full(60, label), keep={"audio": audible, "text": told})
                print(f"class {label}: {audible.mean():.0%} of the frames kept, {len(report.evicted)} evicted")
        print(f"{len(memory)} exemplars, {memory.used_bytes:,} of {memory.max_bytes:,} bytes:", memory.bytes_by_part())

        for batch in replay_loader(Path(folder) / "memory", batch=32, sampler="balanced", seed=0, length=32):
            for name, tokens in batch.tokens.items():
                counts = tokens.valid.sum(1)
                print(f"{name}: values {tuple(tokens.values.shape)}, {counts.min()} to {counts.max()} tokens each")
            # Padding is told by `valid`; the loudest bin of the kept frames still tells the class.
            audio = batch.tokens["audio"]
            spectrum = (audio.values * audio.valid[..., None]).sum(1)
            for label in batch.labels.unique():
                hertz = spectrum[batch.labels == label].mean(0).argmax() * RATE / WINDOW
                print(f"class {label}: loudest near {hertz:.0f} Hz")


if __name__ == "__main__":
    main()
