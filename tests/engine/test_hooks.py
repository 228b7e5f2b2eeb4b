"""The hooks that every training gets."""

from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODEL_WRAPPERS
from mmengine.runner import Runner

from mmdense.engine import hooks
from mmdense.engine.hooks import CheckInstancesHook, CompileBackboneHook, MeanLossHook
from mmdense.errors import UserError


class Detections:
    """A data set with, per image, its annotations and how many the pipeline keeps."""

    def __init__(self, *images: tuple[list[dict] | None, int]) -> None:
        self.images = images
        self.loaded = []

    def __len__(self) -> int:
        return len(self.images)

    def get_data_info(self, i: int) -> dict:
        instances = self.images[i][0]
        return {} if instances is None else dict(instances=instances)

    def __getitem__(self, i: int) -> dict:
        self.loaded.append(i)
        return dict(data_samples=SimpleNamespace(gt_instances=[0] * self.images[i][1]))


ONE, IGNORED = [dict(ignore_flag=0)], [dict(ignore_flag=1), dict(ignore_flag=1)]
DROPPED, KEPT = (ONE, 0), (ONE, 1)


def check(dataset: object, **kwargs: object) -> None:
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset))
    CheckInstancesHook(**kwargs).before_train(runner)


def test_the_first_image_with_an_instance_is_enough():
    dataset = Detections(DROPPED, DROPPED, KEPT, DROPPED)
    check(dataset)
    assert dataset.loaded == [0, 1, 2]


def test_images_without_annotations_are_not_loaded():
    dataset = Detections(([], 0), (IGNORED, 0), DROPPED, ([*IGNORED, *ONE], 1), KEPT)
    check(dataset)
    assert dataset.loaded == [2, 3]


def test_it_gives_up_after_the_number_asked_for():
    """Images without annotations do not count."""
    dataset = Detections(DROPPED, ([], 0), DROPPED, (IGNORED, 0), DROPPED, KEPT)
    with pytest.raises(UserError, match='none was left in the 3 annotated images tried'):
        check(dataset, max_images=3)
    assert dataset.loaded == [0, 2, 4]
    check(dataset, max_images=4)
    many = Detections(*[DROPPED] * 70)
    with pytest.raises(UserError, match='64 annotated'):
        check(many)
    assert len(many.loaded) == 64


def test_a_pipeline_that_drops_all_is_told_from_data_without_annotations():
    with pytest.raises(UserError, match=r'pipeline drops every instance: none .* 2 annotated'):
        check(Detections(DROPPED, ([], 0), DROPPED))
    with pytest.raises(UserError, match='none of the 3 training images has an annotation'):
        check(Detections(([], 0), (IGNORED, 0), ([], 0)))


def test_other_data_are_left_alone():
    check(object())  # no data set of mmengine at all
    dataset = Detections((None, 0), DROPPED)  # of classes or pixels
    check(dataset, max_images=1)
    assert not dataset.loaded


def test_one_process_keeps_its_losses():
    outputs = dict(loss=torch.tensor(3.0))
    MeanLossHook().after_train_iter(None, 0, outputs=outputs)
    MeanLossHook().after_train_iter(None, 0, outputs=None)
    assert outputs == dict(loss=torch.tensor(3.0))


def mean_in_a_process(rank: int, address: str, queue: mp.Queue) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    outputs = dict(loss=torch.tensor(1.0 + 4 * rank), acc=torch.tensor([10.0 * rank]))
    MeanLossHook().after_train_iter(None, 0, outputs=outputs)
    queue.put((rank, {key: value.tolist() for key, value in outputs.items()}))
    torch.distributed.barrier()


def test_two_processes_see_their_mean(tmp_path):
    """Of 1 and 5, of 0 and 10: in both of them, in place."""
    context = mp.get_context('fork')
    queue = context.SimpleQueue()
    args = (f'file://{tmp_path}/meeting', queue)
    processes = [context.Process(target=mean_in_a_process, args=(i, *args)) for i in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert dict(queue.get() for _ in processes) == {i: dict(loss=3, acc=[5]) for i in (0, 1)}


class Toy(BaseModel):
    """Its loss is the sum of its numbers in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: list[torch.Tensor], mode: str = 'tensor') -> dict:
        return dict(loss=self.weight.sum() + sum(inputs))


class Listen(Hook):
    """Keeps the losses that an ordinary hook sees."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen.append(outputs['loss'].item())


@pytest.mark.parametrize(
    'loop, sampler',
    [
        (dict(type='EpochBasedTrainLoop', max_epochs=2), 'DefaultSampler'),
        (dict(type='IterBasedTrainLoop', max_iters=4), 'InfiniteSampler'),
    ],
    ids=['epochs', 'iterations'],
)
def test_every_other_hook_sees_the_mean(loop, sampler, tmp_path, monkeypatch):
    """In both loops, as if another process had lost 100 each time."""

    def all_reduce_dict(outputs: dict, op: str) -> None:
        assert op == 'mean'
        outputs['loss'] = (outputs['loss'] + 100) / 2

    monkeypatch.setattr(hooks, 'is_distributed', lambda: True)
    monkeypatch.setattr(hooks, 'all_reduce_dict', all_reduce_dict)
    listen = Listen()
    runner = Runner(
        model=Toy(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            dataset=[dict(inputs=torch.tensor(float(i))) for i in (1, 2, 3, 4)],
            sampler=dict(type=sampler, shuffle=False),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[listen, dict(type='mmdense.MeanLossHook')],
        default_hooks=dict(checkpoint=None),
        log_level='ERROR',
        experiment_name=f'mean_{tmp_path.name}',
    )
    runner.train()
    assert listen.seen == [51.5, 53.5, 51.5, 53.5]  # of 3 and 7
    history = runner.message_hub.get_scalar('train/loss').data[0]
    assert history.tolist() == listen.seen


@MODEL_WRAPPERS.register_module()
class ToyWrapper(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize('wrap', [lambda model: model, ToyWrapper], ids=['plain', 'wrapped'])
def test_the_backbone_alone_is_compiled(wrap):
    calls = []

    class Part(torch.nn.Module):
        def compile(self, **options: object) -> None:
            calls.append((self, options))

    model = Part()
    model.backbone, model.head = Part(), Part()
    options = dict(mode='max-autotune', dynamic=False)
    CompileBackboneHook(**options).before_run(SimpleNamespace(model=wrap(model)))
    assert calls == [(model.backbone, options)]


def test_backbone_is_compiled_in_place():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(2, 2)
    calls = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        calls.append(graph)
        return graph.forward

    hook = HOOKS.build(dict(type='mmdense.CompileBackboneHook', backend=backend))
    names = list(model.state_dict())
    hook.before_run(SimpleNamespace(model=model))
    model.backbone(torch.ones(1, 2))
    assert len(calls) == 1 and list(model.state_dict()) == names
