"""Published weights by name, and published files as they are, wherever a checkpoint is named."""

import re
from pathlib import Path

import mmdet.apis
import mmengine.runner
import mmpretrain
import mmseg.apis
import pytest
import timm
import torch
from helpers import CONFIGS, FAMILY, assert_near, float32_tolerance, load_config
from mmengine.config import Config
from mmengine.registry import MODELS
from server import serving

from mmdense.engine.building import build_model, load_model
from mmdense.errors import UserError
from mmdense.serialization import download
from mmdense.serialization.checkpoint import load_file
from mmdense.serialization.conversion import convert
from mmdense.serialization.published import SCHEME, find_published, find_row, read_table

# The smallest variant of each family, its config, and how its authors wrap a state dict.
SMALLEST = {
    'paca': ('paca_t_in1k', lambda state: dict(state_dict=state, epoch=3)),
    'groupmixformer': ('groupmixformer_m_in1k', lambda state: dict(model=state)),
    'fcvit': ('fcvit_tiny_in1k', lambda state: state),
    'msf': ('msf_s_g2_in1k', lambda state: dict(state_dict=state)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, where ``torch.hub`` has it."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.setattr(download, 'PAUSE', 0.0)
    monkeypatch.delenv('MMDENSE_OFFLINE')
    return tmp_path / 'torch' / 'hub' / 'mmdense'


@pytest.fixture
def mirror(monkeypatch):
    """Serves the file that :func:`serve` puts there, at every address of the table."""
    with serving(b'') as server:
        monkeypatch.setenv('MMDENSE_MIRROR', server.url)
        yield server


@pytest.fixture
def published(smallest, tmp_path):
    """By family: a file as its authors would write it, and the reference of what it computes."""

    def make(family: str) -> tuple[Path, object]:
        ref, state = smallest(family)
        path = tmp_path / 'published.pth'
        torch.save(SMALLEST[family][1](state), path)
        return path, ref

    return make


def test_every_published_address_has_one_row():
    rows = [row for row in read_table().values() if row.address]
    assert len({row.address for row in rows}) == 50 and len(rows) == 51
    assert {row.kind for row in rows} == {'file', 'folder'}
    for row in rows:
        assert row.source.startswith('https://github.com/') and row.licence
        assert (CONFIGS / row.family / f'{row.name}.py').is_file()
        if row.kind == 'file':
            assert re.fullmatch(r'https://github\.com/\S+/releases/download/\S+\.pth', row.address)


@pytest.mark.parametrize('name', sorted(read_table()))
def test_every_name_is_a_file_or_a_step(name, mirror, cache):
    """What can be downloaded is; of all else one line says what to save where."""
    mirror.content = b'as published'
    row = find_row(name)
    if row.kind == 'file':
        path = find_published(name)
        assert path.read_bytes() == b'as published' and path.parent == cache
        assert mirror.requests == [(f'/{row.address.rpartition("/")[2]}', None)]
        return
    target = cache / f'{name}.pth'
    with pytest.raises(UserError) as error:
        find_published(name)
    line = str(error.value)
    assert len(line.splitlines()) == 1 and f"'{target}'" in line and not mirror.requests
    assert (row.address if row.address else f'configs/{row.family}/{name}.py 8') in line
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b'saved by hand')
    assert find_published(name) == target


def test_every_config_starts_from_a_name():
    files = [file for family in FAMILY for file in sorted((CONFIGS / family).glob('*_*.py'))]
    dense = [file for file in files if not file.stem.endswith('_in1k')]
    assert len(dense) > 60
    for file in dense:
        checkpoint = Config.fromfile(file).model.backbone.init_cfg.checkpoint
        assert checkpoint.startswith(SCHEME) and find_row(checkpoint.removeprefix(SCHEME))


@pytest.mark.parametrize(
    'name, hint', [('paca_s_in1', r'did you mean paca_s_in1k\?'), ('../x', 'names are those of')]
)
def test_unknown_names(name, hint):
    with pytest.raises(UserError, match=hint):
        load_file(f'{SCHEME}{name}')


def check_logits(model: torch.nn.Module, ref: object, **options: object) -> None:
    """A classifier is the function that the authors' code computes."""
    spec = ref.manifest['classification']
    with torch.no_grad():
        logits = model.eval()(ref.image(spec['input'], torch.float32), **options)
    assert_near(logits, ref.vectors['logits'], float32_tolerance(spec))


@pytest.mark.parametrize('family', SMALLEST)
def test_a_published_file_is_the_published_function(published, capfd, family):
    """As it was published, without a conversion by hand."""
    path, ref = published(family)
    model = load_model(load_config(f'{family}/{SMALLEST[family][0]}'), str(path))
    name = type(model.backbone).__name__
    assert f"{path}' is as the authors of {name} save it: converted" in capfd.readouterr().out
    check_logits(model, ref, mode='tensor')


def test_other_files_stay_as_they_are(tmp_path, smallest):
    """Names like an author's do not suffice: the tensors must be those of a network of theirs."""
    _, state = smallest('msf')
    for name, odd in {
        'another shape': {**state, 'linear_head.0.weight': torch.ones(3)},
        'one more': {**state, 'transformer.layers.0.0.extra': torch.ones(3)},
        'one less': {k: v for k, v in state.items() if 'layers.3.0.norm.weight' not in k},
        'alone': {'transformer.layers.0.weight': torch.ones(2, 2)},
    }.items():
        torch.save(dict(state_dict=odd), tmp_path / 'odd.pth')
        assert load_file(tmp_path / 'odd.pth')['state_dict'].keys() == odd.keys(), name


def test_of_a_run_with_averaged_weights_the_average_is_taken(tmp_path, smallest, capfd):
    """As of this package's own files: mmengine saves the average as ``state_dict``."""
    _, state = smallest('msf')
    raw = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save(dict(state_dict=state, ema_state_dict=raw), tmp_path / 'trained.pth')
    found = load_file(tmp_path / 'trained.pth')
    assert found.keys() == {'state_dict'}
    assert all(
        torch.equal(found['state_dict'][key], value)
        for key, value in convert(state).state_dict.items()
    )
    said = capfd.readouterr().out
    assert 'save it: converted' in said and '--ema' not in said
    torch.save(dict(state_dict=raw, state_dict_ema=state), tmp_path / 'trained.pth')  # timm's
    assert not any(
        value.any() for value in load_file(tmp_path / 'trained.pth')['state_dict'].values()
    )
    assert '--ema takes' in capfd.readouterr().out


def test_odd_files_with_an_authors_names_are_read(tmp_path):
    """Whatever their shapes and however many they are: left as they are, or refused in a line."""
    for name, state in {
        'no dimension': {'transformer.layers.0.1.net.1.weight': torch.tensor(1.0)},
        'projection': {
            'transformer.layers.0.0.to_out.weight': torch.tensor(1.0),
            'transformer.layers.0.0.to_qkv.weight': torch.tensor(1.0),
            'layers.0.proj.weight': torch.tensor(1.0),
        },
        'clustering': {'stage1.0.attn.clustering.clustering.0.weight': torch.tensor(1.0)},
        'many': {f'stage1.{i}.x': torch.zeros(1) for i in range(20_000)},
        'stages': {'stage1.0.x': torch.zeros(1)}
        | {f'stages.{i}.x': torch.zeros(1) for i in range(20_000)},
        'layers': {f'transformer.layers.{i}.0.norm.weight': torch.zeros(1) for i in range(5000)},
    }.items():
        torch.save(dict(state_dict=state), tmp_path / 'odd.pth')
        assert load_file(tmp_path / 'odd.pth')['state_dict'].keys() == state.keys(), name
        with pytest.raises(UserError):
            convert(state)


def test_names_are_checked_wherever_they_stand(tmp_path, smallest):
    _, state = smallest('msf')
    state = {f'backbone.{key}': value for key, value in state.items()}
    torch.save(dict(model=state | {'\x1b]0;title': torch.zeros(1)}), tmp_path / 'odd.pth')
    with pytest.raises(UserError, match='is no name, which is a printable text'):
        load_file(tmp_path / 'odd.pth')


def build_backbone(checkpoint: str) -> torch.nn.Module:
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    model = build_model(load_config('paca/paca_t_in1k'))
    cfg = dict(type='mmdense.PaCaViT', arch='tiny', out_indices=(3,), init_cfg=init_cfg)
    model.backbone = MODELS.build(cfg)
    model.backbone.init_weights()
    state = load_file(checkpoint)['state_dict']
    model.head.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith('head.')})
    return model


