"""From config to runner: errors in one line, classes, devices, and resuming safely."""

import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, RUNNERS

from mmdense.engine import building, launch, training
from mmdense.engine.building import pick_device, told_in_one_line
from mmdense.engine.data import find_classes, find_num_classes
from mmdense.errors import UserError, last_line
from mmdense.files import config_root
from mmdense.serialization.checkpoint import get_classes


@MODELS.register_module()
class ToyToResume(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> dict:
        return dict(loss=(self.weight - 1).square().sum())


def make_config(work_dir: Path, **rest: object) -> Config:
    return Config(
        dict(
            default_scope='mmengine',
            model=dict(type='ToyToResume'),
            work_dir=str(work_dir),
            launcher='none',
            train_dataloader=dict(
                batch_size=1,
                dataset=[dict(inputs=torch.zeros(1))] * 2,
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            log_level='ERROR',
            experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
            **rest,
        )
    )


def test_a_config_in_a_checkpoint_is_never_run(tmp_path):
    """mmengine would run that text when it resumes; here it is gone before."""
    runner = building.build_runner(make_config(tmp_path / 'first'))
    runner.train()
    content = torch.load(tmp_path / 'first' / 'epoch_1.pth', weights_only=False)
    assert content['meta']['epoch'] == 1
    trace = tmp_path / 'ran'
    content['meta']['config'] = f"import pathlib\npathlib.Path({str(trace)!r}).write_text('ran')\n"
    torch.save(content, tmp_path / 'harmful.pth')

    cfg = make_config(tmp_path / 'second')
    training.set_resume(cfg, str(tmp_path / 'harmful.pth'))
    resumed = building.build_runner(cfg)
    resumed.load_or_resume()
    assert (resumed.epoch, resumed.iter) == (1, 2)
    assert torch.equal(resumed.model.weight, runner.model.weight) and resumed.model.weight != 0
    assert not trace.exists()


@MODELS.register_module()
class ToyOfParts(ToyToResume):
    """With a part that would fetch its weights, and a norm over all processes."""

    def __init__(self, backbone: dict, num_classes: int = 2, **kwargs: object) -> None:
        BaseModel.__init__(self, **kwargs)
        self.backbone_cfg = backbone
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.norm = torch.nn.SyncBatchNorm(2)
        warnings.warn('this loss is for training', stacklevel=1)


def config_of_parts(tmp_path: Path, **model: object) -> Config:
    backbone = dict(width=3, init_cfg=dict(type='Pretrained', checkpoint='none.pth'))
    cfg = make_config(tmp_path, data_preprocessor=dict(type='BaseDataPreprocessor'))
    cfg.model = dict(dict(type='ToyOfParts', backbone=backbone, pretrained='none.pth'), **model)
    cfg.data_preprocessor.non_blocking = True
    return cfg


def test_a_model_for_use(tmp_path):
    """In eval mode, for one process, as the runner makes it, and of no file; said is nothing."""
    cfg = config_of_parts(tmp_path)
    before = cfg.to_dict()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        model = building.build_model(cfg)
    assert not said and not model.training and cfg.to_dict() == before
    assert model.backbone_cfg == dict(width=3) and type(model.norm) is not torch.nn.SyncBatchNorm
    assert model.weight.device.type == 'cpu' and model.data_preprocessor._non_blocking
    assert building.build_model(cfg, 'meta').weight.is_meta
    own = config_of_parts(tmp_path, data_preprocessor=dict(type='BaseDataPreprocessor'))
    assert not building.build_model(own).data_preprocessor._non_blocking
    with pytest.raises(UserError, match=r'^the model of this config cannot be built: .*wings'):
        building.build_model(config_of_parts(tmp_path, wings=2))


def test_a_model_with_its_weights_and_classes(tmp_path):
    state = building.build_model(config_of_parts(tmp_path)).state_dict()
    state['weight'] += 3
    classes = dict(classes=['a', 'b'], palette=[[1, 2, 3], [4, 5, 6]])
    for meta, wanted in (
        (dict(meta=dict(dataset_meta=classes)), dict(classes, classes=('a', 'b'))),
        ({}, dict(classes=('0', '1'))),
    ):
        torch.save(dict(state_dict=state, **meta), tmp_path / 'a.pth')
        cfg = config_of_parts(tmp_path, num_classes=2)
        model = building.load_model(cfg, str(tmp_path / 'a.pth'))
        assert model.weight == 3 and model.dataset_meta == wanted
    torch.save(dict(state_dict=dict(state, weight=torch.zeros(2))), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=rf"checkpoint '{tmp_path}/a.pth' is of another model"):
        building.load_model(cfg, str(tmp_path / 'a.pth'))


def test_a_runner_of_the_configs_own(tmp_path):
    @RUNNERS.register_module(force=True)
    class OwnRunner:
        @classmethod
        def from_cfg(cls, cfg: Config) -> 'OwnRunner':
            return cls()

    cfg = make_config(tmp_path, runner_type='OwnRunner')
    assert type(building.build_runner(cfg)) is OwnRunner


def test_weights_alone_are_no_state_to_resume(tmp_path):
    """Each of the three things that a resumed run needs; the message names the other way."""
    meta = dict(epoch=1, iter=2)
    complete = dict(state_dict={}, meta=meta, optimizer={}, message_hub={})
    path = tmp_path / 'a.pth'
    for lacking in ('meta', 'optimizer', 'message_hub'):
        torch.save({k: v for k, v in complete.items() if k != lacking}, path)
        with pytest.raises(UserError, match='holds weights but no training state') as error:
            training.set_resume(Config(dict(work_dir=str(tmp_path))), str(path))
        assert f'--cfg-options load_from={path}' in str(error.value)
        assert '\n' not in str(error.value)
    torch.save(complete, path)
    cfg = Config(dict(work_dir=str(tmp_path)))
    training.set_resume(cfg, str(path))
    assert (cfg.resume, cfg.load_from) == (True, str(path))
    for odd in ({}, dict(epoch=1), dict(epoch='1', iter=2), dict(epoch=1, iter=-2)):
        torch.save(dict(complete, meta=odd), path)
        with pytest.raises(UserError, match='does not say how many epochs'):
            training.set_resume(Config(dict(work_dir=str(tmp_path))), str(path))


def test_resume_auto(tmp_path):
    """The newest, where there is one; else the run starts as it does without the flag."""
    cfg = Config(dict(work_dir=str(tmp_path), load_from='other.pth'))
    training.set_resume(cfg, 'auto')
    assert cfg.resume is False and cfg.load_from == 'other.pth'
    path = tmp_path / 'epoch_3.pth'
    torch.save(dict(state_dict={}), path)
    training.set_resume(cfg, 'auto')
    assert cfg.resume is False
    torch.save(dict(meta=dict(epoch=3, iter=6), optimizer={}, message_hub={}), path)
    training.set_resume(cfg, 'auto')
    assert cfg.resume is True and cfg.load_from == str(path)


def test_hooks_are_added_to_those_of_the_config(monkeypatch, tmp_path):
    seen = []

    class Runner:
        def train(self) -> None:
            raise ValueError('need at least one array to concatenate')

    def build(cfg: Config) -> Runner:
        seen.extend(hook['type'] for hook in cfg.custom_hooks)
        return Runner()

    monkeypatch.setattr(training, 'build_runner', build)
    with pytest.raises(UserError, match='no image of the training set is left'):
        training.train(Config(dict(custom_hooks=[dict(type='Mine')], work_dir=str(tmp_path))))
    assert seen[0] == 'Mine' and seen[-1] == 'mmdense.InterruptHook'
    assert {'mmdense.CheckInstancesHook', 'mmdense.MeanLossHook'} < set(seen)
    monkeypatch.setattr(Runner, 'train', lambda self: int('x'))
    with pytest.raises(ValueError, match='invalid literal'):
        training.train(Config(dict(work_dir=str(tmp_path))))


@pytest.mark.parametrize('gpu', [False, True])
def test_mixed_precision_by_device(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    training.enable_amp(cfg)
    if gpu:
        assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')
    else:
        assert cfg.optim_wrapper == dict(type='mmdense.CPUAmpOptimWrapper')
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', loss_scale=512.0)))
    training.enable_amp(cfg)
    assert cfg.optim_wrapper.loss_scale == 512


def test_learning_rate_scaling_needs_a_batch_size():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=8, enable=False)))
    training.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True
    for lacking in ({}, dict(auto_scale_lr=dict(enable=True))):
        with pytest.raises(UserError, match=r'no auto_scale_lr\.base_batch_size'):
            training.enable_auto_scale_lr(Config(lacking))


