"""Face models, photographs, landmarks, encoders, 2D parsing masks and their transfer to 3D part labels."""

from dataset_builder.alignment import AlignedFace, CropTransform, align_face, five_points
from dataset_builder.assets import (
    ASSETS,
    AssetCorrupt,
    AssetMissing,
    AssetStatus,
    asset_folders,
    asset_path,
    describe_assets,
    fetch_asset,
)
from dataset_builder.camera import CropCamera, apply_pose, rotation_matrix
from dataset_builder.detection import Detection, FaceDetector, detect_faces, largest_face
from dataset_builder.encoders import (
    FaceEncoder,
    MobileFaceNetEncoder,
    load_encoder,
)
from dataset_builder.face_model import FaceModel
from dataset_builder.face_model_file import save_face_model
from dataset_builder.ict import eye_cap_vertices
from dataset_builder.label_transfer import PartLabels, label_agreement, transfer_labels
from dataset_builder.landmark_fit import FaceEstimate, LandmarkEstimator
from dataset_builder.landmark_networks import LandmarkDetector
from dataset_builder.masks import (
    BISENET_CLASSES,
    CELEBAMASK_CLASSES,
    crop_ignore,
    crop_labels,
    labels_from_class_folder,
    labels_from_index_mask,
)
from dataset_builder.models import load_face_model
from dataset_builder.normals import vertex_normals
from dataset_builder.parts import LABEL_IDS, PARTS, REGIONS
from dataset_builder.photos import Photo, Rejected, read_photos
from dataset_builder.procedural import (
    SyntheticPhoto,
    build_procedural_face,
    make_photos,
    render_photo,
    sample_appearance,
)
from dataset_builder.small_encoder import SmallEncoder, SmallEncoderSettings, train_small_encoder

__all__ = [
    "ASSETS",
    "BISENET_CLASSES",
    "CELEBAMASK_CLASSES",
    "LABEL_IDS",
    "PARTS",
    "REGIONS",
    "AlignedFace",
    "AssetCorrupt",
    "AssetMissing",
    "AssetStatus",
    "CropCamera",
    "CropTransform",
    "Detection",
    "FaceDetector",
    "FaceEncoder",
    "FaceEstimate",
    "FaceModel",
    "LandmarkDetector",
    "LandmarkEstimator",
    "MobileFaceNetEncoder",
    "PartLabels",
    "Photo",
    "Rejected",
    "SmallEncoder",
    "SmallEncoderSettings",
    "SyntheticPhoto",
    "align_face",
    "apply_pose",
    "asset_folders",
    "asset_path",
    "build_procedural_face",
    "crop_ignore",
    "crop_labels",
    "describe_assets",
    "detect_faces",
    "eye_cap_vertices",
    "fetch_asset",
    "five_points",
    "label_agreement",
    "labels_from_class_folder",
    "labels_from_index_mask",
    "largest_face",
    "load_encoder",
    "load_face_model",
    "make_photos",
    "read_photos",
    "render_photo",
    "rotation_matrix",
    "sample_appearance",
    "save_face_model",
    "train_small_encoder",
    "transfer_labels",
    "vertex_normals",
]
