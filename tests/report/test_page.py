"""The page as a file: it is whole, it is safe, and it says what the arrays say. No browser is needed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
from report_runs import HOSTILE, hostile_pool, plain_pool, sparse_cache
from tiny_runs import delift

from delift_cli.cache.sparse import open_cache
from delift_cli.report import html as pages
from delift_cli.report.document import Tile
from delift_cli.selection.blocks import KernelOptions, as_block
from delift_cli.selection.run import select_records
from delift_cli.selection.suspects import suspects
from delift_cli.visible import visible

pytest.importorskip("uplot", reason="the drawing library is not installed: pip install 'delift-cli[report]'")
SIZE = 40
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(html.parser.HTMLParser):
    """Elements with their attributes and text; an element that is never closed, or closed twice, is a fault."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.cells: list[list[str]] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.cells.append([])
        if tag == "td":
            self.cells[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif self._open and self._open[-1] == "style":
            self.styles.append(data)
        elif self._open and self._open[-1] == "td":
            self.cells[-1][-1] += data

    def block(self, id: str) -> Any:
        (packed,) = [text for attributes, text in self.scripts if attributes.get("id") == f"block-{id}"]
        return json.loads(gzip.decompress(base64.b64decode(packed)))

    @property
    def columns(self) -> dict[str, list[Any]]:
        return {each["key"]: each["values"] for each in self.block("data")["sets"]["records"]["columns"]}

    def table(self, id: str) -> dict[str, Any]:
        return next(table for table in self.block("data")["tables"] if table["id"] == id)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    folder = tmp_path_factory.mktemp("page")
    cache = tiny_runs.make_cache(folder / "pool.delift", hostile_pool(SIZE))
    assert delift("report", cache, "-o", folder / "report.html", "-q").code == 0
    return cache, Page(folder / "report.html")


def test_nothing_but_its_own_scripts_and_styles_may_run(hostile: tuple[Path, Page]) -> None:
    page = hostile[1]
    (policy,) = [a["content"] or "" for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert {"base-uri", "form-action"} <= rules.keys()
    assert "unsafe" not in policy
    assert "http" not in policy

    def digests(texts: list[str]) -> set[str]:
        return {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts}

    running = [text for attributes, text in page.scripts if attributes.get("type") is None]
    assert len(running) == 2
    assert set(rules["script-src"].split()) == digests(running)
    assert set(rules["style-src"].split()) == digests(page.styles)
    first = [tag for tag, _ in page.elements].index("style")
    assert first > [a.get("http-equiv") for _, a in page.elements].index("Content-Security-Policy")


def test_nothing_is_asked_of_a_network(hostile: tuple[Path, Page]) -> None:
    for tag, attributes in hostile[1].elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
        assert not {"src", "srcset", "action", "style"} & attributes.keys(), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_text_from_records_stays_text(hostile: tuple[Path, Page]) -> None:
    page = hostile[1]
    body = re.sub(r"<script.*?</script>", "", page.source, flags=re.DOTALL)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2028\u2029]", body)
    seen = " ".join(cell for row in page.cells for cell in row)
    assert "<script>document.title = 'ran'</script>" in seen
    assert "{{ 7 * 7 }} ${7 * 7}" in seen
    assert "\\u202ereversed" in seen
    assert "\\x1b[31mred" in seen


def test_ids_are_exported_as_they_are_and_texts_as_they_can_be_seen(hostile: tuple[Path, Page]) -> None:
    page = hostile[1]
    records = [json.loads(line) for line in hostile_pool(SIZE).splitlines()]
    assert page.columns["id"] == [" ".join(record["id"].splitlines()).strip() for record in records]
    part = page.block("records-0")
    for record, turns in zip(records, part["turns"], strict=True):
        assert turns == [
            ["user", visible(record["prompt"], lines=True)],
            ["assistant", visible(record["response"], lines=True)],
        ]
    assert all(visible(text, lines=True) == text for turns in part["turns"] for _, text in turns)


def test_figures_are_those_of_the_cache(hostile: tuple[Path, Page]) -> None:
    cache, page = hostile
    base = np.load(cache / "base_distance.npy").astype(np.float64)
    utility = base - np.load(cache / "distance.npy")
    np.fill_diagonal(utility, np.nan)
    columns = page.columns
    np.testing.assert_allclose(columns["mean"], np.nanmean(utility, axis=1), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(columns["harmful"], (utility < 0).sum(1) / (SIZE - 1), rtol=1e-3)
    np.testing.assert_allclose(columns["covered"], np.nanmax(utility, axis=0), rtol=1e-3)
    np.testing.assert_allclose(columns["loss"], -np.load(cache / "base_logprob.npy"), rtol=1e-3)
    part = page.block("records-0")
    (helpers,) = [at for at, ends in enumerate(page.block("data")["sets"]["records"]["ends"]) if "by" in ends["title"]]
    for target in range(SIZE):
        best = np.argsort(-np.nan_to_num(utility[:, target], nan=-np.inf), kind="stable")[:5]
        assert part["ends"][helpers]["other"][target] == best.tolist()


def test_the_curve_and_the_subset_are_those_of_select(hostile: tuple[Path, Page]) -> None:
    cache, page = hostile
    ids = delift("select", cache, "-k", "30%", "--ids-only", "-q").out.decode().split("\n")[:-1]
    chosen = page.table("selected-0")
    assert [page.columns["id"][place] for place in chosen["rows"]] == ids
    assert [page.columns["rank"][place] for place in chosen["rows"]] == list(range(1, 13))
    summary = delift("select", cache, "-k", "30%", "-o", "/dev/null", "--json").json
    curve = next(plot for plot in page.block("data")["plots"] if plot["id"] == "curve")["lines"][0]
    assert curve["y"][curve["x"].index(12)] == pytest.approx(summary["value"], rel=1e-4)
    subsets = {column["key"]: column["values"] for column in page.table("subsets")["columns"]}
    more = delift("select", cache, "-k", 13, "-o", "/dev/null", "--json").json
    assert subsets["share"][0] == pytest.approx(summary["share"], rel=1e-3)
    assert subsets["more"][0] == pytest.approx(more["share"], rel=1e-3)


def test_the_objective_is_said_as_select_says_it(hostile: tuple[Path, Page]) -> None:
    cache, page = hostile
    said = dict(select_records(cache).lines())["objective"]
    assert said.startswith("topm, depth 3 (")
    assert said in page.source


def test_names_of_files_and_fields_stay_text_too(tmp_path: Path) -> None:
    name = "<b>\u202e\x1b[2J</b>"
    records = [{**tiny_runs.pair(number), name: f"kind {number % 2}"} for number in range(8)]
    cache = tiny_runs.make_cache(tmp_path / f"{name}.delift".replace("/", ""), tiny_runs.jsonl(records))
    (tmp_path / f"{name}.txt".replace("/", "")).write_text("r1\n")
    words = ("--group", name, "--subset", tmp_path / f"{name}.txt".replace("/", ""))
    assert delift("report", cache, *words, "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    data = json.dumps(page.block("data"), ensure_ascii=False)
    for text in (data, page.source):
        assert not re.search(r"[\x1b\u202e]", text)
    assert ("b", {}) not in page.elements
    assert "&lt;b&gt;\\u202e\\x1b[2J&lt;b&gt;.delift" in page.source


def test_same_cache_same_bytes(hostile: tuple[Path, Page], tmp_path: Path) -> None:
    cache, page = hostile
    assert delift("report", cache, "-o", tmp_path / "again.html", "-q").code == 0
    assert (tmp_path / "again.html").read_text("utf-8") == page.source


def test_subsets_from_files(tmp_path: Path) -> None:
    data = plain_pool(30)
    cache = tiny_runs.make_cache(tmp_path / "pool.delift", data)
    lines = data.splitlines()
    (tmp_path / "some.jsonl").write_bytes(b"\n".join([lines[7], lines[3], lines[20]]) + b"\n")
    (tmp_path / "ids.txt").write_text("r20\nr1\n")
    (tmp_path / "foreign.jsonl").write_bytes(lines[2] + b"\n" + tiny_runs.jsonl([tiny_runs.pair(99)]))
    subsets = [word for name in ("some.jsonl", "ids.txt", "foreign.jsonl") for word in ("--subset", tmp_path / name)]
    assert delift("report", cache, *subsets, "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    assert [page.table(f"selected-{number}")["rows"] for number in range(3)] == [[7, 3, 20], [20, 1], [2]]
    assert "foreign.jsonl has 1 record that the pool lacks" in page.source
    utility = np.maximum(0, np.load(cache / "base_distance.npy") - np.load(cache / "distance.npy"))
    np.fill_diagonal(utility, 0)
    weight = np.sqrt(np.load(cache / "response_tokens.npy"))
    worth = [utility[rows].max(0) @ weight / weight.mean() for rows in ([7, 3, 20], [20, 1], [2])]
    found = {column["key"]: column["values"] for column in page.table("subsets")["columns"]}
    np.testing.assert_allclose(found["value"], worth, rtol=1e-3)
    (tmp_path / "other.jsonl").write_bytes(tiny_runs.jsonl([tiny_runs.pair(99)]))
    refused = delift("report", cache, "--subset", tmp_path / "other.jsonl", "-o", tmp_path / "no.html")
    assert "none of its records is in the pool" in refused.refusal()
    (tmp_path / "typo.txt").write_text("nobody\nr1\n")
    refused = delift("report", cache, "--subset", tmp_path / "typo.txt", "-o", tmp_path / "no.html")
    assert "nor is its first line the name of a record of the pool" in refused.refusal()
    assert not (tmp_path / "no.html").exists()


def test_lists_that_select_writes_are_read(tmp_path: Path) -> None:
    """Also where the first one has no id of its own, or one that another has too."""
    records = [tiny_runs.pair(number) for number in range(8)]
    for number in (0, 1, 2, 3):
        records[number]["id"] = "same"
    for number in (4, 5):
        del records[number]["id"]
    cache = tiny_runs.make_cache(tmp_path / "pool.delift", tiny_runs.jsonl(records))
    ids = delift("select", cache, "-k", "100%", "--order", "input", "--ids-only", "-q").out.decode().split()
    assert ids[0] == "record:1"
    for number, listed in enumerate((ids[::2], ids[::-1], ids[4:], ["line:7", "r7"])):
        (tmp_path / "ids.txt").write_text("\n".join(listed))
        page = tmp_path / f"{number}.html"
        assert delift("report", cache, "--subset", tmp_path / "ids.txt", "-o", page, "-q").code == 0
        want = [6, 7] if listed[0] == "line:7" else [ids.index(name) for name in listed]
        assert Page(page).table("selected-0")["rows"] == want


def test_a_block_that_is_partly_measured_says_how_sure_it_is(tmp_path: Path) -> None:
    cache = sparse_cache(tmp_path / "pool.delift", plain_pool(60))
    assert delift("report", cache, "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    assert "How sure the choice is" in page.source
    assert "held out at random" in page.source
    assert "20.00%" in page.source
    found = {column["key"]: column["values"] for column in page.table("sure")["columns"]}
    assert found["measured"][0] <= found["high"][0]
    assert "not all pairs are measured" in page.source
    used = "are estimated" if as_block(open_cache(cache)).estimated(KernelOptions()) else "count as 0"
    assert f"(20.00%) in 1 round; the others {used}" in page.source


def test_no_estimate_is_made_where_none_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = sparse_cache(tmp_path / "pool.delift", plain_pool(60))
    monkeypatch.setattr("delift_cli.budget.plan.fit_scored", None)
    assert delift("report", cache, "--estimates", "off", "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    assert "none, as asked for" in page.source
    assert "the others count as 0" in page.source
    assert "are estimated" not in page.source
    assert "pairs that are not measured count as 0" in page.source
    assert "held out" not in page.source


def test_of_a_large_pool_only_copies_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("pool", "look"):
        monkeypatch.setattr(f"delift_cli.report.{place}.SEARCHED", 10)
    twins = [{**tiny_runs.pair(3), "id": name, "prompt": f"Say  {name.upper()}"} for name in ("x", "X")]
    cache = tiny_runs.make_cache(tmp_path / "pool.delift", plain_pool(20) + tiny_runs.jsonl(twins))
    assert delift("report", cache, "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    assert page.table("alike")["rows"] == [20, 21]
    assert "Copies up to case and white space" in page.source


def test_targets_of_their_own(tmp_path: Path) -> None:
    cache = tiny_runs.make_cache(tmp_path / "dev.delift", plain_pool(20), tiny_runs.pairs(30, 31, 32, 33))
    assert delift("report", cache, "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    assert page.block("data")["sets"].keys() == {"records", "targets"}
    assert "Suspected" not in page.source
    pool = tiny_runs.make_cache(tmp_path / "pool.delift", plain_pool(20))
    assert delift("report", pool, "--target", cache, "-o", tmp_path / "both.html", "-q").code == 0
    both = Page(tmp_path / "both.html")
    assert "objective flmi" in both.source or "flmi, kernel" in both.source
    assert len(both.block("records-0")["ends"]) == 4


def words(page: Page) -> str:
    """What is read on it: no scripts, no styles, no tags."""
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " | ", page.source, flags=re.DOTALL).split())


@pytest.mark.parametrize("more", [(), ("-k", "100%")])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_few_records_it_counts_as_people_do(tmp_path: Path, count: int, more: tuple[str, ...]) -> None:
    pool = tiny_runs.make_cache(tmp_path / "pool.delift", plain_pool(count))
    one = tiny_runs.make_cache(tmp_path / "one.delift", plain_pool(count), tiny_runs.pairs(40))
    for caches in ((pool,), (one,), (pool, "--target", one), (pool, pool)):
        assert delift("report", *caches, *more, "-o", tmp_path / "r.html", "-q").code == 0
        said = words(Page(tmp_path / "r.html"))
        assert "nan" not in said
        assert not re.search(r"\b1 (records|targets|values|answers|outliers|groups) ", said), said
        assert not re.search(r"\b[02-9] (record|target|value|answer|outlier|group) ", said), said
    assert delift("report", pool, "-o", tmp_path / "r.html", "-q").code == 0
    alone = "no pair of two records is measured yet" in words(Page(tmp_path / "r.html"))
    assert alone == (count == 1)


def test_what_is_not_measured_is_not_called_helped(tmp_path: Path) -> None:
    cache = sparse_cache(tmp_path / "pool.delift", plain_pool(3), per_example=1)
    behind = {int(target) for target in open_cache(cache).pairs().target}
    assert delift("report", cache, "-o", tmp_path / "r.html", "-q").code == 0
    said = words(Page(tmp_path / "r.html"))
    assert len(behind) == 2
    assert "1 record is measured behind no other and not judged." in said
    assert "Every record is helped" not in said
    why = "of the estimates for pairs that are not measured: too few pairs are held out at random (1) to say"
    assert f"| ? | | {why} how good they are" in said


def test_where_all_pairs_are_measured_nothing_is_said_of_estimates(tmp_path: Path) -> None:
    cache = sparse_cache(tmp_path / "pool.delift", plain_pool(12), per_example=12)
    assert delift("report", cache, "-o", tmp_path / "r.html", "-q").code == 0
    said = words(Page(tmp_path / "r.html"))
    assert "144 of 144 (100.00%)" in said
    assert "estimate" not in said
    assert "How sure" not in said


def test_anchors_lean_towards_a_target_set_as_in_select(tmp_path: Path) -> None:
    description = {**tiny_runs.DESCRIPTION, "anchors": {"stand_for": 20, "weights": [9.0, 6.0, 5.0]}}
    with tiny_runs.open_cache(tmp_path / "anchors", plain_pool(20), tiny_runs.pairs(2, 7, 11), description) as writer:
        tiny_runs.fill(writer)
    dev = tiny_runs.make_cache(tmp_path / "dev.delift", plain_pool(20), tiny_runs.pairs(30, 31, 32, 33), seed=1)
    both = (tmp_path / "anchors", "--target", dev, "-k", "4")
    assert delift("report", *both, "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    chosen = delift("select", *both, "--ids-only", "-q").out.decode().split()
    assert [page.columns["id"][row] for row in page.table("selected-0")["rows"]] == chosen
    sets = page.block("data")["sets"]
    assert {name: found["count"] for name, found in sets.items()} == {"records": 20, "anchors": 3, "targets": 4}
    assert [(ends["title"], ends["with"]) for ends in sets["records"]["ends"]] == [
        ("helps most", "anchors"),
        ("harms most", "anchors"),
        ("helps most of the target set", "targets"),
    ]
    reasons = next(column["values"] for column in page.table("selected-0")["columns"] if column["key"] == "reason")
    named = {reason.rpartition("above all ")[2] for reason in reasons if "above all" in reason}
    assert named <= {"r2", "r7", "r11"}
    assert named
    refused = delift("report", dev, "--target", dev, "-o", tmp_path / "r.html").refusal()
    assert "has targets of its own; give --target with a pool against itself or its anchors" in refused


def test_two_caches_of_the_same_records(tmp_path: Path) -> None:
    first = tiny_runs.make_cache(tmp_path / "a.delift", plain_pool(20), seed=1)
    second = tiny_runs.make_cache(tmp_path / "b.delift", plain_pool(24), seed=2)
    assert delift("report", first, second, "-o", tmp_path / "r.html", "-q").code == 0
    page = Page(tmp_path / "r.html")
    means = []
    for cache in (first, second):
        utility = np.load(cache / "base_distance.npy").astype(np.float64) - np.load(cache / "distance.npy")
        np.fill_diagonal(utility, np.nan)
        means.append(np.nanmean(utility, 1)[:20])
    np.testing.assert_allclose(page.columns["change"], means[1] - means[0], rtol=2e-3, atol=1e-5)
    changed = page.table("changed")["rows"]
    assert np.abs(np.array(page.columns["change"]))[changed].tolist() == sorted(
        np.abs(page.columns["change"]), reverse=True
    )
    assert "20 in both, 4 in B alone" in page.source
    ranks = [np.argsort(np.argsort(mean)) for mean in means]
    assert f"rank correlation {np.corrcoef(*ranks)[0, 1]:.2f}" in page.source
    assert delift("report", first, first, "-o", tmp_path / "same.html", "-q").code == 0
    same = Page(tmp_path / "same.html")
    assert set(same.columns["change"]) == {0.0}
    assert "rank correlation 1.00" in same.source
    assert same.table("onlyA")["rows"] == same.table("onlyB")["rows"] == 0 or not same.table("onlyA")["rows"]
    one = tiny_runs.make_cache(tmp_path / "one.delift", tiny_runs.pairs(3, 90, 91))
    assert delift("report", first, one, "-k", 1, "-o", tmp_path / "one.html", "-q").code == 0
    assert "too few or too equal to correlate" in (tmp_path / "one.html").read_text("utf-8")
    assert "1 in both, 19 in A alone, 2 in B alone" in (tmp_path / "one.html").read_text("utf-8")
    other = tiny_runs.make_cache(tmp_path / "c.delift", tiny_runs.pairs(90, 91, 92))
    assert "no example in common" in delift("report", first, other, "-o", tmp_path / "no.html").refusal()


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    long = [{"id": f"{n}", "prompt": f"{n} " + "word " * 6000, "response": "answer " * 4000} for n in range(4)]
    cache = tiny_runs.make_cache(tmp_path / "pool.delift", tiny_runs.jsonl(long))
    assert delift("report", cache, "-k", "2", "-o", tmp_path / "r.html", "-q").code == 0
    for turns in Page(tmp_path / "r.html").block("records-0")["turns"]:
        assert sum(len(text) for _, text in turns) < pages.MOST_TEXT + 100
        assert all(re.search(r"… \([\d,]+ more characters\)$", text) for _, text in turns)


def test_how_many_answers_are_doubtful(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_bytes(tiny_runs.pairs(*range(12)))
    assert tiny_runs.score(tmp_path / "pool.jsonl", "-o", tmp_path / "pool.delift").code == 0
    cache = open_cache(tmp_path / "pool.delift")
    doubtful = len(suspects(cache, cache.examples().records).doubtful)
    assert 0 < doubtful < 12
    for known in (True, False):
        assert delift("report", tmp_path / "pool.delift", "-o", tmp_path / "r.html", "-q").code == 0
        page = Page(tmp_path / "r.html")
        assert ("doubtful answers, perhaps wrong or spoiled" in page.source) == known
        assert (f"Doubtful, with a suspicion above 1.2: {doubtful} answers." in page.source) == known
        assert f"<strong>{doubtful if known else 12}</strong>" in page.source
        for file in (tmp_path / "pool.delift" / "baselines").iterdir():
            file.unlink()


def test_texts_are_cut_until_the_page_has_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, 3000))) for _ in range(40)]
    records = [{"id": f"{n}", "prompt": text, "response": text[::-1]} for n, text in enumerate(texts)]
    cache = tiny_runs.make_cache(tmp_path / "pool.delift", tiny_runs.jsonl(records))
    sizes = {}
    for room in (3_000_000, 60_000):
        monkeypatch.setattr(pages, "ROOM", room)
        assert delift("report", cache, "-o", tmp_path / "r.html", "-q").code == 0
        page = Page(tmp_path / "r.html")
        sizes[room] = sum(len(text) for attributes, text in page.scripts if attributes.get("type"))
        shown = [text for turns in page.block("records-0")["turns"] for _, text in turns]
        assert all("more characters)" in text for text in shown) == (room == 60_000)
    assert sizes[60_000] <= 60_000 + 40 * pages.ROOM_EACH < sizes[3_000_000]


def test_it_begins_with_what_matters(hostile: tuple[Path, Page]) -> None:
    _, page = hostile
    links = [a["href"] for tag, a in page.elements if tag == "a" and a.get("href", "").startswith("#table-")]
    assert links == [f"#table-{name}" for name in ("harmful", "suspects", "alike", "uncovered", "outliers")]
    ids = {a.get("id") for _, a in page.elements}
    assert {link[1:] for link in links} <= ids
    subsets = {column["key"]: column["values"] for column in page.table("subsets")["columns"]}
    assert f"<strong>{subsets['share'][0]:.1%}</strong>" in page.source
    assert f"<strong>{len(page.table('harmful')['rows'])}</strong>" in page.source


def test_one_of_a_kind_is_one() -> None:
    assert [Tile.of(number, "record", " to see", "table-x").words for number in (0, 1, 2)] == [
        "records to see",
        "record to see",
        "records to see",
    ]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--group", "nosuch"), "no record has a field 'nosuch'"),
        (("-k", "900"), "there are 6 records to choose from"),
        (("-k", "3tok"), "-k 3tok selects nothing: no record is admissible; the smallest has 1"),
        (("--subset", "nowhere.jsonl"), "cannot be read"),
        (("--subset", "/dev/null"), "/dev/null is a pipe or a device, and a subset is read twice: put it into a file"),
    ],
)
def test_refusals(tmp_path: Path, words: tuple[str, ...], reason: str) -> None:
    cache = tiny_runs.make_cache(tmp_path / "pool.delift", tiny_runs.pairs(*range(6)))
    assert reason in delift("report", cache, *words, "-o", tmp_path / "r.html").refusal()
    assert not (tmp_path / "r.html").exists()


def test_without_the_drawing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "find_spec", lambda name: None)
    cache = tiny_runs.make_cache(tmp_path / "pool.delift", tiny_runs.pairs(*range(6)))
    assert "pip install 'delift-cli[report]'" in delift("report", cache, "-o", tmp_path / "r.html").refusal()


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_shown_is_stable(text: str) -> None:
    assert visible(visible(text)) == visible(text)
