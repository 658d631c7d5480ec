"""Where the units of a run are measured: by this process, or by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..cache.stored import Writing
from ..errors import InputError
from ..model.gguf import ModelFile
from ..progress import Say
from .job import Engine, Inputs, at_work
from .pairs import Measuring, Scoring
from .tuning import machine


def check_cluster(cluster: str) -> None:
    """InputError where `--cluster` names no cluster, or the extra that it needs is not installed."""
    try:
        from .cluster.addresses import check
    except ModuleNotFoundError as error:
        raise InputError(
            f"--cluster needs {error.name}, which is not installed: pip install 'delift-cli[dask]'"
        ) from None
    check(cluster)


@contextmanager
def measuring(
    source: ModelFile,
    sha256: str,
    engine: Engine,
    inputs: Inputs,
    cache: Writing,
    *,
    cluster: str | None,
    threads: int | None,
    say: Say,
) -> Iterator[Measuring]:
    """What measures a block, ready to begin. The kinds of machines that take part are noted in the cache.

    Args:
        source, sha256: the model as it is; `engine` says how it is run.
        cluster: see `cluster.addresses.connect`; None for this process alone.
        threads: of each worker, where the user set them.
    """
    targets = inputs.target_tokens
    if cluster is None:
        cache.took_part(machine())
        with at_work(engine, inputs, targets) as models:
            yield Scoring(models, inputs.encoded_examples, targets)
        return
    from .cluster import at_work_on, connect

    with (
        connect(cluster, threads=threads) as connection,
        at_work_on(
            connection.client,
            source,
            sha256,
            engine,
            inputs,
            targets,
            threads=connection.threads,
            took_part=cache.took_part,
            together=cache.together,
            patience=connection.patience,
            say=say,
        ) as scoring,
    ):
        yield scoring