def load_checkpoint(checkpoint: str) -> torch.nn.Module:
    model = build_model(load_config('paca/paca_t_in1k'))
    mmengine.runner.load_checkpoint(model, checkpoint)
    return model


# Where a checkpoint is named: by this name, and the model that comes of it.
NAMED = 'mmdense://paca_t_in1k'
DOORS = {
    'load_model': lambda: load_model(load_config('paca/paca_t_in1k'), NAMED),
    'init_cfg': lambda: build_backbone(NAMED),
    'mmengine': lambda: load_checkpoint(NAMED),
    'mmpretrain': lambda: mmpretrain.get_model('paca_t_in1k', pretrained=True),
    'mmpretrain init_model': lambda: mmpretrain.apis.init_model(
        str(CONFIGS / 'paca' / 'paca_t_in1k.py'), NAMED
    ),
}


@pytest.mark.parametrize('door', DOORS)
def test_a_name_is_the_published_function(mirror, published, door):
    path, ref = published('paca')
    mirror.content = path.read_bytes()
    check_logits(DOORS[door](), ref, mode='tensor')
    assert len(mirror.requests) == 1


def test_a_name_for_timm(mirror, published):
    path, ref = published('paca')
    mirror.content = path.read_bytes()
    model = timm.create_model('paca_tiny', pretrained=True)
    check_logits(model, ref)
    assert 'state_dict' not in model.pretrained_cfg
    other = timm.create_model('paca_tiny', pretrained=True, num_classes=7)
    assert other.head.fc.weight.shape[0] == 7
    grey = timm.create_model('paca_tiny', pretrained=True, in_chans=1, num_classes=0)
    first = 'stages.0.downsample.proj.0.weight'
    expected = model.backbone.state_dict()[first].sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.backbone.state_dict()[first], expected)
    with pytest.raises(UserError, match='does not hold this PaCaViT'):
        timm.create_model('paca_small', pretrained=True, num_classes=7)
    pyramid = timm.create_model('paca_tiny', pretrained=True, features_only=True)
    for backbone in (other.backbone, pyramid.backbone):
        for name, tensor in model.backbone.state_dict().items():
            assert torch.equal(backbone.state_dict()[name], tensor)


