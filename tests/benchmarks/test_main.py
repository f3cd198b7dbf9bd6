"""Verbs of `python -m benchmarks`."""

from tests.support.processes import Program


def test_the_experiment_that_left_says_where_its_table_is(program: Program) -> None:
    result = program("benchmarks", "accuracy", "--dataset=x")
    assert result.returncode == 2
    assert "docs/benchmarks.md#what-a-smaller-dtype-costs" in result.stderr
