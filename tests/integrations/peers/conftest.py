"""Prepares the import of what needs torchvision, where it is installed beside a torch for CPUs."""

import importlib.util

if importlib.util.find_spec("torchvision") is not None:
    from tests.integrations.peers.environment import prepare

    prepare()

# What runs in processes of other libraries' tests; pytest looks for doctests in all modules, and would import these.
collect_ignore = [
    "avalanche_tests.py",
    "mammoth_checkpoint.py",
    "mammoth_peer.py",
    "pilot_peer.py",
    "torchrl_extension.py",
    "torchrl_substitute.py",
]
