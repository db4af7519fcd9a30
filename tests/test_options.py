"""The experiments' command lines: which options there are, and that each says what it is for."""

import argparse
import dataclasses
import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from experiments import options

# Experiment -> a line per option: its name, what it takes, its default.
OPTIONS = {
    "benchmark": """
        --only str =
        --repeats int = 5
        --quick
        --data str = auto
        --out str = runs/benchmark
        --case str =
    """,
    "benchmark_secretflow": """
        --transport brpc_link|grpc = brpc_link
        --tls
        --in-flight int = 4
        --repeats int = 7
        --rows int = 32561
        --out str = runs/benchmark_secretflow
        --party alice|bob
        --cluster str
    """,
    "census_income": """
        --recipe corrected|tuned|tutorial = corrected
        --epochs int
        --batch-size int
        --seed int = 0
        --seeds int = 1
        --split-only
        --in-flight int = 1
        --audit
        --protect facing|marvell|noise|none|one_shot = none
        --epsilon float = 1.0
        --activation-noise float
        --swapped
        --data str = auto
        --write-parties str
        --compile-cache str
        --out str = runs/census_income
    """,
    "census_secretflow": """
        --simulate
        --data str = auto
        --epochs int = 6
        --batch-size int = 128
        --in-flight int = 1
        --seed int = 0
        --transport brpc_link|grpc = brpc_link
        --tls
        --align psi|same = same
        --deadline float = 60.0
        --scores all|label = label
        --audit
        --protect facing|marvell|noise|none|one_shot = none
        --epsilon float = 1.0
        --out str = runs/census_secretflow
    """,
    "certificate": """
        --canaries int = 2000
        --randomised float
        --facing float
        --epochs int = 6
        --seed int = 0
        --data str = auto
        --out str = runs/certificate
    """,
    "fit_sampler": """
        folder Path required
        --check int = 0
    """,
    "flights": """
        --placement fused|local = fused
        --epochs int
        --seed int = 0
        --seeds int = 1
        --compile-cache str
        --out str = runs/flights
    """,
    "kill_and_resume": """
        --placement fused|local = local
        --kills int = 20
        --rows int = 6000
        --epochs int = 12
        --every-rounds int = 10
        --seed int = 0
        --out str = runs/kill_and_resume
        --folder str
    """,
    "large_tables": """
        --rows float = 10000000.0
        --format csv|parquet = parquet
        --memory
        --batch-size int = 1024
        --epochs int = 2
        --seed int = 0
        --folder str = runs/large_tables
    """,
    "leaks": """
        --swapped
        --only str+
        --seeds int = 1
        --epochs int = 6
        --data str = auto
        --out str = runs/leaks
    """,
    "heads": """
        --compare balance|fuse = fuse
        --seeds int
        --data str = auto
        --compile-cache str
        --out str = runs/heads
    """,
    "long_run": """
        --placement encoded|fused|local = local
        --parties int = 16
        --rounds int = 100000
        --epoch-rounds int = 1000
        --batch-size int = 8
        --warm-up float = 0.05
        --tolerance float = 0.05
        --seed int = 0
        --out str = runs/long_run
    """,
    "movielens": """
        --placement fused|local = fused
        --epochs int
        --seed int = 0
        --seeds int = 1
        --compile-cache str
        --out str = runs/movielens
        --split calendar|history = history
    """,
    "sweep": """
        --rates float+ = 0.0003 0.001 0.003 0.01
        --seeds int = 8
        --epochs int = 6
        --batch-size int = 128
        --data str = auto
        --compile-cache str
        --out str = runs/sweep
    """,
    "synthetic": """
        --runs int = 200
        --steps int = 4000
        --alike float+ = 0.5 1.0
        --seed int = 0
        --out str = runs/synthetic
    """,
    "tune": """
        --data str required
        --trials int = 30
        --seed int = 0
        --model-seeds int = 1
        --refine-seeds int = 2
        --out str = runs/tune
    """,
    "wide_area": """
        --round-trips float+ = 0.0 40.0 100.0
        --in-flight int+ = 1 4 16 48
        --transport brpc_link|grpc = brpc_link
        --tls
        --epochs int = 6
        --seeds int = 10
        --data str = auto
        --out str = runs/wide_area
    """,
}


class Built(Exception):
    """The parser of an experiment that was about to read its arguments."""


@pytest.fixture
def parser_of(monkeypatch):
    """Experiment -> the parser that its `main` builds."""
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # the import of heads and of sweep changes it

    def stop(parser, arguments=None):
        raise Built(parser)

    def build(experiment: str) -> argparse.ArgumentParser:
        module = importlib.import_module(f"experiments.{experiment}")
        with monkeypatch.context() as patched, pytest.raises(Built) as built:
            patched.setattr(argparse.ArgumentParser, "parse_args", stop)
            module.main()
        return built.value.args[0]

    return build


