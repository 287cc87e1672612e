"Generated bad inputs: exit code 2 and one line with the culprit and a remedy; all of them with WADDINGTON_ALL=1."

import os

from bad_inputs import main


def test_bad_inputs_get_one_clear_line_each():
    everything = bool(os.environ.get("WADDINGTON_ALL"))
    count, wrong = main(1 if everything else 8)
    assert not wrong, wrong
    assert count >= (200 if everything else 25)
