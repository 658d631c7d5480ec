"""Which value a budget of scored pairs reaches: methods x budgets x kernels x sizes, without a model.

    python tests/bench/budget.py                     # pool200's reference (or a generated matrix where it is missing)
    python tests/bench/budget.py --utility pmi --seeds 10 --json out.json
    python tests/bench/budget.py --embed                # with embeddings of SmolLM2, as `delift score` has them
    python tests/bench/budget.py --per-record 5 10 20 50 100 --transpose    # judged in pairs for each record

Value: facility location (clip kernel) on the true matrix of the subset chosen from the incomplete one; 0 = mean of
random subsets, 1 = greedy on the full matrix. Pairs count everything that was scored: self-pairs, held-out and
adaptive ones. What planning takes with large pools: `tests.bench.large`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from delift_cli.budget import estimate, plan
from delift_cli.budget.estimate import RANK
from delift_cli.budget.measured import HELD_OUT, Scored, coverage, nothing_scored
from delift_cli.budget.proposals import Proposals, propose
from delift_cli.budget.trust import quality
from delift_cli.cache.dense import Cache
from delift_cli.data import ngrams
from tests.bench.learned import additive, network, trees

SHARED = (folder / "shared" / "data" for folder in Path(__file__).resolve().parents[3:])
DATA = next((folder for folder in SHARED if folder.exists()), Path("shared", "data"))
BARS_PER_RECORD = {20: (0.0, 0.0, 0.95, 0.93), 50: (0.0, 0.0, 0.98, 0.96)}  # leave-one-out
BARS = {0.05: (0.93, 0.95, 0.95, 0.85), 0.1: (0.97, 0.98, 0.98, 0.92), 0.2: (0.99, 0.99, 0.99, 0.96)}
COLUMNS = ("k=10% incl", "k=30% incl", "k=10% excl", "k=30% excl")


def greedy(S: np.ndarray, k: int, covered: np.ndarray | None = None, modular: np.ndarray | None = None) -> np.ndarray:
    """Plain greedy of Σ_i max(covered_i, max_j S_ji) + Σ_j modular_j."""
    c = np.zeros(S.shape[1]) if covered is None else covered.copy()
    extra = np.zeros(len(S)) if modular is None else modular
    chosen: list[int] = []
    for _ in range(k):
        gains = np.maximum(S - c, 0).sum(1) + extra
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        c = np.maximum(c, S[chosen[-1]])
    return np.array(chosen)


def kernel(U: np.ndarray, exclude: bool) -> np.ndarray:
    S = np.maximum(U, 0)
    if exclude:
        np.fill_diagonal(S, 0)
    return S


class Judge:
    """Scales values of subsets for one true matrix: four numbers as in COLUMNS."""

    def __init__(self, U: np.ndarray) -> None:
        self.cases = []
        rng = np.random.default_rng(1)
        for exclude in (False, True):
            S = kernel(U.copy(), exclude)
            for share in (0.1, 0.3):
                k = round(share * len(U))
                draws = [S[rng.choice(len(U), k, replace=False)].max(0).sum() for _ in range(1000)]
                self.cases.append((S, exclude, k, np.mean(draws), S[greedy(S, k)].max(0).sum()))

    def __call__(self, estimated: np.ndarray) -> np.ndarray:
        found = []
        for S, exclude, k, zero, one in self.cases:
            chosen = greedy(kernel(estimated.copy(), exclude), k)
            found.append((S[chosen].max(0).sum() - zero) / (one - zero))
        return np.array(found)


def load(path: Path | None, utility: str, transpose: bool) -> tuple[np.ndarray, list[str], list[str], np.ndarray, str]:
    """True utilities, prompts, responses, what was said without an example [record, 2], and a name.

    `path`: folder with pool200_reference.npz and pool200.jsonl, or one .npz with distance, logprob, base_distance,
    base_logprob, prompt, response, or a complete cache of a pool.
    """
    z: Any
    if path is not None and (path / "manifest.json").exists():
        cache = Cache(path)
        z = {each: getattr(cache, each) for each in ("distance", "logprob", "base_distance", "base_logprob")}
        records = cache.examples().records
        prompts, responses, name = [r.prompt_text for r in records], [r.response_text for r in records], path.stem
    elif path is not None and path.suffix == ".npz":
        z = np.load(path)
        prompts, responses, name = list(map(str, z["prompt"])), list(map(str, z["response"])), path.stem
    elif ((path or DATA) / "pool200_reference.npz").exists():
        z = np.load((path or DATA) / "pool200_reference.npz")
        lines = [json.loads(line) for line in (path or DATA).joinpath("pool200.jsonl").read_text().splitlines()]
        prompts, responses = [line["prompt"] for line in lines], [line["response"] for line in lines]
        name = "pool200"
    else:
        prompts, responses, source = synthetic(200, 0)
        J, I = np.indices((200, 200))  # noqa: E741
        true = source(J.ravel(), I.ravel()).reshape(200, 200).astype(float)
        return true, prompts, responses, np.zeros((200, 0)), "generated"
    U = z["logprob"] - z["base_logprob"] if utility == "pmi" else z["base_distance"] - z["distance"]
    U = U.astype(float)
    base = np.column_stack([z["base_distance"], z["base_logprob"]])
    return (U.T.copy() if transpose else U), prompts, responses, base, f"{name} {utility}{' transposed' * transpose}"


def score_with(
    U: np.ndarray, proposals: Proposals, budget: int, seed: int, adaptive: bool = True
) -> tuple[Scored, list[int], list[float]]:
    """Drive the planner over a known matrix; also the pairs and the measured coverage after each round."""
    scored, pairs, values = nothing_scored(), [], []
    for left in range(plan.ROUNDS, 0, -1):
        r = plan.next_round(proposals, scored, budget, rounds_left=left, seed=seed)
        J = np.repeat(np.arange(len(U), dtype=np.int32), np.diff(r.indptr))
        scored = Scored(
            np.r_[scored.example, J],
            np.r_[scored.target, r.targets],
            np.r_[scored.utility, U[J, r.targets].astype(np.float32)],
            np.r_[scored.source, r.source],
        )
        pairs.append(len(scored))
        values.append(coverage(proposals, scored))
        if not adaptive:
            break
    return scored, pairs, values


def fill(scored: Scored, estimated: np.ndarray) -> np.ndarray:
    out = np.array(estimated, float)
    out[scored.example, scored.target] = scored.utility
    return out


def dense(model: estimate.Estimate, caution: float) -> np.ndarray:
    left, right = model.factors(caution)
    return (left @ right.T).astype(float)


def sparse(U: np.ndarray, example: np.ndarray, target: np.ndarray) -> np.ndarray:
    out = np.zeros_like(U)
    np.fill_diagonal(out, np.diag(U))
    out[example, target] = U[example, target]
    return out


def best_by_directions(U: np.ndarray, each: int, directions: int) -> np.ndarray:
    """U at each target's `each` best pairs by U's additive effects and `directions` main directions, 0 elsewhere: what
    a planner would measure whose model of such a rank was perfect before the first pair."""
    rest = U - U.mean(0) - U.mean(1, keepdims=True) + U.mean()
    left, values, right = np.linalg.svd(rest)
    known = U - rest + (left[:, :directions] * values[:directions]) @ right[:directions]
    np.fill_diagonal(known, -np.inf)
    target = np.arange(len(U))
    best = np.argsort(-known, 0)[:each]
    return sparse(U, best.ravel(), np.tile(target, each))


def similarities(prompts: list[str], responses: list[str]) -> np.ndarray:
    vectors = ngrams.grams(prompts, responses)
    indices, values = ngrams.neighbours(vectors, vectors, len(prompts))
    out = np.zeros((len(prompts), len(prompts)))
    np.put_along_axis(out, np.maximum(indices, 0), np.where(indices >= 0, values, 0), 1)
    return out


def embed(prompts: list[str], responses: list[str], kept: Path | None = None) -> np.ndarray:
    """Embeddings of the records by the small default model: the only thing here that runs a model.

    kept: an .npy file, which is written and read again.
    """
    if kept is not None and kept.exists():
        return np.load(kept)
    from delift_cli.data.reading import read_records
    from delift_cli.model.gguf import ModelFile
    from delift_cli.model.llama import Settings
    from delift_cli.model.places import locate
    from delift_cli.prompt.builtin import load_template
    from delift_cli.prompt.encoding import encode_examples
    from delift_cli.scoring.embeddings import embed_texts
    from delift_cli.scoring.job import Engine

    file = ModelFile(locate(None))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        pairs = zip(prompts, responses, strict=True)
        path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in pairs))
        records = read_records(str(path))
    texts = encode_examples(records, load_template(None, file.template, file.vocabulary), limit=None).prefixes
    found = embed_texts(Engine(file, "as-is", None, Settings()), texts, lambda done: None)
    if kept is not None:
        np.save(kept, found)
    return found


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    U, prompts, responses, base, name = load(args.data, args.utility, args.transpose)
    n = len(U)
    judge, key = Judge(U), np.arange(n)
    embeddings = (embed(prompts, responses, args.embeddings),) * 2 if args.embed or args.embeddings else None
    similarity = similarities(prompts, responses)
    features = np.column_stack([np.diag(U), np.log1p([len(p) for p in prompts]), np.log1p([len(r) for r in responses])])
    rows: list[dict[str, Any]] = []
    print(f"{name}: {n} x {n}, {args.seeds} seeds\n{'pairs':6}{'method':34}" + "".join(f"{c:>18}" for c in COLUMNS))
    for share in [pairs / n for pairs in args.per_record] or args.budgets:
        budget = round(share * n * n)
        proposals = propose((prompts, responses), None, budget, key, key, embeddings, base)
        perfect = judge(best_by_directions(U, budget // n - 1, RANK))
        table: dict[str, list[np.ndarray]] = {f"perfect model of rank {RANK}, rest 0": [perfect]}
        explained, held_quality, took = [], [], []
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            off = ~np.eye(n, dtype=bool)
            pick = rng.choice(np.flatnonzero(off.ravel()), budget - n, replace=False)
            table.setdefault("random pairs, rest 0", []).append(judge(sparse(U, pick // n, pick % n)))
            if args.network and embeddings is not None:
                given = sparse(U, pick // n, pick % n)
                guessed = network(given, pick // n, pick % n, np.hstack(embeddings[0]), seed)
                table.setdefault("random pairs, a network (NN-CIFT)", []).append(judge(guessed))
            near = plan._near_pairs(proposals, key * (n + 1), budget - n, rng)
            table.setdefault("nearest, rest 0", []).append(judge(sparse(U, near // n, near % n)))
            begin = time.perf_counter()
            scored, _, _ = score_with(U, proposals, budget, seed)
            model = plan.fit_scored(proposals, scored, seed)
            took.append(time.perf_counter() - begin)
            candidates = {
                "ours, rest 0": np.zeros((n, n)),
                "ours, estimates": dense(model, 0.0),
                "ours, cautious estimates (1 sd)": dense(model, 1.0),
                "ours, cautious estimates (2 sd)": dense(model, 2.0),
                "same pairs, additive effects": additive(scored, (n, n)),
            }
            boosted = trees(scored, similarity, features, seed) if args.trees else None
            if boosted is not None:
                candidates["same pairs, boosted trees"] = boosted
            for label, estimated in candidates.items():
                table.setdefault(label, []).append(judge(fill(scored, estimated)))
            unscored = np.ones((n, n), bool)
            unscored[scored.example, scored.target] = False
            truth = U[unscored]
            shares = {
                label: 1 - ((estimated[unscored] - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
                for label, estimated in candidates.items()
                if label in ("ours, estimates", "same pairs, additive effects", "same pairs, boosted trees")
            }
            explained.append(shares)
            held = scored.source == HELD_OUT
            held_quality.append(quality(model.predict(scored.example[held], scored.target[held]), scored.utility[held]))
        for label, values in table.items():
            mean, sd = np.mean(values, 0), np.std(values, 0)
            r2 = float(np.mean([q[label] for q in explained])) if label in explained[0] else None
            print(
                f"{share:<6.0%}{label:34}" + "".join(f"{a:10.3f} ± {b:5.3f}" for a, b in zip(mean, sd, strict=True))
                + (f"   R2 of unscored pairs {r2:.2f}" if r2 is not None else "")
            )  # fmt: skip
            rows.append(
                {"matrix": name, "share": share, "method": label, "mean": mean.tolist(), "sd": sd.tolist(), "r2": r2}
            )
        bars = BARS_PER_RECORD.get(round(share * n)) if args.per_record else BARS.get(share)
        if bars:
            print(f"{'':6}{'bar':34}" + "".join(f"{b:10.3f}        " for b in bars))
        print(
            f"{'':6}held out: {held_quality[0].pairs} pairs, R2 {np.mean([q.r2 for q in held_quality]):.2f}, "
            f"Spearman {np.mean([q.spearman for q in held_quality]):.2f}; plan and fit {np.mean(took):.2f} s a run"
        )
    return rows


def carve(
    U: np.ndarray,
    texts: tuple[list[str], list[str]],
    embeddings: np.ndarray | None,
    base: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    share: float,
    seed: int,
    for_examples: bool = False,
) -> list[np.ndarray]:
    """One block's clip kernels without self-pairs: the true one, the rest 0, and with cautious estimates."""
    block = U[np.ix_(left, right)]
    sides = [([texts[0][r] for r in side], [texts[1][r] for r in side]) for side in (left, right)]
    budget = round(share * block.size)
    points = None if embeddings is None else (embeddings[:, left], embeddings[:, right])
    proposals = propose(sides[0], sides[1], budget, left, right, points, base[right], for_examples=for_examples)
    scored, _, _ = score_with(block, proposals, budget, seed)
    model = plan.fit_scored(proposals, scored, seed)
    found = block, fill(scored, np.zeros(block.shape)), fill(scored, dense(model, estimate.CAUTION))
    return [np.where(left[:, None] == right, 0, x.clip(0)) for x in found]


