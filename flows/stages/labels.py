"""transfer_labels: part labels of the vertices by votes of the training masks."""

from dataset_builder import LABEL_IDS, eye_cap_vertices, label_agreement, load_face_model, transfer_labels

from ..contracts import REGIONS
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import load_faces, masked_training_faces
from ..tables import write_table


def run(context: StageContext) -> None:
    """Vote, clean up, compare with known labels where the face model has them, and write the topology's vertices."""
    folder = context.inputs["build_dataset"]
    model = load_face_model(folder / "face_model.npz")
    voters = masked_training_faces(load_faces(folder))
    masks, ignore = voters.masks()
    restrict = {"eyes": eye_cap_vertices(model)} if model.name == "ict" else None
    found = transfer_labels(
        model, masks, voters.estimate, ignore=ignore, restrict=restrict, calibrate=context.config.labels.calibrate
    )
    write_table(
        context.out / "topology_vertices.parquet",
        "topology_vertices",
        {"template": model.mean, "label": found.labels, "confidence": found.confidence, "ballots": found.ballots},
        topology_hash=model.topology_hash(),
        producer="dataset_builder",
    )
    metrics = MetricRows()
    truth = label_agreement(found.labels, model.labels) if model.labels is not None else {}
    for region in REGIONS:
        chosen = found.labels == LABEL_IDS[region]
        metrics.add("votes", region, "vertices", chosen.sum(), len(voters))
        metrics.add("votes", region, "confidence", found.confidence[chosen].mean(), len(voters))
        if region in truth:
            metrics.add("votes", region, "vertex_iou", truth[region], len(voters))
    metrics.write(context.out)
