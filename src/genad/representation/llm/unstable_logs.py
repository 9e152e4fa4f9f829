"""Log sequences that change with each release, judged by the probability of one class token after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.splits import Labels
from genad.core.training import Phase, Training
from genad.data.adapters import Adapter
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, Subset
from genad.errors import InputError
from genad.foundation.answers import ask_each
from genad.foundation.closed_set import class_scores
from genad.foundation.forms import closed_label
from genad.foundation.llm import LanguageModel, Prompt, need
from genad.foundation.local_lm import LocalModel
from genad.foundation.prompts import load_prompt
from genad.representation.prompting import (
    PromptDetector,
    PromptNet,
    TemplateAdapter,
    Verdicts,
    from_buffer,
    scored_once,
    to_buffer,
    units_of,
)

SEPARATOR, MARKER = "\n", "\n###\n"
#: What is written after a sequence.
NORMAL, ANOMALOUS = " 0", " 1"
_LABELS = {"0": 0.0, "1": 1.0, "normal": 0.0, "anomalous": 1.0, "abnormal": 1.0, "anomaly": 1.0}
_FILLER = ("now", "the", "current", "again", "request", "module", "successfully", "internal")


def sequence_text(templates: Sequence[str], longest: int) -> str:
    """Return a sequence as text: immediate repeats counted, and what is too long dropped from the middle.

    Examples
    --------
    >>> print(sequence_text(["open", "read", "read", "read", "close"], 100))
    open
    read (x3)
    close
    >>> print(sequence_text(["first", "second", "third", "fourth", "last"], 20))
    first
    ...
    fourth
    last
    """
    counted = [(text, len(list(same))) for text, same in groupby(templates)]
    lines = [text if times == 1 else f"{text} (x{times})" for text, times in counted]
    if sum(len(line) + 1 for line in lines) <= longest + 1:
        return SEPARATOR.join(lines)
    head: list[str] = []
    tail: list[str] = []
    room = longest
    # From both ends by turns, the end first: what went wrong mostly shows there.
    for turn in range(len(lines)):
        line = lines[turn // 2] if turn % 2 else lines[-1 - turn // 2]
        if tail and len(line) + 1 > room:
            break
        (head if turn % 2 else tail).append(line[: max(longest, 1)])
        room -= len(line) + 1
    return SEPARATOR.join([*head, "...", *reversed(tail)])


def evolve(
    sequences: Sequence[Sequence[str]], rate: float, *, templates: bool = True, order: bool = True, seed: int = 0
) -> list[list[str]]:
    """Return sequences as a later version of the software might write them, their meaning being the same.

    A share of the templates is reworded (a word put in, left out or replaced), each the same way wherever it stands,
    and a share of the sequences has an event doubled, left out or exchanged with the next.

    Parameters
    ----------
    sequences : sequence of sequences of str
    rate : float
        The share, in [0, 1], of templates and of sequences that change.
    templates, order : bool
        Whether templates and whether sequences change.
    seed : int

    Returns
    -------
    list of list of str

    Raises
    ------
    InputError
        When the rate is out of range.

    Examples
    --------
    >>> evolve([["open file <*>", "close file"]] * 2, 1.0, order=False)
    [['file <*>', 'close now file'], ['file <*>', 'close now file']]
    >>> evolve([["a", "b"]], 0.0)
    [['a', 'b']]

    References
    ----------
    Zhang et al., Robust log-based anomaly detection on unstable log data, ESEC/FSE 2019.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise InputError(f"rate: {rate!r} was given; use a number in [0, 1].")
    rng = np.random.default_rng(seed)
    known = list(dict.fromkeys(text for sequence in sequences for text in sequence))
    changed = rng.permutation(len(known))[: round(rate * len(known)) if templates else 0]
    names = {known[i]: _reworded(known[i], rng) for i in sorted(changed.tolist())}
    out = [[names.get(text, text) for text in sequence] for sequence in sequences]
    for i in sorted(rng.permutation(len(out))[: round(rate * len(out))]) if order else ():
        sequence = out[i]
        place, kind = int(rng.integers(len(sequence))), int(rng.integers(3))
        if kind == 0 or len(sequence) < 2:
            sequence.insert(place, sequence[place])
        elif kind == 1:
            del sequence[place]
        else:
            place = min(place, len(sequence) - 2)
            sequence[place], sequence[place + 1] = sequence[place + 1], sequence[place]
    return out


