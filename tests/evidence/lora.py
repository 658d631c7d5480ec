"""LoRA fine-tuning of the scored model, and its loss and exact answers on held-out records. The only file with torch.

The weights are those of the GGUF, dequantized; the tokens are delift's own, so that training, testing and scoring see
the same text. Two things make a run short. Only positions that predict a response token go through the output layer.
And the records of a batch lie behind one another in one row of tokens, what they all begin with (the template's system
message) only once in front: no padding, and attention looks from a record to that beginning and to itself.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AutoModelForCausalLM

from delift_cli.data.record import RecordSet
from delift_cli.model.gguf import ModelFile
from delift_cli.model.processor import features as processor_features
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.encoding import encode_targets
from tests.evidence.runs import EPOCHS

RANK, ALPHA = 16, 32
BATCH, RATE, WARM_UP = 8, 3e-4, 0.1
TEST_TOKENS = 1024  # of one batch when nothing is learnt


class Tokens(NamedTuple):
    """Token ids of one record: what the model reads, and what it is to say, the end of turn included."""

    context: list[int]
    response: list[int]


class Measured(NamedTuple):
    """Of each record, in their order: loss summed over the response (nats), its tokens, was greedy decoding right?"""

    loss: list[float]
    tokens: list[int]
    exact: list[bool]


class Trained(NamedTuple):
    """What a training took."""

    steps: int
    tokens: int  # over all epochs, as the records have them, shared beginnings counted each time
    seconds: float
    loss: float  # mean of the last epoch, nats per response token


@dataclass(frozen=True)
class Packed:
    """Records in one row: the beginning they share, then what each has of its own."""

    ids: Tensor  # int64 [1, tokens]
    positions: Tensor  # int64 [1, tokens], each record counts on from the shared beginning
    lengths: list[int]  # of the beginning and of each record's own part
    masks: list[Tensor]  # bool [own, beginning + own]: what each own part may look at
    predicting: Tensor  # int64 [response tokens], where the logits for them are
    expected: Tensor  # int64 [response tokens]
    responses: list[int]  # response tokens of each record


def encode(file: ModelFile, records: RecordSet) -> list[Tokens]:
    """The records' tokens, as `delift score` evaluates them without an example."""
    template = load_template(None, file.template, file.vocabulary)
    targets = encode_targets(records, template, limit=None).targets
    return [Tokens(target.alone.tolist(), target.response.tolist()) for target in targets]


def pack(batch: Sequence[Tokens], device: torch.device) -> Packed:
    """`batch` in one row. The last response token of a record predicts nothing and is left out."""
    shared = min(len(tokens.context) - 1 for tokens in batch)
    first = batch[0].context
    shared = next((at for at in range(shared) if any(t.context[at] != first[at] for t in batch)), shared)
    ids, positions = first[:shared], list(range(shared))
    lengths, masks, predicting, expected = [shared], [], [], []
    for context, response in batch:
        own = (context + response)[shared:-1]
        predicting += range(len(ids) + len(context) - shared - 1, len(ids) + len(own))
        expected += response
        ids = ids + own
        positions += range(shared, shared + len(own))
        lengths.append(len(own))
        masks.append(torch.ones(len(own), shared + len(own), dtype=torch.bool, device=device).tril(shared))
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        lengths,
        masks,
        torch.tensor(predicting, device=device),
        torch.tensor(expected, device=device),
        [len(tokens.response) for tokens in batch],
    )


def _packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: None, *, scaling: float, packed: Packed, **_: Any
) -> tuple[Tensor, None]:
    """Attention within each record and to the shared beginning: [1, heads, tokens, width] to [1, tokens, heads, width].

    In the form that transformers asks of an attention function.
    """
    queries, keys, values = (part.split(packed.lengths, dim=2) for part in (query, key, value))
    found = []
    if packed.lengths[0]:
        opening = (keys[0], values[0])
        found.append(_attend(module, queries[0], *opening, scaling, is_causal=True))
    for number, mask in enumerate(packed.masks, start=1):
        seen = (torch.cat((part[0], part[number]), dim=2) for part in (keys, values))
        found.append(_attend(module, queries[number], *seen, scaling, attn_mask=mask))
    return torch.cat(found, dim=2).transpose(1, 2), None


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, **mask: Any) -> Tensor:
    key, value = (part.repeat_interleave(module.num_key_value_groups, dim=1) for part in (key, value))
    return functional.scaled_dot_product_attention(query, key, value, scale=scaling, **mask)


AttentionInterface.register("packed", _packed_attention)


def quick_precision(device: torch.device) -> torch.dtype:
    """bfloat16, but float32 on a processor without instructions for it, where bfloat16 takes five times as long."""
    quick = device.type != "cpu" or "AVX512_BF16" in processor_features()
    return torch.bfloat16 if quick else torch.float32


