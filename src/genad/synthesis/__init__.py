"""Anomaly synthesis: make realistic anomalies, with their masks, from normal samples."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "anomaly_diffusion": ["AnomalyDiffusion"],
        "base": ["Draft", "Synthesizer"],
        "cut_add_paste": ["CutAddPaste"],
        "cut_paste": ["CutPaste"],
        "injected": ["Injected"],
        "noise_lesions": ["NoiseLesions"],
        "perlin_texture": ["PerlinTexture"],
        "poisson_blend": ["PoissonBlend", "intensity_label"],
        "registry": [
            "SynthesisCard",
            "create_synthesizer",
            "list_synthesizers",
            "register_synthesizer",
            "synthesizers",
        ],
        "rows": ["RowSynthesizer"],
        "series_taxonomy": ["SeriesTaxonomy"],
        "spans": ["SeriesSynthesizer"],
        "synthetic": ["Synthetic"],
        "tabular_anomalies": ["TabularAnomalies"],
        "textures": ["TextureBank"],
    },
)
