"""Labelled samples in training."""

from __future__ import annotations

import torch

from genad.core.labelled import LabelledSamples, LabelStore
from genad.data.samples import ArraySamples, Subset

X = torch.arange(12.0).view(6, 2)


def test_the_loop_sees_the_samples_and_the_store_the_labelled_ones():
    samples = LabelledSamples(ArraySamples(X), ArraySamples(-X[:2]), torch.tensor([1, 1]))
    assert len(samples) == 6
    assert samples.shape == (2,)
    assert torch.equal(samples.batch(torch.tensor([5, 0])).x, X[[5, 0]])
    assert torch.equal(samples.stretch(1, 3).x, X[1:3])
    moved = samples.to(torch.device("cpu"))
    assert len(moved.taught) == 2
    assert torch.equal(moved.labels, samples.labels)


def test_samples_are_drawn_with_their_own_labels_and_without_repetition():
    store = LabelStore((2,))
    mask = X > 3
    store.put(Subset(ArraySamples(X, mask), torch.tensor([1, 3, 5])), torch.tensor([10, 30, 50]))
    torch.manual_seed(0)
    batch, labels = store.draw(2)
    assert len(set(labels.tolist())) == 2
    assert torch.equal(batch.x[:, 0], labels / 5)
    assert torch.equal(batch.mask, mask[labels // 10])
    assert sorted(store.draw(99)[1].tolist()) == [10, 30, 50]
    store.clear()
    assert len(store) == len(store.labels) == len(store.mask) == 0


def test_without_labelled_samples_the_store_stays_empty():
    store = LabelStore((2,))
    store.put(ArraySamples(X[:0]), torch.zeros(0, dtype=torch.int64))
    assert len(store) == 0


def test_large_samples_are_thinned_out():
    store = LabelStore((2**18,))
    store.put(ArraySamples(torch.zeros(1, 2**18).expand(40, -1)), torch.arange(40))
    assert store.labels.tolist() == torch.linspace(0, 39, 16).long().tolist()
