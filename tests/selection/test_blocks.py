"""Caches to objectives, against plain formulas over the arrays on disk."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiny_runs import DESCRIPTION, arrays, fill, jsonl, make_cache, open_cache, pair, pairs

from delift_cli.cache.dense import Cache
from delift_cli.errors import InputError
from delift_cli.report.pool import Pool, Wanted
from delift_cli.selection.blocks import Block, KernelOptions, as_block, default_objective, kernels, objective_over
from delift_cli.selection.methods import objective_for
from delift_cli.selection.reasons import explain_record
from delift_cli.selection.run import select_records
from delift_cli.submodular.objectives import NAMES, value
from delift_cli.submodular.sweeps import similarities

# In the pool, record 4 is record 1 up to case and white space, record 7 is record 0 itself; the target set and the
# existing data hold a copy of a pool record each.
POOL_RECORDS = [pair(i) for i in range(8)]
POOL_RECORDS[4] = {"id": "copy", "prompt": pair(1)["prompt"].upper() + " ", "response": pair(1)["response"]}
POOL_RECORDS[7] = pair(0)
TARGET_RECORDS = [pair(20), pair(3), pair(22)]
EXISTING_RECORDS = [pair(30), pair(31), pair(2), pair(33)]
POOL, TARGET, EXISTING = map(jsonl, (POOL_RECORDS, TARGET_RECORDS, EXISTING_RECORDS))
ETA, NU, ALPHA = 0.7, 0.6, 0.4

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every block that an objective can need, named by its examples and targets."""
    folder = tmp_path_factory.mktemp("blocks")
    sets = {"V": POOL, "T": TARGET, "E": EXISTING}
    for seed, (a, b) in enumerate(("VV", "VT", "TV", "EV", "ET")):
        make_cache(folder / (a + b), sets[a], None if a == b else sets[b], seed=seed)
    return folder


def key(record: dict[str, str]) -> tuple[str, str]:
    prompt, response = (" ".join(record[name].casefold().split()) for name in ("prompt", "response"))
    return prompt, response


def plain_similarity(folder: Path, names: list[str], options: KernelOptions) -> dict[str, Array]:
    """Similarities of the blocks by the formulas, counted from zero, with nothing of delift's."""
    utilities: dict[str, Array] = {}
    for name in names:
        on_disk = arrays(folder / name)
        if options.utility == "euclidean":
            utilities[name] = on_disk["base_distance"].astype(float) - on_disk["distance"].astype(float)
        else:
            utilities[name] = on_disk["logprob"].astype(float) - on_disk["base_logprob"].astype(float)
    low, high = min(u.min() for u in utilities.values()), max(u.max() for u in utilities.values())
    sets = {"V": POOL_RECORDS, "T": TARGET_RECORDS, "E": EXISTING_RECORDS}
    made = {}
    for name, utility in utilities.items():
        if options.transform == "minmax":
            utility = (utility - low) / (high - low)
        similarity = np.maximum(utility, 0.0)
        if options.self_utility == "exclude":
            for j, i in itertools.product(*map(range, utility.shape)):
                if key(sets[name[0]][j]) == key(sets[name[1]][i]):
                    similarity[j, i] = 0.0
        made[name] = similarity
    return made


def best(similarity: Array, rows: list[int] | None = None) -> Array:
    """For each target the best similarity over some examples, 0 for none."""
    chosen = similarity if rows is None else similarity[rows]
    return chosen.max(axis=0, initial=0.0)


def concave(name: str, before: Array, given: Array) -> float:
    curve = np.sqrt if name == "sqrt" else np.log1p
    return float((curve(before + given) - curve(before)).sum())


