"""Mutated checkpoints and pictures against what reads them: each is read, or refused in one line.

    python tests/fuzz.py                      # some thousand inputs, half a minute
    python tests/fuzz.py --number 100000      # the long form

Batches run in processes of their own, so that a crash ends one batch and is counted. What crashes
or raises anything but a ``UserError`` is kept in --out, with its traceback.
"""

import argparse
import io
import json
import os
import pickletools
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['OPENCV_LOG_LEVEL'] = 'SILENT'

import mmdense  # noqa: F401  (mends the stack before the toolboxes are imported)

import cv2  # isort: skip
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdense.engine.data import prepare_loading
from mmdense.errors import UserError
from mmdense.inference.predict import load_image
from mmdense.serialization.checkpoint import get_classes, get_state_dict, load_file, save_weights
from mmdense.serialization.conversion import convert, has_averaged_weights, pick_weights
from mmdense.serialization.loading import check_numbers, load_whole

BATCH = 500
MEMORY = 2**30  # bytes that a batch may take beside what the process has
SECONDS = 120  # of a batch: more is a hang
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
OPCODES = (
    *(b'R', b'b', b's', b'u', b't', b'(', b')', b'}', b']', b'e', b'a', b'\x81', b'\x85', b'\x86'),
    *(b'\x87', b'N', b'\x88', b'\x89', b'Q', b'0', b'.', b'K\x00', b'K\xff', b'h\x00', b'q\x00'),
    *(b'J\xff\xff\xff\x7f', b'J\xff\xff\xff\xff', b'X\x01\x00\x00\x00a', b'X\xff\xff\xff\xff'),
    *(b'G' + struct.pack('>d', float('nan')), b'\x8a\x08' + b'\x7f' * 8, b'C\x01a'),
    *(f'c{name}\n'.encode() for name in ('numpy\ndtype', 'numpy\nndarray', 'collections\nCounter')),
    b'cnumpy.core.multiarray\n_reconstruct\n',
    b'cnumpy._core.multiarray\nscalar\n',
    b'cmmengine.logging.history_buffer\nHistoryBuffer\n',
    b'ctorch._utils\n_rebuild_tensor_v2\n',
    b'ctorch._utils\n_rebuild_parameter\n',
    b'ctorch.storage\nUntypedStorage\n',
    b'cbuiltins\ngetattr\n',
    b'c_codecs\nencode\n',
)


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def make_checkpoints() -> dict[str, bytes]:
    """Small files of every format, with all that toolboxes write."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    training = dict(
        meta=dict(
            epoch=1,
            iter=3,
            seed=np.int64(1),
            dataset_meta=dict(classes=('a', 'b'), palette=np.zeros((2, 3), int)),
        ),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=dict(
            log_scalars=dict(loss=HistoryBuffer([1.0, 2.0], [1, 1])),
            runtime_info=dict(cfg='a = 1', best=np.float64(0.5)),
            resumed_keys=dict(loss=True),
        ),
        args=Namespace(lr=0.1),
        milestones=Counter({1: 1}),
    )
    files = {}
    for name, content, is_zip in (
        ('weights', model.state_dict(), True),
        ('training', training, True),
        ('legacy', training, False),
        ('odd', [torch.ones(1, dtype=torch.uint16), nn.Parameter(torch.ones(1))], True),
    ):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
        files[f'{name}.pth'] = buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = save_weights(model.state_dict(), training['meta'], Path(folder, 'a.safetensors'))
        files['weights.safetensors'] = path.read_bytes()
    return files


def make_pictures() -> dict[str, bytes]:
    """A picture in each format that OpenCV writes, of several kinds."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 9, 4), np.uint8)
    files = {}
    for suffix in ('.png', '.jpg', '.bmp', '.tiff', '.webp', '.ppm'):
        files[f'rgb{suffix}'] = cv2.imencode(suffix, colours[..., :3])[1].tobytes()
    files['alpha.png'] = cv2.imencode('.png', colours)[1].tobytes()
    files['grey.png'] = cv2.imencode('.png', colours[..., 0])[1].tobytes()
    files['deep.png'] = cv2.imencode('.png', colours.astype(np.uint16) * 257)[1].tobytes()
    files['strip.png'] = cv2.imencode('.png', np.zeros((1, 500, 3), np.uint8))[1].tobytes()
    return files


