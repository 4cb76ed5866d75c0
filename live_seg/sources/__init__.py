"""Where pictures come from: video files, cameras, network streams, still images, read through OpenCV."""
