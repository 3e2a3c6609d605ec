import collections
import contextlib
import os
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from dataset_builder.restricted_pickle import Record, read_pickle, read_pickled_npy

ARRAYS = {
    "f8": np.linspace(-1, 1, 24).reshape(2, 3, 4),
    "f4 fortran": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    "big endian": np.arange(5, dtype=">i4"),
    "u4": np.array([[1, 2], [3, 2**32 - 1]], np.uint32),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float64(2.5),
}


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, bytes) and id(obj) not in self.memo:
            self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)
            self.memoize(obj)
        else:
            super().save(obj, save_persistent_id)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_kind_come_back(tmp_path, protocol):
    content = read_pickle(write(tmp_path / "a.pkl", {"name": "face", "n": [1, 2.5, None], **ARRAYS}, protocol))
    assert (content["name"], content["n"]) == ("face", [1, 2.5, None])
    for key, values in ARRAYS.items():
        np.testing.assert_array_equal(content[key], values)
        assert content[key].dtype == values.dtype.newbyteorder("=")
        assert content[key].dtype.isnative


def test_a_pickle_of_python_2_is_read(tmp_path):
    path = tmp_path / "py2.pkl"
    with path.open("wb") as file:
        Python2Pickler(file, 2, fix_imports=True).dump({b"v_template": ARRAYS["f8"], b"style": b"lbs"})
    content = read_pickle(path)
    np.testing.assert_array_equal(content["v_template"], ARRAYS["f8"])
    assert content["style"] == "lbs"


@pytest.fixture
def chumpy(monkeypatch):
    """A stand-in for the chumpy package, whose variables keep their numbers in ``x``."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_chumpy_variable_becomes_its_array(tmp_path, chumpy, protocol):
    path = write(tmp_path / "c.pkl", {"shapedirs": chumpy(ARRAYS["f8"]), "other": chumpy(chumpy(3))}, protocol)
    content = read_pickle(path)
    np.testing.assert_array_equal(content["shapedirs"], ARRAYS["f8"])
    assert content["other"] == 3


def test_a_sparse_matrix_stays_a_record(tmp_path):
    content = read_pickle(write(tmp_path / "s.pkl", {"J": sparse.csc_matrix(np.eye(3))}))
    assert isinstance(content["J"], Record)
    assert content["J"].name.endswith("csc_matrix")
    assert not callable(content["J"])


def test_a_dictionary_in_an_array_file_is_read(tmp_path):
    np.save(tmp_path / "d.npy", {"lmk": ARRAYS["f8"]}, allow_pickle=True)
    np.testing.assert_array_equal(read_pickled_npy(tmp_path / "d.npy")["lmk"], ARRAYS["f8"])
    np.save(tmp_path / "plain.npy", ARRAYS["f8"])
    np.testing.assert_array_equal(read_pickled_npy(tmp_path / "plain.npy"), ARRAYS["f8"])
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x09\x09")
    with pytest.raises(ValueError, match=r"bad\.npy: not a readable \.npy file"):
        read_pickled_npy(tmp_path / "bad.npy")


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious(marker):
    command = f"touch {marker}"
    return {
        "os.system": Calls(os.system, command),
        "subprocess": Calls(subprocess.Popen, ["touch", str(marker)]),
        "eval": Calls(eval, f"__import__('os').system('{command}')"),
        "exec": Calls(exec, f"open('{marker}', 'w')"),
        "open": Calls(open, str(marker), "w"),
        "getattr": Calls(getattr, "text", "upper"),
        "numpy.save": Calls(np.save, str(marker), ARRAYS["f8"]),
        "numpy.load": Calls(np.load, str(marker)),
        "collections": collections.OrderedDict(a=Calls(os.system, command)),
        "nested": {"v_template": ARRAYS["f8"], "list": [[(Calls(os.system, command),)]]},
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", malicious("x"))
def test_nothing_in_a_pickle_is_run(tmp_path, name, protocol):
    marker = tmp_path / "ran.npy"
    path = write(tmp_path / "evil.pkl", malicious(marker)[name], protocol)
    with pytest.raises(ValueError, match=r"evil\.pkl: refused, the pickle wants to call \w+\.") as failure:
        read_pickle(path)
    assert "\n" not in str(failure.value)
    assert not marker.exists()
    holder = np.empty((), object)
    holder[()] = malicious(marker)[name]
    np.save(tmp_path / "evil.npy", holder, allow_pickle=True)
    with pytest.raises(ValueError, match=r"evil\.npy: refused, the pickle wants to call"):
        read_pickled_npy(tmp_path / "evil.npy")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0acore.loads\x93.", r"numpy\.core\.loads"),
        (b"\x80\x04\x8c\x0dscipy.sparsed\x8c\x03foo\x93.", r"scipy\.sparsed\.foo"),
        (b"cchumpyx.ch\nCh\n.", "chumpyx.ch.Ch"),
    ],
)
def test_a_name_that_is_not_allowed_is_refused_by_name(tmp_path, program, name):
    (tmp_path / "p.pkl").write_bytes(program)
    with pytest.raises(ValueError, match=rf"p\.pkl: refused, the pickle wants to call {name};"):
        read_pickle(tmp_path / "p.pkl")


def test_an_outside_reference_is_refused(tmp_path):
    (tmp_path / "p.pkl").write_bytes(b"Pelsewhere\n.")
    with pytest.raises(ValueError, match=r"p\.pkl: refused, the pickle refers to an outside object 'elsewhere'"):
        read_pickle(tmp_path / "p.pkl")


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"not a pickle",
        b"(lp0\ng0\na.",  # a list that holds itself
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.",  # an array without a state
        b"cnumpy.core.numeric\n_frombuffer\n(S'abcdefgh'\ncnumpy\ndtype\n(S'O'\ntR(I1\ntS'C'\ntR.",  # pointers
        b"cnumpy.core.numeric\n_frombuffer\n(I99999999999\ncnumpy\ndtype\n(S'f8'\ntR(I1\ntS'C'\ntR.",  # a huge content
        b"ccopy_reg\n_reconstructor\n(S'a'\nNNtR.",
        b"\x82\x01.",  # an extension code
    ],
)
def test_damaged_and_odd_pickles_end_in_one_line(tmp_path, program):
    (tmp_path / "p.pkl").write_bytes(program)
    with pytest.raises(ValueError, match=r"p\.pkl: (not a readable pickle|refused)") as failure:
        read_pickle(tmp_path / "p.pkl")
    assert "\n" not in str(failure.value)


def test_every_truncation_ends_in_one_line(tmp_path):
    content = pickle.dumps({"a": ARRAYS, "b": sparse.csc_matrix(np.eye(3)), "c": "text"}, 2)
    path = tmp_path / "cut.pkl"
    for length in [*range(0, len(content), 17), *range(len(content) - 25, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pkl: not a readable pickle"):
            read_pickle(path)


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    content = bytearray(pickle.dumps({"a": ARRAYS, "b": sparse.csc_matrix(np.eye(3))}, 2))
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.pkl"
    for _ in range(200):
        changed = bytearray(content)
        for position in rng.integers(0, len(content), 2):
            changed[position] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):
            read_pickle(path)


def test_shared_lists_are_not_unrolled(tmp_path):
    nested = [0]
    for _ in range(40):
        nested = [nested, nested]
    assert len(read_pickle(write(tmp_path / "shared.pkl", nested))) == 2
    for _ in range(40):
        nested = [nested]
    with pytest.raises(ValueError, match="nested deeper than 50 levels"):
        read_pickle(write(tmp_path / "deep.pkl", nested))