def build_thing(error: Exception) -> None:
    raise error


def look_up_deep_inside(error: Exception) -> None:
    raise error


@pytest.mark.parametrize('kind', [TypeError, KeyError])
def test_what_a_builder_cannot_call_is_told_and_what_fails_inside_passes(kind):
    with pytest.raises(UserError, match='the model cannot be built: no such argument') as error:
        with told_in_one_line('the model cannot be built'):
            build_thing(kind('no such\n  argument'))
    assert isinstance(error.value.__cause__, kind)
    with pytest.raises(kind) as error, told_in_one_line('the model cannot be built'):
        look_up_deep_inside(kind('a fault'))
    assert not isinstance(error.value, UserError)


@pytest.mark.parametrize('kind', [AssertionError, ValueError])
def test_what_a_constructor_refuses_is_told(kind):
    with pytest.raises(UserError, match=r'^it cannot: two words$'):
        with told_in_one_line('it cannot'):
            look_up_deep_inside(kind('two\nwords'))


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), told_in_one_line('it cannot'):
        look_up_deep_inside(ZeroDivisionError())
    with pytest.raises(RuntimeError, match='deep'), told_in_one_line('it cannot'):
        look_up_deep_inside(RuntimeError('deep'))


def test_real_builders():
    """An unknown type and an unknown argument in a config."""
    for model, message in (
        (dict(type='Nobody'), 'Nobody is not in the'),
        (dict(type='ToyToResume', wings=2), "unexpected keyword argument 'wings'"),
    ):
        with pytest.raises(UserError, match=message), told_in_one_line('it cannot be built'):
            MODELS.build(model)


