"""python onnx_predict.py model.onnx PICTURE...: with onnxruntime, NumPy and Pillow alone."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model = onnxruntime.InferenceSession(sys.argv[1])
said = model.get_modelmeta().custom_metadata_map
classes, (height, width) = json.loads(said["classes"]), json.loads(said["size"])
assert said["fit"] == "crop", f"this model's pictures are brought to its size by {said['fit']}, and not as below"
for name in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(name)).convert("L" if said["channels"] == "1" else "RGB")
    w, h = picture.size
    size = (width, max(1, h * width // w)) if width * h >= height * w else (max(1, w * height // h), height)
    picture = picture.resize(size, Image.Resampling.BILINEAR)  # covers the model's size; the centre is cut out
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels = np.asarray(picture.crop((left, top, left + width, top + height))).reshape(1, height, width, -1)
    (probabilities,) = model.run(None, {"images": pixels})[0]
    print(f"{name},{classes[probabilities.argmax()]},{probabilities.max():.6f}")
