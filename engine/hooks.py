"""Hooks: two that the tools add to every run, and what a config may ask for."""

from __future__ import annotations

from mmengine.dist import all_reduce_dict, is_distributed
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..errors import UserError
from ..registry import HOOKS


@HOOKS.register_module()
class CheckInstancesHook(Hook):
    """Stops a detector's training before it starts when no annotation reaches the model.

    A pipeline can drop every instance without a word, and the training then runs at loss 0:
    ``LoadAnnotations(poly2mask=False)`` does that to RLE masks.

    Args:
        max_images: How many annotated images are tried before giving up.
    """

    def __init__(self, max_images: int = 64) -> None:
        self.max_images = max_images

    def before_train(self, runner: Runner) -> None:
        """Raise :class:`UserError` when none of the images tried keeps an instance."""
        dataset = runner.train_dataloader.dataset
        if not hasattr(dataset, 'get_data_info'):
            return
        tried = 0
        for i in range(len(dataset)):
            instances = dataset.get_data_info(i).get('instances')
            if instances is None:
                return  # not a detection data set
            if all(instance.get('ignore_flag') for instance in instances):
                continue
            sample = dataset[i]['data_samples']
            if len(sample.gt_instances):
                return
            tried += 1
            if tried == self.max_images:
                break
        if not tried:
            raise UserError(
                f'none of the {len(dataset)} training images has an annotation: check ann_file and '
                "the class names in the data set's metainfo"
            )
        raise UserError(
            f'the training pipeline drops every instance: none was left in the {tried} annotated '
            'images tried. LoadAnnotations(poly2mask=False) drops RLE masks; min sizes and crops '
            'drop small ones'
        )


@HOOKS.register_module()
class MeanLossHook(Hook):
    """Logs the mean loss of all processes; mmengine logs what the first one saw of its own share.

    Runs before every other hook, so that each of them sees the mean.
    """

    priority = 'HIGHEST'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Replace the scalars of ``outputs`` by their mean over the processes."""
        if outputs and is_distributed():
            all_reduce_dict(outputs, 'mean')


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compiles the backbone, where a model spends most of its time.

    mmengine's own ``compile=True`` compiles the whole training step, whose data structures
    torch.compile cannot follow.

    Args:
        options: Of ``torch.compile``, e.g. ``dict(mode='max-autotune')``.
    """

    def __init__(self, **options: object) -> None:
        self.options = options

    def before_run(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.backbone.compile(**self.options)