def plain_value(name: str, s: dict[str, Array], subset: list[int]) -> float:
    """The formulas of the objectives' table."""

    def pull(block: str) -> float:
        return ETA * sum(s[block][j].max(initial=0.0) for j in subset)

    match name:
        case "fl":
            return float(best(s["VV"], subset).sum())
        case "flmi":
            return float(best(s["VV"], subset).sum()) + pull("VT")
        case "flvmi":
            return float(best(s["VT"], subset).sum()) + pull("VT")
        case "fl1mi":
            return float(np.minimum(best(s["VV"], subset), ETA * best(s["TV"])).sum())
        case "flcg":
            return float(np.maximum(best(s["VV"], subset) - NU * best(s["EV"]), 0.0).sum())
        case "flcmi":
            capped = np.minimum(best(s["VV"], subset), ETA * best(s["TV"]))
            return float(np.maximum(capped - NU * best(s["EV"]), 0.0).sum())
        case "saturated":
            ceiling, given = ALPHA * s["VV"].sum(axis=0), s["VV"][subset].sum(axis=0)
            return float(np.minimum(given, ceiling).sum()) + pull("VV")
        case "lp":
            return float(np.sqrt(np.square(s["VV"][subset]).sum(axis=0)).sum()) + pull("VV")
        case "noisyor":
            return float((1.0 - np.prod(1.0 - np.minimum(s["VV"][subset], 1.0), axis=0)).sum()) + pull("VV")
        case "topm":
            best_three = -np.sort(-s["VV"][subset], axis=0)[:3]
            ranked = best_three / np.arange(1, len(best_three) + 1)[:, None]
            return float(ranked.sum()) + pull("VV")
        case _:
            return concave(name, np.zeros(8), s["VV"][subset].sum(axis=0)) + pull("VV")


NEEDS = {
    "fl": {"pool": "VV"},
    "flmi": {"pool": "VV", "target": "VT"},
    "flvmi": {"target": "VT"},
    "fl1mi": {"pool": "VV", "target": "TV"},
    "flcg": {"pool": "VV", "existing": "EV"},
    "flcmi": {"pool": "VV", "target": "TV", "existing": "EV"},
    "sqrt": {"pool": "VV"},
    "log1p": {"pool": "VV"},
    "saturated": {"pool": "VV"},
    "lp": {"pool": "VV"},
    "noisyor": {"pool": "VV"},
    "topm": {"pool": "VV"},
}
OPTIONS = [
    KernelOptions(utility, transform, self_utility)  # type: ignore[arg-type]
    for utility in ("euclidean", "pmi")
    for transform in ("clip", "minmax", "raw")
    for self_utility in ("exclude", "include")
]


def build(folder: Path, blocks: dict[str, str], name: str, options: KernelOptions, **parameters: float) -> Any:
    given = {role: Cache(folder / blocks[role]) if role in blocks else None for role in ("pool", "target", "existing")}
    return objective_over(**given, name=name, options=options, **parameters)


def test_every_objective_is_here() -> None:
    assert set(NEEDS) == set(NAMES)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o.utility}-{o.transform}-{o.self_utility}")
@pytest.mark.parametrize("name", NEEDS)
def test_values_are_those_of_the_formulas(folder: Path, name: str, options: KernelOptions) -> None:
    objective, chosen_from = build(folder, NEEDS[name], name, options, eta=ETA, nu=NU, alpha=ALPHA)
    similarity = plain_similarity(folder, list(NEEDS[name].values()), options)
    assert [record.id for record in chosen_from.examples] == [*(f"r{i}" for i in range(4)), "copy", "r5", "r6", "r0#2"]
    rng = np.random.default_rng(1)
    subsets = [[], [4], *(rng.choice(8, size, replace=False).tolist() for size in (2, 3, 5)), list(range(8))]
    values = [value(objective, subset) for subset in subsets]
    np.testing.assert_allclose(values, [plain_value(name, similarity, subset) for subset in subsets], atol=1e-6)
    assert values[0] == 0.0
    assert values[-1] > 0.0


