"""The nearest records by embedding: exact products against libraries of approximate neighbours.

    python tests/bench/neighbours.py --records 10000     # each in one thread; what is not installed is left out

Needs numpy, and of faiss-cpu, hnswlib, usearch and pynndescent what is to be compared; none of them is an extra of
delift. Vectors of length 1 around 200 centres, 576 wide as SmolLM2's embeddings, half of each shared with its centre.
For each: seconds to build and to ask for the 30 nearest of every record, and the share of the exact ones found. The
exact way is a product of blocks and a partition, in time that grows with the square of the records.

Seen on one core (AMD EPYC, AVX512) with others at work, 10,000 records, seconds of a processor: exact 2.3, faiss flat
1.4, faiss IVF 1.1, hnswlib 5.6, usearch 7.9, pynndescent 59; all of them found the exact ones. So none is taken for
pools of that size. What planning looks for is nearness of texts and embeddings together, where the inverted index of
the texts costs far more than the products (`python -m tests.bench.large`): none of these libraries has
vectors of that kind. So large pools get candidates by their rarest grams, and

    python -m tests.bench.neighbours --texts 20000

shows how many of the exact neighbours these miss: on functions and docstrings of the Python that runs it, looking at as
small a share of the grams' occurrences as in a pool of 200,000.
"""

from __future__ import annotations

import argparse
import ast
import os
import sysconfig
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
import numpy as np  # noqa: E402, its BLAS asks for the threads when it is loaded

K, WIDTH, CENTRES = 30, 576, 200


def vectors(n: int) -> Any:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, WIDTH), np.float32)
    own = rng.standard_normal((n, WIDTH), np.float32) + centres[rng.integers(CENTRES, size=n)]
    return own / np.linalg.norm(own, axis=1, keepdims=True)


def exact(points: Any) -> Any:
    found = np.empty((len(points), K), np.int64)
    for a in range(0, len(points), 500):
        found[a : a + 500] = np.argpartition(-(points[a : a + 500] @ points.T), K, axis=1)[:, :K]
    return found


def faiss_flat(points: Any) -> Any:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(points)
    return index.search(points, K)[1]


def faiss_ivf(points: Any) -> Any:
    import faiss

    faiss.omp_set_num_threads(1)
    cells = int(4 * len(points) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(points[np.random.default_rng(0).permutation(len(points))[: 40 * cells]])
    index.add(points)
    index.nprobe = max(8, cells // 16)
    return index.search(points, K)[1]


def hnsw(points: Any) -> Any:
    import hnswlib

    index = hnswlib.Index("ip", WIDTH)
    index.init_index(len(points), ef_construction=100, M=16)
    index.add_items(points, num_threads=1)
    index.set_ef(100)
    return index.knn_query(points, K, num_threads=1)[0]


def usearch(points: Any) -> Any:
    from usearch.index import Index

    index = Index(ndim=WIDTH, metric="ip", dtype="f32")
    index.add(np.arange(len(points)), points, threads=1)
    return index.search(points, K, threads=1).keys


def descent(points: Any) -> Any:
    from pynndescent import NNDescent

    return NNDescent(points, metric="cosine", n_neighbors=K, random_state=0, n_jobs=1).neighbor_graph[0]


def documented() -> Iterator[tuple[str, str]]:
    """Functions of Python's library and of what is installed: how each is called, and the start of its docstring."""
    for folder in ("stdlib", "purelib"):
        for file in sorted(Path(sysconfig.get_paths()[folder]).rglob("*.py")):
            try:
                tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
                    yield f"def {node.name}({', '.join(each.arg for each in node.args.args)})", text[:400]


def missed(count: int) -> None:
    from delift_cli.data import large_pools
    from delift_cli.data.ngrams import grams, neighbours

    prompts, responses = zip(*dict.fromkeys(islice(documented(), count)), strict=True)
    vectors, key = grams(prompts, responses), np.arange(len(prompts))
    large_pools.EXACT, large_pools.POSTINGS = 0, large_pools.POSTINGS * len(key) // 200_000
    right, cosines = neighbours(vectors, vectors, K, key, key)
    found, similarity = large_pools.nearest(vectors, vectors, K, key, key)
    print(f"{len(key):,} texts, {large_pools.POSTINGS:,} occurrences")
    for k in (1, 10, K):
        share = np.mean([np.isin(a, b).mean() for a, b in zip(right[:, :k], found[:, :k], strict=True)])
        print(
            f"of the {k} nearest {share:.3f}, of their similarity {similarity[:, :k].sum() / cosines[:, :k].sum():.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--texts", type=int, help="the nearest of so many texts instead, by candidates")
    options = parser.parse_args()
    if options.texts:
        missed(options.texts)
        return
    points = vectors(options.records)
    right: Any = None
    ways: dict[str, Callable[[Any], Any]] = {
        "exact": exact, "faiss flat": faiss_flat, "faiss ivf": faiss_ivf, "hnswlib": hnsw, "usearch": usearch,
        "pynndescent": descent,
    }  # fmt: skip
    for name, way in ways.items():
        began, used = time.perf_counter(), time.process_time()
        try:
            found = way(points)
        except ImportError as error:
            print(f"{name:12} {error}")
            continue
        took, worked = time.perf_counter() - began, time.process_time() - used
        right = found if right is None else right
        share = np.mean([np.isin(a, b).mean() for a, b in zip(right, found, strict=True)])
        print(f"{name:12} {took:8.1f} s, {worked:8.1f} s of a processor, {share:.3f} of the exact ones", flush=True)


if __name__ == "__main__":
    main()