def described(action: argparse.Action) -> str:
    """An option as a line of `OPTIONS` has it."""
    words = [*action.option_strings] or [action.dest]
    if action.nargs != 0:
        kind = "|".join(sorted(action.choices)) if action.choices else getattr(action.type, "__name__", "str")
        words.append(f"{kind}{action.nargs or ''}")
    if action.required:
        words.append("required")
    elif action.nargs != 0 and action.default is not None:
        values = [action.default] if isinstance(action.default, str | int | float) else action.default
        words.append(" ".join(map(str, ("=", *values))).strip())
    return " ".join(words)


def test_every_experiment_is_listed():
    folder = Path(options.__file__).parent
    assert {file.stem for file in folder.glob("*.py") if "\n    main()\n" in file.read_text()} == set(OPTIONS)


@pytest.mark.parametrize("experiment", OPTIONS)
def test_options_are_as_listed_and_explained(experiment, parser_of):
    parser = parser_of(experiment)
    actions = parser._actions[1:]  # --help itself comes first
    assert [described(action) for action in actions] == [line.strip() for line in OPTIONS[experiment].split("\n")[1:-1]]
    for action in actions:
        assert re.search(r"\w", action.help or ""), f"{described(action)}: saw no help text"
    assert f"python -m experiments.{experiment}" in parser.format_help()


def test_choices_are_what_there_is():
    from experiments import census_income, census_secretflow, long_run, recipes
    from parties.devices.production import TRANSPORTS

    def listed(experiment: str, option: str) -> set[str]:
        found = re.search(rf"{option} (\S+)", OPTIONS[experiment])
        return set(found[1].split("|")) if found else set()

    assert census_income.Settings().recipe in recipes.RECIPES.keys() == listed("census_income", "--recipe")
    assert long_run.PLACEMENTS.keys() == listed("long_run", "--placement")
    assert set(census_secretflow.PARTIES) == listed("benchmark_secretflow", "--party")
    for experiment in ("census_secretflow", "benchmark_secretflow", "wide_area"):
        assert set(TRANSPORTS) == listed(experiment, "--transport")


@dataclasses.dataclass
class Settings:
    names: Sequence[str]  # one or more
    rate: float = dataclasses.field(kw_only=True)  # no default, but a name
    count: int | None = None  # a third, 33 %, # or so
    depths: Sequence[int] = (1, 2)  # of each
    mode: Literal["fast", "slow"] | None = None  # how
    folder: Path = Path("here")  # where
    loud: bool = False  # say more

    def __post_init__(self):
        options.at_least_one(self, "count")


def test_arguments_become_settings_and_settings_arguments():
    given = "a b --rate 1e-2 --count=3 --depths 4 5 --mode slow --folder there --loud".split()
    settings = options.parse(Settings, __doc__, given)
    assert settings == Settings(["a", "b"], 3, [4, 5], "slow", Path("there"), True, rate=0.01)
    settings = options.parse(Settings, __doc__, ["a", "--rate", "0"])
    assert settings == Settings(["a"], rate=0.0)


@dataclasses.dataclass
class Extended(Settings):
    count: int | None = 2  # how many
    last: bool = False  # at the end


def test_settings_that_extend_others_have_their_options_too(capsys):
    assert options.parse(Extended, __doc__, "a --rate 1 --last".split()) == Extended(["a"], 2, last=True, rate=1.0)
    with pytest.raises(SystemExit, match="^0$"):
        options.parse(Extended, __doc__, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "one or more" in shown and "how many (default: 2)" in shown and "at the end" in shown
    assert "a third" not in shown, "the field has another comment"


def test_settings_become_arguments():
    from experiments.benchmark_secretflow import Settings

    settings = Settings(rows=0, tls=True, cluster="a place", party="bob", out="")
    assert options.parse(Settings, __doc__, options.command_line(settings)) == settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a", "--rate"),
        ("--rate 1", "names"),
        ("a --rate 1 --mode loud", "--mode"),
        ("a --rate 1 --count 0", "--count: saw 0, wanted at least 1"),
        ("a --rate 1 --count x", "--count"),
    ],
)
def test_arguments_are_refused_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        options.parse(Settings, __doc__, arguments.split())
    assert message in capsys.readouterr().err


def test_help_is_the_comment_and_the_default(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        options.parse(Settings, "What it is for.", ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "What it is for." in shown and "a third, 33 %, # or so" in shown
    assert "where (default: here)" in shown and "(default: None)" not in shown
