"""`delift select` and `delift inspect` as a user meets them, on a tiny model."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiny_runs import (
    arrays,
    delift,
    environment,
    fill,
    jsonl,
    make_cache,
    open_cache,
    pair,
    pairs,
    said,
    score,
    start,
    tree,
)

from delift_cli.cache.dense import Cache
from delift_cli.selection.run import select_records
from delift_cli.selection.suspects import suspects
from delift_cli.submodular.objectives import NAMES

# odd bytes on purpose: spacing, key order, escapes, unicode, CRLF, other fields, a copy, brackets, no id
LINES = [
    b'{"id":"r0",   "prompt" : "say cat and dog",\t"response":"cat dog 0"}  ',
    '{"id": "r1", "prompt": "ünïcödé 猫 🐈", "response": "\\u732b ok", "n": 1.0, "big": 1e5}'.encode(),
    b'{"response":"sun moon 2","prompt":"say sun and moon","id":"r2"}\r',
    b'  {"id": 3, "prompt": "say tree", "response": "tree 3", "extra": {"b": 1, "a": [null, true]}}',
    b'{"id":"r0","prompt":"say cat and dog","response":"cat dog 0"}',
    b'{"prompt": "close the tag [/b]", "response": "[bold]closed[/bold]"}',
    *(json.dumps(pair(i)).encode() for i in range(6, 12)),
]
IDS = ["r0", "r1", "r2", "3", "r0#2", "6", *(f"r{i}" for i in range(6, 12))]
CALLED = ["record:1", *IDS[1:]]  # what --ids-only calls them: two bring the id r0
POOL = b"\n".join(LINES)  # and no line break at the end


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All blocks of one pool, target set and existing data, scored by the tiny model."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "pool.jsonl").write_bytes(POOL)
    (folder / "dev.jsonl").write_bytes(pairs(20, 21, 22))
    (folder / "old.jsonl").write_bytes(pairs(30, 31, 32, 33))
    (folder / "pool.json").write_bytes(b"[\n" + b",\n".join(line.strip() for line in LINES) + b"\n]\n")
    before = os.getcwd()
    os.chdir(folder)
    try:
        for arguments in (
            ("pool.jsonl", "-o", "pool"),
            ("pool.jsonl", "--targets", "dev.jsonl", "-o", "dev"),
            ("--examples", "dev.jsonl", "--targets", "pool.jsonl", "-o", "dev-pool"),
            ("--examples", "old.jsonl", "--targets", "pool.jsonl", "-o", "old"),
            ("--examples", "old.jsonl", "--targets", "dev.jsonl", "-o", "old-dev"),
            ("pool.json", "-o", "array"),
        ):
            result = score(*arguments, "-q")
            assert result.code == 0, result.err
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def _there(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)


def summary(*arguments: object, out: Path) -> Any:
    """The JSON summary of a selection whose records go to a file."""
    result = delift("select", *arguments, "-o", out, "--json")
    assert result.code == 0, result.err
    assert result.err == ""
    return result.json


def ids(*arguments: object) -> list[str]:
    result = delift("select", *arguments, "--ids-only", "-q")
    assert result.code == 0, result.err
    return result.out.decode().splitlines()


# ---- what comes out


def test_selected_lines_are_the_very_bytes() -> None:
    chosen = ids("pool", "-k", "5")
    result = delift("select", "pool", "-k", "5")
    assert result.out == b"".join(LINES[CALLED.index(id_)] + b"\n" for id_ in chosen)
    # all of it in input order is the file itself, but for the line break that its last line lacked
    assert delift("select", "pool", "-k", "100%", "--order", "input").out == POOL + b"\n"


def test_orders() -> None:
    by_gain, as_input = ids("pool", "-k", "6"), ids("pool", "-k", "6", "--order", "input")
    assert sorted(as_input, key=CALLED.index) == as_input
    assert sorted(by_gain) == sorted(as_input)
    assert by_gain != as_input
    assert ids("pool", "-k", "3") == by_gain[:3]  # greedy's prefixes are its smaller answers


def test_array_in_array_out() -> None:
    out = delift("select", "array", "-k", "4").out
    records = json.loads(out)
    assert records == [json.loads(LINES[CALLED.index(id_)]) for id_ in _array_ids("-k", "4")]
    assert delift("select", "array", "-k", "100%", "--order", "input").out == Path("pool.json").read_bytes()
    scored = json.loads(delift("select", "array", "-k", "4", "--with-scores").out)
    assert [record["delift"]["rank"] for record in scored] == [1, 2, 3, 4]


def _array_ids(*arguments: object) -> list[str]:
    return ids("array", *arguments)


def test_stdout_and_file_are_the_same(tmp_path: Path) -> None:
    out = delift("select", "pool", "-k", "4").out
    result = delift("select", "pool", "-k", "4", "-o", tmp_path / "subset.jsonl")
    assert result.out == b""
    assert (tmp_path / "subset.jsonl").read_bytes() == out
    assert os.listdir(tmp_path) == ["subset.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "looks_at"),
    [
        (("pool",), "pool"),
        (("pool", "--target", "dev"), "pool --target dev"),
        (("--target", "dev"), "dev"),
        (("pool", "--existing", "old"), "pool"),
        (("pool", "--target", "dev-pool", "--objective", "fl1mi"), "pool"),  # a report takes pool × target set
    ],
)
def test_the_next_command_is_a_report_of_what_was_written(
    tmp_path: Path, arguments: tuple[str, ...], looks_at: str
) -> None:
    written = tmp_path / "a subset.jsonl"
    found = delift("select", *arguments, "-k", "3", "-o", written, "--json").json
    page = tmp_path / "page.html"
    assert found["next"] == f"delift report {looks_at} --subset '{written}' -o report.html"
    run = delift(*shlex.split(found["next"])[1:-1], page)
    assert run.code == 0, run.err
    assert "3 records" in page.read_text()
    assert "next" not in delift("select", *arguments, "-k", "3").err


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    refused = delift("select", "pool", "-k", "4", "-o", tmp_path / "no" / "subset.jsonl").refusal()
    assert refused.startswith(f"-o {tmp_path / 'no' / 'subset.jsonl'}: there is no folder {tmp_path / 'no'}; make it")


def test_twice_the_same_bytes() -> None:
    """In two processes, with other hash seeds and numbers of threads; the second finds the first one's gains."""
    shutil.rmtree("pool/gains", ignore_errors=True)
    outputs = []
    for seed, threads in (("1", "1"), ("2", "2")):
        changed = environment(PYTHONHASHSEED=seed, NUMBA_NUM_THREADS=threads)
        process = start("select", "pool", "-k", "50%", "--with-scores", env=changed)
        outputs.append(process.communicate(timeout=120))
        assert process.returncode == 0, outputs[-1][1]
    assert outputs[0] == outputs[1]


