"""What a smaller model's look is worth to a budget: the first layers of SmolLM2 with its final head, as its proxy.

    python -m tests.bench.proxy cut early8.gguf --layers 8      # the model; then score the records with both
    delift score RECORDS -m early8.gguf -o early8.delift
    delift score RECORDS -o whole.delift
    python -m tests.bench.proxy compare whole.delift early8.delift

Without a cache of the model itself, pool200's reference stands for it: `compare --reference early8.delift`; two
matrices of `tests.bench.own_matrix`, of models or of weights in more and fewer bits, are as good as caches. For budgets
of the pairs: value (0 = random subsets, 1 = greedy on the full matrix; k = 10 and 30 %, self-pairs included, then
excluded) and R² of the unscored pairs, planned and estimated without the proxy, with it, and with one that misleads
(its records shuffled).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from delift_cli.budget import plan
from delift_cli.budget.proposals import propose
from delift_cli.budget.proxy import Factors, factors_of, read_proxy, standardised
from delift_cli.cache.dense import Cache
from delift_cli.cache.sparse import open_cache
from delift_cli.model.places import locate
from tests.bench.budget import COLUMNS, DATA, Judge, dense, embed, fill, load, score_with


class Compared(NamedTuple):
    """A model's utilities of some records float64 [n, n], and its proxy's factors."""

    U: np.ndarray
    base: np.ndarray  # float32 [n, 2]
    prompts: list[str]
    responses: list[str]
    factors: Factors


def cut(path: Path, layers: int) -> None:
    """Write the default model with its first layers alone, before the same final norm and head."""
    import gguf

    reader, writer = gguf.GGUFReader(locate(None)), gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = layers if field.name == "llama.block_count" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or int(tensor.name.split(".")[1]) < layers:
            writer.add_tensor(tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def of_matrices(whole: Path, proxy: Path) -> Compared:
    """Two matrices of the same records, the first ones of both."""
    U, prompts, responses, base, _ = load(whole, "euclidean", False)
    small = np.load(proxy)
    n = min(len(U), len(small["distance"]))
    if prompts[:n] != small["prompt"][:n].tolist():
        raise SystemExit(f"{proxy} is not of the records of {whole}")
    factors = standardised(*factors_of(small["base_distance"][:n], small["distance"][:n, :n]))
    return Compared(U[:n, :n], base[:n], prompts[:n], responses[:n], factors)


def of_caches(whole: Path | None, proxy: Path) -> Compared:
    """A cache of the model or pool200's reference, and one of the proxy, which may hold some of the pairs."""
    cache = open_cache(whole or proxy)
    records = cache.examples().records
    if whole is None:
        z = np.load(DATA / "pool200_reference.npz")
        ids = [line.split('"id": "', 1)[1].split('"', 1)[0] for line in (DATA / "pool200.jsonl").open(encoding="utf-8")]
        at = np.array([ids.index(record.id) for record in records])
        U = (z["base_distance"] - z["distance"])[np.ix_(at, at)].astype(float)
        base = np.column_stack([z["base_distance"], z["base_logprob"]])[at]
    else:
        if not isinstance(cache, Cache):
            raise SystemExit(f"{whole} holds some of the pairs: nothing to compare with")
        U = (cache.base_distance - np.asarray(cache.distance)).astype(float)
        base = np.column_stack([cache.base_distance, cache.base_logprob])
    prompts, responses = [r.prompt_text for r in records], [r.response_text for r in records]
    return Compared(U, base, prompts, responses, read_proxy(proxy, records, None))


def compare(known: Compared, budgets: list[float], seeds: int, *, embedded: bool) -> None:
    U, base, prompts, responses, factors = known
    n, said = len(U), factors[0] @ factors[1].T
    off = ~np.eye(n, dtype=bool)
    print(
        f"{n} records; correlation of the proxy's utilities with the model's {np.corrcoef(said[off], U[off])[0, 1]:.2f}"
    )
    shuffled = np.random.default_rng(0).permutation(n)
    proxies = {
        "no proxy": None,
        "proxy": factors,
        "a proxy that misleads": (factors[0][shuffled], factors[1][shuffled]),
    }
    embeddings = (embed(prompts, responses),) * 2 if embedded else None
    judge, key = Judge(U), np.arange(n)
    print(f"{'pairs':6}{'':24}" + "".join(f"{name:>12}" for name in COLUMNS) + f"{'R2':>8}")
    for share in budgets:
        budget = round(share * n * n)
        for name, known in proxies.items():
            proposals = propose((prompts, responses), None, budget, key, key, embeddings, base, proxy=known)
            values, explained = [], []
            for seed in range(seeds):
                scored, _, _ = score_with(U, proposals, budget, seed)
                model = plan.fit_scored(proposals, scored, seed)
                values.append(judge(fill(scored, dense(model, 1.0))))
                unscored = np.ones((n, n), bool)
                unscored[scored.example, scored.target] = False
                rest = U[unscored] - dense(model, 0.0)[unscored]
                explained.append(1 - (rest**2).sum() / ((U[unscored] - U[unscored].mean()) ** 2).sum())
            figures = "".join(f"{value:12.3f}" for value in np.mean(values, 0))
            print(f"{share:<6.0%}{name:24}{figures}{np.mean(explained):8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    cutting = parts.add_parser("cut")
    cutting.add_argument("path", type=Path)
    cutting.add_argument("--layers", type=int, default=8)
    comparing = parts.add_parser("compare")
    comparing.add_argument("whole", type=Path, nargs="?")
    comparing.add_argument("proxy", type=Path)
    comparing.add_argument("--reference", action="store_true", help="pool200's reference in place of a cache")
    comparing.add_argument("--budgets", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    comparing.add_argument("--seeds", type=int, default=10)
    comparing.add_argument("--embed", action="store_true", help="propose with embeddings too, as delift score does")
    args = parser.parse_args()
    if args.part == "cut":
        cut(args.path, args.layers)
    else:
        whole = None if args.reference else args.whole
        read = of_matrices if args.proxy.suffix == ".npz" else of_caches
        compare(read(whole, args.proxy), args.budgets, args.seeds, embedded=args.embed)


if __name__ == "__main__":
    main()