def carved(args: argparse.Namespace) -> list[dict[str, Any]]:
    """FLMI and FLCG (η = ν = 1): a fifth of the records as targets or as existing data (--carve 2: one fifth for each,
    at once), the rest as the pool; `share` of the pairs of every block."""
    U, prompts, responses, base, name = load(args.data, args.utility, args.transpose)
    fifth, rows = len(U) // 5, []
    embeddings = embed(prompts, responses, args.embeddings) if args.embed or args.embeddings else None
    for share in args.budgets:
        table: dict[str, list[float]] = {}
        for seed in range(args.seeds):
            order = np.random.default_rng(1000 + seed).permutation(len(U))
            side, V = order[:fifth], np.sort(order[args.carve * fifth :])
            other = order[fifth : 2 * fifth] if args.carve == 2 else side
            pool, to_target, existing = (
                carve(U, (prompts, responses), embeddings, base, a, b, share, seed, for_examples)
                for a, b, for_examples in ((V, V, False), (V, side, True), (other, V, False))
            )
            nothing = np.zeros(len(V))
            cases = {
                "flmi": [(S, nothing, t.max(1)) for S, t in zip(pool, to_target, strict=True)],
                "flcg": [(S, e.max(0), nothing) for S, e in zip(pool, existing, strict=True)],
            }
            for objective, versions in cases.items():
                S, covered, modular = versions[0]
                for k_share in (0.1, 0.3):
                    k = round(k_share * len(V))
                    rng = np.random.default_rng(seed)
                    subsets = [rng.choice(len(V), k, replace=False) for _ in range(300)]
                    subsets += [greedy(x[0], k, *x[1:]) for x in versions]
                    values = [np.maximum(S[A].max(0) - covered, 0).sum() + modular[A].sum() for A in subsets]
                    zero, one = np.mean(values[:300]), values[300]
                    for label, value in zip(("rest 0", "cautious estimates"), values[301:], strict=True):
                        table.setdefault(f"{objective}, k={k_share:.0%}, {label}", []).append(
                            (value - zero) / (one - zero)
                        )
        for label, found in table.items():
            print(f"{share:<6.0%}{label:34}{np.mean(found):10.3f} ± {np.std(found):5.3f}")
            rows.append({"matrix": name, "share": share, "method": label, "mean": np.mean(found), "sd": np.std(found)})
    return rows


