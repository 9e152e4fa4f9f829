"""The learned member: its mechanisms one by one, and what it generates beside real defects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist

from genad.core.training import Training
from genad.errors import DataWarning, InputError
from genad.synthesis.anomaly_diffusion import AnomalyDiffusion, _attention, _Painter
from genad.synthesis.token_denoiser import CrossAttention, TokenDenoiser
from genad.synthesis.windows import cut, frame_masks, move_inside, put_back, quarter_turns, vary_masks

QUICK = {"resolution": 8, "steps": 4, "training": Training(updates=8)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spots(n: int, size: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make grainy surfaces with a dark spot each, and the spots' masks."""
    rng = np.random.default_rng(seed)
    X = (0.6 + 0.05 * rng.standard_normal((n, 1, size, size))).clip(0, 1).astype(np.float32)
    masks = np.zeros((n, size, size), bool)
    for i, (a, b) in enumerate(rng.integers(2, size - 6, (n, 2))):
        masks[i, a : a + 4, b : b + 4] = True
    X[masks[:, None]] -= 0.4
    return X, masks


def quick(**params) -> AnomalyDiffusion:
    normal = (0.6 + 0.05 * np.random.default_rng(9).standard_normal((8, 1, 24, 24))).clip(0, 1)
    return AnomalyDiffusion(**{**QUICK, **params}).fit(normal, *spots(8))


def test_windows_come_back_where_they_were_cut():
    x = torch.rand(2, 3, 20, 30, generator=generator())
    centres, sides = torch.tensor([[8.0, 12.0], [10.0, 15.0]]), torch.tensor([8.0, 8.0])
    windows = cut(x, centres, sides, 8)
    torch.testing.assert_close(windows[0], x[0, :, 4:12, 8:16])
    back = put_back(windows, centres, sides, 20, 30)
    torch.testing.assert_close(back[1, :, 6:14, 11:19], x[1, :, 6:14, 11:19])
    assert float(back[1, :, :6].abs().sum()) == 0.0
    larger = put_back(cut(x, centres, 2 * sides, 16), centres, 2 * sides, 20, 30)
    torch.testing.assert_close(larger[0, :, :16, 4:20], x[0, :, :16, 4:20])


def test_windows_frame_their_masks_and_move_inside():
    masks = torch.zeros(2, 1, 40, 40, dtype=torch.bool)
    masks[0, 0, 2:4, 30:34] = True
    masks[1, 0, 5:35, 10:12] = True
    centres, sides = frame_masks(masks, 16)
    assert centres.tolist() == [[3.0, 32.0], [20.0, 11.0]]
    assert sides.tolist() == [16.0, 40.0]
    assert move_inside(centres, sides, 40, 40).tolist() == [[8.0, 32.0], [20.0, 20.0]]
    # A mask at the border is not mirrored into a second one.
    shape = cut(masks.float(), centres, sides, 16, padding="zeros")[0, 0]
    assert int((shape > 0.5).sum()) == 8


def test_varied_masks_stay_centred_and_are_never_lost():
    masks = torch.zeros(60, 1, 16, 16, dtype=torch.bool)
    masks[:30, :, 5:11, 6:10] = True
    masks[30:, :, 8, 8] = True
    varied = vary_masks(masks, generator(), 0.25, 15.0)
    assert varied.flatten(1).any(1).all()
    assert not torch.equal(varied, masks)
    area = varied[:30].sum((1, 2, 3)).float() / 24
    assert 0.5 < area.min() < area.max() < 2.0
    assert torch.equal(vary_masks(masks[:30], generator(), 0.0, 0.0)[:, :, 7:9, 7:9], masks[:30, :, 7:9, 7:9])


def test_quarter_turns_turn_each_by_its_own():
    x = torch.rand(4, 1, 5, 5, generator=generator())
    turned = quarter_turns(x, torch.tensor([0, 1, 2, 3]), torch.tensor([False, False, True, False]))
    assert torch.equal(turned[0], x[0])
    assert torch.equal(turned[1], x[1].rot90(1, (1, 2)))
    assert torch.equal(turned[2], x[2].rot90(2, (1, 2)).flip(2))
    assert torch.equal(turned[3], x[3].rot90(3, (1, 2)))


