"""Photographs of noise, and a detector that sees a face in each: the dataset stage without weights, also as a script.

The script runs build_dataset on a folder, and logs every shard that it begins in ``shards.log`` of the run folder.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_builder import CropCamera, Detection, five_points, load_face_model

SIDE = 112
FACE_MODEL = "synthetic-3k"


def write_photo(path, seed):
    """A photograph like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(path, format="PNG")
    return path


def write_mask(path, label=1):
    """A mask in CelebAMask-HQ numbering: one label in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:90, 20:90] = label
    Image.fromarray(mask).save(path)


class Faces:
    """The mean face fills every photograph; its landmarks tremble with the picture."""

    def __init__(self, seconds=0.0):
        model = load_face_model(FACE_MODEL)
        self.marks = CropCamera().project(model.mean[model.landmarks68]) * (SIDE / 224)
        self.seconds = seconds

    def detect(self, image, box=None):
        time.sleep(self.seconds)
        if box is None:
            return [Detection(np.array([10.0, 10, SIDE - 10, SIDE - 10]), 0.9, five_points(self.marks))]
        return self.marks + np.random.default_rng(int(image.sum())).normal(0, 0.3, (68, 2))


def main():
    from flows import real_photos
    from flows.config import parse_config
    from flows.pipeline import Pipeline, PlainRunner
    from flows.stages import STAGES, dataset

    run_dir, images, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    faces, run_shard = Faces(seconds), dataset.run_shard
    real_photos.FaceDetector = real_photos.LandmarkDetector = lambda: faces

    def logged(context, shard):
        with (run_dir / "shards.log").open("a") as stream:
            stream.write(f"{shard}\n")
        run_shard(context, shard)

    dataset.run_shard = logged
    section = {"face_model": FACE_MODEL, "images": images, "shard_size": 3}
    config = parse_config({"run_dir": run_dir, "dataset": section})
    Pipeline(STAGES, config, only=["build_dataset"]).execute(PlainRunner)


if __name__ == "__main__":
    main()
