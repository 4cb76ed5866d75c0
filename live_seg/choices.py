"""The values that a user chooses by name, for the library's arguments and the command line's options.

This module imports nothing else, so that `live-seg --help` loads no numerical package.
"""

from typing import Literal

EngineName = Literal["auto", "keras", "keras-float16", "openvino", "openvino-int8"]
"""The runtime and number format of the network; "auto" picks the fastest that is available."""

Layout = Literal["fit", "exact", "square"]
"""Preparation of a frame for the network: with little padding, or exactly as where the network comes from.

"square" is the former name of "exact".
"""

Policy = Literal["all", "latest"]
"""Which frames are processed when they arrive faster than they are segmented: all, or the newest."""

VideoCodec = Literal["h264", "hevc", "av1"]
"""The codecs of opaque videos."""

EncoderName = Literal["auto", "x264", "nvenc", "qsv", "vaapi", "videotoolbox", "amf"]
"""The encoders of opaque videos: hardware where it works, software, or one kind of hardware."""

ExportFormat = Literal["coco", "youtube-vis", "mot", "mots"]
"""The formats of other tools that JSON Lines are converted to."""

Hide = Literal["mask", "hull", "box"]
"""The region that blur and pixelate hide: the mask, its convex hull, or hull and box."""

HIDING = ("blur", "pixelate")
"""The effects that hide instances."""

Layers = Literal["heads", "5+", "4+", "3+", "all"]
"""Which layers are trained: the heads; the heads and the backbone from stage 5, 4 or 3 on; or all.

Named as in Matterport's `MaskRCNN.train`.
"""
