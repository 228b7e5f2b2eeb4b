"""What the study trains, and what it says of results."""

import argparse
import math
from pathlib import Path

import pytest
from helpers import ROOT, load_config
from mmengine.registry import MODELS

from mmdense.engine import study
from mmdense.engine.config import add_cfg_options
from mmdense.engine.steps import Result, Step, environment
from mmdense.engine.study import Cost, Record, Run
from mmdense.errors import UserError

TABLES = study.read_tables()
pytestmark = pytest.mark.usefixtures('in_checkout')
RUNS = study.list_runs(TABLES)
PARSER = argparse.ArgumentParser()
add_cfg_options(PARSER)


@pytest.fixture
def in_checkout(monkeypatch):
    """Where the tool works."""
    monkeypatch.chdir(ROOT)


def make(run: Run, seed: int = 0) -> Step:
    return run.make_step(seed, Path('work'), follows_code=False)


def make_result(**metrics: float) -> Result:
    return Result('0' * 64, 1.5, 1.0, 100, None, metrics)


class TestTables:
    def test_families_and_peers_are_as_large(self):
        """Within 10 % of PaCa-ViT."""
        rows = [row for table in TABLES[:2] for row in table.rows.values()]
        assert len(rows) == 9
        params = {}
        for run, *_ in rows:
            with environment({'BACKBONE': run.backbone}):
                backbone = MODELS.build(make(run).read_config().model.backbone)
            params[run.backbone] = sum(p.numel() for p in backbone.parameters())
        for name, number in params.items():
            assert number == pytest.approx(params['paca'], rel=0.1), name

    def test_the_networks_of_the_demo(self):
        """In whose words the study's PaCa-ViT is stated again: bases may not share keys."""
        backbone = make(Run('classifier', 'paca')).read_config().model.backbone
        demo = load_config('digits/paca_digits').model.backbone
        assert backbone == demo

    def test_runs_of_several_tables_are_trained_once(self):
        names = [run.name for run in RUNS]
        assert len(names) == len(set(names))
        assert 'classifier/paca' in names and 'classifier/msf attention="orig" groups=2' in names

    def test_a_run_comes_after_its_classifier(self):
        for run in RUNS:
            if run.classifier:
                assert RUNS.index(run.classifier) < RUNS.index(run), run.name

    @pytest.mark.parametrize('run', RUNS, ids=lambda run: run.name)
    def test_options_are_the_networks(self, run):
        """As the tool writes them for ``--cfg-options``."""
        step = make(run)
        cfg = step.read_config()
        options = PARSER.parse_args(step.options).cfg_options
        cfg.merge_from_dict(options)
        backbone = cfg.model.backbone
        assert cfg.randomness.seed == 0
        assert (backbone.get('init_cfg') is not None) == run.pretrained
        MODELS.build(backbone)

    def test_seeds_and_options_have_work_dirs_of_their_own(self):
        folders = [make(run, seed).folder for run in RUNS for seed in study.SEEDS]
        assert len({str(folder).lower() for folder in folders}) == len(folders)
        assert not [f for f in folders if ' ' in str(f) or '"' in str(f)]

    def test_start_is_the_checkpoint_that_the_classifier_ends_with(self):
        step = make(Run('segmentor', 'fcvit', pretrained=True), 1)
        assert step.needs.folder == Path('work') / 'classifier' / 'fcvit' / 'seed_1'
        epochs = step.needs.read_config().train_cfg.max_epochs
        checkpoint = f'model.backbone.init_cfg.checkpoint={step.needs.folder}/epoch_{epochs}.pth'
        assert checkpoint in step.options


class TestRecords:
    @pytest.fixture
    def records(self):
        results = {seed: make_result(mIoU=0.5 + 0.1 * seed) for seed in study.SEEDS}
        return {'segmentor/paca': Record(Cost(10, 20), results)}

    def test_file(self, records, tmp_path):
        path = tmp_path / 'results.json'
        assert study.read_records(path) == {}
        study.write_records(path, records)
        assert study.read_records(path) == records

    @pytest.mark.parametrize('text', ['', '[]', '{"a": 1}', '{"a": {"params": 1}}', 'no json'])
    def test_another_file(self, text, tmp_path):
        path = tmp_path / 'results.json'
        path.write_text(text)
        with pytest.raises(UserError, match=r"results.json' holds no results of a study"):
            study.read_records(path)

    def test_mean_and_deviation(self, records):
        mean, deviation = records['segmentor/paca'].summarize('mIoU')
        assert mean == pytest.approx(0.6) and deviation == pytest.approx(0.1)
        one = Record(Cost(1, 1), {0: make_result(mIoU=0.5)})
        assert one.summarize('mIoU')[0] == 0.5 and math.isnan(one.summarize('mIoU')[1])

    @pytest.mark.parametrize('value, is_fine', [
        (0.6, True), (0.31, True), (0.89, True), (0.29, False), (0.91, False), (math.nan, False),
    ])  # fmt: skip
    def test_beyond_three_deviations(self, value, is_fine, records):
        found = study.find_regressions(
            records, [Run('segmentor', 'paca')], Run('segmentor', 'paca'), make_result(mIoU=value)
        )
        assert len(found) == (not is_fine)
        if found:
            assert found[0].startswith('segmentor/paca: mIoU is ') and '0.600 +- 0.300' in found[0]

    def test_seeds_that_agree_by_chance(self, records):
        """Those of other runs of the config do not."""
        same = {seed: make_result(mIoU=0.5) for seed in study.SEEDS}
        records |= {'segmentor/fcvit': Record(Cost(1, 1), same), 'detector/msf': None}
        runs = [Run('segmentor', 'paca'), Run('segmentor', 'fcvit'), Run('detector', 'msf')]
        for value, number in ((0.5 + 0.2, 0), (0.5 + 0.22, 1)):  # 3 * 0.1 / sqrt(2) = 0.212
            result = make_result(mIoU=value)
            assert len(study.find_regressions(records, runs, runs[1], result)) == number

    def test_all_seeds_agree(self):
        same = {seed: make_result(mIoU=0.5) for seed in study.SEEDS}
        records = {'segmentor/paca': Record(Cost(1, 1), same)}
        assert not study.find_regressions(
            records, [Run('segmentor', 'paca')], Run('segmentor', 'paca'), make_result(mIoU=0.51)
        )
        assert study.find_regressions(
            records, [Run('segmentor', 'paca')], Run('segmentor', 'paca'), make_result(mIoU=0.52)
        )

    def test_a_missing_seed(self, records):
        del records['segmentor/paca'].results[1]
        for run in (Run('segmentor', 'paca'), Run('detector', 'paca')):
            with pytest.raises(UserError, match='has no results of seeds'):
                study.check_record(records, run)
