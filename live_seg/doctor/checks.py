"""All checks, in order of dependency."""

from functools import partial

from live_seg.doctor import accelerators, encoders, machine, microphones, model, video
from live_seg.doctor.findings import Check
from live_seg.errors import SinkError, SourceError, WeightsError

CHECKS = (
    Check("Python", machine.python),
    Check("packages", machine.packages),
    Check("CPU", machine.cpu),
    Check("memory", machine.memory),
    Check("TensorFlow", accelerators.tensorflow),
    Check("OpenVINO", accelerators.openvino),
    Check("OpenCV", video.opencv, SourceError),
    Check("window", video.window, SinkError),
    Check("ffmpeg", video.ffmpeg, SinkError),
    Check("encoders", encoders.encoders, SinkError),
    Check("microphones", microphones.microphones, SourceError),
    Check("video", video.round_trip, SinkError),
    Check("cameras", video.cameras, SourceError),
    Check("cache", model.cache, WeightsError),
    Check("model", model.bundled, WeightsError),
    Check("coco", partial(model.downloaded, "coco"), WeightsError),
    Check("coco-v2", partial(model.downloaded, "coco-v2"), WeightsError),
    Check("segmenting", model.segmentation, WeightsError),
)
