"""What the study trains."""

import argparse
import functools
import operator
from pathlib import Path

import pytest
import torch
from helpers import ROOT, load_config
from mmengine.registry import MODELS
from torch import nn

from mmdense.engine.config import add_cfg_options
from mmdense.study import runs
from mmdense.study.runs import Run
from mmdense.study.steps import Step, environment

TABLES = runs.read_tables()
pytestmark = pytest.mark.usefixtures('in_checkout')
RUNS = runs.list_runs(TABLES)
PARSER = argparse.ArgumentParser()
add_cfg_options(PARSER)


@pytest.fixture
def in_checkout(monkeypatch):
    """Where the tool works."""
    monkeypatch.chdir(ROOT)


def make(run: Run, seed: int = 0) -> Step:
    return run.make_step(seed, Path('work'), follows_code=False)


class TestTables:
    def test_families_and_peers_are_as_large(self):
        """The largest has 10 % more parameters than the smallest."""
        rows = [row for table in TABLES if table.plotted for row in table.rows.values()]
        assert len(rows) == 9
        params = {}
        for run, *_ in rows:
            with environment({'BACKBONE': run.backbone}):
                backbone = MODELS.build(make(run).read_config().model.backbone)
            params[run.backbone] = sum(p.numel() for p in backbone.parameters())
        assert max(params.values()) <= 1.1 * min(params.values()), params

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
        cfg.merge_from_dict(PARSER.parse_args(step.options).cfg_options)
        backbone = cfg.model.backbone
        for key, value in run.options:
            found = functools.reduce(operator.getitem, key.split('.'), backbone)
            assert (list(found) if isinstance(value, tuple) else found) == (
                list(value) if isinstance(value, tuple) else value
            )
        assert cfg.randomness.seed == 0
        assert (backbone.get('init_cfg') is not None) == run.pretrained
        MODELS.build(backbone)

    def test_seeds_and_options_have_work_dirs_of_their_own(self):
        folders = [make(run, seed).folder for run in RUNS for seed in runs.SEEDS]
        assert len({str(folder).lower() for folder in folders}) == len(folders)
        assert not [f for f in folders if ' ' in str(f) or '"' in str(f)]

    def test_start_is_the_checkpoint_that_the_classifier_ends_with(self):
        step = make(Run('segmentor', 'fcvit', pretrained=True), 1)
        assert step.needs.folder == Path('work') / 'classifier' / 'fcvit' / 'seed_1'
        epochs = step.needs.read_config().train_cfg.max_epochs
        checkpoint = f'model.backbone.init_cfg.checkpoint={step.needs.folder}/epoch_{epochs}.pth'
        assert checkpoint in step.options

    @pytest.mark.parametrize('name', sorted({run.backbone for run in RUNS}))
    def test_a_detector_has_the_tensors_of_its_classifier(self, name, tmp_path):
        """All but the norms of maps that only one of them gives out."""
        step = Run('detector', name, pretrained=True).make_step(0, tmp_path, follows_code=False)
        classifier = build_backbone(step.needs)
        for p in classifier.parameters():
            nn.init.normal_(p)
        state = {f'backbone.{key}': value for key, value in classifier.state_dict().items()}
        step.needs.folder.mkdir(parents=True)
        torch.save(dict(state_dict=state), step.needs.folder / 'epoch_2.pth')
        found = build_backbone(step)
        found.init_weights()
        found, wanted = found.state_dict(), classifier.state_dict()
        assert not [key for key in found.keys() ^ wanted.keys() if 'norm' not in key]
        for key in found.keys() & wanted.keys():
            assert torch.equal(found[key], wanted[key]), key


def build_backbone(step: Step) -> nn.Module:
    """Of a step, with the step's options."""
    cfg = step.read_config()
    cfg.merge_from_dict(PARSER.parse_args(step.options).cfg_options)
    return MODELS.build(cfg.model.backbone)
