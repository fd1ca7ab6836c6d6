import pytest

from kerasline.components.core.artifacts import Report
from kerasline.components.core.component import Component, Input, Output
from kerasline.components.core.errors import WiringError
from kerasline.pipeline.dag import Pipeline


class Step(Component):
    before: Input[Report] = None
    other: Input[Report] = None
    report: Output[Report]


def diamond():
    a = Step(name="a")
    b, c = Step(a, name="b"), Step(a, name="c")
    return Pipeline("diamond", [Step(b, c, name="d")])


def test_upstream_nodes_are_added_and_ordered():
    pipeline = diamond()
    assert pipeline.order == ["a", "b", "c", "d"]
    assert pipeline.upstream("d") == ["b", "c"]


def test_independent_nodes_share_a_row():
    assert diamond().waves(["a", "b", "c", "d"]) == [["a"], ["b", "c"], ["d"]]
    assert diamond().waves(["b", "d"]) == [["b"], ["d"]]


@pytest.mark.parametrize(
    ("choice", "nodes"),
    [
        ({}, ["a", "b", "c", "d"]),
        ({"node": "c"}, ["c"]),
        ({"start": "b"}, ["b", "d"]),
        ({"stop": "c"}, ["a", "c"]),
        ({"start": "c", "stop": "d"}, ["c", "d"]),
    ],
)
def test_sub_graphs(choice, nodes):
    assert diamond().select(**choice) == nodes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: diamond().select(node="e"), "has no node 'e'"),
        (lambda: diamond().select(start="b", stop="c"), "nothing leads from b to c"),
        (lambda: Pipeline("p", [Step(name="a"), Step(name="a")]), "two nodes are named 'a'"),
        (lambda: Pipeline("p", [Step(name="a b")]), "a name begins with a letter"),
        (lambda: Pipeline("p", ["a"]), "nodes are components, str given"),
    ],
)
def test_wrong_graphs_are_errors_in_one_line(wrong, message):
    with pytest.raises(WiringError, match=message):
        wrong()


def test_cycle_is_named():
    a = Step(name="a")
    b = Step(a, name="b")
    a.inputs["before"] = b.outputs["report"]
    with pytest.raises(WiringError, match="a cycle, [ab] <- [ab]"):
        Pipeline("p", [b])
