"""Runs the steps between servers and processes: functions of other rooms, named in the process table."""

import importlib
import importlib.util

from fanline.settings import Settings
from stack.table import Step


def run_step(step: Step, settings: Settings) -> bool:
    """Call the step's function with the settings; False when its module is not there yet."""
    module, _, attribute = step.target.partition(":")
    if not is_there(module):
        return False
    getattr(importlib.import_module(module), attribute)(settings)
    return True


def is_there(module: str) -> bool:
    """Whether `module` can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