def test_with_scores(tmp_path: Path) -> None:
    chosen = ids("pool", "-k", "5")
    lines = delift("select", "pool", "-k", "5", "--with-scores").out.splitlines()
    scores = [json.loads(line)["delift"] for line in lines]
    told = summary("pool", "-k", "5", out=tmp_path / "s")
    assert [score["id"] for score in scores] == [IDS[CALLED.index(name)] for name in chosen]
    assert [score["rank"] for score in scores] == [1, 2, 3, 4, 5]
    gains = [score["gain"] for score in scores]
    assert gains == sorted(gains, reverse=True)
    assert sum(gains) == pytest.approx(told["value"])
    np.testing.assert_allclose([score["coverage"] for score in scores], np.cumsum(gains) / told["whole_pool"])
    assert scores[-1]["coverage"] == pytest.approx(told["share"])
    everything = delift("select", "pool", "-k", "12", "--with-scores").out.splitlines()
    assert json.loads(everything[-1])["delift"]["coverage"] == pytest.approx(1.0)


def test_json_summary(tmp_path: Path) -> None:
    told = summary("pool", "-k", "5", out=tmp_path / "subset.jsonl")
    assert (told["selected"], told["pool"], told["asked"], told["objective"]) == (5, 12, "5", "topm")
    assert (told["utility"], told["kernel"], told["self"]) == ("euclidean", "clip", "exclude-answers")
    chosen = [CALLED.index(id_) for id_ in ids("pool", "-k", "5")]
    assert told["tokens"] == arrays(Path("pool"))["example_tokens"][chosen].sum()
    assert told["model_sha256"] == Cache("pool").manifest["model"]["sha256"]
    # without -o the records have stdout and the summary goes to stderr
    result = delift("select", "pool", "-k", "5", "--json")
    assert json.loads(result.err)["value"] == told["value"]
    assert len(result.out.splitlines()) == 5


