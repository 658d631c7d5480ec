"""The names that public data give to the fields of a record."""

from __future__ import annotations

from .chats import MASKS

CHATS = (
    *("messages", "conversations", "conversation", "dialog", "dialogue", "dialogs", "chat", "contents", "turns"),
    *("items", "data"),
)
PROMPTS = (
    *("prompt", "instruction", "question", "query", "problem", "inputs_pretokenized", "inputs", "user", "human"),
    *("question_stem", "message", "input", "context"),
)
RESPONSES = (
    *("response", "completion", "output", "solution", "generation", "generated_solution", "chosen", "preferred_output"),
    *("answer", "answers", "answerkey", "targets_pretokenized", "targets", "target", "reply", "assistant", "gpt"),
    *("bot", "responses", "completions", "generations", "expected_answer", "correct_answer", "best_answer"),
)
ASKED = ("prompt", "instruction", "question", "query", "problem")  # may stand beside each other: a task and its case
# names that say something only together; each is tried after those above
PAIRS = (
    *(("document", "summary"), ("article", "highlights"), ("article", "summary"), ("dialogue", "summary")),
    *(("source", "target"), ("src", "tgt"), ("prompt", "code"), ("prompt", "canonical_solution"), ("input", "ideal")),
    *(("text", "code"), ("text", "summary"), ("text", "target"), ("content", "summary"), ("question", "sql")),
)
EXTRAS = ("input", "context", "contexts", "passage")
# what a question is about, beside it under a name that has other uses too: it follows the prompt, which is said
ABOUT = (
    *("inputs", "article", "body", "passages", "paragraph", "story", "document", "documents", "support"),
    *("dialogue", "dialog", "dialogs", "conversation", "chat"),
)
TASKS = ("definition",)  # of a task, which goes before its case
HISTORIES = ("history", "chat_history")
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction", "preamble")
# how an answer was found, where trainers differ on what becomes of it
WORKINGS = (
    *("cot", "complex_cot", "chain_of_thought", "rationale", "rationales", "explanation", "steps", "thought"),
    *("thoughts", "reasoning_trace", "thinking_trajectories", "deepseek_reasoning", "attempt", "gemini_attempt"),
    *("deepseek_attempt", "gemini_thinking_trajectory", "deepseek_thinking_trajectory"),
)
TEMPLATE_ARGUMENTS = "chat_template_kwargs"  # what trainers give the chat template of each record
MEDIA = ("images", "image", "audios", "audio", "videos", "video")
LISTS_OF_MASKS = ("weights", "loss_mask", "train_mask", *MASKS)  # a mask for each turn
CHOSEN = ("chosen", "preferred_output")
REJECTED = ("rejected", "non_preferred_output", "rejected_response", "rejected_messages")
UNWANTED = ("label", "kto_tag", "is_correct", "is_safe")  # false where an answer is not wanted
LAYOUTS = (
    *("prompt/response", "prompt/completion", "question/answer", "instruction/output", "query/response"),
    *("problem/solution", "input/output", "inputs/targets", "prompt/chosen", "messages", "conversations", "text"),
)
