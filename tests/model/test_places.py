"""Where models lie: folders, the hub over a local server, Ollama's manifests, other programs' folders, names nearby."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from model_hub import COMMIT, TOKEN, Hub, serve
from tiny_runs import delift

from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile
from delift_cli.model.listing import describe
from delift_cli.model.places import hub, locate, ollama, on_disk
from delift_cli.model.places.beside import Beside, templates_beside
from delift_cli.model.places.locate import found_here
from delift_cli.model.places.on_disk import Found
from delift_cli.prompt.chosen import chat_template

TinyModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory, and a current one, of this test's own."""
    for name in (
        "DELIFT_MODEL",
        "DELIFT_MODELS",
        "OLLAMA_MODELS",
        "LLAMA_CACHE",
        "XDG_CACHE_HOME",
        "HF_HOME",
        "HF_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return tmp_path / "home"


def refusal(choice: str) -> str:
    with pytest.raises(InputError) as caught:
        locate(choice)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def put(path: Path, model: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.read_bytes())
    return path


# ---------------------------------------------------------------------- folders


def test_a_folder_with_one_model(tmp_path: Path, tiny_model: TinyModel) -> None:
    one = put(tmp_path / "f" / "model-00001-of-00002.gguf", tiny_model())
    for other in ("model-00002-of-00002.gguf", "mmproj-model-f16.gguf", "model-lora.gguf", "notes.txt"):
        (tmp_path / "f" / other).touch()
    assert locate(str(tmp_path / "f")) == one
    (tmp_path / "g").mkdir()
    assert "is a directory without a GGUF file" in refusal(str(tmp_path / "g"))
    put(tmp_path / "g" / "chat-lora-merged.gguf", tiny_model())
    message = refusal(str(tmp_path / "g"))
    assert "holds no model, by the names of its GGUF files; give one of them: chat-lora-merged.gguf" in message
    put(tmp_path / "f" / "second.gguf", tiny_model())
    message = refusal(str(tmp_path / "f"))
    assert "holds 2 models" in message
    assert "second.gguf" in message


def test_a_mistyped_name_gets_the_nearest(tmp_path: Path, tiny_model: TinyModel) -> None:
    put(Path("llama-3.2-1b-q4_k_m.gguf"), tiny_model())
    assert "did you mean llama-3.2-1b-q4_k_m.gguf?" in refusal("lama-3.2-1b-q4_k_m.gguf")
    beside = put(tmp_path / "models" / "qwen.gguf", tiny_model())
    assert f"did you mean {beside}?" in refusal(str(tmp_path / "models" / "qwem.gguf"))
    assert "did you mean" not in refusal("nothing-like-it")


# ---------------------------------------------------------------------- other programs


def ollama_model(folder: Path, place: str, data: bytes, *, template: str = "", adapter: str = "") -> None:
    digest, of_template = hashlib.sha256(data).hexdigest(), hashlib.sha256(template.encode()).hexdigest()
    manifest = folder / "manifests" / place
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": f"sha256:{of_template}"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    if adapter:
        layers.append({"mediaType": "application/vnd.ollama.image.adapter", "digest": f"sha256:{adapter}"})
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    (folder / "blobs").mkdir(exist_ok=True)
    if template:
        (folder / "blobs" / f"sha256-{of_template}").write_text(template)
    (folder / "blobs" / f"sha256-{digest}").write_bytes(data)


def test_a_template_that_only_ollama_has(home: Path, tiny_model: TinyModel) -> None:
    folder, data = home / ".ollama" / "models", tiny_model(chat_template=None).read_bytes()
    texts = {"chatty": "<|im_start|>user\n{{ .Prompt }}<|im_end|>", "other": "{{ .Prompt }} -> {{ .Response }}"}
    for name, text in texts.items():
        ollama_model(folder, f"registry.ollama.ai/library/{name}/latest", data, template=text)
    beside = templates_beside(locate("chatty"))
    assert beside is not None
    assert beside.templates == texts
    assert beside.where == "Ollama, model chatty"
    assert "--template other" in beside.more
    said: list[str] = []
    chat = chat_template(ModelFile(locate("chatty")), say=said.append)
    assert len(said) == 2
    assert "Ollama, model chatty" in said[0]
    assert "translated" in said[1]
    assert "<|im_start|>user" in chat.source
    assert describe(Found("chatty", locate("chatty"), "Ollama")).chat_template
    assert "<|im_start|>" not in chat_template(ModelFile(locate("chatty")), "other").source


def test_an_adapter_of_ollama_is_not_left_out_silently(home: Path, tiny_model: TinyModel) -> None:
    folder = home / ".ollama" / "models"
    ollama_model(folder, "registry.ollama.ai/library/tuned/latest", tiny_model().read_bytes(), adapter="ab" * 32)
    message = refusal("tuned")
    assert f"--lora {folder / 'blobs' / ('sha256-' + 'ab' * 32)}" in message


def test_ollama(home: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, data = home / ".ollama" / "models", tiny_model().read_bytes()
    places = {
        "qwen2.5:7b": "registry.ollama.ai/library/qwen2.5/7b",
        "llama3.2": "registry.ollama.ai/library/llama3.2/latest",
        "me/mine:v2": "registry.ollama.ai/me/mine/v2",
        "hf.example/me/x-GGUF:Q8_0": "hf.example/me/x-GGUF/Q8_0",
        "hf.co/me/x-GGUF:Q8_0": "hf.co/me/x-GGUF/Q8_0",
    }
    for place in places.values():
        ollama_model(folder, place, data)
    for name in places:
        assert locate(name).read_bytes() == data
        assert locate(f"ollama:{name}").read_bytes() == data
    assert sorted(each.name for each in ollama.found()) == sorted(places)
    assert "did you mean qwen2.5:7b" in refusal("qwen2.5:7")
    next((folder / "blobs").iterdir()).unlink()
    assert "ollama pull llama3.2" in refusal("llama3.2")
    (folder / "manifests" / places["llama3.2"]).write_text('{"layers": 3}')
    assert "names no model" in refusal("llama3.2")
    assert ollama.find("../../../../etc/passwd") is None
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "elsewhere"))
    assert ollama.find("qwen2.5:7b") is None


