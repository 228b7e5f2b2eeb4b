"""Look into a folder of pictures and annotations: what it holds, and what is wrong with it.

python tools/data.py FOLDER
python tools/data.py FOLDER --report page.html --fix FOLDER-mended

COCO json, YOLO texts, Pascal VOC xml, masks and class folders are known by what lies there. The
exit code is 1 when there are faults, and 0 when there are none but warnings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.engine.config import read_config
from mmdense.engine.toolboxes import check_model_config
from mmdense.intake.copying import check_target, write_copy
from mmdense.intake.examining import Examination, examine
from mmdense.intake.faults import stops
from mmdense.intake.mending import mend
from mmdense.intake.models import Input, find_input, find_model
from mmdense.intake.terminal import show
from mmdense.reporting.data import write_report


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Look into a folder of pictures and annotations')
    parser.add_argument('folder', help='where pictures and annotations are')
    parser.add_argument(
        '--report', help='the page to write (default: work_dirs/<folder>/data.html)'
    )
    parser.add_argument('--fix', metavar='OUT', help='write a mended copy to this new folder')
    parser.add_argument(
        '--model', metavar='CONFIG', help='compare objects with what this model sees'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='draws a validation split where there is none'
    )
    return parser


def read_input(args: argparse.Namespace, task: str) -> Input:
    """What the model of ``--model`` sees, or the one that would train on such data."""
    cfg = read_config(args.model or str(find_model(None, task)))
    check_model_config(cfg)
    return find_input(cfg)


def fix(examination: Examination, out: Path) -> None:
    """Write the mended copy, and say what was done."""
    folder, said = mend(examination, in_place=False)
    write_copy(folder, examination.pictures, out)
    print(*said, f"mended copy: '{out}'", sep='\n')


def main() -> None:
    args = make_parser().parse_args()
    examination = examine(args.folder, args.seed)
    if args.fix:
        check_target(Path(args.fix), examination.folder)
    seen = read_input(args, examination.folder.task)
    show(examination, seen)
    page = Path(args.report or Path('work_dirs', Path(args.folder).resolve().name, 'data.html'))
    write_report(examination, seen, page)
    print(f"report: '{page}'")
    if args.fix:
        fix(examination, Path(args.fix))
    sys.exit(int(stops(examination.faults)))


if __name__ == '__main__':
    launch.run(main)
