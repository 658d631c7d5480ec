"""The few callbacks that llama.cpp gets, as machine code: no Python runs in them, so none can be interrupted there."""

from __future__ import annotations

from functools import cache

from llvmlite import binding, ir

_INT, _LONG, _BOOL, _FLOAT, _VOID = ir.IntType(32), ir.IntType(64), ir.IntType(8), ir.FloatType(), ir.VoidType()
_BYTES, _INTS = ir.IntType(8).as_pointer(), _INT.as_pointer()
_ERROR, _CONTINUED = 4, 5  # ggml_log_level; a continued message has the level of the one before


@cache
def log_function() -> int:
    """Address of `void log(int level, const char *text, int state[3])`.

    It writes the text to the descriptor state[0], and to state[1] too if it is an error; a negative one is none.
    state[2] is the level of the last message.
    """
    return _compiled()["log"]


@cache
def go_on_function() -> int:
    """Address of `bool go_on(float progress, const int *stop)`: true while *stop is 0."""
    return _compiled()["go_on"]


@cache
def _compiled() -> dict[str, int]:
    module = ir.Module("llama_callbacks")
    _build_log(module)
    _build_go_on(module)
    for start in (binding.initialize_native_target, binding.initialize_native_asmprinter):
        start()
    target = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), target)
    engine.finalize_object()
    _ENGINES.append(engine)  # the code lives as long as its engine
    return {name: engine.get_function_address(name) for name in ("log", "go_on")}


_ENGINES: list[binding.ExecutionEngine] = []


def _build_log(module: ir.Module) -> None:
    write = ir.Function(module, ir.FunctionType(_LONG, [_INT, _BYTES, _LONG]), "write")
    length = ir.Function(module, ir.FunctionType(_LONG, [_BYTES]), "strlen")
    log = ir.Function(module, ir.FunctionType(_VOID, [_INT, _BYTES, _INTS]), "log")
    level, text, state = log.args
    code = ir.IRBuilder(log.append_basic_block())
    stream, errors, last = (code.gep(state, [ir.Constant(_INT, at)]) for at in range(3))
    with code.if_then(code.icmp_signed("!=", level, ir.Constant(_INT, _CONTINUED))):
        code.store(level, last)
    size = code.call(length, [text])

    def write_to(place: ir.Value) -> None:
        descriptor = code.load(place)
        with code.if_then(code.icmp_signed(">=", descriptor, ir.Constant(_INT, 0))):
            code.call(write, [descriptor, text, size])

    write_to(stream)
    with code.if_then(code.icmp_signed("==", code.load(last), ir.Constant(_INT, _ERROR))):
        write_to(errors)
    code.ret_void()


def _build_go_on(module: ir.Module) -> None:
    go_on = ir.Function(module, ir.FunctionType(_BOOL, [_FLOAT, _INTS]), "go_on")
    code = ir.IRBuilder(go_on.append_basic_block())
    code.ret(code.zext(code.icmp_signed("==", code.load(go_on.args[1]), ir.Constant(_INT, 0)), _BOOL))
