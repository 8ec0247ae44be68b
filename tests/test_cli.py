"""The command line: help at once, one clear message an error, and what each command prints."""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from foretaste.cli import COMMANDS, main
from foretaste.config import TrainConfig, to_dict
from foretaste.ledger import Ledger

HEAVY = ("torch", "transformers", "reasoning_gym", "gymnasium", "scipy", "sqlalchemy", "numpy")
HELPS = [[], *([name] for name in COMMANDS), ["envs", "check"]]
SOURCE = Path(__file__).parents[1] / "src"


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[str, list[str]]]:
    """What the help of each command prints, and what it is the first to import, all in one fresh interpreter."""
    code = f"""
import contextlib, io, json, sys
from foretaste.cli import main
found, before = {{}}, set()
for command in {HELPS!r}:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            main([*command, "--help"])
    except SystemExit as stopped:
        assert not stopped.code
    found[" ".join(command)] = printed.getvalue(), sorted(sys.modules.keys() - before)
    before = set(sys.modules)
print(json.dumps(found))
"""
    return json.loads(python(code))


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_imports_nothing_heavy_and_shows_examples(
    command: list[str], helps: dict[str, tuple[str, list[str]]]
) -> None:
    output, imported = helps[" ".join(command)]
    assert not {*HEAVY} & {*imported}
    examples = output[output.lower().index("examples:") :]
    assert f"foretaste {' '.join(command)}".strip() in examples


def test_importing_foretaste_imports_nothing_else_of_it() -> None:
    loaded = python("import foretaste, sys; print(sorted(n for n in sys.modules if n.startswith('foretaste')))")
    assert ast.literal_eval(loaded) == ["foretaste"]


def test_the_first_help_needs_neither_tyro_nor_rich() -> None:
    code = "import sys; from foretaste.cli import main; main(['--help']); print({'tyro', 'rich'} & set(sys.modules))"
    assert python(code).endswith("set()\n")


def test_an_exam_asks_its_first_question_without_torch_unless_a_model_sits_it(tmp_path: Path) -> None:
    code = f"""
import os, sys, types
from foretaste.cli import main

class Seat:
    name = "own"
    def act(self, conversations):
        heavy = [name for name in ("torch", "transformers", "scipy.stats", "scipy.optimize") if name in sys.modules]
        print("LOADED", heavy, flush=True)
        os._exit(0)  # the first question is all that is asked about

sys.modules["seat"] = types.ModuleType("seat")
sys.modules["seat"].Seat = Seat
main(["exam", "repair", "--policy", "seat:Seat", "--runs-folder", {str(tmp_path)!r}])
"""
    loaded = re.findall(r"^LOADED (.*)$", python(code), re.MULTILINE)
    assert loaded[0] == "[]"


def test_every_command_is_in_the_first_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.help)}$", output, re.MULTILINE)


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("foretaste")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["Unknown command 'trian'. Did you mean 'train'?", "runs"]),
        (["--hlep"], ["Unknown flag '--hlep'"]),
        (["train", "--stesp", "3"], ["Unknown flag '--stesp'. Did you mean '--steps'?", "foretaste train --help"]),
        (["train", "--env.levl=3"], ["Unknown flag '--env.levl'. Did you mean '--env.level'?"]),
        (["train", "--steps", "-3"], ["steps = -3", "0 or more"]),
        (["train", "no.toml"], ["No recipe at 'no.toml'"]),
        (["train", "a.toml", "--resume", "x"], ["leave out the recipe 'a.toml'"]),
        (["train", "a.toml", "b.toml"], ["Unexpected argument 'b.toml'"]),
        (["envs", "mazee"], ["Unknown env 'mazee'. Did you mean 'maze'?", "foretaste envs"]),
        (["envs", "--samples", "-1"], ["--samples = -1", "0 or more"]),
        (["runs", "--runs-folder", "nowhere"], ["No ledger at", "nowhere"]),
        (["report", "--runs-folder", "nowhere"], ["No ledger at", "nowhere"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].islower() else None,
)
def test_an_error_is_one_message_and_exit_code_2(
    arguments: list[str],
    parts: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "trian"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_value_of_the_wrong_type_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--steps", "many"])
    assert stopped.value.code == 2
    assert "--steps" in capsys.readouterr().err


def test_envs_shows_each_environment_with_an_observation_and_a_correct_action(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from foretaste.envs.registry import names

    assert main(["envs"]) == 0
    output = capsys.readouterr().out
    blocks = {block.splitlines()[0]: block for block in output.strip().split("\n\n")}
    for name in names():
        assert "\n  | " in blocks[name], name
        assert "\n  > " in blocks[name], name
    assert "module:Class" in output


def test_envs_shows_as_many_samples_as_asked_and_they_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "extract", "--samples", "3"]) == 0
    samples = capsys.readouterr().out.split("  --\n")
    assert len(samples) == 3
    assert len(set(samples[1:])) == 2


