"""Errors are told in one line."""

from mmdense.errors import UserError, last_line


def test_errors_from_workers_are_cut_to_their_message():
    message = (
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n  File "x.py"\n'
        "mmdense.errors.UserError: 'a.png' cannot be read\n"
    )
    assert last_line(UserError(message)) == "'a.png' cannot be read"
    assert last_line(ValueError()) == 'ValueError'
