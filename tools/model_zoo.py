"""Write the model zoo's pages from the metafiles, and the study's from its results.

python tools/model_zoo.py             # the pages and model-index.yml from the metafiles
python tools/model_zoo.py --measure   # first count every config's model anew into the metafiles
python tools/model_zoo.py --check     # only say whether a page is stale
"""

from __future__ import annotations

import argparse

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)
from mmdense.engine import launch
from mmdense.errors import UserError
from mmdense.inference.model_zoo import ROOT, measure_family, metafiles, pages
from mmdense.reporting.study import draw_costs, write_page
from mmdense.study.results import RESULTS, read_records
from mmdense.study.runs import FOLDER, read_tables


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write the model zoo's pages from the metafiles")
    parser.add_argument('--measure', action='store_true', help='count all models anew first')
    parser.add_argument('--check', action='store_true', help='write nothing, fail when stale')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not (ROOT / 'configs').is_dir():
        raise UserError('the pages are written in a checkout, and this is an installed package')
    if args.measure:
        for path in metafiles():
            measure_family(path)
    tables, records = read_tables(), read_records(ROOT / FOLDER / RESULTS)
    study = ROOT / 'docs' / 'study.md'
    written = [*pages(), (study, write_page(tables, records))]
    stale = [(p, text) for p, text in written if not p.is_file() or p.read_text() != text]
    if args.check and stale:
        names = ', '.join(str(path.relative_to(ROOT)) for path, _ in stale)
        raise UserError(f'stale: {names}; run `make zoo`')
    for path, text in stale:
        path.write_text(text)
        print(f'wrote {path.relative_to(ROOT)}')
        if path == study:
            plotted = [table for table in tables if table.plotted]
            draw_costs(plotted, records).savefig(ROOT / 'docs' / 'images' / 'study.png')


if __name__ == '__main__':
    launch.run(main)
