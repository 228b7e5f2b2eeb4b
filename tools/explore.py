"""A page on this machine to look into models: click a point of a picture, see what counts for it.

python tools/explore.py CONFIG CHECKPOINT
python tools/explore.py CONFIG CHECKPOINT CONFIG CHECKPOINT --port 7861

Several models see the same picture side by side. Needs the extra ``mmdense[explore]``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.logging import MMLogger

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.building import load_model, pick_device
from mmdense.engine.config import add_cfg_options, read_config
from mmdense.engine.toolboxes import check_model_config
from mmdense.errors import UserError
from mmdense.inference.drawing import add_score_thr
from mmdense.inference.explore import Explored, list_pictures

HOST = '127.0.0.1'
MAX_SIZE = '20mb'  # of a picture that is dropped on the page


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='A page to look into models')
    parser.add_argument(
        'models',
        nargs='+',
        metavar='CONFIG CHECKPOINT',
        help='one model or several: config and checkpoint of each',
    )
    parser.add_argument('--port', type=int, default=7860, help='of the page (default: 7860)')
    add_score_thr(parser)
    launch.add_device(parser)
    add_cfg_options(parser)
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    if len(args.models) % 2:
        parser.error('name a checkpoint after each config')
    if not 1 <= args.port <= 65535:
        parser.error('--port is between 1 and 65535')
    return args


def load_models(args: argparse.Namespace) -> dict[str, Explored]:
    """The models by what the page calls them."""
    device = pick_device(args.device)
    found = {}
    for config, checkpoint in zip(args.models[::2], args.models[1::2]):
        cfg = read_config(config, args.cfg_options)
        check_model_config(cfg)
        model = Explored(cfg, load_model(cfg, checkpoint, device), args.score_thr)
        name = f'{Path(config).stem}, {Path(checkpoint).name}'
        found[name if name not in found else f'{config}, {checkpoint}'] = model
    return found


def serve(models: dict[str, Explored], port: int) -> None:
    """Show the page until it is interrupted.

    Raises:
        UserError: When Gradio is not there, or the port is taken.
    """
    try:
        import gradio

        from mmdense.inference.explore_page import make_page
    except ImportError as error:
        raise UserError(f"{error}: pip install 'mmdense[explore]'") from error
    theme = gradio.themes.Default(font=['sans-serif'], font_mono=['monospace'])  # of no server
    page = make_page(models, list_pictures(next(iter(models.values())).cfg))
    try:
        page.queue(default_concurrency_limit=1).launch(
            server_name=HOST,
            server_port=port,
            share=False,
            max_file_size=MAX_SIZE,
            theme=theme,
            footer_links=[],
        )
    except OSError as error:
        raise UserError(f'--port {port} is taken: choose another') from error


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    models = load_models(args)
    with TemporaryDirectory(prefix='mmdense-explore-') as folder:  # for pictures that are dropped
        # Gradio reads these when it is imported.
        os.environ.update(
            GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED='False', HF_HUB_OFFLINE='1'
        )
        serve(models, args.port)


if __name__ == '__main__':
    launch.run(main)
