"""What is compared: the names of the models, and the steps from a photograph to a fitted face."""

from collections.abc import Iterable

Method = tuple[str, str]
"""Model and step."""

MEAN_FACE = "mean face"
GLOBAL_3DMM = "global 3DMM"
OURS = "NEO-3DF"
RIVALS = {
    "global-pca": "global PCA",
    "global-vae": "global VAE",
    "ld-vae": "LD-VAE",
    "part-pca": "part PCA (PB-3DMM)",
}
"""The title of each model that ``baselines.models`` may name."""

GLOBAL_3DMM_WITH_MODES = "global 3DMM with modes"
OURS_WITHOUT_MODES = "NEO-3DF without modes"
"""The same models with and without learned modes, where fits use them: a global one without, parts with."""

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


def in_table_order(methods: Iterable[Method]) -> list[Method]:
    """Each (model, step) once: what nobody learned, the rivals, and NEO-3DF, itself last; models by step."""
    first = [MEAN_FACE, GLOBAL_3DMM, *RIVALS.values()]

    def place(method: Method) -> tuple[int, str, int]:
        model, step = method
        if model == OURS:
            rank = len(first) + 2
        elif model.startswith(OURS):
            rank = len(first) + 1
        else:
            rank = next((i for i, name in enumerate(first) if model.startswith(name)), len(first))
        return rank, model, STEPS.index(step) if step in STEPS else len(STEPS)

    return sorted(dict.fromkeys(methods), key=place)


def in_headline(model: str, step: str) -> bool:
    """Whether a method stands in the short table: of a rival only what was fitted, of the others every step."""
    return step == FITTED or model not in RIVALS.values()
