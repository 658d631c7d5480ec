"""A proxy: what a smaller model measured, in proposals and estimates, and through `delift score --proxy`."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import write_model
from numpy.typing import NDArray
from tiny_runs import QUICK, WORDS, delift, jsonl, model, pairs, score, tree

from delift_cli.budget import plan
from delift_cli.budget.estimate import Estimate
from delift_cli.budget.measured import HELD_OUT, Scored, nothing_scored
from delift_cli.budget.partial_block import Partial
from delift_cli.budget.proposals import Proposals, propose
from delift_cli.budget.proxy import read_proxy
from delift_cli.budget.trust import quality
from delift_cli.cache.proxies import kept_proxy
from delift_cli.cache.sidecar import kept_file
from delift_cli.cache.sparse import SparseCache, open_cache
from delift_cli.errors import InputError

N = 44


def drive(U: NDArray[np.float64], proposals: Proposals, budget: int) -> Scored:
    scored = nothing_scored()
    for left in range(plan.ROUNDS, 0, -1):
        part = plan.next_round(proposals, scored, budget, rounds_left=left)
        example = np.repeat(np.arange(len(U), dtype=np.int32), np.diff(part.indptr))
        new = example, part.targets, U[example, part.targets].astype(np.float32), part.source
        old = scored.example, scored.target, scored.utility, scored.source
        scored = Scored(*(np.concatenate(both) for both in zip(old, new, strict=True)))
    return scored


def held_out_r2(U: NDArray[np.float64], proposals: Proposals, scored: Scored) -> float:
    fitted = plan.fit_scored(proposals, scored, 0)
    held = scored.source == HELD_OUT
    return quality(fitted.predict(scored.example[held], scored.target[held]), scored.utility[held]).r2


@pytest.fixture(scope="module")
def world() -> tuple[NDArray[np.float64], Proposals, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Utilities of 120 records that texts say nothing of, and factors of them with noise."""
    rng = np.random.default_rng(0)
    n = 120
    left, right = rng.standard_normal((2, n, 12))
    U = left @ right.T / 4
    texts = ["".join(rng.choice(list("abcdefghijklmnop"), 30)) for _ in range(n)]
    key = np.arange(n)
    proposals = propose((texts, texts), None, 2000, key, key)
    noisy = [(side + 0.3 * rng.standard_normal(side.shape)).astype(np.float32) for side in (left, right)]
    return U, proposals, (noisy[0] / np.float32(12**0.5), noisy[1])


def test_estimates_take_what_a_proxy_is_worth_and_no_more(world) -> None:  # type: ignore[no-untyped-def]
    U, proposals, proxy = world
    scored = drive(U, proposals, 2000)
    without = held_out_r2(U, proposals, scored)
    assert held_out_r2(U, replace(proposals, proxy=proxy), scored) > max(without, 0.0) + 0.3
    rng = np.random.default_rng(1)
    misleading = tuple(side[rng.permutation(len(side))] for side in proxy)
    assert held_out_r2(U, replace(proposals, proxy=misleading), scored) > without - 0.1


def test_a_proxy_proposes_its_best_pairs(world) -> None:  # type: ignore[no-untyped-def]
    U, plain, proxy = world
    texts = [str(place) * 9 for place in range(len(U))]
    key = np.arange(len(U))
    with_proxy = propose((texts, texts), None, 2000, key, key, proxy=proxy)
    best = np.argsort(-(proxy[0] @ proxy[1].T), axis=0)[:8].T
    found = [len({*best[i].tolist()} - {i} - {*with_proxy.nearest[i, :20].tolist()}) for i in range(len(U))]
    assert max(found) == 0
    assert not (with_proxy.nearest == key[:, None]).any()
    assert (with_proxy.nearest != plain.nearest).any()
    turned = with_proxy.turned()
    assert turned.proxy is not None
    assert turned.proxy[0] is proxy[1]


def record(number: int) -> dict[str, str]:
    rng = random.Random(number)
    prompt, response = (" ".join(rng.choices(WORDS, k=k)) for k in (4, 5))
    return {"id": f"r{number}", "prompt": prompt, "response": response}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool, and caches of it by another model: of all pairs and of half of them."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "pool.jsonl").write_bytes(jsonl([record(number) for number in range(N)]))
    write_model(folder / "other.gguf", seed=1)
    for name, budget in (("all", "100%"), ("half", "50%")):
        run = delift(
            *("score", folder / "pool.jsonl", "-m", folder / "other.gguf", "-o", folder / f"{name}.delift"),
            *("--budget", budget, "--threads", 1, "--weights", "as-is", "-q"),
        )
        assert run.code == 0, run
    return folder


