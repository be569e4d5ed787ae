"""OpenCV without threads of its own, in every process that imports this: a loading process has one core, a pool of
threads does not survive the fork that makes it, and for what is done here (one view at a time) threads do not pay."""

import cv2

cv2.setNumThreads(0)

__all__ = ["cv2"]
