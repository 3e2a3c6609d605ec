"""A second reference beside the masks: what a face parser says of the same crops."""

import numpy as np

from dataset_builder import FaceParser, SmallParserSettings, load_parser, train_parser

from ..errors import UserError
from ..pipeline import StageContext
from ..run_data import RunFaces
from .method_rows import LabelImages

HAND_MADE = "file"
LEAST_FACES = 8
KEPT = "parser.safetensors"
"""The parser that was trained, as a file that ``evaluate.parser_weights`` takes."""


def parsed_labels(context: StageContext, all_faces: RunFaces, faces: RunFaces) -> LabelImages | None:
    """Label images (N, 224, 224) that the parser of ``evaluate.parser`` gives for ``faces``; None without a parser.

    The small parser without weights learns from the hand-made masks of the clean training photographs in
    ``all_faces``, so from none of the people it is asked about.
    """
    config = context.config.evaluate
    if config.parser == "none":
        return None
    train = config.parser == "small" and config.parser_weights is None
    parser = _trained(context, all_faces) if train else load_parser(config.parser, config.parser_weights)
    return parser.parse(faces.crops()).labels


def _trained(context: StageContext, all_faces: RunFaces) -> FaceParser:
    hand_made = (all_faces.mask_source == HAND_MADE) & all_faces.has_mask
    faces = all_faces.where((all_faces.split == "train") & all_faces.clean & hand_made)
    if len(faces) < LEAST_FACES:
        raise UserError(
            f"evaluate.parser small learns from hand-made masks of at least {LEAST_FACES} clean training photographs, "
            f"and there are {len(faces)}: give evaluate.parser_weights, or set evaluate.parser=none"
        )
    epochs, seed = context.config.evaluate.parser_epochs, context.config.seed
    context.progress.start("train the parser", epochs, "epochs")
    masks, ignore = faces.masks()

    def tell(epoch: int, epochs: int, loss: float, iou: float) -> None:
        context.progress.advance(1, f"kept-back IoU {np.nan_to_num(iou):.3f}")

    parser = train_parser(faces.crops(), masks, ignore, SmallParserSettings(epochs=epochs, seed=seed), progress=tell)
    context.progress.finish()
    parser.save(context.out / KEPT)
    return parser
