"""What the paper printed: NEO-3DF (Yan et al. 2022), tables 2 and 3. Of other photographs, so never a competitor."""

from collections.abc import Mapping

TABLE_2: Mapping[str, tuple[float, ...]] = {
    "Deep3DMM (a global 3DMM)": (0.312, 0.387, 0.766, 0.483, 0.468, 0.593),
    "PB-3DMM": (0.302, 0.377, 0.728, 0.482, 0.424, 0.566),
    "LD-VAE": (0.279, 0.372, 0.735, 0.436, 0.418, 0.560),
    "NEO-3DF, fine-tuned": (0.363, 0.553, 0.789, 0.531, 0.614, 0.616),
}
"""IoU of eyebrows, eyes, nose, upper and lower lip, and of "all five parts", which the paper does not define."""

TABLE_3: Mapping[str, tuple[float, float]] = {
    "latents": (0.621, 0.626),
    "controls": (0.581, 0.566),
    "latents + offsets": (0.629, 0.632),
    "controls + offsets": (0.649, 0.683),
}
"""IoU of "all five parts" after adjusting these variables, without and with blending."""

PHOTOGRAPHS = 5000