def test_summary_is_on_stderr_and_quiet_is_quiet() -> None:
    loud, quiet = delift("select", "pool", "-k", "5"), delift("select", "pool", "-k", "5", "-q")
    assert "5 of 12 records" in loud.err
    assert "\x1b" not in loud.err
    assert quiet.err == ""
    assert quiet.out == loud.out


def test_closed_pipe() -> None:
    """`| head -1` ends the command without a word."""
    big = b"".join(b'{"id": "%d", "prompt": "p", "response": "%s"}\n' % (i, b"x" * 100_000) for i in range(8))
    make_cache(Path("big"), big)
    for unbuffered in ("", "1"):
        process = start("select", "big", "-k", "8", "-q", env=environment(PYTHONUNBUFFERED=unbuffered))
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10).startswith(b"{")
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(60) == 1


# ---- how much


@pytest.mark.parametrize(
    ("k", "n"), [("1", 1), ("12", 12), ("25%", 3), ("100%", 12), ("1%", 1), ("1e9tok".replace("1e9", "1000000"), 12)]
)
def test_amounts(k: str, n: int) -> None:
    assert len(ids("pool", "-k", k)) == n


def test_default_amount_is_stated() -> None:
    result = delift("select", "pool")
    assert len(result.out.splitlines()) == round(0.3 * 12)


@pytest.mark.parametrize("k", ["0", "13", "-1", "0%", "101%", "2.5", "1,5%", "many", "5k", "0tok", ""])
def test_amounts_that_are_refused(k: str) -> None:
    assert delift("select", "pool", f"-k{k}" if k else "-k", *([] if k else [""])).refusal().startswith(f"-k {k}")


@pytest.mark.parametrize("k", ["60tok", "100 tokens", "0.15ktok", "300tok"])
def test_token_budgets_are_kept(k: str, tmp_path: Path) -> None:
    tokens = arrays(Path("pool"))["example_tokens"]
    told = summary("pool", "-k", k, out=tmp_path / "subset.jsonl")
    chosen = [CALLED.index(id_) for id_ in ids("pool", "-k", k)]
    budget = {"60tok": 60, "100 tokens": 100, "0.15ktok": 150, "300tok": 300}[k]
    assert chosen
    assert tokens[chosen].sum() == told["tokens"] <= budget
    assert told["rule"] in ("gain", "gain per token")
    # nothing that is left would fit, of what does not come last anyway
    left = [j for j in range(12) if j not in chosen]
    cache = Cache(Path("pool"))
    last = suspects(cache, cache.examples().records).doubtful.tolist()
    assert told["suspects_last"] == len(last) > 1
    assert not {*last} & {*chosen} or {*range(12)} - {*last} < {*chosen}
    assert {*left} <= {*last} or told["tokens"] + np.delete(tokens, [*chosen, *last]).min() > budget
    chosen = [CALLED.index(id_) for id_ in ids("pool", "-k", k, "--drop-suspects", "off")]
    left = [j for j in range(12) if j not in chosen]
    assert not left or tokens[chosen].sum() + tokens[left].min() > budget


def test_budget_too_small_for_any_record() -> None:
    smallest = int(arrays(Path("pool"))["example_tokens"].min())
    refused = delift("select", "pool", "-k", f"{smallest - 1}tok").refusal()
    assert f"the smallest has {smallest} tokens" in refused
    assert len(ids("pool", "-k", f"{smallest}tok")) == 1


def test_always_and_never(tmp_path: Path) -> None:
    free = ids("pool", "-k", "4")
    outsiders = [id_ for id_ in CALLED if id_ not in free][-2:]
    always, never = tmp_path / "always", tmp_path / "never"
    always.write_text("\n" + "\n".join(outsiders) + "\n\n")
    never.write_text(f"{free[0]}\r\n{free[1]}")
    chosen = ids("pool", "-k", "4", "--always", always, "--never", never)
    assert chosen[:2] == outsiders
    assert len(chosen) == 4
    assert not {*chosen} & {*free[:2]}
    # more are asked for than may be had
    assert len(ids("pool", "-k", "12", "--never", never)) == 10
    # a list written by --ids-only is read back
    always.write_bytes(delift("select", "pool", "-k", "4", "--ids-only").out)
    assert ids("pool", "-k", "4", "--always", always) == free