def synthetic(n: int, seed: int) -> tuple[list[str], list[str], Any]:
    """Texts of n records in some 200 tasks, and a utility source for their pairs (task blocks, low rank, noise)."""
    rng = np.random.default_rng(seed)
    tasks = max(8, min(200, n // 20))
    words = np.array(
        ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(3, 9))) for _ in range(20000)]
    )
    templates = [" ".join(rng.choice(words, 12)) for _ in range(tasks)]
    labels = [rng.choice(words, 6) for _ in range(tasks)]
    task = rng.integers(tasks, size=n)
    common = (rng.zipf(1.3, size=(n, 25)) - 1) % len(words)
    prompts = [f"{templates[t]} {' '.join(words[c])}" for t, c in zip(task, common, strict=True)]
    responses = [str(labels[t][rng.integers(6)]) for t in task]
    block = 0.03 * rng.standard_normal((tasks, tasks)) + np.diag(rng.uniform(0, 0.6, tasks))
    lefts, rights = 0.2 * rng.standard_normal((n, 4)), 0.2 * rng.standard_normal((n, 4))
    scale = rng.lognormal(0, 0.5, n)

    def source(example: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Utilities float32 of the given pairs; the noise of a pair is always the same."""
        mixed = (example.astype(np.uint64) * np.uint64(n) + target.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(31)
        noise = ((mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(40)).astype(np.float32) / 2**24 - 0.5
        u = block[task[example], task[target]] + (lefts[example] * rights[target]).sum(1) + 0.2 * noise
        return (scale[target] * u).astype(np.float32)

    return prompts, responses, source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder of pool200's reference, an .npz of the same arrays and texts, or a cache"
    )
    parser.add_argument("--utility", choices=("euclidean", "pmi"), default="euclidean")
    parser.add_argument("--transpose", action="store_true", help="examples and targets change roles: another matrix")
    parser.add_argument("--embed", action="store_true", help="records' embeddings propose pairs too (runs SmolLM2)")
    parser.add_argument("--embeddings", type=Path, metavar="NPY", help="the same, kept in this file")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument(
        "--per-record", type=int, nargs="+", default=[], metavar="N", help="budgets in pairs a record: 5 10 20 50 100"
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trees", action="store_true", help="also boosted trees on the same pairs (scikit-learn)")
    parser.add_argument("--network", action="store_true", help="also NN-CIFT's way (scikit-learn); wants --embed")
    parser.add_argument("--carved", action="store_true", help="FLMI and FLCG instead of facility location")
    parser.add_argument(
        "--carve", type=int, choices=(1, 2), default=1, help="fifths taken out of the pool for --carved"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result: Any = carved(args) if args.carved else compare(args)
    if args.json:
        args.json.write_text(json.dumps({"command": sys.argv[1:], "result": result}, indent=1))


if __name__ == "__main__":
    main()