def test_attention_weights_multiply_the_logits_of_their_columns():
    torch.manual_seed(0)
    layer = CrossAttention(6, 8)
    features, tokens = torch.randn(2, 6, 3, 3), torch.randn(2, 4, 8)
    layer.requires_grad_(requires_grad=False)
    plain = layer(features, tokens)
    ones = torch.ones(2, 9, 4)
    torch.testing.assert_close(layer(features, tokens, ones), plain)
    raised = ones.clone()
    raised[0, 4, :2] = 1.5
    moved = (layer(features, tokens, raised) - plain).abs().sum(1)
    assert moved[0, 1, 1] > 1e-5
    moved[0, 1, 1] = 0
    assert float(moved.max()) < 1e-6


def test_attention_is_raised_where_the_estimate_still_equals_the_normal_image():
    canvas, mask = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    clean = canvas.clone()
    clean[..., 2:4, 2:6] = 1.0
    weights = _attention(clean, canvas, mask)
    assert float(weights[0, 0, 0, 0]) == 1.0
    assert float(weights[0, 0, 2, 2]) == 1.0
    assert float(weights[0, 0, 5, 5]) == 1.5


def test_both_sets_of_tokens_steer_the_denoiser():
    torch.manual_seed(0)
    net = TokenDenoiser(1, (8, 8, 8), 4, 16)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 9])
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 3:6, 3:6] = 1
    kinds = torch.zeros(2, dtype=torch.long)
    plain = net(x, t, x, mask, kinds)
    assert plain.shape == x.shape
    assert not torch.allclose(net(x, t, x, mask, kinds + 1), plain)
    # Spatial tokens depend on the mask alone; appearance tokens do not depend on it at all.
    assert not torch.allclose(net.mask_encoder(mask), net.mask_encoder(mask.roll(2, 2)))
    assert net.appearance.shape == (2, 4, 16)
    # What lies under the mask of the canvas is not looked at.
    torch.testing.assert_close(net(x, t, x + 5 * mask, mask, kinds), plain)


def test_the_loss_counts_masked_pixels_alone():
    windows, masks = torch.randn(3, 1, 8, 8, generator=generator()), torch.zeros(3, 1, 8, 8)
    masks[:, :, 2:5, 2:5] = 1
    painter = _Painter(windows, masks, torch.ones(1, 1, 1, 1), 2, 8)
    predicted = torch.zeros_like(windows)

    class Fixed(torch.nn.Module):
        def forward(self, *_):
            return predicted

    painter.denoiser = Fixed()
    torch.manual_seed(0)
    base = float(painter.masked_loss(windows, masks, 1))
    predicted = 100.0 * (1 - masks)
    torch.manual_seed(0)
    assert float(painter.masked_loss(windows, masks, 1)) == pytest.approx(base)
    predicted = 100.0 * masks
    torch.manual_seed(0)
    assert float(painter.masked_loss(windows, masks, 1)) > 1000


def test_tuning_the_tokens_alone_leaves_the_network_of_the_first_phase():
    phases = AnomalyDiffusion(tune="tokens")._phases()
    assert [phase.name for phase in phases] == ["normal", "anomaly"]
    assert phases[0].stop == phases[1].start == AnomalyDiffusion().normal_share
    assert phases[1].modules == ("denoiser.appearance", "denoiser.mask_encoder")
    assert AnomalyDiffusion()._phases()[1].modules is None
    fitted = quick(tune="tokens")
    assert len(fitted.training_report_.history["anomaly"]) > 0


def test_fits_are_seeded_and_leave_no_trace():
    state = torch.get_rng_state()
    first, again, other = quick(), quick(), quick(random_state=1)
    assert torch.equal(torch.get_rng_state(), state)
    X = spots(3, seed=5)[0]
    samples = [s.synthesize(X, 3).samples for s in (first, again, other)]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_strength_one_needs_no_second_pass_and_more_goes_further():
    fitted = quick()
    X = spots(4, seed=5)[0]
    plain = fitted.synthesize(X, 4)
    fitted.strength = 3.0
    strong = fitted.synthesize(X, 4)
    assert plain.meta == strong.meta
    assert not np.array_equal(plain.samples, strong.samples)


