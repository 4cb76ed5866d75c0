"""Mask R-CNN (He et al. 2017, arXiv 1703.06870) in `keras.ops`: network, targets and losses.

Boxes are normalized y1 x1 y2 x2. Images are RGB; the mean pixel is subtracted as Matterport's weights expect.
"""
