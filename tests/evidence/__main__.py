"""Fine-tuning on what delift and other ways choose, from public data to `samples/EVIDENCE.md`.

    python -m tests.evidence               the whole suite; goes on where it was stopped
    python -m tests.evidence --plan        the runs and how long they would take
    python -m tests.evidence --quick       a first look at one pool
    python -m tests.evidence --hours 2     start no training after two hours
    python -m tests.evidence --report      the report alone, from what there is
    python -m tests.evidence --evaluate    ask `delift evaluate` about the subsets as well

Needs `pip install 'delift-cli[smollm2,evidence]'`. Pools, caches and subsets are kept in the work folder; the results
lie beside the report, a line for each run: samples/evidence.jsonl, and evidence-in-context.jsonl for `delift evaluate`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from delift_cli.errors import InputError, RunError
from delift_cli.model.places import locate
from tests.evidence import evaluated, pools, runs, scored, variants
from tests.evidence.report import write_report
from tests.evidence.runs import Run

ROOT = Path(__file__).resolve().parents[2]
QUICK_BUDGET = "10%"


def main() -> None:
    args = _arguments()
    try:
        _run(args)
    except (InputError, RunError) as error:
        sys.exit(f"evidence: {error}")


def _run(args: argparse.Namespace) -> None:
    began = time.monotonic()
    folder = args.work if args.quick else ROOT / "samples"
    results, figures = folder / "evidence.jsonl", folder / "evidence-in-context.jsonl"
    planned = [run for run in runs.plan(quick=args.quick) if run.pool in args.pools]
    planned = [run for run in planned if not args.stages or run.stage in args.stages]
    planned = [run for run in planned if not args.methods or run.method in (*args.methods, *variants.EXTREMES)]
    if not args.report:
        wanted = {run.pool for run in planned}
        of_name = {pool.name: pool for pool in pools.write_pools(args.data, args.work) if pool.name in wanted}
        if args.plan:
            _print_plan(planned, of_name, results)
            return
        for pool in of_name.values():
            chosen_by = [run.variant for run in planned if run.pool == pool.name and run.variant]
            wanted = {argument for variant in chosen_by for argument in variant.arguments}
            scored.score(pool, wanted, args.budget or (QUICK_BUDGET if args.quick else None), args.weights)
        _tune(args, planned, of_name, results, began)
        if args.evaluate:
            for pool in of_name.values():
                evaluated.evaluate(planned, pool, figures)
    found = runs.read_results(results)
    if not found:
        raise InputError(f"{results} holds no finished run yet")
    write_report(found, runs.read_results(figures), folder / "EVIDENCE.md", folder / "evidence.svg")
    _say(f"written: {folder / 'EVIDENCE.md'}, {folder / 'evidence.svg'}")


def _tune(
    args: argparse.Namespace, planned: list[Run], of_name: dict[str, pools.Pool], results: Path, began: float
) -> None:
    # PyTorch's threads spin while they wait, which costs most of their speed once another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from tests.evidence.tuned import load  # torch, which neither the plan nor the report needs

    whole = {name: [record["id"] for record in pool.records("pool")] for name, pool in of_name.items()}

    def chosen_as(line: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(line[name] for name in ("pool", "method", "size", "selection_seed"))

    # A choice that was made stays, wherever the cache that it came from is now.
    before = {chosen_as(line): line["chosen"] for line in runs.read_results(results)}

    def choose(run: Run) -> list[str]:
        if run.variant is None:
            return whole[run.pool] if run.method == "all" else []
        if (made := before.get(chosen_as(asdict(run)))) is not None:
            return made
        if run.variant.peer:
            like = replace(run, stage="instruction", method="fl", selection_seed=0)
            return tuning.chosen_by_peer(run, lambda: choose(like))
        return scored.select(of_name[run.pool], run.variant, run.size, run.selection_seed)

    deadline = began + args.hours * 3600 if args.hours else float("inf")
    tuning = load(locate(None), of_name, device=args.device, threads=args.threads, precision=args.precision)
    if not runs.carry_out(
        planned, results, choose=choose, tune=tuning, precision=tuning.precision, deadline=deadline, report=_say
    ):
        _say(f"stopped after {args.hours:g} hours; the same command goes on")


def _print_plan(planned: list[Run], of_name: dict[str, pools.Pool], results: Path) -> None:
    done: dict[str, set[str]] = {}
    for line in runs.read_results(results):
        done.setdefault(line["name"], set()).add(runs.precision_of(line))
    left = 0.0
    for run, seconds in zip(planned, runs.expected(planned, of_name), strict=True):
        precisions = sorted(done.get(run.name, ()))
        left += 0.0 if precisions else seconds
        print(run.name, f"done in {', '.join(precisions)}" if precisions else f"{seconds:.0f} s", sep="\t")
    _say(
        f"{len(planned)} runs, {len(done)} done; about {left / 3600:.1f} hours of training on two cores, after scoring"
    )


def _arguments() -> argparse.Namespace:
    shared = ROOT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=shared, help="folder of the public data")
    parser.add_argument("--work", type=Path, default=ROOT / "evidence", help="folder of everything that is made")
    parser.add_argument("--quick", action="store_true", help="one pool, few methods; the report stays in --work")
    parser.add_argument("--pools", nargs="+", default=list(pools.MADE), choices=list(pools.MADE), help="only these")
    parser.add_argument("--stages", nargs="+", choices=list(variants.STAGES), help="only these")
    parser.add_argument("--methods", nargs="+", help="only these, and what bounds them")
    parser.add_argument("--plan", action="store_true", help="print the runs with their expected seconds, and stop")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument("--evaluate", action="store_true", help="run `delift evaluate` on the subsets, too")
    parser.add_argument("--hours", type=float, help="start no training after so many hours")
    parser.add_argument("--budget", help="share of the pairs that are scored, of every block: 100%%")
    parser.add_argument("--weights", default="bf16", help="of the model that scores: bf16 (default), f16 or f32")
    parser.add_argument("--device", default="cpu", help="where to train: cpu (default) or cuda")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="of training: default what is quick here")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads for training")
    return parser.parse_args()


_say = partial(print, file=sys.stderr, flush=True)

if __name__ == "__main__":
    main()
