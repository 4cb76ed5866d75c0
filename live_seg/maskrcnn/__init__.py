"""Mask R-CNN (He et al. 2017, arXiv 1703.06870) in `keras.ops`: the network and nothing else.

Inside, boxes are normalized y1 x1 y2 x2 and pictures RGB less the mean pixel, as Matterport's weights expect.
"""