def test_concave_with_target_and_existing(folder: Path) -> None:
    options = KernelOptions()
    blocks = {"pool": "VV", "target": "VT", "existing": "ET"}
    s = plain_similarity(folder, ["VT", "ET"], options)
    before, subset = NU * s["ET"].sum(axis=0), [1, 4, 6]
    given = s["VT"][subset].sum(axis=0)
    for name in ("sqrt", "log1p"):
        objective, _ = build(folder, blocks, name, options, nu=NU)
        assert value(objective, subset) == pytest.approx(concave(name, before, given), abs=1e-6)
    objective, _ = build(folder, blocks, "saturated", options, nu=NU, alpha=ALPHA)
    room = np.maximum(0.0, ALPHA * s["VT"].sum(axis=0) - before)
    assert value(objective, subset) == pytest.approx(np.minimum(given, room).sum(), abs=1e-6)


def test_excluded_pairs(folder: Path) -> None:
    """A record and its copies cover neither themselves nor each other, in any block."""
    blocks = [Block(Cache(folder / name)) for name in ("VV", "VT", "EV")]
    pool, target, existing = (
        similarities(kernel) for kernel in kernels(blocks, KernelOptions(transform="minmax", self_utility="exclude"))
    )
    assert {(j, i) for j, i in zip(*np.nonzero(pool == 0.0), strict=True)} >= {
        *((j, j) for j in range(8)),
        *((j, i) for j in (1, 4) for i in (1, 4)),
        *((j, i) for j in (0, 7) for i in (0, 7)),
    }
    assert target[3, 1] == 0.0
    assert existing[2, 2] == 0.0
    # and nothing else: min-max similarities are positive but for the one smallest utility of all blocks
    zeros = [int((s == 0.0).sum()) for s in (pool, target, existing)]
    assert sum(zeros) <= (8 + 4) + 1 + 1 + 1


def test_a_target_with_the_same_long_answer_is_excluded_too(tmp_path: Path) -> None:
    answer = "I am sorry, but I cannot help with that request."
    refusals = [{"prompt": prompt, "response": answer} for prompt in ("Name a bird.", "How far is the moon?")]
    target = {"prompt": "Write a sonnet about autumn.", "response": answer}
    path = make_cache(tmp_path / "VT", jsonl([*refusals, pair(3)]), jsonl([pair(20), target]))
    strict, plain = (
        similarities(kernels([Block(Cache(path))], KernelOptions(transform="raw", self_utility=own))[0])  # type: ignore[arg-type]
        for own in ("exclude-answers", "exclude")
    )
    assert (plain != 0.0).all()
    assert (strict != 0.0).tolist() == [[True, False], [True, False], [True, True]]


def test_minmax_has_one_scale_for_all_blocks(folder: Path) -> None:
    blocks = [Block(Cache(folder / name)) for name in ("VV", "EV")]
    together = [similarities(k) for k in kernels(blocks, KernelOptions(transform="minmax", self_utility="include"))]
    assert min(s.min() for s in together) == pytest.approx(0.0, abs=1e-6)
    assert max(s.max() for s in together) == pytest.approx(1.0, abs=1e-6)
    assert sum(np.isclose(s, 1.0, atol=1e-7).any() for s in together) == 1


def test_default_objectives() -> None:
    assert default_objective(True, False, False) == "topm"
    assert default_objective(True, False, False, share=0.2) == "topm"
    assert default_objective(True, False, False, share=0.19) == "fl"
    assert default_objective(True, False, False, share=0.2, records=149) == "topm"
    assert default_objective(True, False, False, share=0.2, records=150) == "saturated"
    assert default_objective(True, False, False, share=0.5, records=9000) == "saturated"
    assert default_objective(True, False, False, share=0.51, records=9000) == "topm"
    assert default_objective(True, False, False, share=0.19, records=9000) == "fl"
    assert default_objective(True, False, False, anchors=True, share=0.1) == "topm"
    assert default_objective(True, False, False, anchors=True, share=0.3, records=300) == "topm"
    assert default_objective(True, True, False) == "flmi"
    assert default_objective(False, True, False) == "flvmi"
    assert default_objective(True, False, True) == "flcg"
    assert default_objective(True, True, True) == "flcmi"


