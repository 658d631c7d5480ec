"""Is the llama-cpp-python that is installed one that delift can use? Asked before anything of it is touched."""

from __future__ import annotations

from ..errors import RunError
from ..version import TESTED

# what delift uses of the low-level interface, which moves between versions
NAMES = (  # noqa: SIM905
    "LLAMA_KV_OVERRIDE_TYPE_INT LLAMA_POOLING_TYPE_NONE LLAMA_SPLIT_MODE_NONE LLAMA_TOKEN_ATTR_CONTROL "
    "LLAMA_TOKEN_ATTR_LSTRIP LLAMA_TOKEN_ATTR_UNKNOWN LLAMA_TOKEN_ATTR_USER_DEFINED Llama llama_adapter_lora_init "
    "llama_adapter_lora_p_ctypes llama_batch llama_context_default_params llama_decode llama_free "
    "llama_get_embeddings llama_get_logits llama_get_memory llama_init_from_model llama_log_callback llama_log_set "
    "llama_memory_clear llama_memory_seq_cp llama_memory_seq_rm llama_model_chat_template llama_model_default_params "
    "llama_model_free llama_model_get_vocab llama_model_has_encoder llama_model_is_diffusion llama_model_is_hybrid "
    "llama_model_is_recurrent llama_model_kv_override llama_model_load_from_file llama_model_meta_val_str "
    "llama_model_n_embd llama_model_n_head llama_model_n_head_kv llama_model_n_layer llama_model_quantize "
    "llama_model_quantize_default_params llama_model_size llama_print_system_info llama_progress_callback "
    "llama_set_adapters_lora llama_state_seq_get_size llama_supports_gpu_offload llama_token llama_token_to_piece "
    "llama_tokenize llama_vocab_bos llama_vocab_eos llama_vocab_get_add_bos llama_vocab_get_attr llama_vocab_get_text "
    "llama_vocab_is_eog llama_vocab_n_tokens"
).split()


def check_installed() -> None:
    """Import llama.cpp, and see that it has what delift calls.

    Raises:
        RunError: it is not installed, cannot be loaded, or is of a version whose names are others.
    """
    try:
        import llama_cpp
    except Exception as error:  # a missing library of CUDA is a RuntimeError, a missing package an ImportError
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"llama-cpp-python cannot be loaded: {cause}; delift doctor says what to do") from None
    missing = [name for name in NAMES if not hasattr(llama_cpp, name)]
    if missing:
        raise RunError(
            f"llama-cpp-python {llama_cpp.__version__} lacks {', '.join(missing[:3])}; delift is tested with "
            f"{TESTED[0]} to {TESTED[1]}: pip install 'llama-cpp-python>={TESTED[0]},<={TESTED[1]}'"
        )