def test_a_budget_larger_than_the_pool_takes_all_of_it() -> None:
    told = delift("select", "pool", "-k", "1Mtok").err
    assert "the whole pool is taken" in told
    assert "admissible" not in told
    assert "none that is proven" not in told


def test_random_numbers_are_no_value() -> None:
    assert "of what the whole pool reaches" in delift("select", "pool", "-k", "4").err
    for method in ("random", "length", "loss"):
        assert "of what the whole pool reaches" not in delift("select", "pool", "-k", "4", "--method", method).err


def test_bad_id_lists(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("r6\nnobody\n")
    assert f"{one}:2: there is no record with the id nobody" in delift("select", "pool", "--never", one).refusal()
    one.write_text("r6\nr7\n")
    two.write_text("r8\nr7\n")
    refused = delift("select", "pool", "--always", one, "--never", two).refusal()
    assert "record r7 is in both" in refused
    assert "2 records are always chosen" in delift("select", "pool", "-k", "1", "--always", one).refusal()
    assert "cost" in delift("select", "pool", "-k", "20tok", "--always", one).refusal()
    missing = delift("select", "pool", "--always", tmp_path / "none").refusal()
    assert missing == f"cannot read the ids in {tmp_path / 'none'}: No such file or directory"
    two.write_bytes(b"\xff\n")
    assert "cannot read the ids" in delift("select", "pool", "--always", two).refusal()


# ---- objectives


BLOCKS = {
    "fl": ("pool",),
    "flmi": ("pool", "--target", "dev"),
    "flvmi": ("--target", "dev"),
    "fl1mi": ("pool", "--target", "dev-pool"),
    "flcg": ("pool", "--existing", "old"),
    "flcmi": ("pool", "--target", "dev-pool", "--existing", "old"),
    "sqrt": ("pool",),
    "log1p": ("pool",),
    "saturated": ("pool",),
    "lp": ("pool",),
    "noisyor": ("pool",),
    "topm": ("pool",),
}


@pytest.mark.parametrize("kernel", ["clip", "minmax", "raw"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_objective_end_to_end(name: str, kernel: str, tmp_path: Path) -> None:
    told = summary(*BLOCKS[name], "--objective", name, "--kernel", kernel, "-k", "5", out=tmp_path / "s")
    assert told["objective"] == name
    assert told["selected"] == 5
    assert told["value"] >= 0.0
    assert told["share"] is None or told["share"] <= 1.0 + 1e-9
    lines = (tmp_path / "s").read_bytes().splitlines()
    assert len({*lines}) == 5
    assert {*lines} <= {line.rstrip(b"\n") for line in POOL.splitlines()} | {*LINES}


def test_objectives_are_all_tried() -> None:
    assert set(BLOCKS) == set(NAMES)


@pytest.mark.parametrize(
    ("blocks", "name"),
    [
        (("pool",), "topm"),
        (("pool", "--target", "dev"), "flmi"),
        (("pool", "--existing", "old"), "flcg"),
        (("--target", "dev"), "flvmi"),
        (("pool", "--target", "dev-pool", "--existing", "old"), "flcmi"),
    ],
)
def test_default_objectives(blocks: tuple[str, ...], name: str, tmp_path: Path) -> None:
    assert summary(*blocks, "-k", "3", out=tmp_path / "s")["objective"] == name


@pytest.mark.parametrize(("k", "name"), [("2", "fl"), ("3", "topm"), ("19%", "fl"), ("21%", "topm"), ("100%", "topm")])
def test_who_wants_much_of_a_pool_has_more_than_one_helper_for_each(k: str, name: str, tmp_path: Path) -> None:
    assert summary("pool", "-k", k, out=tmp_path / "s")["objective"] == name
    assert summary("pool", "-k", k, "--paper", out=tmp_path / "s")["objective"] == "fl"
    record = ids("pool", "-k", k)[0]
    assert delift("explain", "pool", record, "-k", k, "--json").json["rank"] == 1


def test_the_share_of_a_token_budget_decides(tmp_path: Path) -> None:
    tokens = int(arrays(Path("pool"))["example_tokens"].sum())
    for share, name in ((0.15, "fl"), (0.25, "topm")):
        assert summary("pool", "-k", f"{round(share * tokens)}tok", out=tmp_path / "s")["objective"] == name


def test_concave_over_a_target_set_with_existing_data(tmp_path: Path) -> None:
    told = summary("--target", "dev", "--existing", "old-dev", "--objective", "sqrt", "-k", "3", out=tmp_path / "s")
    assert told["objective"] == "sqrt"


def test_a_matrix_larger_than_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    select_records("pool", 3, say=said.append)
    assert not said
    monkeypatch.setattr("delift_cli.selection.larger_than_memory.free_memory", lambda: 200)
    select_records("pool", 3, greedy="partitioned", parts=3, say=said.append)
    assert not said
    select_records("pool", 3, say=said.append)
    (line,) = said
    assert "--greedy partitioned --parts 12 " in line  # 12 x 12 float32 by quarters of 200 bytes


def test_greedy_takes_what_plain_greedy_takes() -> None:
    """Facility location with nothing but NumPy, from the arrays on disk."""
    on_disk = arrays(Path("pool"))
    s = np.maximum(0.0, on_disk["base_distance"].astype(float) - on_disk["distance"].astype(float))
    s[np.arange(12), np.arange(12)] = 0.0
    s[0, 4] = s[4, 0] = 0.0  # copies of each other
    covered, chosen = np.zeros(12), []
    for _ in range(3):
        gains = np.maximum(s - covered, 0.0).sum(axis=1)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, s[chosen[-1]])
    assert ids("pool", "-k", "3", "--objective", "fl") == [CALLED[j] for j in chosen]


REFUSAL = "I am sorry, but I cannot help with that request."
SHARED = [
    {"id": "moon", "prompt": "How far is the moon from the earth?", "response": REFUSAL},
    {"id": "cat", "prompt": "Translate into French: the cat sleeps.", "response": REFUSAL.upper().replace(" ", "  ")},
    {"id": "sonnet", "prompt": "Write a sonnet about autumn leaves.", "response": REFUSAL},
    *(pair(number) for number in range(9)),
]


def test_records_that_share_a_long_answer_do_not_cover_each_other_by_default(tmp_path: Path) -> None:
    """Top-3 coverage with nothing but NumPy, with and without what boilerplate says of its like."""
    cache = tmp_path / "shared"
    with open_cache(cache, jsonl(SHARED)) as writer:
        fill(writer, rows=[])  # what each costs without an example
        for example in range(12):
            distance, logprob = said(example, np.arange(12))
            distance[:3] *= example > 2  # one answer is read off the other
            writer.write_row(example, distance, logprob)
    on_disk = arrays(cache)
    utility = np.maximum(0.0, on_disk["base_distance"].astype(float) - on_disk["distance"].astype(float))
    weight = on_disk["response_tokens"] ** 0.5
    told = {}
    for own, size in (("exclude", 1), ("exclude-answers", 3)):
        s = utility.copy()
        s[np.arange(12), np.arange(12)] = 0.0
        s[:size, :size] = 0.0

        def covered(chosen: list[int], s: npt.NDArray[np.float64] = s) -> float:
            best = -np.sort(-s[chosen], axis=0)[:3]
            return float((best / np.arange(1, len(best) + 1)[:, None]).sum(axis=0) @ (weight / weight.mean()))

        chosen: list[int] = []
        for _ in range(4):
            left = [j for j in range(12) if j not in chosen]
            chosen.append(max(left, key=lambda j: (covered([*chosen, j]), -j)))
        told[own] = summary(
            cache, "-k", "4", "--self", own, "--objective", "topm", "--count", "both", out=tmp_path / "s"
        )
        assert told[own]["value"] == pytest.approx(covered(chosen), rel=1e-5)
        assert (tmp_path / "s").read_bytes() == jsonl([SHARED[j] for j in chosen])
    by_default = summary(cache, "-k", "4", out=tmp_path / "s")
    assert by_default["self"] == "exclude-answers"
    assert by_default["value"] == told["exclude-answers"]["value"] < told["exclude"]["value"]
    assert (by_default["shared_answers"], told["exclude"]["shared_answers"]) == (3, None)
    shown = delift("select", cache, "-k", "4", "-o", tmp_path / "s").err
    assert "3 records of the pool give unlike prompts one long answer: none covers another" in " ".join(shown.split())
    assert "shared answers" not in delift("select", cache, "-k", "4", "--objective", "fl", "-o", tmp_path / "s").err
    assert summary(cache, "-k", "4", "--objective", "fl", out=tmp_path / "s")["self"] == "exclude"
    reasons = json.loads(delift("explain", cache, "moon", "-k", "4", "--json").out)
    assert not {entry["id"] for entry in reasons.get("covers", [])} & {"cat", "sonnet"}


@pytest.mark.parametrize(("count", "power"), [("records", 0.0), ("both", 0.5), ("tokens", 1.0)])
def test_a_target_may_count_for_its_tokens(tmp_path: Path, count: str, power: float) -> None:
    """Weighted facility location with nothing but NumPy; gains that are kept for one way are not the other's."""
    on_disk = arrays(Path("pool"))
    s = np.maximum(0.0, on_disk["base_distance"].astype(float) - on_disk["distance"].astype(float))
    s[np.arange(12), np.arange(12)] = 0.0
    s[0, 4] = s[4, 0] = 0.0  # copies of each other
    weight = on_disk["response_tokens"] ** power
    weight = weight / weight.mean()
    assert weight.max() > 2 * weight.min() or count != "tokens"
    fl = ("-k", "4", "--objective", "fl")
    alike = ids("pool", *fl)
    covered, chosen = np.zeros(12), []
    for _ in range(4):
        gains = np.maximum(s - covered, 0.0) @ weight
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, s[chosen[-1]])
    assert ids("pool", *fl, "--count", count) == [CALLED[j] for j in chosen]
    assert ids("pool", *fl, "--count", count) == [CALLED[j] for j in chosen]  # from what was kept
    assert ids("pool", *fl) == alike
    told = summary("pool", *fl, "--count", count, out=tmp_path / "s")
    assert told["count"] == count
    assert told["value"] == pytest.approx(covered @ weight, rel=1e-5)
    shown = delift("select", "pool", *fl, "--count", count, "-o", tmp_path / "s").err
    assert ("targets weighted by their tokens" in shown) == (count == "tokens")
    assert ("targets weighted by the root of their tokens" in shown) == (count == "both")


def test_what_counts_by_default(tmp_path: Path) -> None:
    def count(*arguments: str) -> str | None:
        found: str | None = summary(*arguments, "-k", "3", out=tmp_path / "s")["count"]
        return found

    assert [count("pool"), count("pool", "--utility", "pmi")] == ["both", "both"]
    others = (("--target", "dev"), ("--existing", "old"), ("--paper",), ("--objective", "topm"), ("--objective", "lp"))
    assert [count("pool", *other) for other in others] == ["records"] * 5
    assert count("pool", "--method", "random") is None
    assert count("pool", "--paper", "--count", "both") == "both"
    refused = delift("select", "pool", "--method", "random", "--count", "tokens").refusal()
    assert "--count is of no use to --method random" in refused


def test_the_tokens_of_a_target_set_count(tmp_path: Path) -> None:
    on_disk = arrays(Path("dev"))
    s = np.maximum(0.0, on_disk["base_distance"].astype(float) - on_disk["distance"].astype(float))
    weight = on_disk["response_tokens"] / on_disk["response_tokens"].mean()
    arguments = ("--target", "dev", "--objective", "topm", "--depth", "1", "--count", "tokens", "-k", "1")
    assert summary(*arguments, out=tmp_path / "s")["value"] == pytest.approx((s @ weight).max(), rel=1e-5)


def test_paper_is_self_utilities_and_clip(tmp_path: Path) -> None:
    paper = summary("pool", "-k", "6", "--paper", out=tmp_path / "paper")
    spelled = ("--self", "include", "--utility", "euclidean", "--kernel", "clip", "--objective", "fl")
    spelled_out = summary("pool", "-k", "6", *spelled, out=tmp_path / "spelled")
    assert (tmp_path / "paper").read_bytes() == (tmp_path / "spelled").read_bytes()
    assert {**paper, "asked": 0, "next": ""} == {**spelled_out, "asked": 0, "next": ""}
    assert paper["self"] == "include"
    assert "--paper means" in delift("select", "pool", "--paper", "--kernel", "minmax").refusal()
    assert "--paper means" in delift("select", "pool", "--paper", "--self", "exclude").refusal()
    # with self-utilities the pool covers itself far better
    assert paper["whole_pool"] > summary("pool", "-k", "6", "--objective", "fl", out=tmp_path / "s")["whole_pool"] + 0.5


def test_parameters_count(tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return summary(*arguments, "-k", "4", out=tmp_path / "s")

    light, heavy = (run("pool", "--target", "dev", "--eta", eta) for eta in (0.1, 10))
    assert (light["parameters"], heavy["parameters"]) == ({"eta": 0.1}, {"eta": 10.0})
    assert heavy["value"] > light["value"]
    loose, strict = (run("pool", "--existing", "old", "--nu", nu) for nu in (0, 5))
    assert strict["value"] < loose["value"]
    assert loose["value"] == pytest.approx(
        run("pool", "--objective", "fl")["value"]
    )  # nothing is known of the existing data
    low, high = (run("pool", "--objective", "saturated", "--alpha", alpha) for alpha in (0.05, 0.9))
    assert low["value"] < high["value"]
    assert run("pool", "--utility", "pmi")["value"] != pytest.approx(run("pool")["value"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--eta", "-1"),
        ("--nu", "-0.5"),
        ("--eta", "nan"),
        ("--nu", "inf"),
        ("--objective", "best"),
        ("--kernel", "cut"),
        ("--utility", "cosine"),
        ("--order", "random"),
        ("--self", "maybe"),
        ("--bogus",),
    ],
)
def test_bad_options(arguments: tuple[str, ...]) -> None:
    result = delift("select", "pool", *arguments)
    assert result.code == 2
    assert result.out == b""
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kernel", "cut"), "Invalid value for '--kernel': 'cut' is not one of 'clip', "),
        (("--until", "1"), "--until 1: give a share below 100% of the first gain"),
        (("--until", "100%"), "--until 100%: give a share below 100% of the first gain"),
        (("-k", "0"), "-k 0: give at least one record"),
        (("--paper", "--objective", "topm"), "--paper means an objective of the paper, fl, flmi, flcg, not topm"),
    ],
)
def test_bad_values_are_said_in_the_words_of_the_user(arguments: tuple[str, ...], message: str) -> None:
    assert delift("select", "pool", *arguments).refusal().startswith(message)


