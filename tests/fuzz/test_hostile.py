"""No file and no folder that anybody gives ends in a traceback, a crash, a hang, or a pass that should not be.

A trial is made from its name: `pytest tests/fuzz -m "" -k gate-record-17` tries that one again.
"""

import json
import sys

import pytest
from trials import GOOD, GROUPS, Good

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process and its children do")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=name, marks=[] if number < group.quick else pytest.mark.slow)
        for group in GROUPS
        for number, name in enumerate(group.names)
    ],
)
def test_what_is_hostile_is_refused_in_one_line(name, outcomes):
    outcome = outcomes[name].result()
    assert not outcome["wrong"], json.dumps(outcome, indent=1)


@pytest.mark.parametrize("good", [pytest.param(good, id=good.name) for good in GOOD])
def test_what_is_good_is_taken(good: Good, outcomes):
    outcome = outcomes[f"{good.name}-0"].result()
    assert not outcome["wrong"], json.dumps(outcome, indent=1)
    assert (outcome["code"], good.words in outcome["stderr"]) == (good.code, True), json.dumps(outcome, indent=1)
