"""Prepares the import of what needs torchvision, where it is installed beside a torch for CPUs."""

import importlib.util

if importlib.util.find_spec("torchvision") is not None:
    from tests.integrations.peers.environment import prepare

    prepare()
