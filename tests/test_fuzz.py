"""A few spoiled files; `python tests/fuzz.py 2000` tries many."""

from fuzz import fuzz


def test_spoiled_files_are_read_or_refused_in_one_line():
    outcomes, wrong = fuzz(8)
    assert not wrong and sum(outcomes.values()) == 8, wrong
