"""What is compared: the names of the models, and the steps from a photograph to a fitted face."""

MEAN_FACE = "mean face"
GLOBAL_3DMM = "global 3DMM"
OURS = "NEO-3DF"
RIVALS = {
    "global-pca": "global PCA",
    "global-vae": "global VAE",
    "ld-vae": "LD-VAE",
    "part-pca": "part PCA (PB-3DMM)",
}
"""The title of each model of ``segmodel.BASELINES``."""

ESTIMATED = "estimated"
PRE_TRAINED = "pre-trained"
FINE_TUNED = "fine-tuned"
FITTED = "fitted"
STEPS = (ESTIMATED, PRE_TRAINED, FINE_TUNED, FITTED)
"""From the dataset's estimate of pose and identity; from the image by a network, before and after it was fine-tuned on
masks; and fitted to the photograph's own mask."""

MASK = "mask"
"""Reference of an overlap: the mask of the dataset. Any other is the name of a parser."""

TRUTH = "truth"
ESTIMATE = "estimate"
"""References of a shape error: the identity a synthetic photograph was made of, or what the dataset estimated."""


def method_name(model: str, step: str) -> str:
    """Model and step in a few words, as tables and pictures name them."""
    return f"{model}, {step}"
