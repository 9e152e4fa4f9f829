from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from genad.data.adapters import Adapter
from genad.data.log import Log, Sessions
from genad.data.log.adapter import CountAdapter, EmbeddingAdapter, SessionAdapter
from genad.errors import InputError

TRAIN = Sessions.from_sequences([["open", "read", "close"], ["open", "close"], ["read"]])
TEST = Sessions.from_sequences([["read", "crash", "open", "close"]])


def stored(adapter):
    state = json.loads(json.dumps(adapter.state()))
    return Adapter.types[type(adapter).__name__].from_state(state)


def test_codes_leave_room_for_nothing_and_the_unseen():
    adapter = SessionAdapter()
    samples = adapter.fit(TRAIN).samples
    batch = samples.stretch(0, 3)
    assert batch.x.tolist() == [[2, 3, 4], [2, 4, 0], [3, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [True, True, False], [True, False, False]]
    assert adapter.transform(TEST).samples.stretch(0, 1).x.tolist() == [[3, 1, 2, 4]]
    assert adapter.names == ["event 1", "event 2", "event 3", "event 4"]


def test_batches_in_any_order_are_the_stretches():
    samples = SessionAdapter().fit(TRAIN).samples
    picked = samples.batch(torch.tensor([2, 0, 2]))
    whole = samples.stretch(0, 3)
    torch.testing.assert_close(picked.x, whole.x[[2, 0, 2]])
    assert torch.equal(picked.mask, whole.mask[[2, 0, 2]])
    assert (len(samples), samples.shape) == (3, (3,))


def test_events_come_back_as_texts():
    adapter = SessionAdapter()
    loaded = adapter.fit(TRAIN)
    values = loaded.samples.stretch(0, 3).x.numpy()
    assert adapter.native(values, loaded) == [["open", "read", "close"], ["open", "close"], ["read"]]
    assert adapter.observed(loaded).tolist() == [["open", "read", "close"], ["open", "close", ""], ["read", "", ""]]
    assert adapter.observed(adapter.transform(TEST)).tolist() == [["read", "crash", "open", "close"]]
    assert adapter.columns(np.array([[1.0, 0.0, 2.0]])).tolist() == [["an unseen event", "", "open"]]
    assert np.isnan(adapter.half_widths(np.zeros(2))).all()


def test_a_stored_adapter_reads_logs_by_its_own_templates():
    train = Log.from_messages(["disk 1 is full", "fan 2 broken"] * 3).sessions(lines=2)
    adapter = SessionAdapter()
    adapter.fit(train)
    fresh = Log.from_messages(["fan 9 broken", "mouse found", "disk 4 is full"]).sessions(lines=3)
    for one in (adapter, stored(adapter)):
        assert one.transform(fresh).samples.stretch(0, 1).x.tolist() == [[3, 1, 2]]
        assert one.longest == 3
    with pytest.raises(InputError, match="sessions of plain events were given"):
        adapter.transform(TEST)


def test_counts_are_a_table_with_a_column_for_the_unseen():
    adapter = CountAdapter()
    loaded = adapter.fit(TRAIN)
    assert adapter.names == ["open", "read", "close", "unseen events"]
    found = adapter.transform(TEST)
    observed = adapter.observed(found)
    assert {name: float(column[0]) for name, column in observed.items()} == dict.fromkeys(adapter.names, 1.0)
    x = loaded.samples.stretch(0, 3).x
    torch.testing.assert_close(x[:, :3].mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    # A count that never varied has the scale of one that is higher by one in one session of n + 1.
    assert float(found.samples.stretch(0, 1).x[0, 3]) == pytest.approx((1 - 1 / 4) / np.std([0, 0, 0, 1]))
    again = stored(adapter).transform(TEST).samples.stretch(0, 1).x
    assert torch.equal(again, found.samples.stretch(0, 1).x)


def test_embeddings_are_the_mean_of_unit_vectors():
    table = {"open": [2.0, 0.0], "read": [0.0, 5.0], "close": [1.0, 0.0]}
    calls = []

    def embed(texts):
        calls.append(list(texts))
        return [table[text] for text in texts]

    adapter = EmbeddingAdapter(embed=embed)
    x = adapter.fit(TRAIN).samples.stretch(0, 3).x
    torch.testing.assert_close(x, torch.tensor([[2 / 3, 1 / 3], [1.0, 0.0], [0.0, 1.0]]))
    # Each text is embedded once.
    assert calls == [["open", "read", "close"]]
    again = stored(adapter)
    with pytest.raises(InputError, match="embedder: none is set"):
        again.transform(TRAIN)


@pytest.mark.parametrize(
    ("embed", "says"),
    [
        (lambda texts: np.zeros((1, 2)), r"embedder: it gave shape \(1, 2\) for 3 texts"),
        (lambda texts: np.full((3, 2), np.nan), "embedder: it gave shape"),
        (lambda texts: np.zeros(3), "embedder: it gave shape"),
    ],
)
def test_embedders_that_give_nonsense(embed, says):
    with pytest.raises(InputError, match=says):
        EmbeddingAdapter(embed=embed).fit(TRAIN)


def test_another_embedder_than_in_training_is_noticed():
    adapter = EmbeddingAdapter(embed=lambda texts: np.ones((len(texts), 2)))
    adapter.fit(TRAIN)
    adapter.embed = lambda texts: np.ones((len(texts), 3))
    with pytest.raises(InputError, match="it gives 3 dimensions, but the detector was fitted with 2"):
        adapter.transform(TEST)


def test_messages_as_they_stand():
    seen = []

    def embed(texts):
        seen.extend(texts)
        return np.ones((len(texts), 1))

    log = Log.from_messages(["disk 1 full", "disk 2 full", "disk 1 full"])
    EmbeddingAdapter(embed=embed, raw=True).fit(log.sessions("line"))
    assert seen == ["disk 1 full", "disk 2 full"]
    seen.clear()
    EmbeddingAdapter(embed=embed).fit(log.sessions("line"))
    assert seen == ["disk <*> full"]
