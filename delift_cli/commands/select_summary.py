"""What `delift select` reports: one summary, as data and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..amount import Amount
from ..selection.blocks import KernelOptions, PartialBlock, Records
from ..submodular.select import Selection
from .measured import measured, measured_lines

WHAT = {
    "random": "a random number for each record",
    "length": "tokens of the response, the longest first",
    "loss": "loss of the response without an example, nats per token, the highest first",
    "ifd": "loss of the response with its prompt over that without, the highest first, above 1 last",
    "embedding": "cosines of the model's mean hidden states",
    "delift": "utilities of examples in context",
}
COVERING = ("embedding", "delift")  # methods in which records cover one another


def summarize(
    selection: Selection,
    *,
    method: str,
    asked: str,
    options: KernelOptions,
    seed: int,
    whole: float,
    pool: Records,
    partial: Mapping[str, PartialBlock],
) -> dict[str, Any]:
    """What was chosen, by what, how good it is.

    Args:
        asked: the amount in the user's words.
        whole: the value of the whole pool.
        partial: the blocks of which only some pairs are scored, by role.
    """
    return {
        "selected": len(selection.indices),
        "pool": len(pool.examples),
        "tokens": int(pool.cache.example_tokens[selection.indices].sum()),
        "asked": asked,
        "method": method,
        "objective": selection.objective,
        "parameters": selection.parameters,
        "utility": {"delift": options.utility, "embedding": "cosine"}.get(method),
        "kernel": options.transform if method in COVERING else None,
        "self": options.self_utility if method in COVERING else None,
        "value": selection.value,
        "whole_pool": whole,
        "share": selection.value / whole if whole > 0 else None,
        "saturated_at": selection.saturated_at,
        "filled": len(selection.indices) - selection.filled_from,
        "stopped": selection.stopped,
        "greedy": selection.method,
        "seed": seed if method == "random" else selection.seed,
        "rule": selection.rule,
        "guarantee": selection.guarantee_note,
        "at_least_of_optimum": selection.value / selection.optimum_bound if selection.optimum_bound else None,
        "model_sha256": pool.cache.manifest["model"]["sha256"],
        "measured": {
            role: _measured(block, options, selection, chosen_from=block is pool) for role, block in partial.items()
        },
    }


def summary_lines(summary: dict[str, Any], selection: Selection, amount: Amount) -> list[tuple[str, str]]:
    """The summary as rows of name and text, for people."""
    method, covering = summary["method"], summary["method"] in COVERING
    parameters = "".join(f", {name} {value:g}" for name, value in summary["parameters"].items())
    budget = f", budget {amount.tokens:,} tokens, by {selection.rule}" if amount.tokens is not None else ""
    share = "" if summary["share"] is None else f", {summary['share']:.1%} of what the whole pool reaches"
    rows = [
        ("selected", f"{summary['selected']:,} of {summary['pool']:,} records, {summary['tokens']:,} tokens{budget}"),
        ("method", f"{method}: {WHAT[method]}" + (f" (seed {summary['seed']})" if method == "random" else "")),
    ]
    if covering:
        rows.append(
            (
                "objective",
                f"{summary['objective']}{parameters} ({summary['utility']}, {summary['kernel']}, "
                f"self-utilities {summary['self']}d)",
            )
        )
    rows.append(("value" if covering else "scores", f"{summary['value']:.4f}{share}"))
    if covering and selection.optimum_bound:
        lines_bound = selection.value / selection.optimum_bound
        rows.append(
            ("quality", f"at least {lines_bound:.1%} of the best subset; proven in general: {selection.guarantee_note}")
        )
    if selection.stopped == "until":
        share_taken = summary["selected"] / summary["pool"]
        rows.append(("stopped", f"gains fell under the limit: {share_taken:.1%} of the pool was enough"))
    if selection.stopped == "exhausted":
        rows.append(("stopped", "no other record is admissible under the limits given"))
    if selection.saturated_at is not None:
        rest = f"; the other {summary['filled']:,} were taken by what each is worth alone" if summary["filled"] else ""
        if method == "ifd" and summary["filled"]:
            rest = f"; the other {summary['filled']:,} have a ratio above 1"
        rows.append(("saturated", f"nothing more to gain after {selection.saturated_at:,} records{rest}"))
    for found in summary["measured"].values():
        others = "estimated" if found["estimates"] == "on" else "counted as 0"
        rows += [("cache", f"{found['cache']}, unmeasured pairs {others}"), *measured_lines(found)]
        if "covered" in found:
            covered = found["covered"]
            rows.append(
                (
                    "coverage",
                    f"{covered['estimated']:.4f} estimated (95 % interval {covered['low']:.4f} to "
                    f"{covered['high']:.4f}), {covered['measured']:.4f} by measured pairs alone",
                )
            )
    return rows


def _measured(
    block: PartialBlock, options: KernelOptions, selection: Selection, *, chosen_from: bool
) -> dict[str, Any]:
    """What of a block was measured and, where estimates count, what the choice covers by them."""
    partial = block.partial(options)
    estimated = block.estimated(options)
    found = {"cache": str(block.cache.path), "estimates": "on" if estimated else "off", **measured(partial)}
    if chosen_from and estimated:
        found["covered"] = asdict(partial.subset_value(selection.indices, own=options.self_utility == "include"))
    return found