def test_lm_studio_and_llama_cpp(home: Path, tiny_model: TinyModel) -> None:
    studio = put(home / ".lmstudio" / "models" / "maker" / "Tiny-GGUF" / "tiny-Q8_0.gguf", tiny_model())
    cached = put(on_disk.llama_cpp_folder() / "maker_Tiny-GGUF_tiny-Q4_0.gguf", tiny_model())
    assert locate("maker/Tiny-GGUF") == locate("maker/Tiny-GGUF/tiny-Q8_0.gguf") == studio
    assert locate(cached.name) == cached


def test_every_model_of_the_hubs_cache_has_a_name_that_finds_it(
    home: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repo = home / ".cache" / "huggingface" / "hub" / "models--maker--Tiny-GGUF"
    for number, (commit, file) in enumerate((("old", "a.gguf"), ("new", "sub/b.gguf"), ("asked", "c.gguf"))):
        blob, link = put(repo / "blobs" / str(number), tiny_model()), repo / "snapshots" / commit / file
        link.parent.mkdir(parents=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("new")
    names = {each.name: each.path for each in found_here() if each.place == "hub cache"}
    assert sorted(names) == [f"hf:maker/Tiny-GGUF{at}" for at in (":sub/b.gguf", "@asked:c.gguf", "@old:a.gguf")]
    assert [locate(name) for name in names] == list(names.values())


def test_a_place_that_may_not_be_read_is_passed_over(
    home: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the folder of Ollama's service is on many machines."""
    closed, real = home / "service", Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        if closed in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(ollama, "folders", lambda: [closed / "models"])
    monkeypatch.setenv("HF_HOME", str(closed / "hf"))
    studio = put(home / ".lmstudio" / "models" / "maker" / "Tiny-GGUF" / "tiny-Q8_0.gguf", tiny_model())
    assert locate("maker/Tiny-GGUF") == studio
    assert studio in [each.path for each in found_here()]
    assert "no such file or model" in refusal("nothing-like-it")
    assert refusal(str(closed / "m.gguf")) == f"model {closed / 'm.gguf'} cannot be read: Permission denied"
    assert "cannot be read: File name too long" in refusal("x" * 300)


def test_delift_models_lists_what_is_here(home: Path, tiny_model: TinyModel) -> None:
    put(Path("chat.gguf"), tiny_model(dtype="f16"))
    put(Path("plain.gguf"), tiny_model(chat_template=None))
    Path("bad.gguf").write_bytes(b"GGUF" + bytes(20))
    ollama_model(home / ".ollama" / "models", "registry.ollama.ai/library/tiny/latest", tiny_model(seed=3).read_bytes())
    result = delift("models", "--json")
    assert result.code == 0, result
    listed = {each["name"]: each for each in result.json["models"]}
    assert (listed["chat.gguf"]["quantization"], listed["chat.gguf"]["architecture"]) == ("F16", "llama")
    assert listed["chat.gguf"]["bytes"] == Path("chat.gguf").stat().st_size
    assert (listed["chat.gguf"]["chat_template"], listed["plain.gguf"]["chat_template"]) == (True, False)
    assert listed["tiny"]["place"] == "Ollama"
    assert listed["chat.gguf"]["usable"]
    assert not listed["bad.gguf"]["usable"]
    assert "damaged" in listed["bad.gguf"]["reason"]
    assert "chat.gguf" in delift("models").out.decode()


def test_a_template_beside_a_model_without_one(tmp_path: Path, tiny_model: TinyModel) -> None:
    path = put(tmp_path / "one" / "m.gguf", tiny_model(chat_template=None))
    assert templates_beside(path) is None
    config = path.parent / "tokenizer_config.json"
    config.write_text(
        json.dumps({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})
    )
    assert templates_beside(path) == Beside({"tool_use": "t", "default": "d"}, str(config))
    config.write_text("[]")
    assert templates_beside(path) is None
    (path.parent / "chat_template.jinja").write_text("j")
    assert templates_beside(path) == Beside({"default": "j"}, str(path.parent / "chat_template.jinja"))
    put(tmp_path / "one" / "other.gguf", tiny_model())
    assert templates_beside(path) == Beside({}, str(path.parent / "chat_template.jinja"))  # whose is it?
    said: list[str] = []
    chat_template(ModelFile(path), say=said.append)
    assert "several models lie beside" in said[0]
    assert "no chat template" in said[1]


# ---------------------------------------------------------------------- the hub


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        ("hf:o/r", ("o/r", None, None)),
        ("hf:o/r-GGUF:Q4_K_M", ("o/r-GGUF", None, "Q4_K_M")),
        ("hf:o/r@v1:sub/x.gguf", ("o/r", "v1", "sub/x.gguf")),
        ("hf.co/o/r:Q8_0", ("o/r", None, "Q8_0")),
        ("https://huggingface.co/o/r", ("o/r", None, None)),
        ("o/r", None),
        ("model.gguf", None),
    ],
)
def test_names_of_the_hub(choice: str, asked: tuple[str | None, ...] | None) -> None:
    parsed = hub.parse(choice)
    assert (None if parsed is None else tuple(parsed)) == asked


def test_which_file_is_meant() -> None:
    names = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-IQ4_K_M.gguf", "big/m-Q8_0-00001-of-00002.gguf"]

    def chosen(which: str | None) -> str:
        return hub.choose(names, hub.Asked("o/r", None, which), "hf:o/r")

    assert chosen(None) == chosen("q4_k_m") == "m-Q4_K_M.gguf"
    assert chosen("Q8_0") == "big/m-Q8_0-00001-of-00002.gguf"
    assert chosen("m-Q4_K_S.gguf") == "m-Q4_K_S.gguf"
    for which in ("Q2_K", "4_K"):
        with pytest.raises(InputError, match=f"there is no {which} It has"):
            chosen(which)
    with pytest.raises(InputError, match=r"which one\?"):
        hub.choose(names[1:], hub.Asked("o/r", None, None), "hf:o/r")
    with pytest.raises(InputError, match="no GGUF file"):
        hub.choose([], hub.Asked("o/r", None, None), "hf:o/r")


def test_a_split_model_of_which_the_repository_lacks_parts() -> None:
    names = [f"big/m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert hub.parts_on_hub(names[0], ["x.gguf", *reversed(names)], "hf:o/r") == names
    assert hub.parts_on_hub("x.gguf", ["x.gguf"], "hf:o/r") == ["x.gguf"]
    with pytest.raises(InputError, match=f"hf:o/r: {names[0]} is split, and {names[1]} is not in the repository"):
        hub.parts_on_hub(names[0], [names[0], names[2]], "hf:o/r")
    with pytest.raises(InputError, match=f"and {names[1]}, {names[2]} are not in the repository"):
        hub.parts_on_hub(names[0], names[:1], "hf:o/r")


CHILD = """
import sys
from delift_cli.errors import InputError
from delift_cli.model.places import locate
for choice in sys.argv[1:]:
    try:
        print(locate(choice, lambda line: print("said:", line)))
    except InputError as error:
        print("refused:", error)
"""


def ask(*choices: str, home: Path, **environment: str) -> list[str]:
    """`locate` in a process of its own: huggingface_hub reads the environment when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *choices], capture_output=True, text=True, timeout=60, env={**kept, **settings}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_model_of_the_hub_is_downloaded_once_and_found_offline(home: Path, tiny_model: TinyModel) -> None:
    pytest.importorskip("huggingface_hub")
    data = tiny_model().read_bytes() + bytes(24_000_000)  # huggingface_hub writes 10 MB at a time
    files = {"README.md": b"x", "tiny-Q8_0.gguf": data, "mmproj-tiny.gguf": b"no", "tiny-F16.gguf": data[:-1]}
    repositories = {"maker/tiny-GGUF": files, "maker/closed": {"closed.gguf": data}, "maker/none": {"a.bin": b""}}
    with serve(Hub(repositories, gated=frozenset({"maker/closed"}), cut_after=22_000_000)) as hub_here:
        choices = (
            "hf:maker/tiny-GGUF",
            "hf:maker/tiny-GGUF:Q8_0",
            "hf:maker/missing",
            "hf:maker/closed",
            "hf:maker/none",
        )
        which, first, missing, closed, none = ask(*choices, home=home, HF_ENDPOINT=hub_here.endpoint)
        assert Path(first).read_bytes() == data
        assert COMMIT in first
        # it broke off in the middle, and went on from there
        ranges = [asked for method, path, asked in hub_here.asked if method == "GET" and path.endswith("Q8_0.gguf")]
        assert [asked for asked in ranges if asked and not asked.startswith("bytes=0-")], hub_here.asked
        assert "which one? It has tiny-F16.gguf, tiny-Q8_0.gguf" in which
        assert "the hub has no such model" in missing
        assert "access has to be granted" in closed
        assert "no GGUF file" in none
        (opened,) = ask("hf:maker/closed", home=home, HF_ENDPOINT=hub_here.endpoint, HF_TOKEN=TOKEN)
        assert Path(opened).read_bytes() == data
        before = len(hub_here.asked)
        assert ask(choices[1], home=home, HF_ENDPOINT=hub_here.endpoint) == [first]
        assert len(hub_here.asked) == before  # the cache comes first: nothing was asked
    offline = ask(choices[1], "hf:maker/tiny-GGUF:F16", home=home, HF_ENDPOINT=hub_here.endpoint, HF_HUB_OFFLINE="1")
    assert offline[0] == first
    assert "HF_HUB_OFFLINE is set" in offline[1]
    (unreachable,) = ask("hf:maker/tiny-GGUF:F16", home=home, HF_ENDPOINT=hub_here.endpoint)
    assert "the hub cannot be asked" in unreachable


def test_which_model_is_meant_whatever_was_downloaded(home: Path, tiny_model: TinyModel) -> None:
    pytest.importorskip("huggingface_hub")
    data = tiny_model().read_bytes()
    repositories = {
        "maker/usual": {"t-Q4_K_M.gguf": data, "t-F32.gguf": data},
        "maker/open": {"t-Q8_0.gguf": data, "t-F32.gguf": data},
    }
    with serve(Hub(repositories)) as hub_here:
        choices = ("hf:maker/usual:F32", "hf:maker/open:F32", "hf:maker/usual", "hf:maker/open")
        _, _, usual, unclear = ask(*choices, home=home, HF_ENDPOINT=hub_here.endpoint)
        assert usual.endswith("/t-Q4_K_M.gguf")
        assert "which one? It has t-F32.gguf, t-Q8_0.gguf" in unclear
        before = len(hub_here.asked)
        assert ask("hf:maker/usual", home=home, HF_ENDPOINT=hub_here.endpoint) == [usual]
        assert len(hub_here.asked) == before
    with serve(Hub(repositories | {"maker/open": {"t-Q4_K_M.gguf": data}}, lost=frozenset({"t-Q4_K_M.gguf"}))) as lossy:
        (lost,) = ask("hf:maker/open", home=home, HF_ENDPOINT=lossy.endpoint)
        assert "refused: model hf:maker/open: t-Q4_K_M.gguf cannot be downloaded: 404" in lost
    for variables in ({"HF_HUB_OFFLINE": "1"}, {}):
        said, only = ask("hf:maker/open", home=home, HF_ENDPOINT=hub_here.endpoint, **variables)
        assert "cannot be asked which one is meant: t-F32.gguf is taken, the only one in its cache" in said
        assert only.endswith("/t-F32.gguf")
    put(Path(only).with_name("t-Q8_0.gguf"), tiny_model())
    (unclear,) = ask("hf:maker/open", home=home, HF_ENDPOINT=hub_here.endpoint, HF_HUB_OFFLINE="1")
    assert "which one? The hub cannot be asked, its cache has t-F32.gguf, t-Q8_0.gguf" in unclear
