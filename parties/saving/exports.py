"""A party's part of a model as StableHLO: pure functions that serve predictions without Flax and this library.

A folder has a file per function, as `jax.export` writes it, with the parameters inside, and a card, `export.json`. It
is made of a trained model and nothing is trained from it: the folder that `save` writes stays the source.
"""

import contextlib
import hashlib
import json
import reprlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from parties.data.on_disk import flush_folder
from parties.errors import DataError, ModelError, SaveError
from parties.saving.folder import digest, folder_party, write_file

FORMAT = 1
CARD = "export.json"
OLDEST = (0, 4, 30)  # the first JAX with `jax.export`
LATER = "jax.export, so JAX {}.{}.{} or later: there `parties.export_folder` or `mmoe-jax export` takes what was saved"


class Input(NamedTuple):
    """An array that a function takes, or gives.

    Attributes:
        dtype: such as "float32".
        shape: of one row, so without the leading axis.
        ids: the lowest id and the first above all; () where the array has no ids.
    """

    dtype: str
    shape: tuple[int, ...]
    ids: tuple[int, int] | tuple[()] = ()

    def rows(self, value: Any) -> jax.ShapeDtypeStruct:
        """So many rows of it."""
        return jax.ShapeDtypeStruct((value, *self.shape), self.dtype)


class Function(NamedTuple):
    """What is exported of a network.

    Attributes:
        apply: name -> array `[B, ...]` in, an array `[B, ...]` or such arrays by name out; its parameters are inside.
        inputs: name -> what it takes.
        parameters: a pytree of NumPy arrays.
    """

    apply: Callable[[Mapping[str, Any]], Any]
    inputs: Mapping[str, Input]
    parameters: Any


def make_export(path: Path, party: str, epoch: int, functions: Mapping[str, Function]) -> dict[str, bytes]:
    """The files of a party's folder `path/PARTY`, not written yet: `NAME.stablehlo` of each function, and the card.

    Args:
        epoch: after how many the model is exported.

    Raises:
        ModelError: JAX is too old; its serialisation lacks a package; or a network asks how many rows there are.
        SaveError: the party's folder is there.
    """
    check_jax(party)
    _check_free(path / party, party)
    files, parts = {}, {}
    for name, function in functions.items():
        payload, outputs = _serialised(function, name, party)
        files[f"{name}.stablehlo"] = payload
        parts[name] = {
            "sha256": hashlib.sha256(payload).hexdigest(),
            "parameters": parameters_digest(function.parameters),
            "inputs": {key: _described(value) for key, value in function.inputs.items()},
            "outputs": outputs,
        }
    platform = _jax_export().default_export_platform()
    card = {"format": FORMAT, "party": party, "epoch": epoch, "jax": jax.__version__, "platform": platform}
    card |= {"functions": parts}
    return files | {CARD: json.dumps({**card, "checksum": digest(card)}, indent=1).encode()}


def write_export(path: Path, party: str, files: Mapping[str, bytes]) -> None:
    """Write a party's folder `path/PARTY` with these files, whole or not at all.

    Raises:
        SaveError: it cannot be written.
    """
    new = path / f".{party}.new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for file, content in files.items():
            write_file(new / file, content)
        new.rename(path / party)
        flush_folder(path)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        wanted = "a folder that can be written"
        raise SaveError(party=party, field=f"folder {str(path / party)!r}", seen=str(error), wanted=wanted) from error


def parameters_digest(parameters: Any) -> str:
    """SHA-256 of all arrays of a pytree, with their paths, dtypes and shapes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(parameters)[0]:
        array = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype}{list(array.shape)}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Let JAX write no lines of code beside what it compiles: they have the paths of files on this machine."""
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _described(value: Input) -> dict[str, Any]:
    shape = {"dtype": value.dtype, "shape": ["rows", *value.shape]}
    return {**shape, "ids": list(value.ids)} if value.ids else shape