@pytest.mark.parametrize("name", ["all", "half"])
def test_factors_of_a_cache_are_near_its_utilities(folder: Path, name: str) -> None:
    cache, whole = open_cache(folder / f"{name}.delift"), open_cache(folder / "all.delift")
    left, right = read_proxy(cache.path, cache.examples().records, None)
    said = left @ right.T
    assert abs(float(said.mean())) < 1e-3
    assert float(said.std()) == pytest.approx(1, abs=1e-3)
    utilities = whole.base_distance - whole.distance
    assert np.corrcoef(said.ravel(), utilities.ravel())[0, 1] > (0.97 if name == "all" else 0.5)


@pytest.mark.parametrize(("name", "file"), [("all", "distance.npy"), ("half", "round-1/distance.npy")])
def test_a_damaged_proxy_is_refused(folder: Path, tmp_path: Path, name: str, file: str) -> None:
    proxy = shutil.copytree(folder / f"{name}.delift", tmp_path / "proxy.delift")
    records = open_cache(proxy).examples().records
    data = bytearray((proxy / file).read_bytes())
    data[-2] ^= 64
    (proxy / file).write_bytes(data)
    with pytest.raises(InputError, match=r"match (its|their) checksum"):
        read_proxy(proxy, records, None)


def test_a_proxy_that_tells_no_pairs_apart_counts_for_nothing(
    world,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    flat = Estimate(0.0123, np.ones((1, N, 1), np.float32), np.zeros((1, N, 1), np.float32), np.ones(N, np.float32))
    monkeypatch.setattr(Partial, "estimate", flat)
    path, said = folder / "half.delift", []
    left, right = read_proxy(path, open_cache(path).examples().records, None, said.append)
    assert not (left @ right.T).any()
    assert said == [f"--proxy {path} says the same of all pairs: it counts for nothing"]
    U, proposals, _ = world
    scored = drive(U, proposals, 2000)
    nothing = tuple(np.zeros((len(U), 1), np.float32) for _ in range(2))
    assert held_out_r2(U, replace(proposals, proxy=nothing), scored) == held_out_r2(U, proposals, scored)


def test_records_are_found_by_what_they_say(folder: Path) -> None:
    path, said = folder / "all.delift", []
    records = open_cache(path).examples().records
    left, _ = read_proxy(path, records, None)
    strange = open_cache(path).examples().records[0].renamed("other", 1)
    turned = [*records[::-1], strange]
    again, _ = read_proxy(path, turned, None, said.append)
    np.testing.assert_array_equal(again[:-1], left[::-1])
    assert not said
    from delift_cli.data.reading import parse_records

    new = parse_records(jsonl([record(999)]), "new").records
    unknown, _ = read_proxy(path, [*records, *new], records, said.append)
    assert not unknown[-1].any()
    assert said == [f"--proxy {path} lacks 1 record of the examples: of them it says nothing"]


def test_score_with_a_proxy_and_what_is_said_of_it(folder: Path) -> None:
    pool, half, cache = folder / "pool.jsonl", folder / "half.delift", folder / "with.delift"
    run = score(pool, "-o", cache, "--budget", "85%", "--proxy", half, "--json")
    assert run.code == 0, run
    found = run.json["proxy"]
    assert found["name"] == "tiny"
    assert found["held_out_without"]["pairs"] == run.json["held_out"]["pairs"] >= 20
    opened = open_cache(cache)
    assert isinstance(opened, SparseCache)
    factors = kept_proxy(opened)
    assert factors is not None
    partial = Partial(opened, opened.examples().records, None)
    assert partial.proposals.proxy is not None
    subset = delift("select", cache, "-k", 10, "--ids-only", "-q")
    assert subset.code == 0, subset

    more = ("--continue", "--budget", "+5%")
    again = score(pool, "-o", cache, *more)  # the proxy is remembered
    assert again.code == 0, again
    assert "proxy tiny; without it: R²" in " ".join(again.err.split())
    assert "another proxy" in score(pool, "-o", cache, *more, "--proxy", proxy_of_another(folder)).refusal()
    begun = folder / "without.delift"
    assert score(pool, "-o", begun, "--budget", "40%", "-q").code == 0
    assert "without a proxy" in score(pool, "-o", begun, "--continue", "--budget", "+5%", "--proxy", half).refusal()
    assert "--budget" in score(pool, "-o", folder / "x.delift", "--proxy", half).refusal()

    kept_file(opened, "targets", "proxy: factors").unlink()
    assert "run delift score again with --proxy" in delift("select", cache, "-k", 10).refusal(1)
    assert score(pool, "-o", cache, "--proxy", half, "-q").code == 0
    assert delift("select", cache, "-k", 10, "--ids-only", "-q").code == 0


def proxy_of_another(folder: Path) -> Path:
    write_model(folder / "third.gguf", seed=2)
    path = folder / "third.delift"
    run = delift(
        *("score", folder / "pool.jsonl", "-m", folder / "third.gguf", "-o", path, "--budget", "30%"),
        *("--threads", 1, "--weights", "as-is", "-q"),
    )
    assert run.code == 0, run
    return path


def test_a_model_as_proxy_is_scored_first(folder: Path) -> None:
    pool, cache = folder / "pool.jsonl", folder / "first.delift"
    arguments = (pool, "-o", cache, "--budget", "40%", "--proxy", f"{folder / 'other.gguf'}:50%", "-q")
    run = score(*arguments)
    assert run.code == 0, run
    beside = folder / "first.proxy.delift"
    assert array_bytes_sparse(beside) == array_bytes_sparse(folder / "half.delift")
    before = array_bytes_sparse(cache)
    assert score(*arguments).code == 0
    assert array_bytes_sparse(cache) == before
    shutil.rmtree(beside)
    dry = score(pool, "-o", folder / "dry.delift", "--budget", "40%", "--proxy", folder / "other.gguf", "--dry-run")
    assert dry.code == 0
    assert "not counted" in dry.err
    assert not (folder / "dry.proxy.delift").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pool.jsonl", "--model", model), "give a --budget, such as 5%"),
        (("pool.jsonl", "--budget", "40%", "--model", "nowhere.gguf"), "model nowhere.gguf: no such file or model"),
        (("pool.jsonl", "--budget", "40%", "--model", model, "--template-arg", "x"), "--template-arg x"),
        (("-", "--budget", "40%", "--model", model), "reads the records twice: give a file in place of stdin"),
    ],
)
def test_what_is_wrong_is_said_before_the_proxy_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    given = [each() if callable(each) else each for each in arguments]
    run = delift("score", *given, "-o", "early.delift", "--proxy", "other.gguf", *QUICK, stdin=pairs(1, 2, 3))
    assert message in run.refusal()
    assert not Path("early.proxy.delift").exists()


