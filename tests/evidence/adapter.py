"""LoRA weights as peft has them to a GGUF adapter as llama.cpp wants it, for models of the llama family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from delift_cli.model.header import Header

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WEIGHT = re.compile(r".*\.layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.default\.weight")


def write(path: Path, weights: Mapping[str, npt.NDArray[np.float32]], alpha: float, model: Header) -> Path:
    """Write an adapter.

    Args:
        weights: A [rank, in] and B [out, rank] of each linear layer, under peft's names.
        model: the header of the model that was trained on.
    """
    heads = int(model.of_architecture("attention.head_count"))
    kv_heads = int(model.of_architecture("attention.head_count_kv") or heads)
    writer = gguf.GGUFWriter(None, model.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    for name, values in weights.items():
        match = _WEIGHT.fullmatch(name)
        if match is None:
            raise ValueError(f"{name} is no LoRA weight of a linear layer")
        layer, module, side = match.groups()
        if side == "B" and module in ("self_attn.q_proj", "self_attn.k_proj"):
            values = interleaved(values, heads if module == "self_attn.q_proj" else kv_heads)
        place = f"blk.{layer}.{NAMES[module]}.weight.lora_{side.lower()}"
        writer.add_tensor(place, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleaved(rows: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows of a query or key matrix in llama.cpp's order: the halves that are rotated together lie side by side."""
    shape = (heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)
