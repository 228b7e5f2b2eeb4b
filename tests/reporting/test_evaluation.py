"""The page about an evaluation: its figures are those of the tool, its pictures the data set's."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import DIGIT_CONFIGS, check_fails
from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS
from mmpretrain.evaluation import Accuracy
from pages import BROWSER, open_in_browser, read_page

from mmdense.engine.toolboxes import TOOLBOXES
from mmdense.errors import UserError
from mmdense.reporting.collector import Collector
from mmdense.reporting.evaluation import enable_report, find_report_path
from mmdense.reporting.page import show
from mmdense.reporting.segmentor import ReportedIoUMetric

SECTIONS = {
    'mmpretrain': ['Metrics', 'Classes', 'Mistakes', 'Calibration', 'Pictures', 'Training'],
    'mmdet': ['Metrics', 'Classes', 'Precision and recall', 'Mistakes', 'Calibration', 'Pictures'],
    'mmseg': ['Metrics', 'Classes', 'Mistakes', 'Calibration', 'Pictures'],
}
NUMBER = {'mmpretrain': 14, 'mmdet': 2, 'mmseg': 2}  # of pictures; twelve are shown at most
EVIL = ('<script>', '$^$')  # names of classes: a tag, and a formula that is none
LOG = '{"lr": 0.1, "loss": 2.5, "iter": 1, "step": 1}\n{"accuracy": 20.0, "step": 1}\n'


@pytest.fixture(scope='module')
def checkpoints(untrained, tmp_path_factory) -> dict[str, Path]:
    """By toolbox; the classifier's has a log beside it."""
    folder = tmp_path_factory.mktemp('trained')
    log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(LOG)
    with_log = folder / 'epoch_1.pth'
    shutil.copy2(untrained('mmpretrain'), with_log)
    return dict(mmpretrain=with_log, mmdet=untrained('mmdet'), mmseg=untrained('mmseg'))


@pytest.mark.parametrize(
    'scope, flags',
    [('mmpretrain', []), ('mmdet', []), ('mmseg', []), ('mmdet', ['--tta']), ('mmseg', ['--tta'])],
    ids=['mmpretrain', 'mmdet', 'mmseg', 'mmdet_tta', 'mmseg_tta'],
)
def test_page(scope, flags, place, run_tool, checkpoints):
    folder = place / 'data' / 'digit_scenes' / 'classification' / 'val'
    for old, new in zip('89', EVIL):
        (folder / old).rename(folder / new)
    options = ['--cfg-options', f'test_dataloader.dataset.indices={NUMBER[scope]}']
    command = [DIGIT_CONFIGS[scope], checkpoints[scope], '--work-dir', 'run', '--report', *flags]
    code, out, err = run_tool('test.py', *command, *options)
    assert code == 0, err[-3000:]
    path = Path('run', 'report.html')
    assert f"report: '{path}'" in out
    reader = read_page(path)
    metrics = json.loads(next(Path('run').glob('*/*.json')).read_text())
    for name in metrics.keys() - {'time', 'data_time'}:
        assert f'{name}{show(metrics[name])}' in reader.text  # a row of two cells
    assert reader.headings == SECTIONS[scope]
    jpegs = [address for address in reader.addresses if address.startswith('data:image/jpeg')]
    assert len(jpegs) == min(NUMBER[scope], 12)
    assert ('with test-time augmentation' in reader.text) == bool(flags)
    if scope == 'mmpretrain':
        assert all(name in reader.text for name in EVIL)
        if BROWSER:  # tests/reporting/test_page.py says where there is none
            assert open_in_browser(path.resolve(), place / 'phone.png', width=400).std() > 10
    if scope == 'mmseg':
        assert ('no scores of its classes' in reader.text) == bool(flags)