def test_records_that_were_asked_for_are_counted_as_they_are() -> None:
    """Not by their rounded share of the pool: 150 of 740 are many."""
    pool = SimpleNamespace(shape=(740, 740), example_tokens=np.full(740, 10), manifest={})
    assert objective_for({"pool": pool}, "150") == ("saturated", 0.2)  # type: ignore[dict-item]
    assert objective_for({"pool": pool}, "149")[0] == "topm"  # type: ignore[dict-item]


def test_where_nothing_gains_no_share_is_said_to_be_enough(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", pairs(*range(6))) as cache:
        cache.write_base(0, np.full(6, 0.1, np.float32), np.full(6, -1.0, np.float32))
        for example in range(6):
            cache.write_row(example, np.full(6, 0.9, np.float32), np.full(6, -2.0, np.float32))
    subset = select_records(tmp_path / "c", 3, until="1%")
    assert len(subset) == 0
    assert ("stopped", "no record gains anything") in subset.lines()


@pytest.mark.parametrize(
    ("count", "k", "saturated"),
    [
        (1, "1", "no record gains anything; 1 record was taken by what it is worth alone"),
        (2, "100%", "nothing more to gain after 1 record; the other one was taken by what it is worth alone"),
        (3, "100%", "nothing more to gain after 2 records; the other one was taken by what it is worth alone"),
        (2, "50%", None),
    ],
)
def test_of_few_records_a_choice_counts_as_people_do(tmp_path: Path, count: int, k: str, saturated: str | None) -> None:
    subset = select_records(make_cache(tmp_path / "c", pairs(*range(count))), k)
    told = dict(subset.lines())
    assert told.get("saturated") == saturated
    tokens = subset.as_dict()["tokens"]
    assert told["selected"] == f"{len(subset)} of {count} record{'s' * (count > 1)}, {tokens} tokens"


# ---- blocks that do not belong together


@pytest.mark.parametrize(
    ("name", "blocks", "message"),
    [
        ("fl", {}, "delift select train.delift"),
        ("fl", {"existing": "EV"}, "nothing to select from"),
        ("fl", {"pool": "VT"}, "not a pool scored against itself; give it with --target or --existing"),
        ("flmi", {"pool": "VV", "target": "TV"}, "delift score pool.jsonl --targets TARGET_SET"),
        ("flmi", {"pool": "VV", "target": "EV"}, "delift score pool.jsonl --targets TARGET_SET"),
        ("fl1mi", {"pool": "VV", "target": "VT"}, "delift score --examples TARGET_SET --targets pool.jsonl"),
        ("flcmi", {"pool": "VV", "target": "VT", "existing": "EV"}, "score --examples TARGET_SET --targets pool.jsonl"),
        ("flcg", {"pool": "VV", "existing": "ET"}, "delift score --examples EXISTING --targets pool.jsonl"),
        ("sqrt", {"pool": "VV", "target": "VT", "existing": "EV"}, "--examples EXISTING --targets targets.jsonl"),
        ("flmi", {"pool": "VV"}, "flmi needs a target set"),
        ("flvmi", {"pool": "VV"}, "flvmi needs a target set"),
        ("flcg", {"pool": "VV"}, "flcg needs existing data"),
        ("flcmi", {"pool": "VV", "target": "TV"}, "flcmi needs existing data"),
        ("fl", {"pool": "VV", "target": "VT"}, "fl takes no notice of a target set"),
        ("fl", {"pool": "VV", "existing": "EV"}, "fl takes no notice of existing data"),
        ("fl", {"target": "VT"}, "takes no notice of a target set|needs the pool"),
        ("flmi", {"pool": "VV", "target": "VV"}, "--target .*VV is a pool scored against itself; .* --targets TARGET"),
        ("flvmi", {"target": "VV"}, "--target .*VV is a pool scored against itself; .*pool.jsonl --targets TARGET_SET"),
        ("flcg", {"pool": "VV", "existing": "VV"}, "--existing .*VV is a pool .* --examples EXISTING --targets pool"),
    ],
)
def test_wrong_blocks_are_refused_with_the_right_command(
    folder: Path, name: str, blocks: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        build(folder, blocks, name, KernelOptions())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("part", "change", "name"),
    [
        ("model", {"sha256": "1" * 64}, "model.sha256"),
        ("weights", {"type": "bf16"}, "weights"),
        ("template", {"text": "another"}, "template.text"),
        ("settings", {"kv_type": "q8_0"}, "settings"),
        ("metric", {"distance": "another"}, "metric"),
    ],
)
def test_blocks_measured_otherwise_are_refused(
    folder: Path, tmp_path: Path, part: str, change: dict[str, Any], name: str
) -> None:
    description = {**DESCRIPTION, part: {**DESCRIPTION[part], **change}}
    with open_cache(tmp_path / "VT", POOL, TARGET, description) as cache:
        fill(cache)
    with pytest.raises(InputError, match=rf"not measured alike: .*{name}.* differs"):
        objective_over(Cache(folder / "VV"), Cache(tmp_path / "VT"), None, "flmi", KernelOptions())


def test_anchors_of_the_pool_are_no_target_set(folder: Path, tmp_path: Path) -> None:
    description = {**DESCRIPTION, "anchors": {"stand_for": 8, "weights": [4.0, 4.0]}}
    with open_cache(tmp_path / "anchors", POOL, jsonl(POOL_RECORDS[:2]), description) as cache:
        fill(cache)
    for pool in (folder / "VV", None):
        with pytest.raises(InputError, match=r"--target .*anchors is a pool scored against its anchors; give one made"):
            select_records(pool, 2, target=tmp_path / "anchors")


def test_pool_that_grew_no_longer_fits_its_target_block(folder: Path, tmp_path: Path) -> None:
    make_cache(tmp_path / "VV", POOL + jsonl([pair(50)]))
    with pytest.raises(InputError, match="does not have the pool as its examples"):
        objective_over(Cache(tmp_path / "VV"), Cache(folder / "VT"), None, "flmi", KernelOptions())


def test_incomplete_block_is_refused(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", POOL) as cache:
        fill(cache, [0, 1, 2])
    with pytest.raises(InputError, match=r"not complete: 3 of 8 rows .*run the same delift score command again"):
        Block(Cache(tmp_path / "c"))


def test_where_many_are_chosen_each_target_gets_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_cache(tmp_path / "pool.delift", pairs(*range(12)))
    monkeypatch.setattr("delift_cli.selection.blocks.MANY", 4)
    subset = select_records(pool, 4)
    told = subset.as_dict()
    assert (told["objective"], told["parameters"]) == ("saturated", {"alpha": 0.33})
    named = KernelOptions(self_utility="exclude-answers")
    assert subset.ids == select_records(pool, 4, objective="saturated", alpha=0.33, count="both", options=named).ids
    assert all(explain_record(pool, name, 4).figures["chosen"] for name in subset.ids)
    (reported,) = Pool(as_block(Cache(pool)), None, Wanted(k="4")).subsets
    assert reported.places.tolist() == subset.selection.indices.tolist()
    assert select_records(pool, 3).as_dict()["objective"] == "topm"
    assert select_records(pool, 7).as_dict()["objective"] == "topm"
    assert select_records(pool, 4, objective="saturated").as_dict()["parameters"] == {"alpha": 0.3}
    assert select_records(pool, 4, alpha=0.5).as_dict()["parameters"] == {"alpha": 0.5}