def test_a_misspelt_option_of_a_class_that_inherits():
    cfg = Config.fromfile(config_root() / 'digits' / 'upernet_paca_digits.py')
    cfg.model.decode_head.chanels = 3
    with pytest.raises(UserError, match="unexpected keyword argument 'chanels'"):
        building.build_model(cfg, 'meta')


def config_of(number: int, **dataset: object) -> Config:
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(backbone=dict(), head=[dict(x=1), dict(num_classes=number)]),
            test_dataloader=dict(dataset=dict(type='CocoDataset', **dataset)),
        )
    )


def test_classes_come_from_the_checkpoint_or_the_data_or_are_numbers(tmp_path):
    mine = dict(metainfo=dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)]))
    file = dict(classes=['x', 'y', 'z'])
    assert find_classes(config_of(2, **mine), file) == dict(classes=('x', 'y', 'z'))
    assert find_classes(config_of(2, **mine), {}) == mine['metainfo']
    # Fewer names than the model has classes: of other data.
    assert find_classes(config_of(3, **mine), {}) == dict(classes=('0', '1', '2'))
    assert find_classes(config_of(80), {})['classes'][:2] == ('person', 'bicycle')
    assert find_classes(config_of(81), {})['classes'] == tuple(map(str, range(81)))
    old = get_classes(dict(CLASSES=('p', 'q')))
    assert find_classes(config_of(2), old)['classes'] == ('p', 'q')
    (tmp_path / 'names.txt').write_text('one\ntwo\n')
    listed = config_of(2, classes=str(tmp_path / 'names.txt'))
    assert find_classes(listed, {})['classes'] == ('one', 'two')
    gone = config_of(2, classes=str(tmp_path / 'none.txt'))
    assert find_classes(gone, {})['classes'] == ('0', '1')


def test_number_of_classes_wherever_it_stands():
    assert find_num_classes(dict(a=dict(b=[dict(num_classes=4)]))) == 4
    assert find_num_classes(dict(num_classes=3, a=dict(num_classes=4))) == 3
    assert find_num_classes(dict(a=1, b='num_classes', c=(1, 2))) == 0
    assert find_num_classes(dict(a=dict(num_classes=None), b=dict(num_classes=5))) == 5