def test_bad_input_ends_before_the_run(place, run_tool, untrained):
    before = sorted(place.rglob('*'))
    command = [DIGIT_CONFIGS['mmpretrain'], untrained('mmpretrain'), '--report', 'page.pdf']
    check_fails(
        run_tool('test.py', *command), "--report 'page.pdf': name a file that ends in .html"
    )
    assert sorted(place.rglob('*')) == before


@pytest.mark.parametrize(
    'file, path', [('', 'runs/report.html'), ('a/b.html', 'a/b.html'), ('B.HTM', 'B.HTM')]
)
def test_where_the_page_goes(file, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_report_path(Config(dict(work_dir='runs')), file) == Path(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'file, message',
    [
        ('page', "--report 'page': name a file that ends in .html, .htm"),
        ('folder.html', "--report 'folder.html': name a file"),
        ('file/page.html', "--report 'file' is a file; choose another"),
        ('/proc/page.html', "--report '/proc' cannot be written"),
    ],
)
def test_where_no_page_can_be(file, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('folder.html').mkdir()
    Path('file').touch()
    with pytest.raises(UserError, match=message.replace('.', r'\.')):
        find_report_path(Config(dict(work_dir='runs')), file)


@pytest.mark.parametrize('scope', TOOLBOXES)
def test_every_toolbox_has_a_collector(scope):
    """A child of its own metric."""
    collector = METRICS.get(TOOLBOXES[scope].collector)
    with METRICS.switch_scope_and_registry(scope) as registry:
        assert issubclass(collector, Collector)
        assert issubclass(collector, registry.get(TOOLBOXES[scope].metric))


def make_config(scope: str, evaluator: object, head: str = 'FCNHead') -> Config:
    model = dict(decode_head=dict(type=head))
    return Config(dict(default_scope=scope, test_evaluator=evaluator, model=model))


@pytest.mark.parametrize('kind', ['Accuracy', 'mmpretrain.Accuracy', Accuracy])
@pytest.mark.parametrize('several', [False, True])
def test_the_metric_collects(kind, several):
    """The one that a page is made from, with its settings, wherever it stands; others stay."""
    metric = dict(type=kind, topk=(1, 3))
    cfg = make_config('mmpretrain', [dict(type='Other'), metric] if several else metric)
    enable_report(cfg)
    *others, found = cfg.test_evaluator if several else [cfg.test_evaluator]
    assert found == ConfigDict(type='mmdense.ReportedAccuracy', topk=(1, 3))
    assert others == ([dict(type='Other')] if several else [])


@pytest.mark.parametrize(
    'scope, evaluator, message',
    [
        ('mmpretrain', dict(type='MultiLabelMetric'), '--report needs Accuracy as test_evaluator'),
        ('mmdet', [dict(type='VOCMetric')], '--report needs CocoMetric as test_evaluator'),
        ('mmseg', dict(type='IoUMetric', format_only=True), '--report needs annotations'),
        ('mmpose', dict(type='PCK'), "default_scope 'mmpose' is none of"),
    ],
)
def test_what_no_page_is_made_from(scope, evaluator, message):
    with pytest.raises(UserError, match=message):
        enable_report(make_config(scope, evaluator))


@pytest.mark.parametrize(
    'head, answer',
    [('FCNHead', True), ('mmdense.PaCaSegHead', True), ('Mask2FormerHead', False)],
)
def test_which_segmentors_give_scores(head, answer):
    cfg = make_config('mmseg', dict(type='IoUMetric'), head)
    assert ReportedIoUMetric.read_settings(cfg) == dict(scores=answer)
    enable_report(cfg)
    assert cfg.test_evaluator == ConfigDict(type='mmdense.ReportedIoUMetric', scores=answer)
    cfg.model.decode_head = [dict(type='FCNHead'), dict(type=head)]  # a cascade's last decides
    assert ReportedIoUMetric.read_settings(cfg) == dict(scores=answer)
    cfg.model = ConfigDict(type='SegTTAModel', module=cfg.model)
    assert ReportedIoUMetric.read_settings(cfg) == dict(scores=False)
