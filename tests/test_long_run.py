"""The long run, short: nothing grows; and what does grow is found."""

import json

import pytest

from experiments import long_run
from parties import Local, Recorded

pytestmark = pytest.mark.xdist_group("test_long_run")  # one worker, which compiles its model once

WARM = ["--rounds", "3000", "--warm-up", "0.9"]  # all of it
OPTIONS = ["--parties", "2", "--batch-size", "4", "--warm-up", "0.2"]


@pytest.mark.thorough
def test_rounds_leave_no_array_and_nothing_to_compile():
    settings = long_run.parse([*OPTIONS, "--rounds", "1000", "--epoch-rounds", "100"])
    seen, history = long_run.run(settings)
    assert {len(values) for values in (*seen.values(), *history.values())} == {10}
    first = long_run.warm(settings)
    assert first == 1 and min(seen["compilations"]) > 0 and min(seen["traces"]) > 0
    for name in long_run.CONSTANT:
        assert set(seen[name][first:]) == {seen[name][first]}, f"{name} an epoch: {seen[name]}"
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.thorough
def test_what_grows_ends_with_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(long_run.PLACEMENTS, "local", lambda: Local(Recorded()))  # keeps every message
    with pytest.raises(SystemExit, match="^grown: live_arrays from [0-9,]+ to [0-9,]+$"):
        long_run.main([*OPTIONS, "--rounds", "40", "--epoch-rounds", "10", "--tolerance", "1", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "result.json").read_text())
    # An activation and a cotangent each round, and an activation each of validation's.
    assert result["growth"]["live_arrays"] == 3 * (2 * 10 + long_run.VALIDATION_ROUNDS)
    assert result["growth"]["compilations"] == 0 and len(result["seen"]["memory_mb"]) == 4
    printed = capsys.readouterr().out
    assert "since epoch 1: " in printed and "nothing grew" not in printed


@pytest.mark.parametrize("name", ["memory_mb", *long_run.CONSTANT])
def test_growth_counts_from_the_end_of_the_warm_up(name):
    settings = long_run.parse(["--rounds", "100000"])
    word = name.removesuffix("_mb")
    flat: dict[str, list[float]] = dict.fromkeys(["memory_mb", *long_run.CONSTANT], [1.0] * 5 + [100.0] * 95)
    assert long_run.warm(settings) == 4
    assert [what.split()[0] for what in long_run.grown(settings, flat)] == ["memory", *long_run.CONSTANT]
    flat = dict.fromkeys(flat, [1.0] * 4 + [100.0] * 96)
    assert long_run.grown(settings, flat) == []
    assert [what.split()[0] for what in long_run.grown(settings, flat | {name: [100.0] * 99 + [106.0]})] == [word]
    assert long_run.grown(settings, flat | {"memory_mb": [100.0] * 99 + [105.0]}) == []


@pytest.mark.parametrize("options", [["--rounds", "1500"], ["--rounds", "1000"], ["--parties", "0"], WARM])
def test_settings_that_cannot_run_are_refused(options, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        long_run.parse(options)
    assert "wanted" in capsys.readouterr().err