class Tuner:
    """One loaded model whose LoRA weights are set anew for each run.

    The frozen weights and the arithmetic are of type `precision` (None: `quick_precision`); the LoRA weights are learnt
    in float32, and losses are computed from float32 logits.
    """

    def __init__(self, gguf: Path, *, device: str = "cpu", precision: torch.dtype | None = None, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = torch.device(device)
        self.precision = precision = precision or quick_precision(self.device)
        base = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32, attn_implementation="packed"
        )
        self._head = base.lm_head.weight.detach().clone().to(self.device)
        adapters = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", bias="none")
        model = get_peft_model(base, adapters).to(self.device, precision)
        self._decoder = model.base_model.model.model
        self._used = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._weights: dict[str, Tensor] = {}
        self.reset(0)

    def reset(self, seed: int) -> None:
        """LoRA weights as at the start of a training: they change nothing until something is learnt."""
        generator = torch.Generator().manual_seed(seed)
        fresh = {}
        for name, used in self._used.items():
            weight = torch.zeros(used.shape)
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            fresh[name] = weight
        self.restore(fresh)

    def state(self) -> dict[str, Tensor]:
        """A copy of the LoRA weights, for `restore`."""
        return copy.deepcopy(self._weights)

    def restore(self, weights: dict[str, Tensor]) -> None:
        self._weights = {name: weight.clone().to(self.device, torch.float32) for name, weight in weights.items()}
        self._use()

    def train(self, records: Sequence[Tokens], *, seed: int, epochs: int = EPOCHS, rate: float = RATE) -> Trained:
        """Go on from the LoRA weights as they are: AdamW, short warm-up, linear decay, mean loss per response token."""
        began = time.perf_counter()
        order = random.Random(seed)
        steps = epochs * math.ceil(len(records) / BATCH)
        optimizer = torch.optim.AdamW(self._weights.values(), lr=rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step, steps))
        head = self._head.to(self._decoder.dtype)
        for _ in range(epochs):
            total, count = 0.0, 0
            for batch in _batches(records, order):
                packed = pack(batch, self.device)
                loss = functional.cross_entropy(self._logits(packed, head), packed.expected)
                loss.backward()
                for name, used in self._used.items():
                    self._weights[name].grad, used.grad = used.grad.float(), None
                torch.nn.utils.clip_grad_norm_(self._weights.values(), 1.0)
                optimizer.step()
                schedule.step()
                self._use()
                total, count = total + loss.item() * len(packed.expected), count + len(packed.expected)
        tokens = epochs * sum(len(record.context) + len(record.response) for record in records)
        return Trained(steps, tokens, time.perf_counter() - began, total / count)

    @torch.no_grad()
    def test(self, records: Sequence[Tokens]) -> Measured:
        """How well the model as it is now predicts the records."""
        losses: list[float] = []
        exact: list[bool] = []
        for batch in _fitting(records):
            packed = pack(batch, self.device)
            logits = self._logits(packed, self._head)
            loss = functional.cross_entropy(logits, packed.expected, reduction="none")
            right = logits.argmax(dim=1) == packed.expected
            losses += [part.sum().item() for part in loss.split(packed.responses)]
            exact += [bool(part.all()) for part in right.split(packed.responses)]
        return Measured(losses, [len(record.response) for record in records], exact)

    @torch.no_grad()
    def states(self, records: Sequence[Tokens]) -> npt.NDArray[np.float64]:
        """float64 [records, width]: the mean of a record's last hidden states, the n-th weighted by n."""
        found = []
        for record in records:
            packed = pack([record], self.device)
            hidden = self._decoder(
                input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packed=packed
            ).last_hidden_state[0]
            places = torch.arange(1, len(hidden) + 1, device=self.device, dtype=torch.float64)
            found.append((hidden.double() * places[:, None]).sum(dim=0) / places.sum())
        return torch.stack(found).cpu().numpy()

    def _logits(self, packed: Packed, head: Tensor) -> Tensor:
        """float32 [response tokens, vocabulary]"""
        hidden = self._decoder(
            input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packed=packed
        ).last_hidden_state[0, packed.predicting]
        return functional.linear(hidden.to(head.dtype), head).float()

    @torch.no_grad()
    def _use(self) -> None:
        for name, weight in self._weights.items():
            self._used[name].copy_(weight)


def _share_of_rate(step: int, steps: int) -> float:
    warm_up = max(1, round(WARM_UP * steps))
    return min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def _batches(records: Sequence[Tokens], order: random.Random) -> Iterator[list[Tokens]]:
    """All records in a new order."""
    shuffled = order.sample(list(records), len(records))
    return (shuffled[at : at + BATCH] for at in range(0, len(shuffled), BATCH))


def _fitting(records: Sequence[Tokens]) -> Iterator[list[Tokens]]:
    """The records in their order, as many in each batch as TEST_TOKENS allows, and one at least."""
    batch: list[Tokens] = []
    size = 0
    for record in records:
        length = len(record.context) + len(record.response)
        if batch and size + length > TEST_TOKENS:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch
