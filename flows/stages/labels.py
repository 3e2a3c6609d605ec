"""transfer_labels: part labels of the vertices by votes of the training masks (method section 2)."""

import numpy as np

from dataset_builder import label_agreement, load_face_model, transfer_labels

from ..contracts import REGIONS
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import load_faces, masked_training_faces
from ..tables import write_table


def run(context: StageContext) -> None:
    """Vote, clean up, compare with known labels where the face model has them, and write the topology's vertices."""
    folder = context.inputs["build_dataset"]
    model = load_face_model(str(folder / "face_model.npz"))
    voters = masked_training_faces(load_faces(folder))
    masks, ignore = voters.masks()
    found = transfer_labels(model, np.where(ignore, 0, masks), voters.estimate)
    write_table(
        context.out / "topology_vertices.parquet",
        "topology_vertices",
        {"template": model.mean, "label": found.labels, "confidence": found.confidence, "ballots": found.ballots},
        topology_hash=model.topology_hash(),
        producer="dataset_builder",
    )
    metrics = MetricRows()
    truth = label_agreement(found.labels, model.labels) if model.labels is not None else {}
    for label, region in [(2, "eyebrows"), (3, "eyes"), (4, "nose"), (5, "upper_lip"), (6, "lower_lip"), (1, "rest")]:
        chosen = found.labels == label
        metrics.add("votes", region, "vertices", chosen.sum(), len(voters))
        metrics.add("votes", region, "confidence", found.confidence[chosen].mean(), len(voters))
        if region in truth:
            metrics.add("votes", region, "vertex_iou", truth[region], len(voters))
    assert set(REGIONS)
    metrics.write(context.out)
