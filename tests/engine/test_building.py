"""From a config to a model that fits this machine."""

from mmengine.config import ConfigDict

from mmdense.engine import building


def test_sync_bn_becomes_bn_everywhere():
    cfg = ConfigDict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        heads=[dict(norm_cfg=dict(type='SyncBN')), dict(norm_cfg=dict(type='GN', num_groups=4))],
    )
    building.replace_sync_bn(cfg)
    assert cfg.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.heads] == ['BN', 'GN']