def _serialised(function: Function, name: str, party: str) -> tuple[bytes, Any]:
    """The function for any number of rows, and what it gives."""
    (rows,) = _jax_export().symbolic_shape("rows")
    inputs = {key: value.rows(rows) for key, value in function.inputs.items()}
    inconclusive = getattr(jax.errors, "InconclusiveDimensionOperation", None)
    # Before JAX had the error there, it was in `jax.core`.
    inconclusive = inconclusive or jax.core.InconclusiveDimensionOperation  # type: ignore[attr-defined]
    try:
        with _without_locations():
            made = _jax_export().export(jax.jit(function.apply))(inputs)
    except (TypeError, ValueError, NotImplementedError, inconclusive) as error:
        seen = f"{type(error).__name__} {str(error).splitlines()[0]}"
        wanted = "a network that takes any number of rows"
        raise ModelError(party=party, field=name, seen=seen, wanted=wanted) from error
    outputs = jax.tree.unflatten(made.out_tree, made.out_avals)
    described = jax.tree.map(lambda of: _described(Input(np.dtype(of.dtype).name, of.shape[1:])), outputs)
    return bytes(made.serialize()), described


class Served(NamedTuple):
    """A function that was read back. It compiles once per number of rows.

    Attributes:
        party, name: whose it is, and which.
        inputs: name -> what it takes: columns as the party's fitted specifications `transform` them, or activations.
        parameters: the digest of the parameters inside.
        call: as the function that was exported.
    """

    party: str
    name: str
    inputs: Mapping[str, Input]
    parameters: str
    call: Callable[[Mapping[str, Any]], Any]

    def __call__(self, given: Mapping[str, Any]) -> Any:
        """Arrays `[B, ...]` by name in, B at least 1; an activation `[B, ...]`, or predictions by task, out.

        Raises:
            DataError: an array is missing, too many, of another dtype or shape, or has an id out of range.
        """
        if set(given) != set(self.inputs):
            raise self._refused("inputs", str(sorted(given)), str(sorted(self.inputs)))
        rows = None
        for name, wanted in self.inputs.items():
            array = np.asarray(given[name])
            rows = len(array) if rows is None and array.ndim else rows
            if not rows or array.shape != (rows, *wanted.shape) or array.dtype.name != wanted.dtype:
                shape = ", ".join(map(str, (rows or "rows", *wanted.shape)))
                raise self._refused(f"input {name!r}", f"{array.dtype}{list(array.shape)}", f"{wanted.dtype}[{shape}]")
            if wanted.ids and not (wanted.ids[0] <= array.min() and array.max() < wanted.ids[1]):
                seen = f"ids from {array.min()} to {array.max()}"
                raise self._refused(f"input {name!r}", seen, f"ids in [{wanted.ids[0]}, {wanted.ids[1]})")
        return self.call(dict(given))

    def _refused(self, field: str, seen: str, wanted: str) -> DataError:
        return DataError(party=self.party, field=f"{self.name}: {field}", seen=seen, wanted=wanted)


class Exported(NamedTuple):
    """A party's exported part.

    Attributes:
        party: whose.
        epoch: how many the model had been trained: parts that serve together have the same.
        jax, platform: the JAX and the platform that it was exported by and for.
        functions: name -> function: "base", from the party's columns to its activation, where it has columns; at the
            label party "fuse", from all parties' activations to predictions by task, as `predict` gives them.
    """

    party: str
    epoch: int
    jax: str
    platform: str
    functions: Mapping[str, Served]


def exported(folder: str | Path) -> Exported:
    """Read back a party's folder that `SplitModel.export` wrote.

    Raises:
        SaveError: a file is missing or damaged, or was exported for another platform or by a JAX whose files this one
            does not read; names the party and both.
        ModelError: as of `SplitModel.export`.
    """
    folder = Path(folder)
    party = folder_party(folder)
    check_jax(party)
    card = _read_card(folder, party)
    platform = _jax_export().default_export_platform()
    if card.get("platform") != platform:
        raise _damaged(party, "platform", reprlib.repr(card.get("platform")), f"{platform!r}, as this process has")
    functions = {name: _read_function(folder, party, name, of, card["jax"]) for name, of in card["functions"].items()}
    return Exported(card["party"], card["epoch"], card["jax"], card["platform"], functions)


