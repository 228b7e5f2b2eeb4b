"""The copies that --fix writes."""

import pytest
from makers import MAKERS

from mmdense.intake.copying import write_copy
from mmdense.intake.examining import examine
from mmdense.intake.faults import count_classes, stops
from mmdense.intake.mending import mend

UNNAMED = (('masks', 'classes.txt'), ('colours', 'labels.txt'))  # without their text of classes


@pytest.mark.parametrize('maker, unnamed', [*((maker, '') for maker in MAKERS), *UNNAMED])
def test_copies_of_sound_folders_have_the_same(maker, unnamed, own, tmp_path):
    """Also of masks whose classes no text names."""
    root = own(maker)
    if unnamed:
        (root / unnamed).unlink()
    examination = examine(root)
    folder, said = mend(examination, in_place=False)
    write_copy(folder, examination.pictures, tmp_path / 'mended')
    again = examine(tmp_path / 'mended')
    assert not said and not stops(again.faults), again.faults[:5]
    assert (again.folder.classes, again.folder.task) == (folder.classes, folder.task)
    for split, samples in folder.splits.items():
        assert count_classes(again.folder, again.folder.splits[split]) == count_classes(
            folder, samples
        )