def test_bad_alpha() -> None:
    for alpha in ("0", "1.5", "-1", "nan"):
        refused = delift("select", "pool", "--objective", "saturated", "--alpha", alpha).refusal()
        assert "alpha" in refused


# ---- caches that do not fit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a cache to select from"),
        (("--existing", "old"), "nothing to select from"),
        (("dev",), "dev is not a pool scored against itself; give it with --target or --existing"),
        (("pool", "--target", "old"), "delift score pool.jsonl --targets TARGET_SET"),
        (("pool", "--existing", "dev"), "delift score --examples EXISTING --targets pool.jsonl"),
        (
            ("pool", "--target", "dev", "--existing", "old"),
            "delift score --examples TARGET_SET --targets pool.jsonl",
        ),
        (("pool", "--target", "dev", "--objective", "fl"), "takes no notice of a target set"),
        (("pool", "--objective", "flmi"), "needs a target set"),
        (("nowhere",), "nowhere: no such cache"),
        (("pool", "--target", "nowhere"), "nowhere: no such cache"),
        (("pool.jsonl",), "delift score pool.jsonl"),
    ],
)
def test_wrong_blocks(arguments: tuple[str, ...], message: str) -> None:
    assert message in delift("select", *arguments).refusal()


def test_unfinished_cache(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", pairs(0, 1, 2)) as cache:
        fill(cache, [0])
    refused = delift("select", tmp_path / "c").refusal()
    assert "1 of 3 rows" in refused
    assert "run the same delift score command again" in refused


def test_other_model_is_refused(tmp_path: Path) -> None:
    make_cache(tmp_path / "dev", POOL, pairs(20, 21, 22))
    refused = delift("select", "pool", "--target", tmp_path / "dev").refusal()
    assert "not measured alike: model.sha256 differs" in refused


def test_cache_that_cannot_be_written_to_is_selected_from(tmp_path: Path) -> None:
    """Reading changes nothing that scoring made."""
    shutil.copytree("pool", tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "gains", ignore_errors=True)
    before = tree(tmp_path / "c")
    assert delift("select", tmp_path / "c", "-q").code == 0
    assert delift("inspect", tmp_path / "c").code == 0
    assert {name: data for name, data in tree(tmp_path / "c").items() if "gains" not in name} == before


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "wrong values"])
def test_damaged_gains_do_not_matter(damage: str, tmp_path: Path) -> None:
    want = ids("pool", "-k", "6")
    shutil.copytree("pool", tmp_path / "c")
    kept = list((tmp_path / "c" / "gains").iterdir())
    assert kept
    for file in kept:
        data = file.read_bytes()
        damaged = {"empty": b"", "cut": data[:-8], "other": b"PK\x03\x04", "wrong values": data[:4] + data[-8:] * 12}
        file.write_bytes(damaged[damage])
    assert ids(tmp_path / "c", "-k", "6") == want


