"""`exmem train` as a user runs it: killed and interrupted at random moments, it ends with the same numbers."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from exmem import ExemplarMemory
from tests.tiny import SIDE, write_imagefolder, write_models

OPTIONS = "--first-classes 2 --increments 1 --max-bytes 40kB --tuned-blocks 1 --epochs 2 --batch 8 --lora-rank 2"
OPTIONS += f" --replay-batch 8 --max-text 8 --image-size {SIDE} --augmentations text_exchange"
OPTIONS += " --recipe masked --quality 75 --text-rule lost_patches"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    data = write_imagefolder(tmp_path_factory.mktemp("data") / "own")
    vision, text = write_models(tmp_path_factory.mktemp("models"))
    environment = os.environ | {"EXMEM_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "200"}
    main = [sys.executable, "-c", "from exmem.cli.main import main; main()", "train"]
    models = ["--vision", str(vision), "--text", str(text)]

    def start(out, *more, folder=data):
        return subprocess.Popen(
            [*main, str(folder), "--out", str(out), *OPTIONS.split(), *models, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )

    return start


def numbers(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_run_killed_and_interrupted_at_random_moments_ends_with_the_same_numbers(tmp_path, command, request):
    whole = command(tmp_path / "whole")
    wait_for(tmp_path / "whole" / "config.json", whole)
    began = time.monotonic()
    told, errors = whole.communicate()
    lasted = time.monotonic() - began
    assert whole.returncode == 0, errors
    assert "phase 3 of 3" in told
    for name in ("metrics.jsonl", "accuracy.png", "exemplars.png", "exemplars.html"):
        assert str(tmp_path / "whole" / name) in told
    out, rng = tmp_path / "cut", random.Random(0)
    kills = max(2, int(request.config.getoption("--kills")) // 60)
    codes = []
    for kill in range(kills):
        process = command(out)
        wait_for(out / "config.json", process)
        time.sleep(rng.uniform(0, lasted / 2))
        process.send_signal(signal.SIGINT if kill == 0 else signal.SIGKILL)
        _, errors = process.communicate()
        codes.append(process.returncode)
        if process.returncode == -signal.SIGINT:  # the interpreter was already on its way out
            assert len(numbers(out)) == 3, errors
        if process.returncode == 130:
            assert "run the same command again to continue" in errors
            assert "Traceback" not in errors
    assert set(codes) <= {130, -signal.SIGKILL, -signal.SIGINT, 0}
    assert -signal.SIGKILL in codes
    last = command(out)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert numbers(out) == numbers(tmp_path / "whole")
    one, two = (ExemplarMemory.open(folder / "memory") for folder in (tmp_path / "whole", out))
    np.testing.assert_array_equal(one.slots, two.slots)
    stored = [memory.read(memory.slots).tokens["image"].values for memory in (one, two)]
    np.testing.assert_array_equal(*stored)


def test_wrong_input_is_one_line(tmp_path, command):
    for process, message in (
        (command(tmp_path / "out", folder=tmp_path / "nothing"), "expected a metadata.jsonl"),
        (command(tmp_path / "out", "--vision", str(tmp_path / "no-model")), "no-model"),
        (command(tmp_path / "out", "--scorer", "cls"), "choose one of"),
    ):
        told, errors = process.communicate()
        assert process.returncode in {1, 2}, told
        assert message in errors
        assert "Traceback" not in errors
        assert not (tmp_path / "out" / "metrics.jsonl").exists()
