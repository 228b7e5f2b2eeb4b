"""A bar with the time that is left, on a terminal; log files and pipes have the logger's lines."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..registry import HOOKS

# What is drawn now. Leaving it ends the line of the bars: an error that follows has its own.
bars = ExitStack()


@HOOKS.register_module()
class ProgressHook(Hook):
    """Draws a bar over the iterations of a training, and one over each evaluation within it.

    Only where stderr is a terminal. The logger's lines appear above the bar.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        self.is_shown = sys.stderr.isatty() and is_main_process()
        if self.is_shown:
            bars.enter_context(logging_redirect_tqdm([runner.logger]))
            self.bar = tqdm(total=runner.max_iters, initial=runner.iter, dynamic_ncols=True)
            bars.enter_context(self.bar)

    def before_train_epoch(self, runner: Runner) -> None:
        if self.is_shown and runner.max_epochs > 1:  # 1 is that of trainings in iterations
            self.bar.set_description(f'epoch {runner.epoch + 1}/{runner.max_epochs}')

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if self.is_shown:
            self.bar.update()

    def before_val(self, runner: Runner) -> None:
        if self.is_shown:
            number = len(runner.val_dataloader)
            self.val_bar = tqdm(total=number, desc='evaluation', leave=False, dynamic_ncols=True)
            bars.enter_context(self.val_bar)

    def after_val_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if self.is_shown:
            self.val_bar.update()

    def after_val(self, runner: Runner) -> None:
        if self.is_shown:
            self.val_bar.close()