EDITS = st.lists(
    st.tuples(
        st.sampled_from(['flip', 'set', 'cut', 'drop', 'repeat', 'insert']),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)
# Of a zip archive's directory, or of the pickle inside an archive, which is then closed properly.
ZIP_EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(NUMBERS)), min_size=1, max_size=4
)
PICKLE_EDITS = st.lists(
    st.tuples(
        st.sampled_from(['drop', 'repeat', 'insert', 'replace', 'argument', 'swap']),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=5,
)
CHANGES = st.one_of(
    st.tuples(st.just('bytes'), EDITS),
    st.tuples(st.just('zip'), ZIP_EDITS),
    st.tuples(st.just('pickle'), PICKLE_EDITS),
    st.tuples(st.just('pickle'), PICKLE_EDITS),
)


def edit_bytes(data: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    data = bytearray(data)
    for kind, place, value in edits:
        i = int(place * len(data))
        if not data:
            break
        if kind == 'flip':
            data[i] ^= 1 << value % 8
        elif kind == 'set':
            data[i] = value
        elif kind == 'cut':
            del data[max(i, 4) :]
        elif kind == 'drop':
            del data[i : i + value % 16 + 1]
        elif kind == 'repeat':
            data[i:i] = data[i : i + value]
        else:
            data[i:i] = bytes([value]) * (value % 7 + 1)
    return bytes(data)


def edit_zip(data: bytes, edits: list[tuple[float, int]]) -> bytes:
    """Set four bytes somewhere in the headers of an archive."""
    data = bytearray(data)
    headers = [i for i in range(len(data) - 4) if data[i : i + 2] == b'PK']
    for place, value in edits if headers else []:
        i = int(place * len(headers) * 48)
        i = min(headers[i // 48] + i % 48, len(data) - 4)
        data[i : i + 4] = struct.pack('<I', value)
    return bytes(data)


def edit_pickle(data: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    """Change instructions; in an archive the checksums and sizes fit what came out."""
    if not data.startswith(b'PK\x03\x04'):
        return edit_bytes(data, [('flip', place, value) for _, place, value in edits])
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, 'w') as new:
        for info in old.infolist():
            record = old.read(info)
            if info.filename.endswith('data.pkl'):
                record = edit_instructions(record, edits)
            new.writestr(info.filename, record)
    return buffer.getvalue()


def edit_instructions(data: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    starts = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    parts = [data[a:b] for a, b in zip(starts, starts[1:])]
    for kind, place, value in edits:
        i = 1 + int(place * max(len(parts) - 2, 1))
        i = min(i, len(parts) - 1)
        opcode = OPCODES[value % len(OPCODES)]
        if kind == 'drop' and len(parts) > 3:
            del parts[i]
        elif kind == 'repeat':
            parts[i:i] = parts[i : i + value % 8 + 1] * (1 + value // 64)
        elif kind == 'insert':
            parts.insert(i, opcode)
        elif kind == 'replace':
            parts[i] = opcode
        elif kind == 'argument' and len(parts[i]) > 1:
            part = bytearray(parts[i])
            part[1 + value % (len(part) - 1)] ^= 1 << value % 8
            parts[i] = bytes(part)
        else:
            j = 1 + value % (len(parts) - 1)
            parts[i], parts[j] = parts[j], parts[i]
    return b''.join(parts)


CHANGE = dict(bytes=edit_bytes, zip=edit_zip, pickle=edit_pickle)


def use_checkpoint(path: Path, data: bytes, turn: int) -> None:
    """Read a file and do with it what the tools do; archives without their checksums, mostly."""
    path.write_bytes(data)
    if path.suffix == '.safetensors' or turn % 4 == 0:
        content = load_file(path)
    elif turn % 4 == 1:
        content = load_file(path, lazily=True)
    else:
        content = load_file(io.BytesIO(data))
    get_classes(content.get('meta') or {})
    state = pick_weights(content, ema=has_averaged_weights(content))
    check_numbers(state, path.name)
    if turn % 8 == 0:
        for suffix in ('.pth', '.safetensors'):
            save_weights(state, content.get('meta'), path.with_name(f'out{suffix}'))
    if turn % 16 == 0:
        convert(state)
    load_whole(make_model(), get_state_dict(content), path.name)


def use_picture(pipeline: Compose) -> Callable[[Path, bytes, int], None]:
    def use(path: Path, data: bytes, turn: int) -> None:
        path.write_bytes(data)
        load_image(pipeline, path)

    return use


def run_batch(
    files: dict[str, bytes], use: Callable, number: int, start: int, folder: Path
) -> dict[str, int]:
    """Inputs of one batch, in a process of its own: how many there were of each outcome."""
    counts_file, last = folder / 'counts.json', folder / 'last'
    counts_file.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        code = 1
        try:
            warnings.simplefilter('ignore')
            pages = int(Path('/proc/self/statm').read_text().split()[0])
            limit = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            counts_file.write_text(json.dumps(try_all(files, use, number, start, folder, last)))
            code = 0
        except BaseException:
            (folder / f'fuzzer_{start}.txt').write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        kept = folder / f'crash_{start}_{last.read_text()}' if last.exists() else folder / 'crash'
        for path in folder.glob('input*'):
            path.rename(kept.with_suffix(path.suffix))
        return dict(inputs=1, crashes=1)
    return json.loads(counts_file.read_text())


def try_all(
    files: dict[str, bytes], use: Callable, number: int, start: int, folder: Path, last: Path
) -> dict[str, int]:
    counts = Counter()
    names = sorted(files)

    @seed(start)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(names), CHANGES)
    def try_one(name: str, change: tuple[str, list]) -> None:
        kind, edits = change
        data = CHANGE[kind](files[name], edits)
        path = folder / f'input{Path(name).suffix}'
        last.write_text(name)
        counts['inputs'] += 1
        try:
            use(path, data, counts['inputs'])
            counts['read'] += 1
        except UserError as error:
            text = str(error)
            fine = '\n' not in text and len(text) < 5000 and 'allocat' not in text
            counts['refused' if fine else 'tracebacks'] += 1
            if not fine:
                (folder / f'message_{start}_{counts["inputs"]}_{name}').write_bytes(data)
        except Exception:
            counts['tracebacks'] += 1
            kept = folder / f'traceback_{start}_{counts["inputs"]}_{name}'
            kept.write_bytes(data)
            kept.with_suffix('.txt').write_text(traceback.format_exc())

    try_one()
    return counts


def fuzz(number: int, start: int, folder: Path) -> dict[str, Counter]:
    """Mutated files by what reads them, with how many there were of each outcome."""
    prepare_loading(Config({}))
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    load_steps = Compose([dict(type='LoadImageFromFile')])
    targets = dict(
        checkpoints=(make_checkpoints(), use_checkpoint, 4),
        pictures=(make_pictures(), use_picture(load_steps), 1),
    )
    convert_once()
    counts = {name: Counter() for name in targets}
    shares = sum(share for *_, share in targets.values())
    for name, (files, use, share) in targets.items():
        wanted = number * share // shares
        while counts[name]['inputs'] < wanted:
            size = min(BATCH, wanted - counts[name]['inputs'])
            counts[name].update(run_batch(files, use, size, start, folder))
            start += 1
    return counts


def convert_once() -> None:
    """Build the published variants before the processes part."""
    try:
        convert(dict(a=torch.ones(1)))
    except UserError:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description='Mutated files against what reads them')
    parser.add_argument('--number', type=int, default=3000, help='inputs (default: 3000)')
    parser.add_argument('--seed', type=int, help='of the first batch (default: drawn)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/fuzz'), help='for what fails')
    args = parser.parse_args()
    start = random.randrange(10**9) if args.seed is None else args.seed
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    counts = fuzz(args.number, start, args.out)
    seconds = time.time() - began
    columns = ('inputs', 'refused', 'read', 'crashes', 'tracebacks')
    print(f'{"seed " + str(start):16}' + ''.join(f'{column:>12}' for column in columns))
    for name, count in [*counts.items(), ('together', sum(counts.values(), Counter()))]:
        print(f'{name:16}' + ''.join(f'{count[column]:12}' for column in columns))
    number = sum(count['inputs'] for count in counts.values())
    print(f'{seconds:.0f} seconds, {number / seconds:.0f} inputs a second')
    if any(count['crashes'] or count['tracebacks'] for count in counts.values()):
        sys.exit(f"error: see '{args.out}'")


if __name__ == '__main__':
    main()
