"""Where the results of pictures go."""

from mmdense.inference import predict


def test_pictures_of_one_name(tmp_path):
    """Results of a/x.png, b/x.png and b/x.jpg do not overwrite each other."""
    for name in ('a/x.png', 'b/x.png', 'b/x.jpg', 'b/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inputs = [str(tmp_path / 'a' / 'x.png'), str(tmp_path / 'b')]
    found = predict.find_images(inputs, tmp_path / 'out')
    assert list(found) == ['x', 'x_2', 'x_3']
    assert len(set(found.values())) == 3
    assert list(predict.find_images([str(tmp_path)], tmp_path / 'b')) == ['a/x']