# ---- inspect


def test_inspect_json() -> None:
    result = delift("inspect", "pool", "--json", "--top", "3")
    assert (result.code, result.err) == (0, "")
    told = result.json
    assert (told["examples"], told["targets"], told["square"], told["complete"]) == (12, 12, True, True)
    on_disk = arrays(Path("pool"))
    utility = on_disk["base_distance"].astype(float) - on_disk["distance"].astype(float)
    np.fill_diagonal(utility, np.nan)
    utility[0, 4] = utility[4, 0] = np.nan  # copies of each other
    assert told["mean_utility"] == pytest.approx(np.nanmean(utility), abs=1e-6)
    assert told["harmful_share"] == pytest.approx((utility < 0).sum() / (12 * 11 - 2))
    others = np.nanmean(utility, axis=1)
    order = np.argsort(-others, kind="stable")
    assert [row["id"] for row in told["most_useful"]] == [IDS[j] for j in order[:3]]
    assert [row["id"] for row in told["least_useful"]] == [IDS[j] for j in order[::-1][:3]]
    assert told["most_useful"][0]["mean_utility"] == pytest.approx(others.max())
    assert told["manifest"]["examples"]["source"] == "pool.jsonl"


def test_inspect_for_people() -> None:
    """Every record is shown as it is, brackets and all."""
    result = delift("inspect", "pool", "--top", "12")
    assert result.code == 0
    shown = result.out.decode() + result.err
    for text in ("12 examples from pool.jsonl", "complete", "tiny", "[/b]", "[bold]closed[/bold]", "猫", "r0#2"):
        assert text in shown
    assert "\x1b" not in shown