GOOD = '''
from foretaste.envs.base import TextEnv

class Echo(TextEnv):
    """Say the word."""
    name = "echo"
    instructions = "Repeat the word."

    def begin(self):
        self.word = self.random.choice(["red", "green", "blue", "black", "white"]) + str(self.random.randrange(1000))
        return self.word, {}

    def act(self, action):
        right = action.strip() == self.word
        return "", float(right), True, {"success": float(right)}

    def oracle(self):
        return self.word

class Broken(Echo):
    name = "broken"

    def act(self, action):
        return 7, float("nan"), True, {}
'''


def test_envs_check_says_ok_or_names_each_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "envs_of_mine.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["envs", "check", "envs_of_mine:Echo"]) == 0
    assert capsys.readouterr().out == "envs_of_mine:Echo: ok\n"
    assert main(["envs", "check", "envs_of_mine:Broken"]) == 1
    faults = capsys.readouterr().out.splitlines()
    assert faults
    assert all(line.startswith("envs_of_mine:Broken: ") for line in faults)


def test_runs_lists_runs_with_their_status_newest_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger.open(tmp_path) as ledger:
        first = ledger.start_run("train", "maze", to_dict(TrainConfig()))
        ledger.append(first, "status", {"status": "interrupted"})
        second = ledger.start_run("exam", "repair", {})
    assert main(["runs", "--runs-folder", str(tmp_path), "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(first)
    assert "interrupted" in lines[1]
    assert lines[2].startswith(second)
    assert lines[3] == "The hash chain is intact."
    assert main(["runs", "--runs-folder", str(tmp_path), "--kind", "exam"]) == 0
    assert first not in capsys.readouterr().out


def test_models_names_the_embedded_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    output = capsys.readouterr().out
    assert "smollm2-135m" in output
    assert "nano" in output


def test_public_names_are_those_that_type_checkers_see() -> None:
    import foretaste

    tree = ast.parse((SOURCE / "foretaste" / "__init__.py").read_text())
    conditions = [node for node in tree.body if isinstance(node, ast.If)]
    block = next(node for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == foretaste._HOMES
    for name in foretaste.__all__:
        assert getattr(foretaste, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = foretaste.trian


# What a terminal cannot show ---------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_of_another_encoding_ends_no_command(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    shown = subprocess.run([sys.executable, "-c", SHOWING], capture_output=True, env=environment, check=False)
    assert shown.returncode == 0, shown.stderr
    assert (b"?" in shown.stdout) == (encoding != "utf-8")


SHOWING = """
import sys
from foretaste import cli
def run(arguments):
    print("caf\\u00e9 \\u2581\\u2588")
    print("caf\\u00e9 \\u2581\\u2588", file=sys.stderr)
cli.COMMANDS["show"] = cli.Command("__main__", "shows", "run")
sys.exit(cli.main(["show"]))
"""


def test_a_name_with_brackets_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.append(ledger.start_run("train", "x", {}), "status", {"status": "odd [/x]"})
    assert main(["runs", "--runs-folder", str(tmp_path)]) == 0
    assert "odd [/x]" in capsys.readouterr().out


def test_a_user_without_a_home_has_a_cache_of_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from foretaste.models.sources import cache_folder

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FORETASTE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() == Path(tempfile.gettempdir()) / f"foretaste-{os.getuid()}"
