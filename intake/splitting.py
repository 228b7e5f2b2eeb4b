"""A validation split for folders that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .folder import WHOLE, Folder, Sample
from .pictures import Picture

SHARE = 0.2  # of the pictures


def divide(
    folder: Folder, pictures: dict[Path, Picture], alike: list[tuple[Path, Path]], seed: int = 0
) -> None:
    """Draw a validation split, where there is none but pictures to train on.

    Pictures that are equal or look alike stay on one side. In classification each class gives its
    share.
    """
    source = WHOLE if WHOLE in folder.splits else 'train'
    samples = folder.splits.get(source)
    if 'val' in folder.splits or not samples:
        return
    groups = group(samples, pictures, alike)
    labels = {number: sample.label for number, sample in zip(groups, samples)}
    random = np.random.default_rng(seed)
    drawn: set[int] = set()
    for label in sorted(set(labels.values()), key=str):
        numbers = sorted(number for number in labels if labels[number] == label)
        wanted = max(round(SHARE * len(numbers)), int(len(numbers) > 1))
        drawn |= {*random.permutation(numbers)[:wanted].tolist()}
    parts = {
        'train': [s for s, number in zip(samples, groups) if number not in drawn],
        'val': [s for s, number in zip(samples, groups) if number in drawn],
    }
    others = {split: folder.splits[split] for split in folder.splits if split != source}
    folder.splits = parts | others
    folder.native.pop(source, None)
    folder.notes.append(
        f'no validation split was found: {len(parts["val"])} of {len(samples)} pictures were drawn '
        f'(seed {seed}); those that are equal or look alike stay on one side'
    )


def group(
    samples: list[Sample], pictures: dict[Path, Picture], alike: list[tuple[Path, Path]]
) -> list[int]:
    """The number of each sample's group."""
    index = {sample.picture: i for i, sample in enumerate(samples)}
    digests: dict[str, int] = {}
    pairs = [(index[a], index[b]) for a, b in alike if a in index and b in index]
    for i, sample in enumerate(samples):
        digest = pictures[sample.picture].digest
        pairs.append((i, index[sample.picture]))
        if digest:
            pairs.append((i, digests.setdefault(digest, i)))
    rows, columns = np.array(pairs).T
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(samples), len(samples)))
    return connected_components(graph, directed=False)[1].tolist()