def test_a_share_of_a_proxy_that_has_all_pairs(folder: Path) -> None:
    """What is to be done is said in the words of --proxy, and nothing is scored; a larger share goes on."""
    pool, cache, other = folder / "pool.jsonl", folder / "second.delift", folder / "other.gguf"
    arguments = (pool, "-o", cache, "--budget", "40%", "-q")
    beside = folder / "second.proxy.delift"
    assert score(*arguments, "--proxy", other).code == 0
    before = tree(beside)
    refusal = score(*arguments, "--proxy", f"{other}:50%").refusal()
    assert f"give --proxy {other} without :50%, or remove {beside}" in refusal
    assert "run without --budget" not in refusal
    assert tree(beside) == before
    shutil.rmtree(beside)
    shutil.rmtree(cache)
    assert score(*arguments, "--proxy", f"{other}:50%").code == 0
    shutil.rmtree(cache)
    assert score(*arguments, "--proxy", f"{other}:60%").code == 0
    shutil.rmtree(cache)
    assert score(*arguments, "--proxy", other).code == 0


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize("output", [".", "..", "/"])
def test_a_cache_without_a_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, proxy: bool
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = ("--budget", "40%", "--proxy", folder / "other.gguf") if proxy else ()
    refusal = score(folder / "pool.jsonl", "-o", output, *options).refusal()
    assert refusal == f"{output}: the cache is a directory of its own; name it, as in -o train.delift"
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_proxy_of_no_pool(folder: Path) -> None:
    proxy = "--budget", "40%", "--proxy", folder / "other.gguf"
    assert score(*proxy).refusal().startswith("give the pool")
    assert score(*proxy, "--examples", folder / "pool.jsonl").refusal().startswith("--examples needs --targets")


def array_bytes_sparse(path: Path) -> dict[str, bytes]:
    """Every measured array of a cache of some pairs."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*.npy"))}
