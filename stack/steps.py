"""Runs the steps between servers and processes: functions of other rooms, named in the process table."""

import importlib

from fanline.settings import Settings
from stack.table import Step


def run_step(step: Step, settings: Settings) -> None:
    """Call the step's function, imported now, with the settings; its errors come through."""
    module, _, attribute = step.target.partition(":")
    getattr(importlib.import_module(module), attribute)(settings)
