"""What a process runs first to be as if torch and its company were not installed."""

__all__ = ["NO_TORCH"]

NO_TORCH = """
import sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "datasets", "accelerate", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
"""