def _reworded(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    plain = [i for i, word in enumerate(words) if word != "<*>"]
    kind = int(rng.integers(3))
    filler = _FILLER[int(rng.integers(len(_FILLER)))]
    if kind == 0 or len(plain) < 2:
        words.insert(int(rng.integers(1, len(words) + 1)), filler)
    else:
        place = plain[int(rng.integers(len(plain)))]
        words[place : place + 1] = [] if kind == 1 else [filler]
    return " ".join(words)


@register(
    Card(
        title="Anomaly Detection on Unstable Logs with GPT Models",
        authors="Hadadi, Xu, Bianculli, Briand",
        venue="arXiv",
        year=2024,
        family=Family.LANGUAGE_MODEL,
        kinds=(Kind.LOG,),
        row="1.2.1-10",
        summary="Scores a sequence of templates by the probability of one class token; prompted or fine-tuned.",
        tags=("log", "supervised", "class token", "lora"),
    ),
    name="unstable_logs",
)
@dataclass(eq=False, repr=False)
class UnstableLogs(PromptDetector):
    """Score a session by log P("1") - log P("0"), the probabilities of one class token after its templates.

    Messages are turned into templates, those of the log of ``fit``, so that a later version adds none; a message that
    none fits is read with its values masked. Immediate repeats become ``template (xN)``, and a long sequence loses its
    middle. Then the class token follows: after an instruction (``"zero_shot"``), after as many examples of each class
    (``"few_shot"``), or from the local model fine-tuned on labelled sessions to write nothing else (``"lora"``):
    low-rank adapters of its attention, trained by the cross-entropy of the class token alone, equal sequences once and
    the classes weighted alike. The model's own weights stay; the adapters are kept with the detector.

    A model that does not tell probabilities writes the digit, and the score is 0 or 1; an answer that names no class is
    asked for again, and the session then counts as unknown and gets the score of a usual one. The score 0 is where both
    classes are as probable: ``threshold=FixedValue(0)``. Otherwise the threshold is set on held-out normals.
    :func:`evolve` makes the changes of later versions, to measure how a score bears them.

    **When to use.** Labelled sessions of one version, and the next version with other wordings: ``"lora"``. A large
    model and no labels: the other two.

    **When it fails.** The small local model, AUROC: on 100 HDFS sessions, 25 of them anomalous, 0.85 zero-shot, 0.70
    few-shot and 0.89 tuned on 30 labelled anomalies; on 120 lines of BGL 0.72, 0.55 and 0.67, where unseen templates
    alone have 0.98. Too little training: adapters begin without effect, and the first updates only teach the model to
    write a digit at all. After 12 HDFS sequences of each class, 12 updates of 8 at a learning rate of 1e-4 left the
    loss at 5.1 of 5.9 nats and the AUROC on 40 others at 0.69 (0.71 before); 24 of 4 at 2e-3, as is the default, at 0.3
    nats and 0.84; both in one trial of one seed, whose learning rate was the only higher one tried. A small
    ``longest``: cut to 250 characters, a third of the anomalous texts there are those of normal sequences too.
    Fine-tuning reads every training sequence several times: on one core about 500 tokens a second forward, and a third
    of that with the gradient.

    Parameters
    ----------
    mode : {"zero_shot", "few_shot", "lora"}
        The last two need sessions that ``y`` labels anomalous in ``fit``.
    shots : int
        Most examples of each class in a prompt.
    longest : int
        Characters of a sequence.
    rank, alpha : int, float
        Of the adapters, whose change is multiplied by alpha / rank.
    retries : int
        How often a class that is written and cannot be read is asked for again.

    Examples
    --------
    >>> from genad.foundation.scripted import Scripted
    >>> def digit(prompt, candidate):
    ...     return -1.0 if ("crash" in prompt) == (candidate == " 1") else -3.0
    >>> detector = UnstableLogs(llm=Scripted(next_token=digit)).fit([["open", "close"]] * 500)
    >>> detector.anomaly_score([["open", "close"], ["open", "crash"]]).tolist()
    [-2.0, 2.0]

    References
    ----------
    Hadadi, Xu, Bianculli and Briand, Anomaly detection on unstable logs with GPT models, arXiv:2406.07467, 2024.
    Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022.
    """

    mode: str = "zero_shot"
    shots: int = field(default=3, kw_only=True)
    longest: int = field(default=1500, kw_only=True)
    rank: int = field(default=8, kw_only=True)
    alpha: float = field(default=16.0, kw_only=True)
    retries: int = field(default=2, kw_only=True)

    needs = ()
    defaults: ClassVar[Training] = Training(
        epochs=4, min_updates=24, max_updates=1000, batch_size=4, lr=2e-3, schedule="constant"
    )

    def _check_parameters(self) -> None:
        check_choice(self, "mode", ("zero_shot", "few_shot", "lora"))
        check_whole(self, "shots", "longest", "rank")
        check_number(self, "alpha", "(0, inf)")
        check_whole(self, "retries", low=0)
        super()._check_parameters()

    def language_model(self) -> LanguageModel:
        """Return the language model, which can do what ``mode`` asks for."""
        model = super().language_model()
        if self.mode == "lora" and not isinstance(model, LocalModel):
            raise InputError(
                f"mode: 'lora' trains a local model without a cache, and {model!r} is none; use llm=None or the path "
                "of a GGUF file, with cache=None."
            )
        if "next_token" not in model.capabilities:
            need(model, "chat", who=self.name)
        return model

    def unit_adapter(self) -> Adapter:
        """Return the bridge to the templates of the training log."""
        return TemplateAdapter()

    # ------------------------------------------------------------------ fit

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        train, held = super()._split(samples, labels)
        if self.mode != "zero_shot" and not labels.any_anomaly:
            raise InputError(
                f"y: no session is labelled 1 (anomaly), and mode={self.mode!r} learns from both classes; label some "
                "sessions, or use mode='zero_shot'."
            )
        if self.mode != "lora":
            return train, held
        # Each different text of a class once, as the model reads it: copies would only count one of them more.
        taught: dict[tuple[str, int], int] = {}
        every = units_of(samples)
        anomalous = np.flatnonzero(labels.anomalous).tolist()
        normal = train.indices.tolist() if isinstance(train, Subset) else range(len(train))
        for wanted, places in ((0, normal), (1, anomalous)):
            for i in places:
                taught.setdefault((sequence_text(every[i], self.longest), wanted), i)
        self.__dict__["_taught"] = {i: lesson for lesson, i in taught.items()}
        return Subset(samples, torch.tensor(list(taught.values()), device=self._device)), held

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - units have no shape
        """Make a network that holds the examples, and the adapters if there are to be any."""
        net = PromptNet(examples=to_buffer([]))
        model = self.language_model()
        if self.mode == "lora" and isinstance(model, LocalModel):
            net.adapters = model.lora(self.rank, self.alpha, seed=self.seed_)
        return net

    def phases(self, net: nn.Module) -> list[Phase]:  # noqa: ARG002 - the hook's signature
        """Return one phase for the adapters, none for a prompt."""
        return [Phase("class token", self.loss)] if self.mode == "lora" else []

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean surprise of the class tokens, each class weighted by how rare it is."""
        model = self.language_model()
        assert isinstance(model, LocalModel)  # noqa: S101 - checked when it was opened
        taught = self.__dict__["_taught"]
        counts = np.bincount([wanted for _, wanted in taught.values()], minlength=2)
        chosen = [taught[int(i)] for i in batch.x[:, 0].tolist()]
        total = torch.zeros((), device=batch.x.device)
        for wanted, token in ((0, NORMAL), (1, ANOMALOUS)):
            prompts = [text + MARKER for text, label in chosen if label == wanted]
            if prompts:
                weight = len(taught) / (2.0 * counts[wanted]) * len(prompts) / len(chosen)
                total = total + weight * model.answer_loss(prompts, [token] * len(prompts), net.adapters)
        return total

    def study(self, net: Any, model: LanguageModel, units: Sequence[Any]) -> None:  # noqa: ARG002 - nothing to ask
        """Keep examples of both classes."""
        self.__dict__.pop("_taught", None)
        if self.mode != "few_shot":
            return
        parts = []
        for wanted, sessions in ((0, units), (1, self.labelled_anomalies)):
            texts = list(dict.fromkeys(sequence_text(session, self.longest) for session in sessions))
            picks = np.random.default_rng([self.seed_, wanted]).permutation(len(texts))[: self.shots]
            parts.append([[texts[i], wanted] for i in sorted(picks.tolist())])
        balanced = min(map(len, parts))
        # One of each class by turns, so that the last ones do not all have one class.
        net.examples = to_buffer(
            [example for pair in zip(*(p[:balanced] for p in parts), strict=True) for example in pair]
        )

    # ------------------------------------------------------------------ scores

    def judge(self, net: Any, model: LanguageModel, units: Sequence[Any], *, known: bool) -> Verdicts:  # noqa: ARG002
        """Return the log-odds of the class token, or the class that is written."""
        texts = [sequence_text(unit, self.longest) for unit in units]
        if self.mode != "lora" and "next_token" not in model.capabilities:
            return self._written(net, model, texts)
        if self.mode == "lora" and isinstance(model, LocalModel):
            model = model.adapted(net.adapters)

        def score(some: list[str]) -> Any:
            return class_scores(model, [self._prompt(net, text) for text in some], [ANOMALOUS], [NORMAL])

        odds = scored_once(score, texts)
        reasons = ["" if np.isnan(value) else f"log P(1) - log P(0) is {value:.2f}" for value in odds.tolist()]
        return Verdicts(odds, reasons, ["unasked" if np.isnan(value) else "ok" for value in odds.tolist()])

    def _prompt(self, net: Any, text: str) -> Prompt:
        """Return what stands before the class token, as plain text that it goes on."""
        if self.mode == "lora":
            return text + MARKER
        messages = load_prompt("unstable_logs", self.mode).render(**self._fields(net, text)).messages
        return "\n\n".join(message["content"] for message in messages) + "\nAnswer:"

    def _fields(self, net: Any, text: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"sequence": text}
        if self.mode == "few_shot":
            fields["examples"] = [f"{example} => {wanted}" for example, wanted in from_buffer(net.examples)]
        return fields

    def _written(self, net: Any, model: LanguageModel, texts: Sequence[str]) -> Verdicts:
        """Let the model write the class of each different sequence."""
        distinct = list(dict.fromkeys(texts))
        answers = ask_each(
            model,
            load_prompt("unstable_logs", self.mode),
            [self._fields(net, text) for text in distinct],
            read=closed_label(_LABELS),
            retries=self.retries,
            seed=self.seed_,
        )
        found = dict(zip(distinct, answers, strict=True))
        scores = [found[text].value if found[text].usable else np.nan for text in texts]
        reasons = [found[text].text.strip() if found[text].usable else "" for text in texts]
        return Verdicts(np.array(scores, np.float64), reasons, [found[text].status for text in texts])
