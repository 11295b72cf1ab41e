"""The command trm_jax, and what every command of the project owes to whoever calls it, from wherever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trm_jax import __main__, __version__, beside, terminal
from trm_jax.errors import ConfigError

ROOT = Path(__file__).parents[1]
HERE = os.environ | {"PYTHONPATH": str(ROOT)}


def trm_jax(*args, **kwargs):
    """Its result, on a terminal that knows ASCII only."""
    return subprocess.run([sys.executable, "-m", "trm_jax", *map(str, args)], capture_output=True, text=True,
                          check=False, env=HERE | {"PYTHONIOENCODING": "ascii"}, **kwargs)


def test_its_own_words(tmp_path):
    assert trm_jax("--version", cwd=tmp_path).stdout == f"trm_jax {__version__}\n"
    assert "train, evaluate, solve, adapt, compare, convert" in trm_jax(cwd=tmp_path).stdout
    result = trm_jax("trian", cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.startswith("error: unknown command 'trian'; did you mean 'train'?")


@pytest.mark.parametrize(("command", "flag"), [("train", "--workdir"), ("compare", "--axis")])
def test_a_command_is_the_module_of_its_name_wherever_it_is_called(command, flag, tmp_path):
    result = trm_jax(command, "--help", cwd=tmp_path)
    assert flag in result.stdout and "Traceback" not in result.stderr


@pytest.mark.parametrize(("command", "flag"), [("evaluate", "--workdir"), ("solve", "--png"), ("adapt", "--steps"),
                                               ("convert", "--l-cycles")])
def test_the_others_too(command, flag, tmp_path, monkeypatch, capsys):
    """In this process, which has imported what they need."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal, "start", lambda: None)
    monkeypatch.setattr(sys, "argv", ["trm_jax", command, "--help"])
    monkeypatch.delitem(sys.modules, __main__.COMMANDS[command], raising=False)  # as runpy wants it
    with pytest.raises(SystemExit, match=r"^0$"):
        __main__.main()
    assert flag in capsys.readouterr().out


# ---- Presets ----------------------------------------------------------------------------------------------


def test_a_preset_is_found_by_name_and_as_a_file(tmp_path, monkeypatch):
    shipped = f"{ROOT / 'configs' / 'o1'}.py"
    monkeypatch.chdir(tmp_path)
    assert [beside.preset_file(text) for text in ("o1", "o1:tiny", "configs/o1.py:tiny", "configs/o1")] == [
        shipped, f"{shipped}:tiny", f"{shipped}:tiny", shipped]
    (tmp_path / "o1.py").touch()
    assert beside.preset_file("o1.py:tiny") == "o1.py:tiny"  # one's own, where there is such a file
    with pytest.raises(ConfigError, match="--config=o9: no such file, and no such preset; choose from: e1, e2"):
        beside.preset_file("o9")
    with pytest.raises(ConfigError, match="no such file"):
        beside.preset_file("mine/o1.py")


def complete(*words):
    """What bash offers for the last of these words, broken up as bash does."""
    script = trm_jax("completion", "bash").stdout
    quoted = " ".join(f"'{word}'" for word in words)
    call = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _trm_jax; echo ${{COMPREPLY[@]}}"
    return subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True,
                          cwd=ROOT / "docs").stdout.split()


def test_completion_of_commands_and_presets():
    assert complete("trm_jax", "c") == ["compare", "convert", "completion"]
    assert complete("trm_jax", "train", "--config", "=", "o") == ["o1", "o2", "o3"]
    assert set(beside.presets()) <= set(complete("trm_jax", "train", "--config", "="))
    assert complete("trm_jax", "train", "--config", "l") == ["l1", "l2", "l3"]
    assert complete("trm_jax", "train", "--config", "=", "o1", ":", "t") == ["tiny"]
    assert trm_jax("completion").returncode == 1


# ---- Ctrl-C and encodings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["trm_jax.train", "trm_jax.compare"])
def test_ctrl_c_in_the_first_moments_is_one_line(module, tmp_path):
    """While the imports run, which take seconds; and later too, as long as nothing needs saving."""
    # The import that the signal comes in is the test's own: it needs no luck with the time.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'numpy':\n"
        "            os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(30)\n"
        "sys.meta_path.insert(0, Finder())\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    begun = time.monotonic()
    result = subprocess.run([sys.executable, "-m", module], env=environment, capture_output=True, text=True,
                            check=False)
    assert time.monotonic() - begun < 25
    assert result.returncode == 128 + signal.SIGINT
    assert result.stderr.strip() == "interrupted; the same command goes on from what has been saved"


def test_no_encoding_of_the_terminal_ends_in_a_traceback():
    code = "print('1 … 2, 3×4 → 5 ≥ 6 – 7 λ')"
    program = f"from trm_jax import terminal; terminal.start(); {code}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT,
                            env=HERE | {"PYTHONIOENCODING": "ascii"})
    assert result.stdout.decode("ascii").strip() == "1 ... 2, 3x4 -> 5 >= 6 - 7 ?"


def test_a_reader_that_has_gone_ends_no_command():
    """`trm_jax … | head`"""
    read, write = os.pipe()
    os.close(read)
    code = "from trm_jax import terminal; terminal.start(); [print('line', flush=True) for _ in range(3)]; exit(7)"
    result = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (7, b"")
