"""What a byte buys: recipes, budgets, seeds, methods and data sets crossed, each cell an independent, resumable job."""

from exmem.report.machine import cores
from exmem.report.tradeoff.design import Design
from exmem.report.tradeoff.executors import Executor, Processes
from exmem.report.tradeoff.progress import ShownProgress
from exmem.report.tradeoff.run import Slice, Tradeoff, Watcher
from exmem.report.tradeoff.summary import summaries
from exmem.report.tradeoff.table import failures_of
from exmem.report.tradeoff.work import Setup

__all__ = [
    "Design",
    "Executor",
    "Processes",
    "Setup",
    "ShownProgress",
    "Slice",
    "Tradeoff",
    "Watcher",
    "cores",
    "failures_of",
    "summaries",
]