@pytest.mark.parametrize(
    'tool, args',
    [
        ('predict.py', ['paca_t_in1k', NAMED, 'PICTURES', '--out-dir', 'out', '--device', 'cpu']),
        ('publish_model.py', [NAMED, 'weights.pth']),
        ('convert_checkpoint.py', [NAMED, 'converted.pth']),
        ('visualize.py', ['paca/paca_t_in1k', NAMED, 'PICTURE', '--out-dir', 'views']),
    ],
)
def test_a_name_for_the_tools(
    mirror, published, run_tool, pictures, tmp_path, monkeypatch, tool, args
):
    path, _ = published('paca')
    mirror.content = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    picture = next(pictures.rglob('*.png'))
    args = [dict(PICTURES=pictures, PICTURE=picture).get(arg, arg) for arg in args]
    code, out, err = run_tool(tool, *args)
    assert code == 0, out + err


def test_a_detector_fetches_its_classifier(mirror, published, place, run_tool):
    """The published recipe on other data: nothing but the config is named."""
    path, _ = published('paca')
    mirror.content = path.read_bytes()
    data = 'data/digit_scenes/'
    (place / 'own.py').write_text(
        "_base_ = 'mmdense::paca/mask_rcnn_paca_t_1x.py'\n"
        "meta = dict(classes=tuple('0123456789'))\n"
        + ''.join(
            f"{split}_dataloader = dict(dataset=dict(metainfo=meta, data_root='{data}', "
            f"ann_file='annotations/instances_{split}.json', "
            f"data_prefix=dict(img='images/{split}/')))\n"
            for split in ('train', 'val')
        )
        + f"val_evaluator = dict(ann_file='{data}annotations/instances_val.json')\n"
        'model = dict(roi_head=dict(bbox_head=dict(num_classes=10), '
        'mask_head=dict(num_classes=10)))\n'
    )
    code, out, err = run_tool('train.py', 'own.py', '--dry-run')
    assert code == 0, out + err
    assert [path for path, _ in mirror.requests] == ['/IMNET_224_pacavit_tiny_p2cconv_100_0.pth']


def publish(name: str, path: Path) -> torch.nn.Module:
    """A detector or segmentor with random weights, and a file of it as the authors wrote theirs."""
    torch.manual_seed(0)
    model = build_model(load_config(f'paca/{name}'))
    inside = {
        k.removeprefix('backbone.'): v
        for k, v in model.state_dict().items()
        if k.startswith('backbone.')
    }
    state = {k: v for k, v in model.state_dict().items() if not k.startswith('backbone.')}
    theirs = FAMILY['paca'].naming.restore(inside)
    state |= {f'backbone.{k}': v for k, v in theirs.items()}
    torch.save(dict(state_dict=state, meta=dict(CLASSES=('a', 'b'))), path)
    return model


@pytest.mark.parametrize(
    'name, inferencer',
    [
        ('mask_rcnn_paca_t_1x', mmdet.apis.DetInferencer),
        ('upernet_paca_t_160k', mmseg.apis.MMSegInferencer),
    ],
)
def test_inferencers_by_name(mirror, tmp_path, name, inferencer):
    model = publish(name, tmp_path / 'published.pth')
    mirror.content = (tmp_path / 'published.pth').read_bytes()
    found = inferencer(name, device='cpu').model
    assert found.dataset_meta['classes'] == ('a', 'b')
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key


def test_mmpretrain_lists_the_classifiers():
    names = mmpretrain.list_models('paca*')
    assert 'paca_s_in1k' in names and 'mask_rcnn_paca_s_1x' not in names
    assert 'resnet50_8xb32_in1k' in mmpretrain.list_models('resnet50*')