def test_devices(monkeypatch):
    assert pick_device('cpu') == torch.device('cpu')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert pick_device(None) == torch.device('cpu')
    for device in ('abacus', 'cuda:99'):
        with pytest.raises(UserError, match=f"--device '{device}' is no device of this machine"):
            pick_device(device)
    made = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch, 'empty', lambda *size, device: made.append(device))
    assert pick_device(None) == torch.device('cuda') == made[0]


def test_last_line():
    assert last_line(ValueError('first\nlast\n')) == 'last'
    assert last_line(KeyError()) == 'KeyError'
    assert last_line(UserError('mmdense.errors.UserError: gone')) == 'gone'
    assert last_line(UserError('UserError: gone')) == 'gone'
    assert last_line(UserError('a UserError: stays')) == 'a UserError: stays'


def fail() -> None:
    raise UserError('first\nlast') from KeyError('cause')


@pytest.mark.parametrize('wanted', [None, '0', '1'])
def test_traceback_on_request(wanted, monkeypatch):
    """Otherwise a line, as Python prints a text that a program exits with, and code 1."""
    monkeypatch.delenv('MMDENSE_TRACEBACK', raising=False)
    if wanted is not None:
        monkeypatch.setenv('MMDENSE_TRACEBACK', wanted)
    if wanted == '1':
        with pytest.raises(UserError) as error:
            launch.run(fail)
        assert isinstance(error.value.__cause__, KeyError)
    else:
        with pytest.raises(SystemExit) as error:
            launch.run(fail)
        assert error.value.code == 'error: last'


def test_a_fault_of_the_code_is_no_line():
    with pytest.raises(ZeroDivisionError):
        launch.run(lambda: 1 / 0)
    launch.run(lambda: None)


def test_sync_bn_becomes_bn_everywhere():
    cfg = ConfigDict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        heads=[dict(norm_cfg=dict(type='SyncBN')), dict(norm_cfg=dict(type='GN', num_groups=4))],
    )
    building.replace_sync_bn(cfg)
    assert cfg.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.heads] == ['BN', 'GN']


def test_connected_processes_part_together(monkeypatch):
    """Each waits for the others before it closes the connection."""
    calls = []
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    for name in ('barrier', 'destroy_process_group'):
        monkeypatch.setattr(torch.distributed, name, lambda name=name: calls.append(name))
    launch.run(lambda: calls.append('main'))
    assert calls == ['main', 'barrier', 'destroy_process_group']


def test_processes_without_a_gpu(monkeypatch):
    """One needs nothing; several of torchrun meet over gloo; other launchers are refused."""
    calls = []
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: False)
    monkeypatch.setattr(torch.distributed, 'init_process_group', calls.append)
    model = dict(norm_cfg=dict(type='SyncBN'))
    cfg = Config(dict(launcher='none', model=model, env_cfg=dict()))
    building.use_cpu(cfg)
    assert not calls and cfg.model.norm_cfg.type == 'BN' and 'dist_cfg' not in cfg.env_cfg
    cfg = Config(dict(launcher='slurm', model=model, env_cfg=dict()))
    with pytest.raises(UserError, match='--launcher slurm needs CUDA devices'):
        building.use_cpu(cfg)
    cfg = Config(dict(launcher='pytorch', model=model, env_cfg=dict(), find_unused_parameters=True))
    building.use_cpu(cfg)
    assert calls == ['gloo'] and cfg.env_cfg.dist_cfg == dict(backend='gloo')
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=True,
    )


@pytest.mark.parametrize(
    'given, wanted',
    [
        (dict(type='mmdense.FullyShardedModel'), dict(type='mmdense.FullyShardedModel')),
        (
            dict(broadcast_buffers=True),
            dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=True,
                device_ids=None,
                find_unused_parameters=False,
            ),
        ),
    ],
)
def test_the_wrapper_of_a_config_without_a_gpu(given, wanted, monkeypatch):
    """Others are left alone, and so are settings; processes that are connected stay so."""
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *_: 1 / 0)
    cfg = Config(dict(launcher='pytorch', model={}, env_cfg={}, model_wrapper_cfg=given))
    building.use_cpu(cfg)
    assert cfg.model_wrapper_cfg == wanted
