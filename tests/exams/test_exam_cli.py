"""`foretaste exam` as a user meets it: exit codes, output, and endpoints that fail in every way."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretaste.cli import main
from foretaste.ledger import Ledger

PAPER = """
name = "small"
threshold = 0.5
alpha = 0.4
looks = {looks}
sealed = {sealed}
[[families]]
env = "route"
items = {items}
registers = ["plain", "casual"]
"""


@pytest.fixture
def server(server: Any) -> Any:
    """The endpoint of conftest.py, with the answers and costs that these tests count on."""
    server.usage = {"prompt_tokens": 100, "completion_tokens": 10}
    server.behaviour = lambda handler, body, number: handler.answer("billing")
    return server


def paper(tmp_path: Path, *, items: int = 4, looks: int = 9, sealed: bool = True) -> str:
    file = tmp_path / "small.toml"
    file.write_text(PAPER.format(items=items, looks=looks, sealed=str(sealed).lower()))
    return str(file)


def exam(tmp_path: Path, *arguments: str) -> int:
    return main(["exam", *arguments, "--runs-folder", str(tmp_path / "runs")])


def endpoint(server: Any) -> list[str]:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return ["--policy", f"openai:small@{url}", "--attempts", "3", "--pause-seconds", "0.001", "--concurrent", "2"]


def test_pass_fail_and_inconclusive_have_exit_codes_and_errors_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    open_paper = paper(tmp_path / "p", items=16, sealed=False)
    assert exam(tmp_path, open_paper, "--policy", "oracle") == 0
    assert "PASS" in capsys.readouterr().out
    assert exam(tmp_path, open_paper, "--policy", "tests_exam_policies:Wrong") == 3  # no such module
    assert "No module" in capsys.readouterr().err
    few = paper(tmp_path, items=1, looks=0)
    assert exam(tmp_path, few, "--policy", "oracle") == 2
    out = capsys.readouterr().out
    assert "INCONCLUSIVE (needs" in out
    assert "Commitment to its items: " in out
    for wrong in (["nopaper", "--policy", "oracle"], [few], [], ["--resume", "x", few], [few, "--nope"]):
        assert exam(tmp_path, *wrong) == 3, wrong
    with pytest.raises(SystemExit) as caught:
        exam(tmp_path, few, "--samples", "many")
    assert caught.value.code == 3


def test_json_holds_verdict_figures_and_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Any
) -> None:
    prices = ["--price-in", "2", "--price-out", "10"]
    code = exam(tmp_path, paper(tmp_path, items=12), *endpoint(server), "--json", "--no-public", *prices)
    told = json.loads(capsys.readouterr().out)
    assert code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}[told["verdict"]["outcome"]]
    assert told["usage"]["prompt_tokens"] == 2400
    assert told["usage"]["cost"] == pytest.approx((2400 * 2 + 240 * 10) / 1e6)
    assert told["results"]["gap"] is None
    page = Path(told["report"]).read_text()
    assert told["verdict"]["outcome"] in page
    assert "cost 0.0072" in page
    assert main(["report", told["run"], "--runs-folder", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.strip() == told["report"]


def drop(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choi')
    handler.close_connection = True


FAULTS: dict[str, Callable[[Any], None]] = {
    "429": lambda h: h.reply(429, {"error": {"message": "slow down"}}),
    "500": lambda h: h.reply(500, b"<html>oops</html>"),
    "garbage": lambda h: h.reply(200, b"\xff\xfenot json"),
    "empty choices": lambda h: h.reply(200, {"choices": []}),
    "dropped": drop,
    "slow": lambda h: time.sleep(0.6),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sitting_survives_faults_that_pass_and_counts_those_that_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Any, fault: str
) -> None:
    texts: list[str] = []

    def now_and_then(handler: Any, body: dict[str, Any], number: int) -> None:
        text = body["messages"][-1]["content"]
        with server.lock:
            texts.append(text)
            others = [other for other in texts if other != texts[0]]
        if text == texts[0] or others == [text]:  # one item fails whatever is tried, the next one once
            FAULTS[fault](handler)
        else:
            handler.answer("billing")

    server.behaviour = now_and_then
    more = ["--timeout-seconds", "0.3", "--json", "--no-public"]
    code = exam(tmp_path, paper(tmp_path, items=3), *endpoint(server), *more)
    told = json.loads(capsys.readouterr().out)
    assert code in (0, 1, 2)
    assert told["results"]["failures"]["error"] == 1
    assert sum(told["results"]["failures"].values()) == 6
    assert told["usage"]["retries"] >= 3
    assert "after 3 attempts" in next(iter(told["results"]["errors"]))


def test_an_endpoint_that_goes_down_stops_with_its_reason_and_the_sitting_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server.behaviour = lambda h, body, number: h.answer("billing") if number < 7 else h.reply(503, b"down")
    assert exam(tmp_path, paper(tmp_path, items=16), *endpoint(server), "--no-public") == 3
    told = capsys.readouterr()
    assert "8 requests in a row failed for good" in told.err
    assert "Go on with: foretaste exam --resume small-" in told.err
    with Ledger.open(tmp_path / "runs") as ledger:
        (info,) = ledger.runs("exam")
        answered = [r.payload for r in ledger.records(info.id, "answer") if not r.payload["retry"]]
        assert info.status == "failed"
        everything = json.dumps([record.payload for record in ledger.records(info.id)])
    assert len(answered) == 7
    before = len(server.bodies)
    server.behaviour = lambda h, body, number: h.answer("billing")
    assert exam(tmp_path, "--resume", "latest") in (0, 1, 2)
    out = capsys.readouterr().out
    assert len(server.bodies) - before == 32 - 7
    assert "7 of 32 items were answered before" in out
    assert "error" not in out
    assert "sk-very-secret" not in told.out + told.err + out + everything


def test_a_wrong_model_and_a_refused_key_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Any
) -> None:
    server.behaviour = lambda h, body, number: h.reply(404, {"error": {"message": "The model `x` does not exist"}})
    assert exam(tmp_path, paper(tmp_path), *endpoint(server)) == 3
    assert "does not exist" in capsys.readouterr().err
    server.behaviour = lambda h, body, number: h.reply(401, {"error": {"message": "bad key"}})
    assert exam(tmp_path, paper(tmp_path), *endpoint(server)) == 3
    assert "OPENAI_API_KEY" in capsys.readouterr().err


def test_papers_looks_reveal_compare_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exam(tmp_path, paper(tmp_path), "--policy", "oracle", "--no-public") in (0, 2)
    with Ledger.open(tmp_path / "runs") as ledger:
        run = ledger.runs("exam")[0].id
    capsys.readouterr()
    assert main(["exam", "papers"]) == 0
    assert "quick" in capsys.readouterr().out
    assert main(["exam", "papers", "repair"]) == 0
    assert 'env = "repair"' in capsys.readouterr().out
    assert exam(tmp_path, "looks") == 0
    out = capsys.readouterr().out
    assert "1 of 9" in out
    assert "intact" in out
    assert exam(tmp_path, "reveal", run) == 0
    assert "8 of 8 seeds follow" in capsys.readouterr().out
    assert exam(tmp_path, "compare", run, run) == 2
    assert capsys.readouterr().out.startswith("UNDECIDED (equal so far")
    file = tmp_path / "items.jsonl"
    assert exam(tmp_path, "export", run, "--output", str(file)) == 0
    assert len(file.read_text().splitlines()) == 8
    assert exam(tmp_path, "export", str(tmp_path / "small.toml"), "--output", str(file)) == 0
    capsys.readouterr()
    assert exam(tmp_path, "looks") == 0
    assert "export (jsonl)" in capsys.readouterr().out  # whoever writes sealed items out has looked
    assert exam(tmp_path, "compare", run, "no-such-run") == 3
