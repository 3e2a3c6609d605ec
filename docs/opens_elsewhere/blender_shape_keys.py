"""Runs in Blender's Python: opens a GLB, drives its shape keys, and writes the vertices and a picture of each pose.

BLENDER_PYTHON blender_shape_keys.py FACE.glb POSES.json OUT [PIXELS]

POSES is a list of {shape key: value}. OUT gets keys.json (the names in order), 0.npy, 1.npy ... (V, 3) metres in glTF's
axes, and, with PIXELS above 0, 0.png, 1.png ... of the face from the front.
"""

import json
import sys
from pathlib import Path

import bpy
import numpy as np


def open_face(path):
    """The mesh object of a GLB in an otherwise empty scene."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    (face,) = (item for item in bpy.data.objects if item.type == "MESH")
    return face


def drive(face, pose):
    """Set the shape keys of a pose, all others to 0; sliders are widened to reach it."""
    for key in face.data.shape_keys.key_blocks[1:]:
        key.slider_min, key.slider_max = -10, 10
        key.value = pose.get(key.name, 0.0)


def vertices(face):
    """Evaluated vertices (V, 3), turned back from Blender's z up to glTF's y up."""
    evaluated = face.evaluated_get(bpy.context.evaluated_depsgraph_get())
    flat = np.empty(3 * len(evaluated.data.vertices), np.float32)
    evaluated.data.vertices.foreach_get("co", flat)
    matrix = np.array(face.matrix_world)
    x, y, z = (flat.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).T
    return np.stack([x, z, -y], axis=1)


def set_stage(face, pixels):
    """A camera 0.9 m before the face, three lamps, Cycles on the CPU with few samples, on white."""
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 48
    scene.cycles.use_denoising = False
    scene.render.resolution_x = scene.render.resolution_y = pixels
    scene.view_settings.view_transform = "Standard"
    centre = vertices(face).mean(axis=0)
    x, y, z = float(centre[0]), -float(centre[2]), float(centre[1])
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens, camera.data.sensor_width = 145, 36
    camera.location, camera.rotation_euler = (x + 0.34, y - 0.78, z), (np.pi / 2, 0, np.arctan2(0.34, 0.78))
    scene.collection.objects.link(camera)
    scene.camera = camera
    for place, watts in (((-0.5, -0.7, 0.5), 7), ((0.7, -0.6, 0.1), 3), ((0, -0.9, -0.3), 2)):
        lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "AREA"))
        lamp.data.energy, lamp.data.size = watts, 0.5
        lamp.location = (x + place[0], y + place[1], z + place[2])
        direction = bpy.data.objects.new("aim", None)
        direction.location = (x, y, z)
        scene.collection.objects.link(direction)
        aim = lamp.constraints.new("TRACK_TO")
        aim.target, aim.track_axis, aim.up_axis = direction, "TRACK_NEGATIVE_Z", "UP_Y"
        scene.collection.objects.link(lamp)
    scene.world = bpy.data.worlds.new("white")
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)
    scene.world.node_tree.nodes["Background"].inputs[1].default_value = 0.25
    scene.render.film_transparent = True


def main(glb, poses, out, pixels="0"):
    """Open, drive, write."""
    face, folder = open_face(glb), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    names = [key.name for key in face.data.shape_keys.key_blocks[1:]]
    (folder / "keys.json").write_text(json.dumps({"blender": bpy.app.version_string, "keys": names}))
    if int(pixels):
        set_stage(face, int(pixels))
    for number, pose in enumerate(json.loads(Path(poses).read_text())):
        drive(face, pose)
        bpy.context.view_layer.update()
        np.save(folder / f"{number}.npy", vertices(face))
        if int(pixels):
            bpy.context.scene.render.filepath = str(folder / f"{number}.png")
            bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
