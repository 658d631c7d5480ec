"""Whatever is in a file, it is read as records or refused in one line."""

from __future__ import annotations

import time
from pathlib import Path

import hostile
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from tiny_runs import delift

from delift_cli.data.options import Reading
from delift_cli.data.reading import parse_records
from delift_cli.data.record import copy_groups
from delift_cli.errors import InputError

CORPUS = hostile.corpus()


def read(data: bytes, **options: bool) -> None:
    try:
        found = parse_records(data, "file", Reading(**options))
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
    if refusal:
        return
    copy_groups(found.records)
    for record in found.records:
        assert record.turns[-1].scored
        assert record.response is not None


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile.files())
def test_any_file(data: bytes) -> None:
    read(data)
    read(data, skip_invalid=True)


@pytest.mark.parametrize("name", CORPUS)
def test_nasty_files(name: str, tmp_path: Path) -> None:
    started = time.process_time()
    read(CORPUS[name])
    read(CORPUS[name], skip_invalid=True)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", CORPUS)
def test_nasty_files_as_lists_of_ids(name: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "ids").write_bytes(CORPUS[name])
    run = delift("select", cache, "-k", "1", "--never", tmp_path / "ids", "-o", tmp_path / "out")
    assert run.code in (0, 2)
    assert "Traceback" not in run.err
    assert run.code == 0 or run.err.count("\n") == 1


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_runs import make_cache, pairs

    return make_cache(tmp_path_factory.mktemp("hostile") / "c", pairs(1, 2, 3))


PYTHON = ["{{}}", "{[]}", "{[1]: 2}", "[{{}}]", "{{}, 1}", "{(1,): 2}", "{1: 2}", '[{"role": "user", "content": {{}}}]']


@pytest.mark.parametrize("text", PYTHON)
def test_a_text_that_is_python_and_no_value_costs_its_record_alone(text: str) -> None:
    call = {"role": "assistant", "function_call": text}
    chat = [{"role": "user", "content": "q"}, call]
    data = orjson.dumps([{"messages": text}, {"messages": chat}, {"prompt": "p", "response": "r"}])
    found = parse_records(data, "file", Reading(skip_invalid=True))
    assert found.records[-1].response == "r"
    assert "is a text that is not JSON" in found.rejected[0].reason