def test_what_it_cannot_learn_from_is_refused():
    X, masks = spots(6)
    with pytest.raises(InputError, match="anomalous: AnomalyDiffusion learns from real anomalies"):
        AnomalyDiffusion().fit(X)
    with pytest.raises(InputError, match="anomalous: AnomalyDiffusion learns from real anomalies"):
        AnomalyDiffusion().fit(X, X)
    with pytest.warns(DataWarning, match="only 2 were given"):
        AnomalyDiffusion(**QUICK).fit(X, X[:2], masks[:2])
    with pytest.raises(InputError, match="x: images of 3 channels were given"):
        quick().apply(torch.rand(1, 3, 16, 16), generator())
    tiny = np.zeros((6, 200, 200), bool)
    tiny[:, 0, ::199] = True
    with pytest.raises(InputError, match="they vanish at resolution=8"):
        AnomalyDiffusion(**QUICK).fit(*[np.random.default_rng(0).random((6, 1, 200, 200))] * 2, tiny)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"resolution": 30}, "resolution: 30 was given; use a multiple of 4"),
        ({"steps": 201}, "steps: 201 was given"),
        ({"tune": "none"}, "tune: 'none' was given"),
        ({"normal_share": 1.0}, "normal_share: 1.0 was given"),
        ({"training": 5}, "training: 5 was given"),
        ({"zoom": 2}, "zoom: 2 was given"),
    ],
)
def test_parameters_that_cannot_work_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        AnomalyDiffusion(**params).fit(*[spots(6)[0]] * 2, spots(6)[1])


def features(X: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Describe each defect by its grey against its surroundings: mean, darkest, spread."""
    rows = []
    for x, mask in zip(X[:, 0], masks, strict=True):
        ring = ndimage.binary_dilation(mask, iterations=3) & ~mask
        rows.append((x[mask].mean() - x[ring].mean(), x[mask].min() - x[ring].mean(), x[mask].std()))
    return np.array(rows)


def energy(a: np.ndarray, b: np.ndarray) -> float:
    """Return the energy distance of two samples, 0 for one distribution."""
    return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


def test_generated_blowholes_are_nearer_to_real_ones_than_noise(data_dir):
    image = pytest.importorskip("PIL.Image")
    folder, size = data_dir / "image" / "magnetic_tile", 32

    def read(path) -> np.ndarray:
        return np.asarray(image.open(path).convert("L").resize((size, size))) / np.float32(255)

    normal = np.stack([read(p) for p in sorted((folder / "train" / "good").iterdir())[:100]])[:, None]
    files = sorted((folder / "test" / "blowhole").iterdir())
    real = np.stack([read(p) for p in files])[:, None]
    masks = np.stack([read(folder / "ground_truth" / "blowhole" / f"{p.stem}_mask.png") for p in files]) > 0.3
    clear = masks.sum((1, 2)) >= 2
    real, masks = real[clear], masks[clear]
    # The files are in the order of the tiles they show, so that the first ones are no fair sample.
    order = np.random.default_rng(0).permutation(len(real))
    few, held_out = order[:20], order[20:]
    synthesizer = AnomalyDiffusion(resolution=16, normal_share=0.1, training=Training(updates=120))
    made = synthesizer.fit(normal, real[few], masks[few]).synthesize(normal, 60)

    rng = np.random.default_rng(0)
    source = normal[made.sources]
    spread = normal.std()
    noise = np.where(made.masks[:, None], source + spread * rng.standard_normal(source.shape), source)
    target = features(real[held_out], masks[held_out])
    apart = {
        tag: energy(features(X, made.masks), target)
        for tag, X in (("made", made.samples), ("noise", noise), ("normal", source))
    }
    assert apart["made"] < 0.5 * apart["noise"]
    assert apart["made"] < 0.5 * apart["normal"]
    # And what changed is what the masks say.
    changed = (made.samples != source).any(1)
    assert not changed[~made.masks].any()
    assert changed[made.masks].mean() > 0.95