def _read_function(folder: Path, party: str, name: str, described: Mapping[str, Any], version: str) -> Served:
    """The function of that name, whose file is as the card describes it; written by JAX of that version."""
    file = f"{name}.stablehlo"
    try:
        wanted, parameters = described["sha256"], described["parameters"]
        inputs = {
            key: Input(of["dtype"], tuple(of["shape"][1:]), tuple(of.get("ids", ())))
            for key, of in described["inputs"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        seen = f"{type(error).__name__} {error}"
        raise _damaged(party, name, seen, "inputs, and digests of the file and the parameters") from error
    try:
        payload = (folder / file).read_bytes()
    except OSError as error:
        raise _damaged(party, file, str(error), f"a file, as {CARD} says") from error
    if (seen := hashlib.sha256(payload).hexdigest()) != wanted:
        raise _damaged(party, file, f"the digest {seen}", f"{wanted}: the file is damaged")
    try:
        read = _jax_export().deserialize(bytearray(payload))
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # each JAX has its own for what it does not know
        wanted = f"a file that JAX {jax.__version__} reads; JAX {version} wrote it"
        raise _damaged(party, file, f"{type(error).__name__} {error}"[:200], wanted) from error
    return Served(party, name, inputs, parameters, jax.jit(read.call))


def _read_card(folder: Path, party: str) -> dict[str, Any]:
    """The card, whole and of a party's folder of that name."""
    try:
        card = json.loads((folder / CARD).read_text())
    except OSError as error:
        raise _damaged(party, f"folder {str(folder)!r}", str(error), CARD) from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deep
        raise _damaged(party, CARD, str(error), "JSON as it was exported") from error
    if not isinstance(card, dict) or (checksum := card.pop("checksum", None)) is None:
        raise _damaged(party, CARD, type(card).__name__, "an object with a checksum")
    if checksum != digest(card):
        raise _damaged(party, "checksum", reprlib.repr(checksum), f"the digest of {CARD}: it is damaged")
    if card.get("format") != FORMAT:
        raise _damaged(party, "format", reprlib.repr(card.get("format")), str(FORMAT))
    if card.get("party") != party:
        raise _damaged(party, "party", reprlib.repr(card.get("party")), f"{party!r}, as its folder's name")
    if type(epoch := card.get("epoch")) is not int:
        raise _damaged(party, "epoch", reprlib.repr(epoch), "a number of epochs")
    functions = card.get("functions")
    if not isinstance(functions, dict) or not {"base", "fuse"} >= set(functions) or "jax" not in card:
        raise _damaged(party, "functions", reprlib.repr(functions), "those of 'base' and 'fuse'")
    return card


def _check_free(folder: Path, party: str) -> None:
    """Refuse a folder that is there, or of which nobody can say whether it is."""
    try:
        seen = "a folder that is there" if folder.exists() else None
    except OSError as error:  # such as a name that is too long
        seen = str(error)
    if seen is not None:
        wanted = "one that is not: an export is written once"
        raise SaveError(party=party, field=f"folder {str(folder)!r}", seen=seen, wanted=wanted)


def check_jax(party: str) -> None:
    """Refuse a process that can neither export nor read an export; raises ModelError."""
    if jax.__version_info__ < OLDEST:
        raise ModelError(party=party, field="export", seen=f"JAX {jax.__version__}", wanted=LATER.format(*OLDEST))
    if find_spec("flatbuffers") is None:
        wanted = "pip install 'mmoe-jax[export]'"
        raise ModelError(party=party, field="export", seen="no package flatbuffers", wanted=wanted)


def _jax_export() -> Any:
    """`jax.export`, which is imported here, as the oldest JAX that this library takes has none."""
    return import_module("jax.export")


def _damaged(party: str, field: str, seen: str, wanted: str) -> SaveError:
    return SaveError(party=party, field=field, seen=seen, wanted=wanted)
