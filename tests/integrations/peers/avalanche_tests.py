"""Runs tests of Avalanche with our storage policies in the place of its own: `avalanche_tests.py NAME...`, JSON lines.

In a process of its own, for Avalanche's tests are a package that is called as ours, and import its newest source.
"""

import json
import os
import sys
import unittest
import warnings
from pathlib import Path
from typing import Any

sys.path[0] = os.environ["EXMEM_PEER"]  # before this folder, and before ours
sys.path.append(str(Path(__file__).parents[3]))
made: list[str] = []


def replace_buffers() -> None:
    """Let each module of Avalanche that has loaded make our buffers where it names its own."""
    from avalanche.training import storage_policy
    from avalanche.training.supervised import der

    from exmem.integrations.avalanche import MemoryBuffer

    def reservoir(max_size: int) -> Any:
        made.append("reservoir")
        return MemoryBuffer(max_size, groupby=None, recipe=None)

    def by_experience(max_size: int, adaptive_size: bool = True, num_experiences: int | None = None) -> Any:
        made.append("experience")
        return MemoryBuffer(max_size, groupby="experience", recipe=None, total_num_groups=num_experiences)

    def by_class(max_size: int, adaptive_size: bool = True, total_num_classes: int | None = None) -> Any:
        made.append("class")
        return MemoryBuffer(max_size, groupby="class", recipe=None, total_num_groups=total_num_classes)

    def with_logits(max_size: int, adaptive_size: bool = True, total_num_classes: int | None = None) -> Any:
        made.append("logits")
        return MemoryBuffer(max_size, recipe=None, logits=True, total_num_groups=total_num_classes)

    def parametric(max_size: int, groupby: Any = None, selection_strategy: Any = None) -> Any:
        made.append("parametric")
        selection = selection_strategy or storage_policy.RandomExemplarsSelectionStrategy()
        return MemoryBuffer(max_size, groupby=groupby, selection_strategy=selection, recipe=None)

    replacing = {
        storage_policy.ReservoirSamplingBuffer: reservoir,
        storage_policy.ExperienceBalancedBuffer: by_experience,
        storage_policy.ClassBalancedBuffer: by_class,
        storage_policy.ParametricBuffer: parametric,
        der.ClassBalancedBufferWithLogits: with_logits,
    }
    for name, module in list(sys.modules.items()):
        if name.startswith(("avalanche.", "tests.")):
            for attribute, value in list(vars(module).items()):
                if isinstance(value, type) and value in replacing:
                    setattr(module, attribute, replacing[value])


def main(names: list[str]) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("environment", Path(__file__).with_name("environment.py"))
    environment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(environment)
    environment.prepare()
    warnings.simplefilter("ignore")
    loaded = unittest.defaultTestLoader.loadTestsFromNames(names)
    replace_buffers()
    for test in flat(loaded):
        made.clear()
        result = unittest.TestResult()
        test.run(result)
        told = "".join(trace for _, trace in [*result.errors, *result.failures])
        row = {"test": test.id(), "passed": not told, "made": sorted(set(made)), "told": told}
        sys.__stdout__.write(json.dumps(row) + "\n")


def flat(suite: Any) -> list[Any]:
    return [test for part in suite for test in flat(part)] if isinstance(suite, unittest.TestSuite) else [suite]


if __name__ == "__main__":
    main(sys.argv[1:])
