"""Tokens of a language model: text to numbers and back, with the characters each token stands for; chats as tokens.

Text that comes from outside is never read as control tokens: the words ``<|im_end|>`` in a log line stay words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from genad.errors import InputError, ModelFileError
from genad.extras import require

_LLAMA_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is cut before pairs are merged, by the name GGUF gives it; digits stand alone in the first two families.
_CUTS = {
    "smollm": ("digits", None),
    "gpt-2": ("bytes", None),
    "default": ("bytes", None),
    "llama-bpe": ("pattern", _LLAMA_CUT),
}
_CONTROL = 3  # type of control tokens in GGUF
_STAND_IN = "\ue000{}\ue001"  # private characters hold the place of a message while the template is rendered


def template_parts(
    template: str, messages: Sequence[Mapping[str, str]], begin: str, end: str
) -> Iterator[tuple[str, bool]]:
    """Yield the text of a conversation up to where the answer begins, part by part, and whether a message said it.

    What was said is kept apart from the template's own text, so that no message can write control tokens.

    Parameters
    ----------
    template : str
        The chat template of a model, in Jinja.
    messages : sequence of mappings
        Each with ``role`` and ``content``.
    begin, end : str
        Names of the tokens that begin a text and end an answer.

    Raises
    ------
    InputError
        When the template refuses the conversation.

    Examples
    --------
    >>> form = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
    >>> list(template_parts(form, [{"role": "user", "content": "<|system|>"}], "", ""))
    [('<|user|>', False), ('<|system|>', True), ('<|assistant|>', False)]
    """
    jinja2 = require("jinja2", "llm")
    sandbox = require("jinja2.sandbox", "llm").ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    held = [{**message, "content": _STAND_IN.format(i)} for i, message in enumerate(messages)]
    try:
        text = sandbox.from_string(template).render(
            messages=held, add_generation_prompt=True, bos_token=begin, eos_token=end
        )
    except jinja2.TemplateError as error:
        raise InputError(f"messages: the chat template of the model refuses them ({error}).") from None
    for part in re.split("(\ue000\\d+\ue001)", text):
        if part.startswith("\ue000"):
            yield messages[int(part[1:-1])]["content"], True
        elif part:
            yield part, False


class Tokens:
    """Byte-pair tokens of a GGUF file.

    Parameters
    ----------
    fields : mapping of str to object
        The header of a GGUF file.
    path : Path
        Named in errors.

    Attributes
    ----------
    end : int
        The token that ends an answer.
    pad : int

    Raises
    ------
    ModelFileError
        When the vocabulary is missing or of another kind than byte pairs.
    """

    def __init__(self, fields: Mapping[str, Any], path: Path) -> None:
        kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
        if kind != "gpt2" or cut not in _CUTS:
            raise ModelFileError(
                f"{path}: the vocabulary is of kind {kind!r}, cut {cut!r}; byte pairs ('gpt2') cut as "
                f"{', '.join(map(repr, _CUTS))} can be read."
            )
        self.names: list[str] = list(fields["tokenizer.ggml.tokens"])
        types = fields.get("tokenizer.ggml.token_type", [])
        self.control = {self.names[i]: i for i, kind in enumerate(types) if kind == _CONTROL}
        self.end = int(fields.get("tokenizer.ggml.eos_token_id", 0))
        self.pad = int(fields.get("tokenizer.ggml.padding_token_id", self.end))
        begin = fields.get("tokenizer.ggml.bos_token_id")
        self.begin = int(begin) if begin is not None and fields.get("tokenizer.ggml.add_bos_token", False) else None
        self._begin_name = self.names[int(begin)] if begin is not None else ""
        self._template = fields.get("tokenizer.chat_template")
        self._merges, self._cut = fields["tokenizer.ggml.merges"], _CUTS[cut]

    @cached_property
    def _coder(self) -> Any:
        tokenizers = require("tokenizers", "llm")
        cuts, merges = tokenizers.pre_tokenizers, [tuple(pair.split(" ", 1)) for pair in self._merges]
        numbers = {name: i for i, name in enumerate(self.names) if name not in self.control}
        coder = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, merges))
        kind, pattern = self._cut
        if kind == "digits":
            steps = [cuts.Digits(individual_digits=True), cuts.ByteLevel(add_prefix_space=False)]
        elif kind == "bytes":
            steps = [cuts.ByteLevel(add_prefix_space=False)]
        else:
            split = cuts.Split(tokenizers.Regex(pattern), "isolated")
            steps = [split, cuts.ByteLevel(add_prefix_space=False, use_regex=False)]
        coder.pre_tokenizer = cuts.Sequence(steps)
        coder.decoder = tokenizers.decoders.ByteLevel()
        return coder

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; control tokens written in it stay words."""
        return list(self._coder.encode(text).ids)

    def encode_many(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Return for each text its tokens and the characters [start, stop) each stands for."""
        return [(found.ids, found.offsets) for found in self._coder.encode_batch(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, control tokens left out."""
        return str(self._coder.decode([i for i in ids if self.names[i] not in self.control]))

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes each token stands for; none for a control token."""
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        letters = {chr(byte): byte for byte in printable}
        letters |= {chr(256 + n): byte for n, byte in enumerate(b for b in range(256) if b not in printable)}
        return [
            b""
            if name in self.control or any(letter not in letters for letter in name)
            else bytes(letters[letter] for letter in name)
            for name in self.names
        ]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation, up to where the answer begins.

        Parameters
        ----------
        messages : sequence of mappings
            Each with ``role`` (``"system"``, ``"user"`` or ``"assistant"``) and ``content``.

        Raises
        ------
        InputError
            When the model has no chat template, or its template refuses the conversation.
        """
        if not self._template:
            raise InputError("messages: this model has no chat template; use the likelihoods of plain text instead.")
        ids: list[int] = []
        for part, said in template_parts(self._template, messages, self._begin_name, self.names[self.end]):
            ids += self.encode(part) if said else self._encode_template(part)
        return ids

    def _encode_template(self, text: str) -> list[int]:
        """Return the tokens of text of the template itself, where control tokens count."""
        ids: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, self.control)) + ")", text) if self.control else [text]:
            ids += [self.control[part]] if part in self.control else self.encode(part) if part else []
        return ids
