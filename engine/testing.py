"""What testing can be asked for on the command line: augmentation, pictures, predictions."""

from __future__ import annotations

import os
from copy import deepcopy

from mmdet.models.test_time_augs import DetTTAModel
from mmengine.config import Config, ConfigDict

from ..errors import UserError
from ..registry import MODELS
from .toolboxes import CLASSIFIER, find_toolbox


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """MMDetection's TTA for detectors with masks: it merges boxes, and refuses to see masks."""

    def merge_preds(self, data_samples_list: list) -> list:
        for data_samples in data_samples_list:
            for data_sample in data_samples:
                data_sample.pred_instances.pop('masks', None)
        return super().merge_preds(data_samples_list)


def enable_tta(cfg: Config) -> None:
    """Wrap model and test pipeline: the config's own TTA, or else the image and its mirror image.

    MMDetection merges boxes only, so a detector is then evaluated on boxes alone.

    Raises:
        UserError: When the config belongs to none of the three toolboxes.
    """
    toolbox = find_toolbox(cfg)
    cfg.setdefault('tta_model', ConfigDict(deepcopy(toolbox.tta_model)))
    if 'tta_pipeline' not in cfg:
        *load, pack = deepcopy(cfg.test_dataloader.dataset.pipeline)
        if toolbox.tta_meta_keys:
            keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
            pack['meta_keys'] = (*pack.get('meta_keys', keys), *toolbox.tta_meta_keys)
        flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
        cfg.tta_pipeline = [*load, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    if toolbox.tta_metric:
        cfg.test_evaluator.metric = toolbox.tta_metric


def enable_visualization(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Turn on the toolbox's visualization hook for every picture.

    Args:
        cfg: The config.
        show: In a window.
        show_dir: To this folder.
        wait_time: Seconds between windows.

    Raises:
        UserError: When the config has no such hook, or for a classifier in :func:`enable_tta`.
    """
    toolbox = find_toolbox(cfg)
    if toolbox.task == CLASSIFIER and 'module' in cfg.model:
        raise UserError(
            '--show and --show-dir draw what a classifier sees, and --tta shows it every picture '
            'twice: leave one of them out'
        )
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization in the config')
    hook.update({toolbox.show_flag: True}, show=show, wait_time=wait_time, interval=1)
    if show_dir:
        show_dir = os.path.abspath(show_dir)  # the hooks would put it below the work dir
        if toolbox.show_folder is None:
            cfg.visualizer.save_dir = show_dir
        else:
            hook[toolbox.show_folder] = show_dir


def enable_dump(cfg: Config, out: str) -> None:
    """Write the predictions beside the metrics: a .pkl file, or a segmentor's folder of PNGs.

    Raises:
        UserError: When the file has another suffix.
    """
    toolbox = find_toolbox(cfg)
    if toolbox.dump is None:
        cfg.test_evaluator.update(output_dir=out, keep_results=True)
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise UserError(f"--out '{out}': predictions are written to a .pkl file")
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [*metrics, dict(type=toolbox.dump, out_file_path=out)]