def test_inspect_rectangle_and_unfinished(tmp_path: Path) -> None:
    told = delift("inspect", "dev", "--json").json
    assert (told["examples"], told["targets"], told["square"]) == (12, 3, False)
    with open_cache(tmp_path / "c", pairs(0, 1, 2)):
        pass
    told = delift("inspect", tmp_path / "c", "--json").json
    assert (told["rows_done"], told["complete"], told["most_useful"]) == (0, False, [])
    assert "0 of 3 rows" in delift("inspect", tmp_path / "c").out.decode() + delift("inspect", tmp_path / "c").err
    with open_cache(tmp_path / "c", pairs(0, 1, 2)) as cache:
        fill(cache, [1])
    told = delift("inspect", tmp_path / "c", "--json").json
    assert (told["rows_done"], [row["id"] for row in told["most_useful"]]) == (1, ["r1"])


def test_inspect_top_zero_and_too_many() -> None:
    assert delift("inspect", "pool", "--json", "--top", "0").json["most_useful"] == []
    assert len(delift("inspect", "pool", "--json", "--top", "99").json["most_useful"]) == 12
    assert delift("inspect", "pool", "--top", "-1").code == 2


def test_inspect_multi_line_and_long_texts(tmp_path: Path) -> None:
    record = {"id": "x", "prompt": "line\n" * 500, "response": "\ttab\x1b[31mred"}
    make_cache(tmp_path / "c", jsonl([record]))
    result = delift("inspect", tmp_path / "c")
    assert result.code == 0
    assert "\x1b" not in result.err + result.out.decode()  # a record does not get to drive the terminal


def test_inspect_no_cache() -> None:
    assert "no such cache" in delift("inspect", "nowhere").refusal()
    assert "is a file, not a cache" in delift("inspect", "pool.jsonl").refusal()
