"""A validation split for folders that have none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .folder import WHOLE, Folder, Sample
from .pictures import Picture

SHARE = 0.2  # of the pictures
MOST = 0.35  # of the pictures, where groups of them are large


def divide(
    folder: Folder, pictures: dict[Path, Picture], alike: list[tuple[Path, Path]], seed: int = 0
) -> None:
    """Draw a validation split, where there is none but pictures to train on.

    Pictures that are equal or look alike stay on one side; where too many look alike for that,
    those that are equal. In classification each class gives its share.
    """
    source = WHOLE if WHOLE in folder.splits else 'train'
    samples = folder.splits.get(source)
    if 'val' in folder.splits or not samples:
        return
    like, equal = group(samples, pictures, alike), group(samples, pictures, [])
    labels = {number: sample.label for number, sample in zip(like, samples)}
    random = np.random.default_rng(seed)
    drawn: set[int] = set()
    torn: set[int] = set()  # groups that look alike, on both sides
    for label in sorted(set(labels.values()), key=str):
        members = [i for i, number in enumerate(like) if labels[number] == label]
        found = draw(members, like, random) or draw(members, equal, random)
        found = found or draw_least(members, equal)
        torn |= {like[i] for i in found} & {like[i] for i in members if i not in found}
        drawn |= found
    parts = {
        'train': [sample for i, sample in enumerate(samples) if i not in drawn],
        'val': [sample for i, sample in enumerate(samples) if i in drawn],
    }
    others = {split: folder.splits[split] for split in folder.splits if split != source}
    folder.splits = parts | others
    folder.native.pop(source, None)
    together = 'that are equal' if torn else 'that are equal or look alike'
    folder.notes.append(
        f'no validation split was found: {len(parts["val"])} of {len(samples)} pictures were drawn '
        f'(seed {seed}); those {together} stay on one side'
    )
    if torn:
        folder.notes.append('so many pictures look alike that some that do are on both sides')


def draw(members: list[int], groups: list[int], random: np.random.Generator) -> set[int]:
    """About a fifth of these samples, in whole groups; none where the groups are too large."""
    sizes = Counter(groups[i] for i in members)
    wanted = max(round(SHARE * len(members)), 1)
    most = max(int(MOST * len(members)), 1)
    taken: set[int] = set()
    number = 0
    for candidate in random.permutation(sorted(sizes)).tolist():
        if number < wanted and number + sizes[candidate] <= min(most, len(members) - 1):
            taken.add(candidate)
            number += sizes[candidate]
    return {i for i in members if groups[i] in taken} if 2 * number >= wanted else set()


def draw_least(members: list[int], groups: list[int]) -> set[int]:
    """The smallest group of these samples; none where there is one alone."""
    sizes = Counter(groups[i] for i in members)
    least = min(sizes, key=lambda number: (sizes[number], number))
    return {i for i in members if groups[i] == least} if len(sizes) > 1 else set()


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
