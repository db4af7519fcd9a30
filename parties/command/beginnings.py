"""`mmoe-jax init`, `example` and `keys`: what comes before the first meeting."""

from collections.abc import Sequence
from pathlib import Path

import click

from parties.command.group import FILE, FOLDER, main
from parties.command.keys import new_key, sign
from parties.command.prepare import start_study, write_example
from parties.command.report import Report

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")


@main.command()
@click.argument("tables", type=FILE, nargs=-1, required=True, metavar="TABLE...")
@click.option("--party", "names", multiple=True, required=True, metavar="P", help="Whose table it is; once per TABLE.")
@click.option("--out", type=FILE, required=True, metavar="STUDY", help="The study to write, or to add the parties to.")
@click.option("--label", "labels", multiple=True, metavar="COLUMN", help="A label column; once for each task.")
@click.option("--id", "ids", metavar="COLUMN", help="The column of row ids; by default one that looks like it.")
@click.option("--separator", default=",", metavar="CHARACTER", help="Between the cells of a CSV file; by default ','.")
@AS_JSON
def init(
    tables: Sequence[Path],
    names: Sequence[str],
    out: Path,
    labels: Sequence[str],
    ids: str | None,
    separator: str,
    as_json: bool,
) -> None:
    """Write a commented study of the columns of each TABLE, CSV or Parquet, or add them to a study that is there.

    Each party can do it at home: one begins the study, with its labels, and sends it to the next. No cell is in it.
    """
    if len(tables) != len(names) or len(set(names)) < len(names):
        raise click.UsageError("--party: wanted one for each TABLE, each another")
    if len(separator) != 1:
        raise click.UsageError("--separator: wanted one character")
    with Report("init", out, names[0] if len(names) == 1 else None, as_json) as report:
        report.lines = start_study(out, dict(zip(names, tables, strict=True)), labels, separator, ids)
        report.files["study"] = str(out)


@main.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--rows", type=click.IntRange(1), default=4000, show_default=True, help="Rows to train on.")
@click.option("--test-rows", type=click.IntRange(1), default=1000, show_default=True, help="Rows to score.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed, the same rows.")
@AS_JSON
def example(folder: Path, rows: int, test_rows: int, seed: int, as_json: bool) -> None:
    """Write sampled rows of two parties, their study and own files to DIR, to rehearse with on one machine."""
    with Report("example", folder / "study.toml", None, as_json) as report:
        report.files |= {name: str(file) for name, file in write_example(folder, rows, test_rows, seed).items()}


@main.group()
def keys() -> None:
    """Make keys and certificates, with which parties prove who they are. No private key travels."""


@keys.command("new")
@click.argument("party", metavar="PARTY")
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="Folder of the key, which stays in it.")
@AS_JSON
def new(party: str, out: Path, as_json: bool) -> None:
    """Make PARTY's key, and a signing request to send to who signs."""
    with Report("keys new", None, party, as_json) as report:
        key, request = new_key(out, party)
        report.files |= {"key": str(key), "request": str(request)}
        report.lines.append("Send the request to who signs. The key stays where it is.")


@keys.command("sign")
@click.argument("requests", type=FILE, nargs=-1, required=True, metavar="REQUEST...")
@click.option(
    "--authority", type=FOLDER, required=True, metavar="DIR", help="Folder of the authority; made the first time."
)
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="Folder to write certificates to.")
@click.option("--days", type=float, default=365.0, show_default=True, help="For which they are valid.")
@AS_JSON
def sign_requests(requests: Sequence[Path], authority: Path, out: Path, days: float, as_json: bool) -> None:
    """Sign each party's REQUEST, as the authority of this group of parties."""
    with Report("keys sign", None, None, as_json) as report:
        for file in sign(requests, authority, out, days):
            report.files[file.stem] = str(file)
        report.files["authority"] = str(out / "authority.pem")
        report.lines.append("Send each party its certificate, and authority.pem.")
