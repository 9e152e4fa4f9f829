"""genad: generative anomaly detection with one contract for every kind of data.

Learn what is normal with a generative model, then detect, localise, explain and restore, with thresholds that mean
something. Everything is imported on first use, so that ``import genad`` is quick.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "applications.detection": ["default_detector", "detect", "read"],
        "core.calibration": [
            "Adaptive",
            "BestF",
            "Conformal",
            "FixedValue",
            "PeaksOverThreshold",
            "Quantile",
            "ADDIS",
            "LORD",
            "SAFFRON",
            "benjamini_hochberg",
            "conformal_p_values",
        ],
        "core.committee": ["Committee"],
        "core.detections": ["Detections", "Explanation"],
        "core.detector": ["Detector"],
        "core.ensemble": ["Ensemble"],
        "core.grouped": ["Grouped"],
        "core.persistence": ["load"],
        "core.registry": ["Card", "Family", "create", "list_detectors", "register"],
        "core.stream": ["StreamDetector"],
        "core.training": ["Phase", "Training"],
        "core.windows": ["SeriesDetector", "Windowed"],
        "density.explicit.dsebm": ["DSEBM"],
        "density.explicit.flow": ["Flow"],
        "density.explicit.ppca": ["PPCA"],
        "density.implicit.dte": ["DTE"],
        "density.implicit.nearest_memory": ["NearestMemory"],
        "data.io": ["read_table"],
        "data.kinds": ["Kind"],
        "data.series": ["Series", "as_series"],
        "data.table": ["Table", "as_table"],
        "nn": ["Backbone"],
        "reconstruction.autoencoder.autoencoder": ["Autoencoder", "DenoisingAutoencoder"],
        "reconstruction.autoencoder.dagmm": ["DAGMM"],
        "reconstruction.autoencoder.mem_stream": ["MemStream"],
        "reconstruction.autoencoder.rae_ensemble": ["RecurrentAEEnsemble"],
        "reconstruction.gan.gaal": ["MOGAAL", "SOGAAL"],
        "reconstruction.gan.mad_gan": ["MADGAN"],
        "reconstruction.vae.omni_anomaly": ["OmniAnomaly"],
        "reconstruction.vae.vae": ["VAE"],
        "committee.series_committee": ["SeriesCommittee"],
        "committee.table_committee": ["TableCommittee"],
    },
)
