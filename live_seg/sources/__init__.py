"""Sources of frames: video files, cameras, network streams and still images, read with OpenCV."""
